import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type TestDatabase, createTestDatabase } from '../servers/database.ts';
import { dumpDatabase } from '../servers/dump.ts';
import { queueStore } from '../servers/queue-store.ts';
import { type Process, type System, createSystem } from '../servers/system.ts';
import { runCli } from './cli-run.ts';
import { callWith, callerFor } from './v1-rig.ts';

let database: TestDatabase;
let system: System;
let api: Process;

beforeAll(async () => {
  database = await createTestDatabase();
  const { env } = queueStore(database.url);
  system = createSystem({ databaseUrl: database.url, tenantsUrl: database.tenantsUrl, env });
  api = await system.startApi();
});

afterAll(async () => {
  await system?.stop();
  await database?.drop();
});

type AddedKey = { id: number; key: string; scopes: string[]; activeKeys: number };

async function cli(...args: string[]) {
  const result = await runCli(args, { env: system.env });
  return { ...result, json: result.code === 0 ? (JSON.parse(result.out) as unknown) : undefined };
}

test('a key is shown once, stored as its hash alone, works at once, and ends at once', async () => {
  const { key: product } = await system.addProduct();
  const added = await cli(
    'api-key',
    'add',
    product,
    '--scope',
    'orders:read',
    'instances:read',
    '--json',
  );
  const { id, key, scopes } = added.json as AddedKey;
  expect(key).toMatch(/^lk_[\w-]{43}$/);
  expect(scopes).toEqual(['instances:read', 'orders:read']);
  const v1 = callWith(api, key);
  expect(await v1.get('/v1/instances')).toMatchObject({
    status: 200,
    body: { instances: [], next: null },
  });

  const everywhere = `${await dumpDatabase(system.sql)}\n${system.lines().join('\n')}`;
  const listed = await cli('api-key', 'list', product, '--json');
  for (const text of [everywhere, listed.out]) {
    expect(text).not.toContain(key);
    expect(text).not.toContain(key.slice(3));
  }
  const [listedKey] = (listed.json as { keys: { lastUsedAt: string | null }[] }).keys;
  expect(listedKey).toMatchObject({ id, scopes, retiredAt: null });
  expect(listedKey?.lastUsedAt).toEqual(expect.any(String));

  await cli('api-key', 'retire', product, String(id), '--reason', 'it was in a log', '--json');
  expect((await v1.get('/v1/instances')).status).toBe(401);
  const audited = await system.sql<{ act: string; reason: string | null; detail: unknown }[]>`
    select act, reason, detail from audit where act like 'api_key.%' and subject = ${`product/${product}`} order by id`;
  expect([...audited]).toEqual([
    { act: 'api_key.added', reason: null, detail: { apiKeyId: id, scopes } },
    { act: 'api_key.retired', reason: 'it was in a log', detail: { apiKeyId: id } },
  ]);
  const again = await cli('api-key', 'retire', product, String(id), '--json');
  expect(again).toMatchObject({ code: 1 });
  expect(again.err).toContain('was retired on');
});

test('a product has two active keys at most, also when ten are made at once', async () => {
  const { key: product } = await system.addProduct();
  const made = await Promise.allSettled(
    Array.from({ length: 10 }, () => callerFor(system, api, product, ['instances:read'])),
  );
  expect(made.filter(({ status }) => status === 'fulfilled')).toHaveLength(2);
  const third = await cli('api-key', 'add', product, '--scope', 'instances:read', '--json');
  expect(third.code).toBe(1);
  expect(third.err).toContain('has 2 active keys');
});

test('wrong scopes and products end the command with what there is', async () => {
  const { key: product } = await system.addProduct();
  const scope = await cli('api-key', 'add', product, '--scope', 'everything');
  expect(scope.code).toBe(2);
  expect(scope.err).toContain('instances:read');
  const none = await cli('api-key', 'add', product);
  expect(none.code).toBe(2);
  const unknown = await cli('api-key', 'list', 'nowhere');
  expect(unknown.code).toBe(1);
  expect(unknown.err).toContain(product);
});

test('a missing, misspelt, unknown and retired key are answered alike, and so is every path', async () => {
  const { key: product } = await system.addProduct();
  const retired = await callerFor(system, api, product, ['instances:read']);
  await system.sql`update api_keys set retired_at = now()
    where product_id = (select id from products where key = ${product})`;
  const unknown = `lk_${randomBytes(32).toString('base64url')}`;
  const keys = [undefined, 'lk_short', unknown, retired.secret, `${retired.secret}x`];
  const answers = [];
  for (const key of keys) {
    for (const path of ['/v1/instances', '/v1/nothing/here']) {
      const { status, body, headers } = await callWith(api, key).get(path);
      answers.push({ status, body, challenge: headers.get('www-authenticate') });
    }
  }
  const [first] = answers;
  expect(first).toMatchObject({
    status: 401,
    body: { error: 'unauthorized' },
    challenge: 'Bearer',
  });
  expect(answers).toEqual(answers.map(() => first));
});

test('what a key has no scope for is answered before anything is looked up', async () => {
  const { key: product } = await system.addProduct();
  const v1 = await callerFor(system, api, product, ['dead-letters:read']);
  const refused = [
    await v1.get('/v1/instances'),
    await v1.get('/v1/instances/nobody'),
    await v1.get('/v1/instances/nobody/events'),
    await v1.get('/v1/instances/nobody/access'),
    await v1.get('/v1/orders/nobody'),
    await v1.post('/v1/instances/nobody/generations/1/complete', '{'),
    await v1.post('/v1/dead-letters/redrive', '{'),
    await v1.post('/v1/dead-letters/skip', '{'),
    await v1.post('/v1/dead-letters/resolve', '{'),
    await v1.post('/v1/dead-letters/refuse', '{'),
  ];
  const [first] = refused;
  expect(first).toMatchObject({ status: 403, body: { error: 'forbidden' } });
  expect(refused.map(({ status, body }) => ({ status, body }))).toEqual(
    refused.map(() => ({ status: 403, body: first?.body })),
  );
  expect((await v1.get('/v1/dead-letters')).status).toBe(200);
  expect((await v1.get('/v1/nothing')).status).toBe(404);
});

test('many wrong keys from one address are answered 429, and a right key still passes', async () => {
  const fresh = await system.startApi();
  const { key: product } = await system.addProduct();
  const v1 = await callerFor(system, fresh, product, ['instances:read']);
  const stranger = callWith(fresh, `lk_${randomBytes(32).toString('base64url')}`);
  const statuses: number[] = [];
  for (let n = 0; n < 32; n += 1) statuses.push((await stranger.get('/v1/instances')).status);
  expect(statuses).toEqual([...Array.from({ length: 30 }, () => 401), 429, 429]);
  const { headers } = await stranger.get('/v1/instances');
  expect(Number(headers.get('retry-after'))).toBeGreaterThan(0);
  expect((await v1.get('/v1/instances')).status).toBe(200);
});

test('while the database is away a right key is told to come again, not that it is wrong', async () => {
  const { key: product } = await system.addProduct();
  const { secret } = await callerFor(system, api, product, ['instances:read']);
  const alone = await system.startApi({
    DATABASE_URL: 'postgres://nobody:hunter2@127.0.0.1:1/nowhere',
    REDIS_URL: '',
  });
  const { status, body, headers } = await callWith(alone, secret).get('/v1/instances');
  expect({ status, error: body['error'] }).toEqual({ status: 503, error: 'unavailable' });
  expect(headers.get('retry-after')).toBe('1');
  expect(system.lines().join('\n')).not.toContain('hunter2');
});
