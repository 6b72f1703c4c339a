import { PassThrough } from 'node:stream';
import type { IncomingMessage } from 'node:http';
import { afterEach, expect, test, vi } from 'vitest';
import { bodySizeBytesMax, readBody } from '../../api/receiver/read-call.ts';

afterEach(() => {
  vi.useRealTimers();
});

function request(headers: Record<string, string> = {}): PassThrough & IncomingMessage {
  return Object.assign(new PassThrough(), { headers }) as unknown as PassThrough & IncomingMessage;
}

const tooLarge = { ok: false, problem: 'the body is larger than 64 KiB', mustClose: true };

test('the bytes come out as they came in, whatever the pieces', async () => {
  const incoming = request();
  const reading = readBody(incoming);
  const bytes = Buffer.from([0, 255, 123, 10, 13, 239, 187, 191]);
  for (const byte of bytes) incoming.write(Buffer.from([byte]));
  incoming.end();
  expect(await reading).toEqual({ ok: true, body: bytes });
});

test('no body is an empty one', async () => {
  const incoming = request();
  const reading = readBody(incoming);
  incoming.end();
  expect(await reading).toEqual({ ok: true, body: Buffer.alloc(0) });
});

test('64 KiB is read whole', async () => {
  const incoming = request({ 'content-length': String(bodySizeBytesMax) });
  const reading = readBody(incoming);
  incoming.end(Buffer.alloc(bodySizeBytesMax, 'a'));
  expect(await reading).toMatchObject({ ok: true, body: { length: bodySizeBytesMax } });
});

test('one byte more is refused before it is sent where it is declared', async () => {
  const incoming = request({ 'content-length': String(bodySizeBytesMax + 1) });
  expect(await readBody(incoming)).toEqual(tooLarge);
  expect(incoming.listenerCount('data')).toBe(0);
});

test('one byte more is refused as soon as it is there where nothing is declared', async () => {
  const incoming = request();
  const reading = readBody(incoming);
  incoming.write(Buffer.alloc(bodySizeBytesMax));
  incoming.write(Buffer.alloc(1));
  expect(await reading).toEqual(tooLarge);
  expect(incoming.listenerCount('data')).toBe(0);
});

test('a body that drips is refused after 1.5 s', async () => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  const incoming = request();
  const reading = readBody(incoming);
  incoming.write('{');
  await vi.advanceTimersByTimeAsync(1_499);
  incoming.write('"');
  await vi.advanceTimersByTimeAsync(1);
  expect(await reading).toEqual({
    ok: false,
    problem: 'the body did not arrive in time',
    mustClose: true,
  });
});

test('a caller that goes away in the middle is no body', async () => {
  const incoming = request({ 'content-length': '10' });
  const reading = readBody(incoming);
  incoming.write('{');
  incoming.destroy();
  expect(await reading).toEqual({
    ok: false,
    problem: 'the body did not arrive whole',
    mustClose: true,
  });
});
