import { randomBytes } from 'node:crypto';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { redrive } from '../../operations/redrive.ts';
import type { Marketplace } from '../../simulator/marketplace.ts';
import { type SellerBackend, createSellerBackend } from '../../simulator/seller-backend.ts';
import { type TestDatabase, createTestDatabase } from '../servers/database.ts';
import { queueStore } from '../servers/queue-store.ts';
import { type Process, type System, type TestProduct, createSystem } from '../servers/system.ts';
import { until } from '../servers/until.ts';
import { openOperator } from './receiver-call.ts';

let database: TestDatabase;
let system: System;
let api: Process;
let operator: ReturnType<typeof openOperator>;
let backend: SellerBackend;
let product: TestProduct;
let market: Marketplace;
const httpSecret = `whsec_${randomBytes(24).toString('base64')}`;

beforeAll(async () => {
  database = await createTestDatabase();
  const { env } = queueStore(database.url);
  system = createSystem({
    databaseUrl: database.url,
    tenantsUrl: database.tenantsUrl,
    // Seconds become milliseconds, so that a create has its eight tries in seven seconds.
    env: { ...env, TIMING_RETRY_SCALE_PERCENT: '0', TIMING_DUE_AGAIN_MS: '20' },
  });
  [api] = await Promise.all([system.startApi(), system.startDispatcher(), system.startWorkers()]);
  operator = openOperator(database.url, system.masterKey);
});

afterAll(async () => {
  await system?.stop();
  await operator?.db.close();
  await database?.drop();
});

beforeEach(async () => {
  backend = createSellerBackend({ secrets: [httpSecret] });
  product = await system.addProduct({
    provisioner: 'http',
    httpUrl: await backend.listen(),
    httpSecret,
  });
  market = system.marketplace(product, api);
});

afterEach(async () => {
  await backend.close();
  expect(backend.problems).toEqual([]);
});

const newOrder = () => {
  const orderId = `CS${randomBytes(5).toString('hex')}`;
  return { orderId, orderLineId: `${orderId}-1` };
};

async function readRow(orderId: string) {
  const [row] = await system.sql<
    {
      state: string;
      dispatch: string | null;
      cause: string | null;
      attempts: number | null;
      tries: number;
      classes: string[];
    }[]
  >`select i.state, d.state as dispatch, d.cause, d.attempts,
      (select count(*)::int from attempts a where a.instance_id = i.id) as tries,
      array(select class from attempts a where a.instance_id = i.id order by began, fence) as classes
    from instances i left join dispatches d on d.instance_id = i.id where i.order_id = ${orderId}`;
  return row;
}

const untilDead = (orderId: string) =>
  until(async () => (await readRow(orderId))?.dispatch, 'dead', { timeoutMs: 30_000 });
const untilState = (orderId: string, state: string) =>
  until(async () => (await readRow(orderId))?.state, state, { timeoutMs: 30_000 });

describe('a backend that fails', () => {
  test('and recovers: the purchase is applied, once, after its retries', async () => {
    backend.setMode({ kind: 'fail', times: 4 });
    const order = newOrder();
    const { instanceId = '' } = await market.newInstance(order);
    await untilState(order.orderId, 'active');
    expect(await readRow(order.orderId)).toMatchObject({
      dispatch: null,
      classes: ['transient', 'transient', 'transient', 'transient', 'applied'],
    });
    expect(backend.instances.get(instanceId)).toMatchObject({ created: 1, generation: 1 });
    expect(await market.newInstance(order)).toMatchObject({ resultCode: '000000', instanceId });
    expect((await market.queryInstance(instanceId)).info).toHaveLength(1);
  });

  test('for good: dead after eight tries, 000004 meanwhile; redriven it is applied', async () => {
    backend.setMode({ kind: 'fail', status: 503 });
    const order = newOrder();
    const { instanceId = '' } = await market.newInstance(order);
    await untilDead(order.orderId);
    expect(await readRow(order.orderId)).toMatchObject({
      state: 'pending',
      cause: expect.stringMatching(/^backend answered 503 \[[0-9a-f]{12}\]$/),
      attempts: 8,
      tries: 8,
    });
    expect(await market.newInstance(order)).toMatchObject({ resultCode: '000004', instanceId });
    expect((await market.queryInstance(instanceId)).resultCode).toBe('000004');

    backend.setMode({ kind: 'ok' });
    const redriven = await redrive(operator, {
      scope: { product: product.key },
      reason: 'it is up again',
    });
    expect(redriven).toMatchObject({ kind: 'redriven', instances: [{ orderId: order.orderId }] });
    await untilState(order.orderId, 'active');
    expect(await market.newInstance(order)).toMatchObject({ resultCode: '000000', instanceId });
    expect(backend.instances.get(instanceId)).toMatchObject({ created: 1 });
  });

  test('a release ends a dead purchase: DELETE, since nobody knows what worked', async () => {
    backend.setMode({ kind: 'lost answer', times: 8 });
    const order = newOrder();
    const { instanceId = '' } = await market.newInstance(order);
    await untilDead(order.orderId);
    expect(backend.instances.get(instanceId)).toMatchObject({ exists: true });
    expect((await market.releaseInstance(instanceId)).resultCode).toBe('000000');
    await untilState(order.orderId, 'released');
    expect(backend.instances.get(instanceId)).toMatchObject({ exists: false, deleted: 1 });
    expect(await market.newInstance(order)).toMatchObject({ resultCode: '000000', instanceId });
  });

  test('a throttling backend is given the time it asks for', async () => {
    backend.setMode({ kind: 'throttle', retryAfterSeconds: 1, times: 1 });
    const order = newOrder();
    await market.newInstance(order);
    await untilState(order.orderId, 'active');
    const [first, second] = backend.requests;
    expect((second?.at ?? 0) - (first?.at ?? 0)).toBeGreaterThanOrEqual(900);
  });
});

describe('a backend that refuses', () => {
  test('with 400: dead at the first try; mended and redriven it is applied', async () => {
    const order = newOrder();
    backend.refuseOrder(order.orderId, { status: 400 });
    const { instanceId = '' } = await market.newInstance(order);
    await untilDead(order.orderId);
    expect(await readRow(order.orderId)).toMatchObject({
      state: 'pending',
      cause: expect.stringMatching(/^backend answered 400 \[[0-9a-f]{12}\]$/),
      classes: ['permanent'],
    });
    // The others are not hindered.
    const other = newOrder();
    await market.newInstance(other);
    await untilState(other.orderId, 'active');

    backend.acceptOrder(order.orderId);
    await redrive(operator, { scope: { order: order.orderId }, reason: 'mended' });
    await untilState(order.orderId, 'active');
    expect(await market.newInstance(order)).toMatchObject({ resultCode: '000000', instanceId });
    expect(backend.instances.get(instanceId)).toMatchObject({ created: 1 });
  });

  test('still wrong after a redrive: dead once more', async () => {
    const order = newOrder();
    backend.refuseOrder(order.orderId, { status: 400 });
    await market.newInstance(order);
    await untilDead(order.orderId);
    await redrive(operator, { scope: { order: order.orderId }, reason: 'hope' });
    await until(async () => (await readRow(order.orderId))?.tries, 2);
    await untilDead(order.orderId);
  });

  test('with 422 and a code: the marketplace is told it from now on, and nothing is tried again', async () => {
    const order = newOrder();
    backend.refuseOrder(order.orderId, { status: 422, resultCode: '000106' });
    const { instanceId = '' } = await market.newInstance(order);
    await untilState(order.orderId, 'refused');
    expect(await market.newInstance(order)).toMatchObject({ resultCode: '000106', instanceId });
    expect((await market.queryInstance(instanceId)).resultCode).toBe('000003');
    expect((await market.updateInstanceStatus(instanceId, 'FREEZE')).resultCode).toBe('000003');
    expect((await market.releaseInstance(instanceId)).resultCode).toBe('000000');
    expect(await readRow(order.orderId)).toMatchObject({ dispatch: null, classes: ['refused'] });
    expect(backend.requests.filter((each) => each.instanceId === instanceId)).toHaveLength(1);
  });

  test('with 422 and a code that is none: dead, for a person to see', async () => {
    const order = newOrder();
    backend.refuseOrder(order.orderId, { status: 422, resultCode: '000199' });
    await market.newInstance(order);
    await untilDead(order.orderId);
    expect(await readRow(order.orderId)).toMatchObject({
      cause: expect.stringMatching(/^backend answered 422 \[[0-9a-f]{12}\]$/),
    });
  });

  test('with nonsense: dead at the first try', async () => {
    backend.setMode({ kind: 'nonsense', times: 1 });
    const order = newOrder();
    await market.newInstance(order);
    await untilDead(order.orderId);
    expect(await readRow(order.orderId)).toMatchObject({ classes: ['contract'] });
  });
});
