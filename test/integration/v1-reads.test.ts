import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { Marketplace } from '../../simulator/marketplace.ts';
import { type TestDatabase, createTestDatabase } from '../servers/database.ts';
import { queueStore } from '../servers/queue-store.ts';
import { type Process, type System, type TestProduct, createSystem } from '../servers/system.ts';
import { until } from '../servers/until.ts';
import { type SlowBackend, type V1Caller, callerFor, createSlowBackend } from './v1-rig.ts';

let database: TestDatabase;
let system: System;
let api: Process;
let backend: SlowBackend;
let product: TestProduct;
let market: Marketplace;
let v1: V1Caller;
let stranger: V1Caller;
let fails = false;
const password = `pw-${randomBytes(9).toString('hex')}`;
const appInfo = { frontEndUrl: 'https://app.example/acme', userName: 'admin', password };

const scopes = [
  'instances:read',
  'orders:read',
  'access:read',
  'dead-letters:read',
  'dead-letters:write',
] as const;

beforeAll(async () => {
  database = await createTestDatabase();
  const { env } = queueStore(database.url);
  system = createSystem({ databaseUrl: database.url, tenantsUrl: database.tenantsUrl, env });
  backend = createSlowBackend();
  backend.answerWith(async ({ method }) => {
    if (fails) return { status: 400, body: { error: 'no' } };
    return method === 'PUT' ? { status: 200, body: { appInfo } } : { status: 204 };
  });
  const httpUrl = await backend.listen();
  [api] = await Promise.all([system.startApi(), system.startDispatcher(), system.startWorkers()]);
  const httpSecret = `whsec_${randomBytes(24).toString('base64')}`;
  product = await system.addProduct({ provisioner: 'http', httpUrl, httpSecret });
  const other = await system.addProduct({ provisioner: 'http', httpUrl, httpSecret });
  market = system.marketplace(product, api);
  v1 = await callerFor(system, api, product.key, scopes);
  stranger = await callerFor(system, api, other.key, scopes);
});

afterAll(async () => {
  await system?.stop();
  await backend?.close();
  await database?.drop();
});

type Bought = { instanceId: string; orderId: string; orderLineId: string };

async function buy(): Promise<Bought> {
  const orderId = `CS${randomBytes(5).toString('hex')}`;
  const order = { orderId, orderLineId: `${orderId}-1` };
  const reply = await market.newInstance(order);
  if (reply.instanceId === undefined) throw new Error(reply.rawBody);
  return { ...order, instanceId: reply.instanceId };
}

const untilInstance = (at: Bought, like: object) =>
  until(
    async () => (await v1.get(`/v1/instances/${at.instanceId}`)).body,
    (body) => {
      expect(body).toMatchObject(like);
      return true;
    },
    { timeoutMs: 20_000, what: JSON.stringify(like) },
  );

const buyActive = async () => {
  const at = await buy();
  await untilInstance(at, { state: 'active', open: null });
  return at;
};

async function buyDead(): Promise<Bought> {
  fails = true;
  try {
    const at = await buy();
    await untilInstance(at, { state: 'pending', open: { state: 'dead' } });
    return at;
  } finally {
    fails = false;
  }
}

type Page = { instances: { instanceId: string; state: string }[]; next: string | null };

async function readAll(query: string): Promise<{ ids: string[]; pages: number }> {
  const ids: string[] = [];
  let next: string | null = '';
  let pages = 0;
  while (next !== null) {
    const cursor: string = next === '' ? '' : `&cursor=${next}`;
    const answer = await v1.get(`/v1/instances?${query}${cursor}`);
    expect(answer.status).toBe(200);
    const page = answer.body as unknown as Page;
    ids.push(...page.instances.map(({ instanceId }) => instanceId));
    next = page.next;
    pages += 1;
  }
  return { ids, pages };
}

test('instances are read page by page, each once, and by state', async () => {
  const bought = await Promise.all(Array.from({ length: 7 }, buyActive));
  const [frozen] = bought;
  if (!frozen) throw new Error('nothing was bought');
  await market.updateInstanceStatus(frozen.instanceId, 'FREEZE');
  await untilInstance(frozen, { state: 'frozen', generation: 2, open: null });

  const all = await readAll('limit=3');
  expect(new Set(all.ids).size).toBe(all.ids.length);
  expect(all.ids).toEqual(expect.arrayContaining(bought.map(({ instanceId }) => instanceId)));
  expect(all.pages).toBe(Math.ceil(all.ids.length / 3));
  expect((await readAll('state=frozen')).ids).toEqual([frozen.instanceId]);
  expect((await stranger.get('/v1/instances')).body).toEqual({ instances: [], next: null });
  for (const query of ['limit=0', 'limit=501', 'state=gone', 'cursor=', 'cursor=AA']) {
    expect({ query, ...(await v1.get(`/v1/instances?${query}`)) }).toMatchObject({
      query,
      status: 400,
    });
  }
});

test('an instance tells its state, what it should be and its orders, and no access data', async () => {
  const at = await buyActive();
  await market.refreshInstance({
    instanceId: at.instanceId,
    orderId: `${at.orderId}-R`,
    orderLineId: `${at.orderId}-R-1`,
    scene: 'RENEWAL',
    expireTime: '20300101000000',
  });
  await untilInstance(at, { generation: 2, open: null });
  const { body } = await v1.get(`/v1/instances/${at.instanceId}`);
  const expiresAt = '2030-01-01T00:00:00.000Z';
  expect(body).toEqual({
    ...at,
    state: 'active',
    resultCode: null,
    generation: 2,
    expiresAt,
    createdAt: expect.stringMatching(/^\d{4}-.*Z$/) as string,
    aliasOf: null,
    open: null,
    desired: { exists: true, frozen: false, expiresAt, trial: null, plan: null },
    desiredGeneration: 2,
  });
  // A renewal has an order of its own, and is found by it.
  for (const orderId of [at.orderId, `${at.orderId}-R`]) {
    const order = await v1.get(`/v1/orders/${orderId}`);
    expect(order.body).toMatchObject({ orderId, instances: [{ instanceId: at.instanceId }] });
    expect(JSON.stringify(order.body)).not.toContain(password);
    expect((await stranger.get(`/v1/orders/${orderId}`)).status).toBe(404);
  }
  expect(JSON.stringify(body)).not.toContain(password);
  expect((await stranger.get(`/v1/instances/${at.instanceId}`)).status).toBe(404);
  expect((await v1.get('/v1/orders/CS-nobody')).status).toBe(404);
});

test('an id of any characters can be read about', async () => {
  const orderId = `CS${randomBytes(5).toString('hex')}`;
  const order = { orderId, orderLineId: `${orderId}-1` };
  const businessId = `b/${orderId} ü%2F?#`;
  const { instanceId = '' } = await market.newInstance({ ...order, businessId });
  expect(instanceId).toBe(businessId);
  const path = `/v1/instances/${encodeURIComponent(businessId)}`;
  expect((await v1.get(path)).body).toMatchObject({ instanceId, orderId });
  expect((await v1.get(`${path}/events`)).body).toMatchObject({ events: [{ kind: 'created' }] });
});

test('events are read in the order of acceptance, page by page', async () => {
  const at = await buyActive();
  for (const status of ['FREEZE', 'UNFREEZE', 'FREEZE'] as const) {
    await market.updateInstanceStatus(at.instanceId, status);
  }
  await untilInstance(at, { state: 'frozen', open: null });
  const path = `/v1/instances/${at.instanceId}/events`;
  const first = await v1.get(`${path}?limit=3`);
  const rest = await v1.get(`${path}?limit=3&cursor=${String(first.body['next'])}`);
  const events = [...(first.body['events'] as object[]), ...(rest.body['events'] as object[])];
  expect(events).toMatchObject([
    { kind: 'created', orderId: at.orderId, outcome: 'applied' },
    { kind: 'frozen', outcome: 'applied' },
    { kind: 'unfrozen', outcome: 'applied' },
    { kind: 'frozen', outcome: 'applied' },
  ]);
  expect(rest.body['next']).toBeNull();
  expect((await v1.get(`${path}?cursor=abc`)).status).toBe(400);
  expect((await stranger.get(path)).status).toBe(404);
});

test('access data is told only where it is asked for by itself, and the audit keeps who asked', async () => {
  const at = await buyActive();
  const path = `/v1/instances/${at.instanceId}/access`;
  expect(await v1.get(path)).toMatchObject({
    status: 200,
    body: { instanceId: at.instanceId, appInfo },
  });
  expect((await stranger.get(path)).status).toBe(404);
  const audited = await system.sql<{ actor: string; subject: string; detail: object }[]>`
    select actor, subject, detail from audit where act = 'access.read' and detail->>'instanceId' = ${at.instanceId}`;
  expect([...audited]).toEqual([
    {
      actor: expect.stringMatching(/^api-key:\d+$/) as string,
      subject: `product/${product.key}`,
      detail: { instanceId: at.instanceId },
    },
  ]);
  await market.releaseInstance(at.instanceId, at);
  await untilInstance(at, { state: 'released' });
  expect((await v1.get(path)).status).toBe(404);
});

test('a dead letter is listed, shown, counted and redriven, by the key of its own product alone', async () => {
  const at = await buyDead();
  const scope = { order: at.orderId };
  const listed = await v1.get(`/v1/dead-letters?order=${at.orderId}`);
  expect(listed.body).toMatchObject({
    total: 1,
    deadLetters: [{ instanceId: at.instanceId, cause: 'backend answered 400' }],
  });
  expect((await v1.get(`/v1/dead-letters/${at.orderId}`)).body).toMatchObject({
    deadLetters: [{ events: [{ kind: 'created' }], tries: [{ httpStatus: 400, hasAnswer: true }] }],
  });
  expect((await stranger.get(`/v1/dead-letters/${at.orderId}`)).status).toBe(404);
  expect((await stranger.get('/v1/dead-letters')).body).toMatchObject({ total: 0 });

  const redrive = '/v1/dead-letters/redrive';
  for (const body of [
    {},
    { ...scope, all: true, reason: 'x' },
    { ...scope, dryrun: true },
    scope,
  ]) {
    const { status } = await v1.post(redrive, body);
    expect({ body, status }).toEqual({ body, status: 400 });
  }
  const foreign = await stranger.post(redrive, { ...scope, reason: 'not mine' });
  expect(foreign.body).toMatchObject({ count: 0 });
  const foreignAll = await stranger.post(redrive, { all: true, reason: 'not mine' });
  expect(foreignAll.body).toMatchObject({ count: 0 });
  expect((await v1.post(redrive, { ...scope, dryRun: true })).body).toMatchObject({
    count: 1,
    dryRun: true,
  });
  await untilInstance(at, { open: { state: 'dead' } });

  const done = await v1.post(redrive, { ...scope, reason: 'the backend is well' });
  expect(done.body).toMatchObject({ count: 1, instances: [{ instanceId: at.instanceId }] });
  await untilInstance(at, { state: 'active', open: null });
  const [audited] = await system.sql<{ actor: string; reason: string }[]>`
    select actor, reason from audit where act = 'dead_letter.redriven' order by id desc limit 1`;
  expect(audited).toMatchObject({ reason: 'the backend is well' });
  expect(audited?.actor).toMatch(/^api-key:\d+$/);
});

test('skip, resolve and refuse do what they do for operators', async () => {
  const [refused, delivered] = [await buyDead(), await buyDead()];
  const why = { reason: 'by hand' };
  const refuse = '/v1/dead-letters/refuse';
  expect((await v1.post(refuse, { ...why, order: refused.orderId, code: '000005' })).status).toBe(
    400,
  );
  expect(
    (await v1.post(refuse, { ...why, order: refused.orderId, code: '000106' })).body,
  ).toMatchObject({ count: 1 });
  expect((await market.newInstance(refused)).resultCode).toBe('000106');

  const resolve = '/v1/dead-letters/resolve';
  expect(await v1.post(resolve, { ...why, order: delivered.orderId })).toMatchObject({
    status: 409,
    body: { error: 'nothing-fits', unfit: [{ instanceId: delivered.instanceId }] },
  });
  expect(
    (await v1.post(resolve, { ...why, order: delivered.orderId, appInfo: { userName: 'x' } }))
      .status,
  ).toBe(400);
  expect(
    (await v1.post(resolve, { ...why, order: delivered.orderId, appInfo })).body,
  ).toMatchObject({ count: 1 });
  expect((await market.queryInstance(delivered.instanceId)).info?.[0]?.appInfo).toMatchObject(
    appInfo,
  );

  fails = true;
  await market.updateInstanceStatus(delivered.instanceId, 'FREEZE');
  await untilInstance(delivered, { open: { state: 'dead' } });
  fails = false;
  const skip = { ...why, order: delivered.orderId, kind: 'frozen' };
  expect((await v1.post('/v1/dead-letters/skip', skip)).body).toMatchObject({ count: 1 });
  await untilInstance(delivered, { state: 'active', open: null });
});
