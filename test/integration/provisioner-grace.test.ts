import { randomBytes } from 'node:crypto';
import pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Database, createDatabase } from '../../db/client.ts';
import {
  type Tenant,
  type TenantSecret,
  type TenantsDatabase,
  openTenantsDatabase,
  prepareTenants,
} from '../../db/tenants.ts';
import { addKey } from '../../operations/add-key.ts';
import { addProduct } from '../../operations/add-product.ts';
import { type TestDatabase, createTestDatabase } from '../servers/database.ts';
import { queueStore } from '../servers/queue-store.ts';
import { type Process, type System, createSystem } from '../servers/system.ts';
import { until } from '../servers/until.ts';
import { openOperator } from './receiver-call.ts';

let database: TestDatabase;
let admin: Database;
let tenants: TenantsDatabase;
let system: System;
let api: Process;
let operator: ReturnType<typeof openOperator>;

beforeAll(async () => {
  database = await createTestDatabase();
  await prepareTenants({ homeUrl: database.url, tenantsUrl: database.tenantsUrl });
  admin = createDatabase({ url: database.tenantsUrl, applicationName: 'test', poolMax: 2 });
  tenants = openTenantsDatabase({
    url: database.tenantsUrl,
    applicationName: 'test-workers',
    poolMax: 2,
    leaseMs: 5_000,
    quota: { connectionsMax: 3, statementTimeoutMs: 2_000 },
  });
  const { env } = queueStore(database.url);
  system = createSystem({ databaseUrl: database.url, tenantsUrl: database.tenantsUrl, env });
  [api] = await Promise.all([system.startApi(), system.startDispatcher(), system.startWorkers()]);
  operator = openOperator(database.url, system.masterKey);
});

afterAll(async () => {
  await system?.stop();
  await Promise.all([operator?.db.close(), tenants?.close(), admin?.close()]);
  await database?.drop();
});

const secret: TenantSecret = {
  sealed: Buffer.from('sealed'),
  open: async () => 'pass-word-of-the-tenant',
};

let lastInstanceId = 1_000_000;

/** A tenant with a table in it, and what was made of it. */
async function makeTenant(graceMs: number) {
  lastInstanceId += 1;
  const tenant: Tenant = {
    instanceId: lastInstanceId,
    productKey: 'demo',
    publicId: `b-${lastInstanceId}`,
    generation: 1,
    desired: 'serving',
    graceMs,
  };
  const made = await tenants.apply(tenant, secret);
  if (made.kind !== 'ready') throw new Error(made.kind);
  const { role, password } = made;
  const buyer = await logIn(role, password);
  await buyer.query('create table notes (text text)');
  return { tenant, role, password, buyer };
}

async function logIn(user: string, password: string): Promise<pg.Client> {
  const { hostname, port, pathname } = new URL(database.tenantsUrl);
  const client = new pg.Client({
    host: hostname,
    port: Number(port),
    database: pathname.slice(1),
    user,
    password,
  });
  client.on('error', () => undefined);
  await client.connect();
  return client;
}

const tablesOf = async (role: string): Promise<number | 'no schema'> => {
  const { rows } = await admin.pool.query<{ n: number; isThere: boolean }>(
    `select count(*)::int as n, to_regnamespace($1) is not null as "isThere" from pg_tables where schemaname = $1`,
    [role],
  );
  return rows[0]?.isThere ? rows[0].n : 'no schema';
};

test('a release revokes the login and ends the sessions at once, and the schema goes when its time is over', async () => {
  const { tenant, role, password, buyer } = await makeTenant(1_500);
  const release = { ...tenant, generation: 2, desired: 'gone' } as const;
  const released = await tenants.apply(release, secret);
  expect(released.kind).toBe('leaving');
  await expect(buyer.query('select 1')).rejects.toThrow();
  await expect(logIn(role, password)).rejects.toThrow(/not permitted|password authentication/);
  expect(await tablesOf(role)).toBe(1);

  // The time runs from the first release, however often it is made, and with whatever grace.
  const leftMs = 'leftMs' in released ? released.leftMs : 0;
  expect(leftMs).toBeLessThanOrEqual(1_500);
  const again = await tenants.apply({ ...release, graceMs: 86_400_000 }, secret);
  expect('leftMs' in again ? again.leftMs : Infinity).toBeLessThan(leftMs);

  await until(
    () => tenants.apply(release, secret),
    ({ kind }) => kind === 'gone',
    { timeoutMs: 10_000, what: 'the end of the grace' },
  );
  expect(await tablesOf(role)).toBe('no schema');
  expect(await tenants.apply(release, secret)).toEqual({ kind: 'gone' });
});

test('what comes late in the time of grace brings nobody back in', async () => {
  const { tenant, role, password } = await makeTenant(86_400_000);
  await tenants.apply({ ...tenant, generation: 3, desired: 'gone' }, secret);
  expect(await tenants.apply({ ...tenant, generation: 2 }, secret)).toEqual({ kind: 'stale' });
  expect(await tenants.apply({ ...tenant, generation: 4 }, secret)).toEqual({
    kind: 'gone before',
  });
  await expect(logIn(role, password)).rejects.toThrow();
  expect(await tablesOf(role)).toBe(1);
});

test('without a grace, or with nothing there, a release leaves nothing to wait for', async () => {
  const { tenant, role } = await makeTenant(0);
  expect(await tenants.apply({ ...tenant, generation: 2, desired: 'gone' }, secret)).toEqual({
    kind: 'gone',
  });
  expect(await tablesOf(role)).toBe('no schema');
  lastInstanceId += 1;
  const unmade = { ...tenant, instanceId: lastInstanceId, publicId: 'never-made' };
  expect(await tenants.apply({ ...unmade, desired: 'gone', graceMs: 86_400_000 }, secret)).toEqual({
    kind: 'gone',
  });
});

test('a database of tenants from before is made ready, with the tenants that are in it', async () => {
  const older = await createTestDatabase();
  const client = new pg.Client({ connectionString: older.tenantsUrl });
  await client.connect();
  try {
    await client.query(`create schema latchkey; create table latchkey.tenants (instance_id bigint primary key,
      generation int not null, role text not null constraint tenants_role unique, secret bytea);
      insert into latchkey.tenants values (1, 1, 't_1', null)`);
    const urls = { homeUrl: older.url, tenantsUrl: older.tenantsUrl };
    await Promise.all([prepareTenants(urls), prepareTenants(urls)]);
    const { rows } = await client.query('select role, drop_at from latchkey.tenants');
    expect(rows).toEqual([{ role: 't_1', drop_at: null }]);
  } finally {
    await client.end();
    await older.drop();
  }
});

test('a released instance waits as a timer, is dropped when that is due, and then nothing is left', async () => {
  const key = `p-${randomBytes(4).toString('hex')}`;
  const accessKey = 'key-of-the-marketplace';
  await addProduct(operator, {
    key,
    name: key,
    provisioner: 'postgres-schema',
    releaseGraceDays: 30,
  });
  await addKey(operator, { product: key, class: 'base', secret: accessKey });
  const callbackUrl = () => `http://127.0.0.1:${api.port}/callbacks/${key}`;
  const market = system.marketplace({ key, accessKey, callbackUrl }, api);
  const bought = await market.buy(
    { orderId: 'CS1', orderLineId: 'CS1-1' },
    { retryEveryMs: 50, deadlineMs: 20_000 },
  );
  if (bought.outcome !== 'ready') throw new Error(`not ready: ${JSON.stringify(bought)}`);
  const { instanceId } = bought;
  const role = bought.info.appInfo?.userName ?? '';

  await market.releaseInstance(instanceId);
  const { sql } = system;
  const rowOf = () => sql<
    {
      id: number;
      state: string;
      dispatch: string | null;
      days: number | null;
      open: number | null;
    }[]
  >`select i.id::int, i.state, d.state as dispatch, d.open_events as open,
      (extract(epoch from d.due_at - now()) / 86400)::float8 as days
    from instances i left join dispatches d on d.instance_id = i.id where i.public_id = ${instanceId}`;
  const [waiting] = await until(rowOf, ([row]) => row?.dispatch === 'timed', {
    timeoutMs: 20_000,
    what: 'the timer',
  });
  expect(waiting).toMatchObject({ state: 'released', open: 0 });
  expect(waiting?.days).toBeGreaterThan(29.9);
  expect(waiting?.days).toBeLessThanOrEqual(30);
  expect(await tablesOf(role)).toBe(0);
  await expect(logIn(role, bought.info.appInfo?.password ?? '')).rejects.toThrow();
  expect(await market.queryInstance([instanceId])).toMatchObject({ resultCode: '000003' });
  expect(await market.releaseInstance(instanceId)).toMatchObject({ resultCode: '000000' });

  // Due too early it waits on; what stands beside the tenant decides.
  const id = waiting?.id ?? 0;
  await sql`update dispatches set due_at = now() where instance_id = ${id}`;
  await until(
    () =>
      sql<
        { n: number }[]
      >`select count(*)::int as n from attempts where instance_id = ${id} and class = 'applied'`,
    ([row]) => row?.n === 3,
    { timeoutMs: 20_000, what: 'the early look' },
  );
  expect((await rowOf())[0]).toMatchObject({ dispatch: 'timed' });
  expect(await tablesOf(role)).toBe(0);

  await admin.pool.query(`update latchkey.tenants set drop_at = now() where instance_id = $1`, [
    id,
  ]);
  await sql`update dispatches set due_at = now() where instance_id = ${id}`;
  await until(rowOf, ([row]) => row?.dispatch === null, { timeoutMs: 20_000, what: 'the end' });
  expect((await rowOf())[0]).toMatchObject({ state: 'released' });
  expect(await tablesOf(role)).toBe('no schema');
});
