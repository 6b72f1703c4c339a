import { expect, test } from 'vitest';
import { bodySignHeader } from '../../protocol/body-sign.ts';
import vectors from '../fixtures/vectors.json' with { type: 'json' };

test.each(vectors.bodySign)('the header over $body is the vector’s', ({ body, header }) => {
  expect(bodySignHeader(vectors.accessKey, body)).toBe(header);
  expect(bodySignHeader(vectors.accessKey, Buffer.from(body))).toBe(header);
});

test('the header over the protocol note’s example is the one computed there', () => {
  const body =
    '{"resultCode":"000000","resultMsg":"success","instanceId":"87b94795-0603-4e24-8ae5-69420d60e3c8"}';
  expect(bodySignHeader('demo-access-key-0001', body)).toBe(
    'sign_type="HMAC-SHA256", signature="jSG76qV+sErcIudFc/8kM8U2qb2E3rj/NYMDJ8OYm90="',
  );
});
