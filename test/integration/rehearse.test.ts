import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import {
  type IncomingMessage,
  type RequestListener,
  type Server,
  createServer,
  request,
} from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { rehearse } from '../../cli/rehearse.ts';
import { debugCasesOf } from '../../core/debug-cases.ts';
import { type TestDatabase, createTestDatabase } from '../servers/database.ts';
import { queueStore } from '../servers/queue-store.ts';
import { type Process, type System, type TestProduct, createSystem } from '../servers/system.ts';
import { runCli } from './cli-run.ts';

let database: TestDatabase;
let system: System;
let api: Process;
let product: TestProduct;
let folder: string;
const servers: Server[] = [];

beforeAll(async () => {
  database = await createTestDatabase();
  folder = await mkdtemp(join(tmpdir(), 'latchkey-rehearse-'));
  const { env } = queueStore(database.url);
  system = createSystem({ databaseUrl: database.url, tenantsUrl: database.tenantsUrl, env });
  product = await system.addProduct();
  api = await system.startApi();
});

afterEach(() => {
  for (const server of servers.splice(0)) {
    server.close();
    server.closeAllConnections();
  }
});

afterAll(async () => {
  await system?.stop();
  await database?.drop();
  await rm(folder, { recursive: true, force: true });
});

const cases = debugCasesOf('saas-v2', 'period') ?? [];

type Answer = { status: number; headers: [string, string][]; body: string };

/** A proxy in front of the api that changes what it hands on, as proxies in the field do. */
async function startProxy(change: {
  body?: (body: string) => string;
  answer?: (answer: Answer) => Answer;
  tls?: { key: Buffer; cert: Buffer };
}): Promise<string> {
  const handle: RequestListener = (incoming, outgoing) => {
    forward(incoming, change.body ?? ((body) => body)).then(
      (answer) => {
        const { status, headers, body } = change.answer?.(answer) ?? answer;
        outgoing.writeHead(status, headers.flat());
        outgoing.end(body);
      },
      () => outgoing.destroy(),
    );
  };
  const server = change.tls ? createTlsServer(change.tls, handle) : createServer(handle);
  servers.push(server);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const scheme = change.tls ? 'https' : 'http';
  return `${scheme}://localhost:${port}/callbacks/${product.key}`;
}

async function forward(
  incoming: IncomingMessage,
  change: (body: string) => string,
): Promise<Answer> {
  const read = async (message: IncomingMessage) => {
    const parts: Buffer[] = [];
    for await (const part of message as AsyncIterable<Buffer>) parts.push(part);
    return Buffer.concat(parts).toString();
  };
  const body = change(await read(incoming));
  const outgoing = request({
    host: '127.0.0.1',
    port: api.port,
    path: incoming.url,
    method: 'POST',
    headers: { 'content-type': 'application/json' },
  });
  outgoing.end(body);
  const [answer] = (await once(outgoing, 'response')) as [IncomingMessage];
  const headers: [string, string][] = [];
  for (let at = 0; at < answer.rawHeaders.length; at += 2) {
    const name = answer.rawHeaders[at] ?? '';
    if (!/^(?:connection|keep-alive|transfer-encoding|content-length)$/i.test(name)) {
      headers.push([name, answer.rawHeaders[at + 1] ?? '']);
    }
  }
  return { status: answer.statusCode ?? 0, headers, body: await read(answer) };
}

async function play(callbackUrl: string, accessKey = product.accessKey) {
  const checks = await rehearse({ callbackUrl, accessKey, cases, now: Date.now });
  for (const check of checks) {
    if (check.status !== 'ok') expect(check.next, check.name).not.toBeNull();
  }
  const failed = checks.filter(({ status }) => status === 'fail').map(({ name }) => name);
  // No test has a public domain name.
  return { checks, failed: failed.filter((name) => name !== 'address') };
}

const withHeader = (change: (name: string, value: string) => [string, string][]) => ({
  answer: (answer: Answer): Answer => ({
    ...answer,
    headers: answer.headers.flatMap(([name, value]) => change(name, value)),
  }),
});

describe('a rehearsal', () => {
  test('plays each case of the charging with testFlag 1, and leaves nothing behind', async () => {
    const { code, out, err } = await runCli(
      ['product', 'rehearse', product.key, '--url', product.callbackUrl(api), '--json'],
      { env: system.env },
    );
    const shown = JSON.parse(out) as { checks: { name: string; status: string; says: string }[] };
    // Alone the address, an IP, is not what the marketplace takes.
    expect({ code, err }).toEqual({ code: 1, err: '' });
    expect(shown.checks.filter(({ status }) => status !== 'ok')).toEqual([
      expect.objectContaining({ name: 'address', status: 'fail' }) as object,
    ]);
    expect(shown.checks.map(({ name }) => name)).toEqual([
      'address',
      'newInstance',
      'newInstance, sent again',
      'queryInstance',
      'refreshInstance',
      'updateInstanceStatus FREEZE',
      'updateInstanceStatus UNFREEZE',
      'releaseInstance',
      'Body-Sign',
      'content type',
      'time',
    ]);
    expect(out).not.toContain(product.accessKey);
    const [left] = await system.sql`select (select count(*) from instances)::int as instances,
      (select count(*) from events)::int as events, (select count(*) from dispatches)::int as dispatches`;
    expect({ ...left }).toEqual({ instances: 0, events: 0, dispatches: 0 });
  });

  test('of a one-time product has no renewal and no freeze', async () => {
    await system.sql`update products set charging = 'one-time' where key = ${product.key}`;
    const { out } = await runCli(
      ['product', 'rehearse', product.key, '--url', product.callbackUrl(api), '--json'],
      { env: system.env },
    );
    await system.sql`update products set charging = 'period' where key = ${product.key}`;
    const { checks } = JSON.parse(out) as { checks: { name: string }[] };
    const names = checks.map(({ name }) => name);
    expect(names).toContain('releaseInstance');
    expect(names.filter((name) => /^(?:refresh|update)/.test(name))).toEqual([]);
  });

  test('through a proxy that changes nothing finds nothing', async () => {
    expect((await play(await startProxy({}))).failed).toEqual([]);
  });

  const calls = [
    'newInstance',
    'newInstance, sent again',
    'queryInstance',
    'refreshInstance',
    'updateInstanceStatus FREEZE',
    'updateInstanceStatus UNFREEZE',
    'releaseInstance',
  ];

  test.each<[string, Parameters<typeof startProxy>[0], string[], string]>([
    [
      'writes Body-Sign in lower case',
      withHeader((name, value) => [[name.toLowerCase(), value]]),
      ['Body-Sign'],
      'arrives as body-sign',
    ],
    [
      'drops Body-Sign',
      withHeader((name, value) => (name === 'Body-Sign' ? [] : [[name, value]])),
      ['Body-Sign'],
      'the header is missing',
    ],
    [
      'rewrites answers',
      { answer: (answer) => ({ ...answer, body: `${answer.body} ` }) },
      ['Body-Sign'],
      'does not sign the bytes',
    ],
    [
      'changes the content type',
      withHeader((name, value) => [[name, /^content-type$/i.test(name) ? 'text/html' : value]]),
      ['content type'],
      'text/html',
    ],
    [
      'rewrites bodies',
      { body: (body) => body.replace('{', '{"added":"1",') },
      calls,
      'the signature was refused',
    ],
    [
      'answers by itself',
      { answer: () => ({ status: 502, headers: [['content-type', 'text/html']], body: 'bad' }) },
      [...calls, 'content type'],
      'HTTP 502',
    ],
  ])('names a proxy that %s', async (_what, change, failed, says) => {
    const found = await play(await startProxy(change));
    expect(found.failed).toEqual(failed);
    const checks = found.checks.filter(({ name }) => failed.includes(name));
    expect(checks.map((check) => check.says).join('\n')).toContain(says);
  });

  test('with a key that is not the address’s own fails, and an address where nobody answers too', async () => {
    const other = await play(product.callbackUrl(api), 'another-key');
    expect(other.failed).toEqual(calls);
    const nobody = createServer();
    nobody.listen(0, '127.0.0.1');
    await once(nobody, 'listening');
    const { port } = nobody.address() as AddressInfo;
    nobody.close();
    await once(nobody, 'close');
    expect((await play(`http://127.0.0.1:${port}/callbacks/x`)).failed).toEqual(calls);
  });

  test('over TLS refuses a certificate that no authority signed, and takes one that one did', async () => {
    const [key, cert] = [join(folder, 'key.pem'), join(folder, 'cert.pem')];
    await promisify(execFile)('openssl', [
      ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'],
      ...['-keyout', key, '-out', cert, '-days', '30', '-subj', '/CN=localhost'],
      ...['-addext', 'subjectAltName=DNS:localhost'],
    ]);
    const url = await startProxy({ tls: { key: await readFile(key), cert: await readFile(cert) } });
    const refused = await play(url);
    expect(refused.failed).toEqual(['certificate', ...calls]);

    const { out } = await runCli(['product', 'rehearse', product.key, '--url', url, '--json'], {
      env: { ...system.env, NODE_EXTRA_CA_CERTS: cert },
    });
    const { checks } = JSON.parse(out) as { checks: { name: string; status: string }[] };
    expect(checks.filter(({ status }) => status !== 'ok').map(({ name }) => name)).toEqual([
      'address',
    ]);
    expect(checks.some(({ name }) => name === 'certificate')).toBe(true);
  });

  test('needs a key to sign with, and says how to add one', async () => {
    await system.sql`insert into products (key, name, provisioner) values ('keyless', 'K', 'http')`;
    const run = await runCli(['product', 'rehearse', 'keyless'], { env: system.env });
    expect(run).toMatchObject({
      code: 1,
      err: expect.stringContaining('npx latchkey key add keyless') as string,
    });
  });
});
