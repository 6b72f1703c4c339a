import { randomBytes } from 'node:crypto';
import postgres from 'postgres';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Marketplace, Reply } from '../../simulator/marketplace.ts';
import { type SellerBackend, createSellerBackend } from '../../simulator/seller-backend.ts';
import { type TestDatabase, createTestDatabase } from '../servers/database.ts';
import { queueStore } from '../servers/queue-store.ts';
import { type Process, type System, createSystem } from '../servers/system.ts';
import { until } from '../servers/until.ts';

let database: TestDatabase;
let system: System;
let api: Process;
let backend: SellerBackend;
const httpSecret = `whsec_${randomBytes(24).toString('base64')}`;
const markets: Partial<Record<ProvisionerName, Marketplace>> = {};

type ProvisionerName = 'http' | 'postgres-schema';
const provisioners: ProvisionerName[] = ['http', 'postgres-schema'];

beforeAll(async () => {
  database = await createTestDatabase();
  const { env } = queueStore(database.url);
  system = createSystem({ databaseUrl: database.url, tenantsUrl: database.tenantsUrl, env });
  backend = createSellerBackend({ secrets: [httpSecret] });
  const httpUrl = await backend.listen();
  [api] = await Promise.all([system.startApi(), system.startDispatcher(), system.startWorkers()]);
  markets.http = system.marketplace(
    await system.addProduct({ provisioner: 'http', httpUrl, httpSecret }),
    api,
  );
  markets['postgres-schema'] = system.marketplace(await system.addProduct(), api);
});

afterAll(async () => {
  await system?.stop();
  await backend?.close();
  await database?.drop();
});

function marketOf(name: ProvisionerName): Marketplace {
  const market = markets[name];
  if (!market) throw new Error('not set up');
  return market;
}

type Ready = {
  instanceId: string;
  orderId: string;
  userName: string;
  password: string;
};

async function buyReady(name: ProvisionerName): Promise<Ready> {
  const orderId = `CS${randomBytes(5).toString('hex')}`;
  const bought = await marketOf(name).buy(
    { orderId, orderLineId: `${orderId}-1` },
    { retryEveryMs: 30, deadlineMs: 30_000 },
  );
  if (bought.outcome !== 'ready') throw new Error(JSON.stringify(bought));
  const { userName = '', password = '' } = bought.info.appInfo ?? {};
  return { instanceId: bought.instanceId, orderId, userName, password };
}

async function readInstance({ instanceId }: Pick<Ready, 'instanceId'>) {
  const [row] = await system.sql<
    {
      state: string;
      applied: number;
      expires: string | null;
      open: number;
      dispatch: string | null;
      events: number;
    }[]
  >`select i.state, i.applied, to_char(i.expires_at at time zone 'UTC', 'YYYYMMDDHH24MISS') as expires,
      (select count(*)::int from events e where e.instance_id = i.id and e.applied_at is null) as open,
      (select count(*)::int from events e where e.instance_id = i.id) as events,
      d.state as dispatch
    from instances i left join dispatches d on d.instance_id = i.id where public_id = ${instanceId}`;
  if (!row) throw new Error('there is no such instance');
  return row;
}

/** Waits until nothing is open that can be applied. */
const untilApplied = (at: Pick<Ready, 'instanceId'>, generation: number) =>
  until(
    async () => {
      const { applied, dispatch } = await readInstance(at);
      return { applied, atRest: dispatch === null || dispatch === 'timed' };
    },
    { applied: generation, atRest: true },
    { timeoutMs: 30_000 },
  );

/** Whether the buyer can use it, asked where the effect is. */
async function canLogIn(name: ProvisionerName, at: Ready): Promise<boolean> {
  if (name === 'http') {
    const instance = backend.instances.get(at.instanceId);
    return instance?.exists === true && instance.desired['frozen'] === false;
  }
  const url = new URL(database.tenantsUrl);
  url.username = at.userName;
  url.password = at.password;
  const buyer = postgres(url.toString(), { max: 1, onnotice: () => undefined, connect_timeout: 5 });
  try {
    await buyer`select 1`;
    return true;
  } catch (error) {
    // Refused by the server; anything else is a fault of the test.
    if (error instanceof postgres.PostgresError && error.code.startsWith('28')) return false;
    throw error;
  } finally {
    await buyer.end({ timeout: 1 });
  }
}

const codesOf = (replies: readonly Reply[]) => [...new Set(replies.map((each) => each.resultCode))];
const fifty = (call: () => Promise<Reply>) => Promise.all(Array.from({ length: 50 }, call));
const renewalOf = (at: Ready, expireTime: string, order = 'R1') => ({
  instanceId: at.instanceId,
  orderId: `${at.orderId}-${order}`,
  orderLineId: `${at.orderId}-${order}-1`,
  scene: 'RENEWAL' as const,
  expireTime,
});

describe.each(provisioners)('%s', (name) => {
  test('freeze, unfreeze, renew, refund, release: each is made real, once, under a higher generation', async () => {
    const market = marketOf(name);
    const at = await buyReady(name);
    expect(await canLogIn(name, at)).toBe(true);
    const steps: {
      call: () => Promise<Reply>;
      state: string;
      serves: boolean;
      expires?: string;
    }[] = [
      {
        call: () => market.updateInstanceStatus(at.instanceId, 'FREEZE'),
        state: 'frozen',
        serves: false,
      },
      {
        call: () => market.updateInstanceStatus(at.instanceId, 'UNFREEZE'),
        state: 'active',
        serves: true,
      },
      {
        call: () => market.refreshInstance(renewalOf(at, '20300101000000')),
        state: 'active',
        serves: true,
        expires: '20300101000000',
      },
      {
        call: () =>
          market.refreshInstance({
            ...renewalOf(at, '20290101000000999'),
            scene: 'UNSUBSCRIBE_RENEWAL_PERIOD',
          }),
        state: 'active',
        serves: true,
        expires: '20290101000000',
      },
      {
        call: () => market.updateInstanceStatus(at.instanceId, 'FREEZE'),
        state: 'frozen',
        serves: false,
      },
      { call: () => market.releaseInstance(at.instanceId), state: 'released', serves: false },
    ];
    let generation = 1;
    for (const { call, state, serves, expires } of steps) {
      generation += 1;
      expect(codesOf(await fifty(call))).toEqual(['000000']);
      await untilApplied(at, generation);
      const after = await readInstance(at);
      expect(after).toMatchObject({ state, events: generation, open: 0, dispatch: null });
      if (expires !== undefined) expect(after.expires).toBe(expires);
      expect(await canLogIn(name, at)).toBe(serves);
      // Fifty more change nothing.
      expect(codesOf(await fifty(call))).toEqual(['000000']);
      expect(await readInstance(at)).toEqual(after);
    }
    expect((await market.queryInstance(at.instanceId)).resultCode).toBe('000003');
    expect((await market.refreshInstance(renewalOf(at, '20310101000000', 'R2'))).resultCode).toBe(
      '000003',
    );
    const [kept] = await system.sql`
      select access_enc is null as gone from instances where public_id = ${at.instanceId}`;
    expect(kept?.['gone']).toBe(true);
  });

  test('frozen, the buyer still reads his access data; served again it is the same', async () => {
    const market = marketOf(name);
    const at = await buyReady(name);
    const before = (await market.queryInstance(at.instanceId)).info;
    await market.updateInstanceStatus(at.instanceId, 'FREEZE');
    await untilApplied(at, 2);
    expect((await market.queryInstance(at.instanceId)).info).toEqual(before);
    await market.updateInstanceStatus(at.instanceId, 'UNFREEZE');
    await untilApplied(at, 3);
    expect((await market.queryInstance(at.instanceId)).info).toEqual(before);
  });

  test('a release before anything was made: no tenant, and the order keeps its answer', async () => {
    const market = marketOf(name);
    const orderId = `CS${randomBytes(5).toString('hex')}`;
    const order = { orderId, orderLineId: `${orderId}-1` };
    const { instanceId = '' } = await market.newInstance(order);
    expect((await market.releaseInstance(instanceId)).resultCode).toBe('000000');
    await until(async () => (await readInstance({ instanceId })).state, 'released', {
      timeoutMs: 30_000,
    });
    await until(async () => (await readInstance({ instanceId })).dispatch, null);
    expect(await market.newInstance(order)).toMatchObject({ resultCode: '000000', instanceId });
    expect((await readInstance({ instanceId })).applied).toBe(2);
    if (name === 'http') expect(backend.instances.get(instanceId)?.exists ?? false).toBe(false);
  });

  test('an upgrade waits for its order, neither applied nor dead, and a freeze after it applies', async () => {
    const market = marketOf(name);
    const at = await buyReady(name);
    const upgrade = { orderId: `${at.orderId}-U`, orderLineId: `${at.orderId}-U-1` };
    const upgradeOnce = () => market.upgradeInstance({ instanceId: at.instanceId, ...upgrade });
    expect(codesOf(await fifty(upgradeOnce))).toEqual(['000000']);
    await until(async () => (await readInstance(at)).dispatch, 'timed', { timeoutMs: 30_000 });
    expect(await readInstance(at)).toMatchObject({
      state: 'active',
      applied: 1,
      events: 2,
      open: 1,
    });

    await market.updateInstanceStatus(at.instanceId, 'FREEZE');
    await untilApplied(at, 2);
    expect(await readInstance(at)).toMatchObject({
      state: 'frozen',
      events: 3,
      open: 1,
      dispatch: 'timed',
    });
    expect(await canLogIn(name, at)).toBe(false);

    // A release ends it: nothing is left to be looked up.
    await market.releaseInstance(at.instanceId);
    await until(async () => (await readInstance(at)).state, 'released', { timeoutMs: 30_000 });
    await until(async () => (await readInstance(at)).dispatch, null);
    expect((await readInstance(at)).open).toBe(0);
  });

  test.each(['TRIAL_TO_FORMAL', 'RENEWAL_CHANGE'] as const)(
    '%s: its period is applied at once, its plan waits, and a freeze after it applies',
    async (scene) => {
      const market = marketOf(name);
      const at = await buyReady(name);
      const renewal = { ...renewalOf(at, '20300601000000'), scene, productId: 'P2' };
      expect((await market.refreshInstance(renewal)).resultCode).toBe('000000');
      await untilApplied(at, 2);
      expect(await readInstance(at)).toMatchObject({
        state: 'active',
        expires: '20300601000000',
        open: 1,
        dispatch: 'timed',
      });
      expect(await canLogIn(name, at)).toBe(true);
      await market.updateInstanceStatus(at.instanceId, 'FREEZE');
      await untilApplied(at, 3);
      expect(await readInstance(at)).toMatchObject({ state: 'frozen', open: 1, dispatch: 'timed' });
      expect(await canLogIn(name, at)).toBe(false);
    },
  );
});

describe('what the seller’s backend is told', () => {
  test('the whole desired state at each PUT, the period in it, and DELETE at the end', async () => {
    const market = marketOf('http');
    const at = await buyReady('http');
    await market.refreshInstance(renewalOf(at, '20300101123000'));
    await untilApplied(at, 2);
    expect(backend.instances.get(at.instanceId)).toMatchObject({
      generation: 2,
      created: 1,
      desired: {
        exists: true,
        frozen: false,
        expiresAt: '2030-01-01T12:30:00.000Z',
        trial: null,
        plan: null,
      },
    });
    await market.updateInstanceStatus(at.instanceId, 'FREEZE');
    await untilApplied(at, 3);
    expect(backend.instances.get(at.instanceId)?.desired).toMatchObject({
      frozen: true,
      expiresAt: '2030-01-01T12:30:00.000Z',
    });
    await market.releaseInstance(at.instanceId);
    await untilApplied(at, 4);
    const calls = backend.requests.filter((each) => each.instanceId === at.instanceId);
    expect(calls.map(({ method, generation }) => `${method} ${generation}`)).toEqual([
      'PUT 1',
      'PUT 2',
      'PUT 3',
      'DELETE 4',
    ]);
    expect(calls[1]?.orderIds).toEqual([`${at.orderId}-R1`]);
  });

  test('facts that come together are one PUT of the last state', async () => {
    const market = marketOf('http');
    backend.setMode({ kind: 'late', delayMs: 400, times: 1 });
    const orderId = `CS${randomBytes(5).toString('hex')}`;
    const { instanceId = '' } = await market.newInstance({ orderId, orderLineId: '1' });
    await until(() => backend.requests.some((each) => each.instanceId === instanceId), true);
    const at = { instanceId, orderId, userName: '', password: '' };
    await market.updateInstanceStatus(instanceId, 'FREEZE');
    await market.refreshInstance(renewalOf(at, '20300101000000'));
    await market.updateInstanceStatus(instanceId, 'UNFREEZE');
    await untilApplied(at, 4);
    const calls = backend.requests.filter((each) => each.instanceId === instanceId);
    expect(calls.map(({ generation }) => generation)).toEqual([1, 4]);
    expect(backend.instances.get(instanceId)?.desired).toMatchObject({
      frozen: false,
      expiresAt: '2030-01-01T00:00:00.000Z',
    });
  });

  test('a new fact at once, though the last try asked for an hour', async () => {
    const market = marketOf('http');
    backend.setMode({ kind: 'throttle', retryAfterSeconds: 3_600, times: 1 });
    const orderId = `CS${randomBytes(5).toString('hex')}`;
    const { instanceId = '' } = await market.newInstance({ orderId, orderLineId: '1' });
    await until(async () => (await readInstance({ instanceId })).dispatch, 'failing', {
      timeoutMs: 20_000,
    });
    const [waiting] = await system.sql`
      select d.retry_at > now() + interval '50 minutes' as "forAnHour" from dispatches d
      join instances i on i.id = d.instance_id where public_id = ${instanceId}`;
    expect(waiting?.['forAnHour']).toBe(true);
    await market.updateInstanceStatus(instanceId, 'FREEZE');
    await until(async () => (await readInstance({ instanceId })).applied, 2, { timeoutMs: 3_000 });
    expect(await readInstance({ instanceId })).toMatchObject({ state: 'frozen', open: 0 });
  });

  test('nothing that breaks the contract', () => {
    expect(backend.problems).toEqual([]);
  });
});

test('the tenants’ database has a role and a schema for what serves and none for what was released', async () => {
  const market = marketOf('postgres-schema');
  const [kept, gone] = await Promise.all([
    buyReady('postgres-schema'),
    buyReady('postgres-schema'),
  ]);
  await market.releaseInstance(gone.instanceId);
  await untilApplied(gone, 2);
  const tenants = postgres(database.tenantsUrl, { max: 1, onnotice: () => undefined });
  try {
    const roles = await tenants`
      select rolname as name from pg_roles where rolname in (${kept.userName}, ${gone.userName})`;
    expect(roles.map((role) => role['name'] as string)).toEqual([kept.userName]);
    const schemas = await tenants`
      select nspname as name from pg_namespace where nspname in (${kept.userName}, ${gone.userName})`;
    expect(schemas.map((schema) => schema['name'] as string)).toEqual([kept.userName]);
  } finally {
    await tenants.end({ timeout: 1 });
  }
});
