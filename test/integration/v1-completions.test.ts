import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import type { InstanceEvent } from '../../core/events.ts';
import { createDatabase } from '../../db/client.ts';
import { foldAt } from '../../db/completions.ts';
import { pauseProduct, resumeProduct } from '../../operations/pause-product.ts';
import type { Marketplace } from '../../simulator/marketplace.ts';
import { type TestDatabase, createTestDatabase } from '../servers/database.ts';
import { queueStore } from '../servers/queue-store.ts';
import { type Process, type System, type TestProduct, createSystem } from '../servers/system.ts';
import { until } from '../servers/until.ts';
import { type SlowBackend, type V1Caller, callerFor, createSlowBackend } from './v1-rig.ts';

const repeatMs = 4_000;
let database: TestDatabase;
let system: System;
let api: Process;
let backend: SlowBackend;
let product: TestProduct;
let market: Marketplace;
let v1: V1Caller;
const appInfo = { frontEndUrl: 'https://app.example/acme', userName: 'admin', password: 'first' };

beforeAll(async () => {
  database = await createTestDatabase();
  const { env } = queueStore(database.url);
  system = createSystem({
    databaseUrl: database.url,
    tenantsUrl: database.tenantsUrl,
    env: { ...env, TIMING_COMPLETION_MS: String(repeatMs) },
  });
  backend = createSlowBackend();
  const httpUrl = await backend.listen();
  [api] = await Promise.all([system.startApi(), system.startDispatcher(), system.startWorkers()]);
  const httpSecret = `whsec_${randomBytes(24).toString('base64')}`;
  product = await system.addProduct({ provisioner: 'http', httpUrl, httpSecret });
  market = system.marketplace(product, api);
  v1 = await callerFor(system, api, product.key, ['instances:complete']);
});

beforeEach(() => {
  backend.answerWith(async ({ method }) => ({ status: method === 'PUT' ? 202 : 204 }));
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

const complete = (at: Pick<Bought, 'instanceId'>, generation: number, body: unknown) =>
  v1.post(`/v1/instances/${at.instanceId}/generations/${generation}/complete`, body);

async function read({ instanceId }: Pick<Bought, 'instanceId'>) {
  const [row] = await system.sql<
    {
      state: string;
      applied: number;
      dispatch: string | null;
      cause: string | null;
      open: number;
      calls: string[];
    }[]
  >`select i.state, i.applied, d.state as dispatch, d.cause,
      (select count(*)::int from events e where e.instance_id = i.id and e.applied_at is null) as open,
      array(select a.class from attempts a where a.instance_id = i.id order by a.began) as calls
    from instances i left join dispatches d on d.instance_id = i.id where i.public_id = ${instanceId}`;
  if (!row) throw new Error('there is no such instance');
  return row;
}

const untilRead = (
  at: Pick<Bought, 'instanceId'>,
  like: Partial<Awaited<ReturnType<typeof read>>>,
) =>
  until(
    () => read(at),
    (row) => {
      expect(row).toMatchObject(like);
      return true;
    },
    { timeoutMs: 20_000, what: JSON.stringify(like) },
  );

const callsOf = ({ instanceId }: Pick<Bought, 'instanceId'>) =>
  backend.calls
    .filter((call) => call.instanceId === instanceId)
    .map(({ method, generation }) => `${method} ${generation}`);

const replyOf = (at: Bought) => market.newInstance(at).then(({ resultCode }) => resultCode);

test('a purchase that is answered 202 stays in process until it is completed, then shows the access data', async () => {
  const at = await buy();
  await untilRead(at, { dispatch: 'timed', state: 'pending', calls: ['pending'] });
  expect(await replyOf(at)).toBe('000004');
  expect((await market.queryInstance(at.instanceId)).resultCode).toBe('000004');

  const told = await complete(at, 1, { outcome: 'complete', appInfo });
  expect(told).toMatchObject({ status: 200, body: { generation: 1, result: 'completed' } });
  expect(await replyOf(at)).toBe('000000');
  expect((await market.queryInstance(at.instanceId)).info?.[0]?.appInfo).toMatchObject(appInfo);
  expect(await read(at)).toEqual({
    state: 'active',
    applied: 1,
    dispatch: null,
    cause: null,
    open: 0,
    calls: ['applied'],
  });
});

test('a completion that is told fifty times at once counts once, and keeps the first access data', async () => {
  const at = await buy();
  await untilRead(at, { dispatch: 'timed' });
  const answers = await Promise.all(
    Array.from({ length: 50 }, (_, n) =>
      complete(at, 1, { outcome: 'complete', appInfo: { ...appInfo, memo: `call ${n}` } }),
    ),
  );
  expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 200));
  expect(answers.filter(({ body }) => body['result'] === 'completed')).toHaveLength(1);
  const shown = (await market.queryInstance(at.instanceId)).rawBody;
  await complete(at, 1, { outcome: 'complete', appInfo: { frontEndUrl: 'https://other.example' } });
  expect((await market.queryInstance(at.instanceId)).rawBody).toBe(shown);
  expect(await complete(at, 1, { outcome: 'fail' })).toMatchObject({
    status: 409,
    body: { error: 'ended-otherwise' },
  });
});

test('a backend that says nothing is asked again with the same generation, and may answer 200 then', async () => {
  const at = await buy();
  await untilRead(at, { dispatch: 'timed' });
  backend.answerWith(async () => ({ status: 200, body: { appInfo } }));
  await untilRead(at, { state: 'active', dispatch: null, calls: ['pending', 'applied'] });
  expect(callsOf(at)).toEqual(['PUT 1', 'PUT 1']);
});

test('a completion that overtakes the answer 202 counts, and nothing waits for it afterwards', async () => {
  let told: number | undefined;
  backend.answerWith(async (call) => {
    told ??= (await complete(call, call.generation, { outcome: 'complete', appInfo })).status;
    return { status: 202 };
  });
  const at = await buy();
  await untilRead(at, { state: 'active', applied: 1, dispatch: null, calls: ['applied'] });
  expect(told).toBe(200);
  expect(callsOf(at)).toEqual(['PUT 1']);
});

test('what is complete and is asked for once more, after a worker died, waits for nothing when it is answered 202 again', async () => {
  const at = await buy();
  await untilRead(at, { dispatch: 'timed' });
  await complete(at, 1, { outcome: 'complete', appInfo });
  // As a claim that was lost leaves it.
  await system.sql`insert into dispatches (instance_id, product_id, open_events, due_at)
    select id, product_id, 0, now() from instances where public_id = ${at.instanceId}`;
  await until(() => callsOf(at), ['PUT 1', 'PUT 1'], { timeoutMs: 20_000 });
  await untilRead(at, { dispatch: null, calls: ['applied', 'applied'] });
  expect(await read(at)).toMatchObject({ state: 'active', applied: 1, open: 0 });
  expect(await replyOf(at)).toBe('000000');
});

test('a refusal that overtakes the answer 202 counts too', async () => {
  backend.answerWith(async (call) => {
    await complete(call, call.generation, { outcome: 'fail', resultCode: '000106' });
    return { status: 202 };
  });
  const at = await buy();
  await untilRead(at, { state: 'refused', dispatch: null, open: 0 });
  expect(callsOf(at)).toEqual(['PUT 1']);
});

test('a fact that comes while it waits is asked for at once, and only that generation can be completed', async () => {
  const at = await buy();
  await untilRead(at, { dispatch: 'timed' });
  const frozenAt = performance.now();
  expect((await market.updateInstanceStatus(at.instanceId, 'FREEZE')).resultCode).toBe('000000');
  await until(() => callsOf(at), ['PUT 1', 'PUT 2'], { timeoutMs: 20_000 });
  expect(performance.now() - frozenAt).toBeLessThan(repeatMs);
  await untilRead(at, { dispatch: 'timed', calls: ['pending', 'pending'] });

  expect(await complete(at, 1, { outcome: 'complete', appInfo })).toMatchObject({
    status: 409,
    body: { error: 'other-generation', generation: 2 },
  });
  expect((await complete(at, 3, { outcome: 'complete', appInfo })).status).toBe(409);
  expect((await read(at)).state).toBe('pending');
  expect((await complete(at, 2, { outcome: 'complete', appInfo })).status).toBe(200);
  expect(await read(at)).toMatchObject({ state: 'frozen', applied: 2, dispatch: null, open: 0 });
});

test('a completion of what was asked before a newer fact makes that, and the newer one due at once', async () => {
  const at = await buy();
  await untilRead(at, { dispatch: 'timed' });
  const db = createDatabase({ url: database.url, applicationName: 'test', poolMax: 1 });
  const act = { product: product.key, reason: 'a test' };
  try {
    await pauseProduct({ db, actor: 'test' }, act);
    await market.updateInstanceStatus(at.instanceId, 'FREEZE');
    expect((await complete(at, 1, { outcome: 'complete', appInfo })).status).toBe(200);
    expect(await read(at)).toMatchObject({ state: 'active', applied: 1, dispatch: 'due', open: 1 });
  } finally {
    await resumeProduct({ db, actor: 'test' }, act);
    await db.close();
  }
  await until(() => callsOf(at).at(-1), 'PUT 2', { timeoutMs: 20_000 });
  await untilRead(at, { dispatch: 'timed' });
  // It was made once, so access data may be left out.
  expect((await complete(at, 2, { outcome: 'complete' })).status).toBe(200);
  expect(await read(at)).toMatchObject({ state: 'frozen', applied: 2, dispatch: null, open: 0 });
  expect((await market.queryInstance(at.instanceId)).info?.[0]?.appInfo).toMatchObject(appInfo);
});

test('a release overtakes what is waited for, and what is completed after it stays released', async () => {
  const at = await buy();
  await untilRead(at, { dispatch: 'timed' });
  expect((await market.releaseInstance(at.instanceId, at)).resultCode).toBe('000000');
  await untilRead(at, { state: 'released', dispatch: null, open: 0 });
  expect(callsOf(at)).toEqual(['PUT 1', 'DELETE 2']);
  expect((await complete(at, 1, { outcome: 'complete', appInfo })).status).toBe(409);
  expect(await read(at)).toMatchObject({ state: 'released', applied: 2, dispatch: null });
  expect(await replyOf(at)).toBe('000000');
});

test('a purchase that is completed as failed with a code is refused with it, for good', async () => {
  const at = await buy();
  await untilRead(at, { dispatch: 'timed' });
  const refusal = { outcome: 'fail', resultCode: '000106', message: 'sold out meanwhile' };
  expect(await complete(at, 1, refusal)).toMatchObject({ body: { result: 'refused' } });
  expect(await complete(at, 1, refusal)).toMatchObject({ body: { result: 'same-again' } });
  expect((await complete(at, 1, { outcome: 'complete', appInfo })).status).toBe(409);
  expect(await replyOf(at)).toBe('000106');
  expect(await read(at)).toMatchObject({ state: 'refused', dispatch: null, open: 0 });
});

test('a failure without a code is a dead letter, which a later completion still brings to life', async () => {
  const at = await buy();
  await untilRead(at, { dispatch: 'timed' });
  const failure = { outcome: 'fail', message: 'disk of zhang.san@buyer.example is full' };
  expect(await complete(at, 1, failure)).toMatchObject({ body: { result: 'failed' } });
  expect(await complete(at, 1, failure)).toMatchObject({ body: { result: 'same-again' } });
  const dead = await read(at);
  expect(dead).toMatchObject({ state: 'pending', dispatch: 'dead', open: 1, calls: ['permanent'] });
  expect(dead.cause).toMatch(/^backend reported by a completion that it failed \[[0-9a-f]{12}\]$/);

  expect((await complete(at, 1, { outcome: 'complete', appInfo })).status).toBe(200);
  expect(await read(at)).toMatchObject({ state: 'active', applied: 1, dispatch: null, open: 0 });
});

test('what an operator delivered by hand meanwhile is not completed over', async () => {
  const at = await buy();
  await untilRead(at, { dispatch: 'timed' });
  await complete(at, 1, { outcome: 'fail' });
  const operator = await callerFor(system, api, product.key, ['dead-letters:write']);
  const byHand = { frontEndUrl: 'https://app.example/by-hand' };
  const act = { order: at.orderId, reason: 'delivered by hand', appInfo: byHand };
  expect((await operator.post('/v1/dead-letters/resolve', act)).body).toMatchObject({ count: 1 });
  expect((await complete(at, 1, { outcome: 'complete', appInfo })).status).toBe(409);
  expect((await market.queryInstance(at.instanceId)).info?.[0]?.appInfo).toEqual(byHand);
  expect(await read(at)).toMatchObject({ state: 'active', dispatch: null, open: 0 });
});

test('what is never completed becomes a dead letter when a create has run out of time', async () => {
  const at = await buy();
  await untilRead(at, { dispatch: 'timed' });
  await system.sql`update dispatches set since = now() - interval '114 minutes'
    where instance_id = (select id from instances where public_id = ${at.instanceId})`;
  await untilRead(at, { dispatch: 'dead', state: 'pending', calls: ['pending', 'contract'] });
  expect((await read(at)).cause).toMatch(/^backend answered 202 and never completed/);
});

test('nobody completes what is not theirs, and what is not as documented changes nothing', async () => {
  const at = await buy();
  await untilRead(at, { dispatch: 'timed' });
  const other = await system.addProduct();
  const stranger = await callerFor(system, api, other.key, ['instances:complete']);
  const reader = await callerFor(system, api, other.key, ['instances:read']);
  const path = `/v1/instances/${at.instanceId}/generations/1/complete`;
  const body = { outcome: 'complete', appInfo };
  expect((await stranger.post(path, body)).status).toBe(404);
  expect((await v1.post('/v1/instances/nobody/generations/1/complete', body)).status).toBe(404);
  expect((await reader.post(path, body)).status).toBe(403);

  const bad: [unknown, string][] = [
    ['{', 'the whole'],
    [[], 'the whole'],
    [{ outcome: 'done' }, 'outcome'],
    [{ outcome: 'complete' }, 'appInfo'],
    [{ outcome: 'complete', appInfo: {} }, 'appInfo.frontEndUrl'],
    [{ outcome: 'complete', appInfo: { ...appInfo, memo: 'x'.repeat(1025) } }, 'appInfo.memo'],
    [{ outcome: 'complete', license: 'abc' }, 'license'],
    [{ outcome: 'fail', resultCode: '000004' }, 'resultCode'],
  ];
  for (const [wrong, field] of bad) {
    const { status, body: said } = await v1.post(path, wrong);
    expect({ wrong, status, error: said['error'] }).toEqual({
      wrong,
      status: 400,
      error: 'invalid',
    });
    expect(String((said['problems'] as string[])[0])).toMatch(new RegExp(`^${field}: `));
  }
  expect(
    (await v1.post(`/v1/instances/${at.instanceId}/generations/x/complete`, body)).status,
  ).toBe(400);
  expect((await v1.post(path, { pad: 'x'.repeat(70_000) })).status).toBe(413);
  expect(await read(at)).toMatchObject({ state: 'pending', applied: 0, dispatch: 'timed' });
});

test('a call is taken for the facts that it was made with, not for those that make the same number', () => {
  const at = (second: number) => new Date(Date.UTC(2026, 10, 24, 8, 0, second));
  const base = { orderId: null, orderLineId: null, appliedAt: null };
  const created: InstanceEvent = {
    ...base,
    id: 1,
    kind: 'created',
    plan: null,
    trial: null,
    expiresAt: null,
    acceptedAt: at(1),
    resolvedAt: at(1),
  };
  // Its order was looked up after the call, which knew the freeze behind it.
  const upgraded: InstanceEvent = {
    ...base,
    id: 2,
    kind: 'upgraded',
    plan: { productId: 'p', skuCode: 's', quantity: 2, period: null },
    acceptedAt: at(2),
    resolvedAt: at(9),
  };
  const frozen: InstanceEvent = {
    ...base,
    id: 3,
    kind: 'frozen',
    acceptedAt: at(3),
    resolvedAt: at(3),
  };
  const events = [created, upgraded, frozen];
  const call = foldAt(events, { generation: 2, began: at(5) });
  expect(call).toMatchObject({ covered: [1, 3], desired: { frozen: true, plan: null } });
  expect(foldAt(events, { generation: 3, began: at(10) })).toMatchObject({ covered: [1, 2, 3] });
  expect(foldAt(events, { generation: 1, began: at(2) })).toMatchObject({ covered: [1] });
  expect(foldAt(events, { generation: 4, began: at(10) })).toBeUndefined();
});
