import { createHmac, randomBytes } from 'node:crypto';
import { Webhook } from 'standardwebhooks';
import { expect, test } from 'vitest';
import { isWebhookSecret, signWebhook } from '../../runtime/outbound.ts';

const first = `whsec_${randomBytes(24).toString('base64')}`;
const second = `whsec_${randomBytes(32).toString('base64')}`;
const now = new Date();

test('a receiver with either of two secrets accepts, with a third it does not', () => {
  const headers = signWebhook([first, second], 'b-1:2', now, '{"a":"你"}');
  expect(headers['webhook-signature'].split(' ')).toHaveLength(2);
  for (const secret of [first, second]) {
    expect(new Webhook(secret).verify('{"a":"你"}', headers)).toEqual({ a: '你' });
  }
  const third = `whsec_${randomBytes(24).toString('base64')}`;
  expect(() => new Webhook(third).verify('{"a":"你"}', headers)).toThrow();
  expect(() => new Webhook(first).verify('{"a":"您"}', headers)).toThrow();
});

test('the signature is what the standard says, computed without the library', () => {
  const headers = signWebhook([first], 'b-1:2', new Date(1_700_000_000_999), 'body');
  expect(headers['webhook-timestamp']).toBe('1700000000');
  const mac = createHmac('sha256', Buffer.from(first.slice(6), 'base64'))
    .update('b-1:2.1700000000.body')
    .digest('base64');
  expect(headers['webhook-signature']).toBe(`v1,${mac}`);
});

test.each(['', 'whsec_', 'hunter2-hunter2', 'whsec_not base64!', 'whsec_QUJD', first.slice(6)])(
  'the secret %j is refused without being repeated',
  (secret) => {
    expect(isWebhookSecret(secret)).toBe(false);
    let message = '';
    try {
      signWebhook([secret], 'b-1:2', now, '');
    } catch (error) {
      message = String(error);
    }
    expect(message).toMatch(/whsec_ and base64/);
    if (secret.length > 6) expect(message).not.toContain(secret);
  },
);

test('no secret at all cannot sign', () => {
  expect(() => signWebhook([], 'b-1:2', now, '')).toThrow(TypeError);
});
