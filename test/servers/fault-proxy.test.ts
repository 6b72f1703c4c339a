import { once } from 'node:events';
import { createConnection, createServer } from 'node:net';
import type { Socket } from 'node:net';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { startFaultProxy } from './fault-proxy.ts';
import type { FaultProxy } from './fault-proxy.ts';
import { until } from './until.ts';

// The fault tests are worth what this proxy is worth.

const echo = createServer((socket) => {
  socket.on('error', () => undefined);
  socket.pipe(socket);
});
let proxy: FaultProxy;
const sockets: Socket[] = [];

beforeEach(async () => {
  echo.listen(0, '127.0.0.1');
  await once(echo, 'listening');
  const address = echo.address();
  proxy = await startFaultProxy({ port: typeof address === 'object' ? (address?.port ?? 0) : 0 });
});

afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  await proxy.close();
  echo.close();
});

async function connect() {
  const socket = createConnection({ port: proxy.port, host: '127.0.0.1', allowHalfOpen: true });
  sockets.push(socket);
  const seen = { text: '', error: '', ended: false };
  socket.on('data', (data) => (seen.text += data.toString()));
  socket.on(
    'error',
    (error) => (seen.error = 'code' in error ? String(error.code) : error.message),
  );
  socket.on('end', () => (seen.ended = true));
  await until(() => socket.readyState === 'open' || seen.error !== '', true);
  return { socket, seen };
}

test('pass hands on what is sent', async () => {
  const { socket, seen } = await connect();
  socket.write('hello');
  await until(() => seen.text, 'hello');
});

test('latency delays what is sent, and nothing is lost at the end', async () => {
  await proxy.set({ kind: 'latency', ms: 100 });
  const { socket, seen } = await connect();
  const before = performance.now();
  socket.end('hello');
  await until(() => seen, { text: 'hello', error: '', ended: true });
  expect(performance.now() - before).toBeGreaterThan(190);
});

test('a black hole answers nothing and ends nothing, until it passes again', async () => {
  const { socket, seen } = await connect();
  await proxy.set({ kind: 'black-hole' });
  socket.write('hello');
  await new Promise((resolve) => setTimeout(resolve, 100));
  expect(seen).toEqual({ text: '', error: '', ended: false });
  await proxy.set({ kind: 'pass' });
  await until(() => seen.text, 'hello');
});

test('reset ends open connections and new ones by RST', async () => {
  const { seen } = await connect();
  await proxy.set({ kind: 'reset' });
  await until(() => seen.error, 'ECONNRESET');
  const next = await connect();
  await until(() => next.seen.error, 'ECONNRESET');
});

test('cut-after lets exactly so many bytes through', async () => {
  const { socket, seen } = await connect();
  await proxy.set({ kind: 'cut-after', bytes: 7 });
  socket.write('hello');
  await until(() => seen.text, 'hello');
  socket.write('world');
  await until(() => seen.ended || seen.error !== '', true);
  expect(seen.text).toBe('hellowo');
});

test('half-close ends the side of the server and swallows what is sent', async () => {
  const { socket, seen } = await connect();
  await proxy.set({ kind: 'half-close' });
  await until(() => seen.ended, true);
  socket.write('hello');
  expect(seen).toEqual({ text: '', error: '', ended: true });
});

test('refuse listens to nobody, and passing again listens on the same port', async () => {
  await proxy.set({ kind: 'refuse' });
  const refused = await connect();
  expect(refused.seen.error).toBe('ECONNREFUSED');
  await proxy.set({ kind: 'pass' });
  const { socket, seen } = await connect();
  socket.write('hello');
  await until(() => seen.text, 'hello');
});
