import { afterAll, beforeAll, expect, test } from 'vitest';
import { addKey } from '../../operations/add-key.ts';
import { addProduct } from '../../operations/add-product.ts';
import { resolveDeadLetter, resolveDelivered } from '../../operations/resolve-dead-letter.ts';
import type { Marketplace } from '../../simulator/marketplace.ts';
import { type TestDatabase, createTestDatabase } from '../servers/database.ts';
import { queueStore } from '../servers/queue-store.ts';
import { type Process, type System, createSystem } from '../servers/system.ts';
import { until } from '../servers/until.ts';
import { openOperator } from './receiver-call.ts';

const key = 'by-hand';
let database: TestDatabase;
let system: System;
let api: Process;
let operator: ReturnType<typeof openOperator>;
let market: Marketplace;

beforeAll(async () => {
  database = await createTestDatabase();
  const { env } = queueStore(database.url);
  system = createSystem({ databaseUrl: database.url, tenantsUrl: database.tenantsUrl, env });
  [api] = await Promise.all([system.startApi(), system.startDispatcher(), system.startWorkers()]);
  operator = openOperator(database.url, system.masterKey);
  const added = await addProduct(operator, { key, name: key, provisioner: 'manual' });
  expect(added).toMatchObject({ kind: 'added', generatedSecret: null });
  const accessKey = 'key-of-the-marketplace';
  await addKey(operator, { product: key, class: 'base', secret: accessKey });
  const callbackUrl = () => `http://127.0.0.1:${api.port}/callbacks/${key}`;
  market = system.marketplace({ key, accessKey, callbackUrl }, api);
});

afterAll(async () => {
  await system?.stop();
  await operator?.db.close();
  await database?.drop();
});

type Row = { state: string; dispatch: string | null; cause: string | null };

async function rowOf(instanceId: string): Promise<Row> {
  const [row] = await system.sql<Row[]>`
    select i.state, d.state as dispatch, d.cause from instances i left join dispatches d on d.instance_id = i.id
    where i.public_id = ${instanceId}`;
  if (!row) throw new Error('no such instance');
  return row;
}

async function triesOf(instanceId: string): Promise<number> {
  const [row] = await system.sql<{ n: number }[]>`select count(*)::int as n from attempts a
    join instances i on i.id = a.instance_id where i.public_id = ${instanceId}`;
  return row?.n ?? 0;
}

/** Waits until a person is asked for. */
const untilAsked = (instanceId: string, forWhat: string) =>
  until(
    () => rowOf(instanceId),
    (row) => row.dispatch === 'dead' && (row.cause ?? '').includes(forWhat),
    { timeoutMs: 20_000, what: `a dead letter: ${forWhat}` },
  );

const untilSettled = (instanceId: string, state: string) =>
  until(
    () => rowOf(instanceId),
    (row) => row.state === state && row.dispatch === null,
    { timeoutMs: 20_000, what: `to be ${state} with nothing left` },
  );

async function buy(orderId: string): Promise<string> {
  const { instanceId = '' } = await market.newInstance({ orderId, orderLineId: `${orderId}-1` });
  return instanceId;
}

const wanted = (order: string) => ({
  scope: { order },
  reason: 'done by Li',
  isDryRun: false,
});

test('a life by hand: each thing to do is a dead letter at once, and is over when a person says so', async () => {
  const instanceId = await buy('CS1');
  await untilAsked(instanceId, 'waits for an operator: dead-letter resolve --delivered');
  expect(await market.queryInstance([instanceId])).toMatchObject({ resultCode: '000004' });

  const access = { frontEndUrl: 'https://by-hand.example/1', userName: 'ann', password: 'p-1' };
  expect(
    await resolveDelivered(operator, { ...wanted('CS1'), accessText: JSON.stringify(access) }),
  ).toMatchObject({ kind: 'done' });
  await untilSettled(instanceId, 'active');
  expect(await market.queryInstance([instanceId])).toMatchObject({
    resultCode: '000000',
    info: [{ instanceId, appInfo: access }],
  });

  await market.updateInstanceStatus(instanceId, 'FREEZE');
  await untilAsked(instanceId, 'block its use by hand');
  expect(await resolveDeadLetter(operator, wanted('CS1'))).toMatchObject({ kind: 'done' });
  await untilSettled(instanceId, 'frozen');

  await market.updateInstanceStatus(instanceId, 'UNFREEZE');
  await untilAsked(instanceId, 'change it by hand');
  await resolveDeadLetter(operator, wanted('CS1'));
  await untilSettled(instanceId, 'active');

  await market.releaseInstance(instanceId);
  await untilAsked(instanceId, 'take it away by hand');
  await resolveDeadLetter(operator, wanted('CS1'));
  await untilSettled(instanceId, 'released');
});

test('what was never delivered is released without a person', async () => {
  const instanceId = await buy('CS2');
  await untilAsked(instanceId, 'dead-letter resolve --delivered');
  await market.releaseInstance(instanceId);
  await untilSettled(instanceId, 'released');
});

test('a freeze before the delivery asks for the delivery still, and the delivered one is frozen', async () => {
  const instanceId = await buy('CS3');
  await untilAsked(instanceId, 'dead-letter resolve --delivered');
  await market.updateInstanceStatus(instanceId, 'FREEZE');
  await until(
    () => triesOf(instanceId),
    (n) => n === 2,
    { timeoutMs: 20_000, what: 'the freeze to be looked at' },
  );
  await untilAsked(instanceId, 'dead-letter resolve --delivered');
  const accessText = JSON.stringify({ frontEndUrl: 'https://by-hand.example/3' });
  await resolveDelivered(operator, { ...wanted('CS3'), accessText });
  await untilSettled(instanceId, 'frozen');
});

test('one that waits for a person is tried once and counts as no failure of the product', async () => {
  const instanceId = await buy('CS4');
  await untilAsked(instanceId, 'dead-letter resolve --delivered');
  expect(await triesOf(instanceId)).toBe(1);
  const failures =
    await system.sql`select failures_running from product_queues where failures_running > 0`;
  expect(failures).toEqual([]);
});
