import postgres from 'postgres';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type TestDatabase, createTestDatabase } from '../servers/database.ts';
import { queueStore } from '../servers/queue-store.ts';
import { type Process, type System, createSystem } from '../servers/system.ts';

let database: TestDatabase;
let system: System;
let api: Process;

beforeAll(async () => {
  database = await createTestDatabase();
  const { env } = queueStore(database.url);
  system = createSystem({ databaseUrl: database.url, tenantsUrl: database.tenantsUrl, env });
  [api] = await Promise.all([system.startApi(), system.startDispatcher(), system.startWorkers()]);
});

afterAll(async () => {
  await system?.stop();
  await database?.drop();
});

test('a signed purchase becomes a tenant that the buyer can log in to with what queryInstance shows', async () => {
  const product = await system.addProduct();
  const market = system.marketplace(product, api);

  const first = await market.newInstance({ orderId: 'CS1', orderLineId: 'CS1-000001' });
  expect(first).toMatchObject({ httpStatus: 200, resultCode: '000004', bodySignOk: true });
  expect(first.instanceId).toBeTruthy();

  const bought = await market.buy(
    { orderId: 'CS1', orderLineId: 'CS1-000001' },
    { retryEveryMs: 50, deadlineMs: 20_000 },
  );
  if (bought.outcome !== 'ready') throw new Error(`not ready: ${JSON.stringify(bought)}`);
  expect(bought.instanceId).toBe(first.instanceId);

  const { appInfo } = bought.info;
  const tenants = new URL(database.tenantsUrl);
  tenants.username = appInfo?.userName ?? '';
  tenants.password = appInfo?.password ?? '';
  const buyer = postgres(tenants.toString(), { max: 1, onnotice: () => undefined });
  try {
    await buyer`create table notes (text text)`;
    await buyer`insert into notes values ('mine')`;
    expect(await buyer`select text from notes`).toEqual([{ text: 'mine' }]);
  } finally {
    await buyer.end();
  }

  const again = await market.newInstance({ orderId: 'CS1', orderLineId: 'CS1-000001' });
  expect(again).toMatchObject({ resultCode: '000000', instanceId: first.instanceId });
});
