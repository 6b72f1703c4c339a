import { type Server, createServer } from 'node:http';
import { type AddressInfo, type Socket, createServer as createTcpServer } from 'node:net';
import type { lookup as lookUpName } from 'node:dns';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import {
  type Outbound,
  type OutboundOptions,
  createAddressRule,
  createOutbound,
} from '../../runtime/outbound.ts';

// One server that answers by path; it listens on IPv4 and IPv6 alike, so that every spelling of the
// loopback address would reach it.
let server: Server;
let port = 0;
let hits = 0;
const open: { close(): Promise<void> }[] = [];
const sockets = new Set<Socket>();

beforeAll(async () => {
  server = createServer((incoming, outgoing) => {
    hits += 1;
    switch (incoming.url ?? '') {
      case '/redirect':
        outgoing.writeHead(302, { location: `http://127.0.0.1:${port}/` }).end('elsewhere');
        return;
      case '/hang':
        return;
      case '/drip':
        outgoing.writeHead(200);
        for (let i = 0; i < 200; i += 1) setTimeout(() => outgoing.write('.'), i * 20);
        return;
      case '/cut':
        outgoing.writeHead(200, { 'content-length': '100' });
        outgoing.write('half');
        setTimeout(() => outgoing.destroy(), 10);
        return;
      case '/whole':
        outgoing.end(Buffer.alloc(1 << 20, 'x'));
        return;
      case '/too-large':
        outgoing.end(Buffer.alloc((1 << 20) + 1, 'x'));
        return;
      default:
        outgoing.writeHead(200, { 'x-two': ['a', 'b'] }).end('你好');
    }
  });
  await new Promise<void>((resolve) => server.listen(0, '::', resolve));
  port = (server.address() as AddressInfo).port;
});

afterEach(async () => {
  for (const socket of sockets) socket.destroy();
  await Promise.all(open.splice(0).map((each) => each.close()));
});

afterAll(async () => {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
});

function outbound(options: Partial<OutboundOptions> = {}): Outbound {
  const made = createOutbound({ allowedCidrs: [], ...options });
  open.push(made);
  return made;
}

const loopback = { allowedCidrs: ['127.0.0.0/8'] };

// Spellings of the loopback address: with 127.0.0.0/8 allowed each must get through.
const loopbackHosts = [
  '127.0.0.1',
  '127.0.0.2',
  '127.255.255.254',
  '127.1',
  '127.0.1',
  '2130706433',
  '0x7f000001',
  '0x7f.0.0.1',
  '0x7F.0x0.0x0.0x1',
  '0177.0.0.1',
  '017700000001',
  '127.0.0.1.',
  '127%2e0%2e0%2e1',
  '%31%32%37.0.0.1',
  '①②⑦.⓪.⓪.①',
  '127。0。0。1',
  '[::1]',
  '[0:0:0:0:0:0:0:1]',
  '[::ffff:127.0.0.1]',
  '[::ffff:7f00:1]',
  '[0:0:0:0:0:ffff:7f00:0001]',
  'localhost',
  'LOCALHOST',
];

// All the rest that is no public address; none may be reached, with or without the loopback allowed.
const otherHosts = [
  '0.0.0.0',
  '0',
  '0x0',
  '[::]',
  '10.0.0.1',
  '167772161',
  '10.255.255.255',
  '172.16.0.1',
  '172.31.255.255',
  '192.168.0.1',
  '0xc0a80001',
  '0300.0250.0.1',
  '169.254.169.254',
  '2852039166',
  '0xa9fea9fe',
  '100.64.0.1',
  '100.100.100.200',
  '192.0.0.192',
  '192.0.2.1',
  '192.88.99.1',
  '198.18.0.1',
  '198.51.100.7',
  '203.0.113.9',
  '224.0.0.1',
  '240.0.0.1',
  '255.255.255.255',
  '[::ffff:10.0.0.1]',
  '[::ffff:169.254.169.254]',
  '[::ffff:0:127.0.0.1]',
  '[::127.0.0.1]',
  '[64:ff9b::7f00:1]',
  '[64:ff9b::169.254.169.254]',
  '[2002:7f00:1::1]',
  '[2001:0:7f00:1::]',
  '[2001:db8::1]',
  '[100::1]',
  '[fe80::1]',
  '[fec0::1]',
  '[fc00::1]',
  '[fd00:ec2::254]',
  '[ff02::1]',
  '[4000::1]',
];

test.each([...loopbackHosts, ...otherHosts])('%s is not reached by default', async (host) => {
  const before = hits;
  const result = await outbound().call({ method: 'PUT', url: url(host), headers: {}, body: '{}' });
  expect(result).toEqual({ kind: 'refused-address' });
  expect(hits).toBe(before);
});

test.each(loopbackHosts)('%s is reached when 127.0.0.0/8 is allowed', async (host) => {
  const result = await outbound(loopback).call({ method: 'GET', url: url(host), headers: {} });
  expect(result).toMatchObject({ kind: 'answered', status: 200, body: '你好' });
});

test.each(otherHosts)('%s is not reached when only 127.0.0.0/8 is allowed', async (host) => {
  const result = await outbound(loopback).call({ method: 'GET', url: url(host), headers: {} });
  expect(result).toEqual({ kind: 'refused-address' });
});

test('public addresses are allowed, and no network lets in another one', () => {
  const byDefault = createAddressRule([]);
  expect(['1.1.1.1', '100.128.0.1', '172.32.0.1', '2606:4700::1111'].every(byDefault)).toBe(true);
  expect([undefined, '', 'localhost', '1.1.1', '::g'].some(byDefault)).toBe(false);
  const vpc = createAddressRule(['10.1.0.0/16', 'fd00:1::/32']);
  expect(['10.1.255.255', '::ffff:10.1.0.1', 'fd00:1::5'].every(vpc)).toBe(true);
  expect(['10.2.0.1', '127.0.0.1', '::1', 'fd00:2::5'].some(vpc)).toBe(false);
});

test('a name with one private address among public ones is refused', async () => {
  const names = resolveTo([
    { address: '1.1.1.1', family: 4 },
    { address: '127.0.0.1', family: 4 },
  ]);
  const result = await outbound({ lookup: names }).call(get('http://seller.example/'));
  expect(result).toEqual({ kind: 'refused-address' });
});

test('a name that turns private later is refused then', async () => {
  let address = '127.0.0.1';
  const names = ((_name: string, _options: object, done: (...all: unknown[]) => void) => {
    done(null, [{ address, family: 4 }]);
  }) as unknown as typeof lookUpName;
  const calls = outbound({ ...loopback, lookup: names });
  expect(await calls.call(get(`http://seller.example:${port}/`))).toMatchObject({ status: 200 });
  address = '10.0.0.1';
  expect(await calls.call(get(`http://other.example:${port}/`))).toEqual({
    kind: 'refused-address',
  });
});

test('a redirect is an answer, and its target is not called', async () => {
  const before = hits;
  const result = await outbound(loopback).call(get(url('127.0.0.1', '/redirect')));
  expect(result).toMatchObject({ kind: 'answered', status: 302, body: 'elsewhere' });
  expect(hits).toBe(before + 1);
});

test('headers come in lower case, several of one name as one', async () => {
  const result = await outbound(loopback).call(get(url('127.0.0.1')));
  expect(result).toMatchObject({ headers: { 'x-two': 'a, b' } });
});

test('1 MiB is taken, a byte more is not', async () => {
  const calls = outbound(loopback);
  const whole = await calls.call(get(url('127.0.0.1', '/whole')));
  expect(whole.kind === 'answered' && whole.body.length).toBe(1 << 20);
  expect(await calls.call(get(url('127.0.0.1', '/too-large')))).toEqual(failed('too-large'));
});

test.each(['/hang', '/drip'])('%s ends at the limit for the whole call', async (path) => {
  const began = performance.now();
  const result = await outbound(loopback).call({
    ...get(url('127.0.0.1', path)),
    totalTimeoutMs: 300,
  });
  expect(result).toEqual(failed('timeout'));
  expect(performance.now() - began).toBeLessThan(1_500);
});

test('the limit holds while the connection is not there yet', async () => {
  const silence = (() => undefined) as unknown as typeof lookUpName;
  const result = await outbound({ lookup: silence }).call({
    ...get('http://seller.example/'),
    totalTimeoutMs: 100,
  });
  expect(result).toEqual(failed('timeout'));
});

test('a caller that gives up gets its answer at once', async () => {
  const giveUp = new AbortController();
  const calls = outbound(loopback);
  const before = hits;
  const result = calls.call({ ...get(url('127.0.0.1', '/hang')), signal: giveUp.signal });
  await expect.poll(() => hits).toBe(before + 1);
  giveUp.abort();
  expect(await result).toEqual(failed('cancelled'));
  expect(await calls.call({ ...get(url('127.0.0.1')), signal: giveUp.signal })).toEqual(
    failed('cancelled'),
  );
});

test('each way to fail has its name', async () => {
  const closed = await listenTcp(() => undefined);
  await closed.close();
  const reset = await listenTcp((socket) => socket.resetAndDestroy());
  const babble = await listenTcp((socket) => socket.end('220 mail.example ESMTP\r\n'));
  open.push(reset, babble);
  const calls = outbound({ ...loopback, connectTimeoutMs: 1_000 });
  const local = (at: number, scheme = 'http') => get(`${scheme}://127.0.0.1:${at}/`);
  expect(await calls.call(local(closed.port))).toEqual(failed('connect'));
  expect(await calls.call(local(reset.port))).toEqual(failed('reset'));
  expect(await calls.call(get(url('127.0.0.1', '/cut')))).toEqual(failed('reset'));
  expect(await calls.call(local(babble.port))).toEqual(failed('protocol'));
  expect(await calls.call(local(babble.port, 'https'))).toEqual(failed('tls'));
  const noName = resolveTo([], Object.assign(new Error('no'), { code: 'ENOTFOUND' }));
  const lost = outbound({ lookup: noName });
  expect(await lost.call(get('http://seller.example/'))).toEqual(failed('dns'));
});

test('a request that can never be sent is thrown, not called a failure of the network', async () => {
  const call = outbound(loopback).call({
    ...get(url('127.0.0.1')),
    headers: { 'webhook-id': 'a\r\nb' },
  });
  await expect(call).rejects.toThrow(/header/);
});

function url(host: string, path = '/'): string {
  return `http://${host}:${port}${path}`;
}

function get(address: string): { method: 'GET'; url: string; headers: Record<string, string> } {
  return { method: 'GET', url: address, headers: {} };
}

function failed(reason: string): unknown {
  return { kind: 'failed', reason };
}

function resolveTo(addresses: object[], error: Error | null = null): typeof lookUpName {
  return ((_name: string, _options: object, done: (...all: unknown[]) => void) =>
    done(error, addresses)) as unknown as typeof lookUpName;
}

async function listenTcp(
  serve: (socket: Socket) => void,
): Promise<{ port: number; close(): Promise<void> }> {
  const listener = createTcpServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined);
    serve(socket);
  });
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
  return {
    port: (listener.address() as AddressInfo).port,
    close: () =>
      new Promise((resolve) => {
        listener.close(() => resolve());
      }),
  };
}
