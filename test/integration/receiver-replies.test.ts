import { randomBytes, randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Marketplace } from '../../simulator/marketplace.ts';
import { type TestDatabase, createTestDatabase } from '../servers/database.ts';
import { queueStore } from '../servers/queue-store.ts';
import { type Process, type System, type TestProduct, createSystem } from '../servers/system.ts';
import { until } from '../servers/until.ts';
import { openOperator } from './receiver-call.ts';

// Nothing applies here: what an instance is is written by the test, as the workers would leave it.
let database: TestDatabase;
let system: System;
let api: Process;
let product: TestProduct;
let market: Marketplace;
let operator: ReturnType<typeof openOperator>;

beforeAll(async () => {
  database = await createTestDatabase();
  const { env } = queueStore(database.url);
  system = createSystem({ databaseUrl: database.url, tenantsUrl: database.tenantsUrl, env });
  api = await system.startApi();
  product = await system.addProduct();
  market = system.marketplace(product, api);
  operator = openOperator(database.url, system.masterKey);
});

afterAll(async () => {
  await system?.stop();
  await operator?.db.close();
  await database?.drop();
});

const access = {
  frontEndUrl: 'https://shop.example/t/1',
  adminUrl: 'https://shop.example/admin',
  userName: 'admin',
  password: 'pass-3f9a',
  memo: '首次登录',
};

type Situation =
  | 'pending'
  | 'dead'
  | 'active'
  | 'frozen'
  | 'released'
  | 'released, never applied'
  | 'release not yet applied'
  | 'refused';

const newOrder = () => {
  const orderId = `CS${randomBytes(5).toString('hex')}`;
  return { orderId, orderLineId: `${orderId}-1` };
};

/** Buys, and leaves the instance as it would be in that situation. */
async function bring(situation: Situation) {
  const order = newOrder();
  const { instanceId = '' } = await market.newInstance(order);
  const [row] = await system.sql<{ id: number; product: number }[]>`
    select id::int, product_id as product from instances where public_id = ${instanceId}`;
  if (!row) throw new Error('not stored');
  const { id } = row;
  const { sql } = system;
  const setState = async (state: string, more: Record<string, unknown> = {}) => {
    await sql`update instances set ${sql({ state, applied: 1, ...more })} where id = ${id}`;
    await sql`update events set applied_at = now(), outcome = 'applied' where instance_id = ${id}`;
    await sql`delete from dispatches where instance_id = ${id}`;
  };
  const sealAccess = () =>
    operator.keyring.seal(
      `product/${row.product}`,
      JSON.stringify(access),
      `instances/access_enc/${id}`,
    );
  switch (situation) {
    case 'pending':
      break;
    case 'dead':
      await sql`update dispatches set state = 'dead', due_at = null, cause = 'x' where instance_id = ${id}`;
      break;
    case 'active':
      await setState('active', { access_enc: await sealAccess() });
      break;
    case 'frozen':
      await setState('frozen', { access_enc: await sealAccess(), wanted: 'frozen' });
      break;
    case 'released':
      await setState('released', { wanted: 'released', applied: 2 });
      break;
    case 'released, never applied':
      await setState('released', { wanted: 'released', applied: 2 });
      break;
    case 'release not yet applied':
      await market.releaseInstance(instanceId);
      break;
    case 'refused':
      await setState('refused', { wanted: 'released', applied: 0, result_code: '000106' });
      break;
  }
  return { id, order, instanceId };
}

describe('newInstance answers the same id', () => {
  test.each<[Situation, string]>([
    ['pending', '000004'],
    ['dead', '000004'],
    ['active', '000000'],
    ['frozen', '000000'],
    ['released', '000000'],
    ['released, never applied', '000000'],
    ['release not yet applied', '000004'],
    ['refused', '000106'],
  ])('%s: %s', async (situation, resultCode) => {
    const { order, instanceId } = await bring(situation);
    const again = await market.newInstance(order);
    expect(again).toMatchObject({ httpStatus: 200, resultCode, instanceId, bodySignOk: true });
  });

  test('a refusal without a code of its own is 000104', async () => {
    const { id, order, instanceId } = await bring('refused');
    await system.sql`update instances set result_code = null where id = ${id}`;
    expect(await market.newInstance(order)).toMatchObject({ resultCode: '000104', instanceId });
  });

  test('re-sent under another business id too, which nobody else loses by it', async () => {
    const { order, instanceId } = await bring('pending');
    const businessId = randomUUID();
    expect(await market.newInstance({ ...order, businessId })).toMatchObject({ instanceId });
    expect(await market.newInstance({ ...newOrder(), businessId })).toMatchObject({
      instanceId: businessId,
    });
  });

  test('two lines of one order are two instances', async () => {
    const order = newOrder();
    const first = await market.newInstance(order);
    const second = await market.newInstance({ ...order, orderLineId: `${order.orderId}-2` });
    expect(first.instanceId).not.toBe(second.instanceId);
  });

  test('the same order at another product is another instance', async () => {
    const elsewhere = system.marketplace(await system.addProduct(), api);
    const order = newOrder();
    const businessId = randomUUID();
    const here = await market.newInstance({ ...order, businessId });
    const there = await elsewhere.newInstance({ ...order, businessId });
    // Ids are unique within a product, so both have the one proposed.
    expect([here.instanceId, there.instanceId]).toEqual([businessId, businessId]);
    expect(
      await elsewhere.queryInstance((await market.newInstance(newOrder())).instanceId ?? ''),
    ).toMatchObject({ resultCode: '000003' });
  });
});

describe('a business id that is another order’s already', () => {
  test('the order gets an instance under an id of ours, the same one each time', async () => {
    const businessId = randomUUID();
    const [taken, late] = [newOrder(), newOrder()];
    await market.newInstance({ ...taken, businessId });
    const first = await market.newInstance({ ...late, businessId });
    expect(first.resultCode).toBe('000004');
    expect(first.instanceId).toMatch(/^.{1,64}$/);
    expect(first.instanceId).not.toBe(businessId);
    const again = await market.newInstance({ ...late, businessId });
    expect(again.instanceId).toBe(first.instanceId);
  });

  test('twenty orders with one business id at once: twenty instances', async () => {
    const businessId = randomUUID();
    const replies = await Promise.all(
      Array.from({ length: 20 }, () => market.newInstance({ ...newOrder(), businessId })),
    );
    expect(replies.map(({ resultCode }) => resultCode)).toEqual(Array(20).fill('000004'));
    const ids = replies.map(({ instanceId }) => instanceId);
    expect(new Set(ids).size).toBe(20);
    expect(ids).toContain(businessId);
  });
});

describe('queryInstance', () => {
  const ask = async (...situations: Situation[]) => {
    const instances = await Promise.all(situations.map(bring));
    const ids = instances.map(({ instanceId }) => instanceId);
    return { ids, reply: await market.queryInstance(ids) };
  };

  test.each<Situation>(['active', 'frozen'])('%s shows its access data', async (situation) => {
    const { ids, reply } = await ask(situation);
    expect(reply).toMatchObject({ resultCode: '000000', bodySignOk: true });
    expect(reply.info).toEqual([{ instanceId: ids[0], appInfo: access }]);
    expect(reply.rawBody).toMatch(/^[\x20-\x7e]*$/);
  });

  test.each<Situation>(['released', 'refused'])('%s is no instance any more', async (situation) => {
    const { reply } = await ask(situation);
    expect(reply).toMatchObject({ resultCode: '000003' });
    expect(reply.rawBody).not.toContain('info');
  });

  test.each<Situation>(['pending', 'dead', 'release not yet applied'])(
    '%s is in process',
    async (situation) => {
      const { reply } = await ask(situation);
      expect(reply).toMatchObject({ resultCode: '000004' });
      expect(reply.rawBody).not.toContain('info');
    },
  );

  test('of many only the ready ones are shown, in the order asked', async () => {
    const { ids, reply } = await ask('pending', 'frozen', 'released', 'active', 'refused');
    expect(reply.resultCode).toBe('000000');
    expect(reply.info?.map(({ instanceId }) => instanceId)).toEqual([ids[1], ids[3]]);
  });

  test('none ready, one pending: in process; none pending: unknown', async () => {
    expect((await ask('refused', 'pending', 'released')).reply.resultCode).toBe('000004');
    expect((await ask('refused', 'released')).reply.resultCode).toBe('000003');
  });

  test('an id asked twice, and one that nobody has', async () => {
    const { instanceId } = await bring('active');
    const reply = await market.queryInstance(`${instanceId}, ${instanceId},${randomUUID()}`);
    expect(reply.info?.map((each) => each.instanceId)).toEqual([instanceId]);
  });

  test('an alias shows the access data of the instance that it stands for', async () => {
    const [first, second] = await Promise.all([bring('active'), bring('active')]);
    await system.sql`update instances set alias_of = ${first.id}, access_enc = null where id = ${second.id}`;
    const reply = await market.queryInstance(second.instanceId);
    expect(reply.info).toEqual([{ instanceId: second.instanceId, appInfo: access }]);
  });
});

describe('events', () => {
  const say = (instanceId: string) => ({
    freeze: () => market.updateInstanceStatus(instanceId, 'FREEZE'),
    unfreeze: () => market.updateInstanceStatus(instanceId, 'UNFREEZE'),
    renew: () =>
      market.refreshInstance({
        instanceId,
        ...newOrder(),
        scene: 'RENEWAL',
        expireTime: '20300101000000',
      }),
    upgrade: () => market.upgradeInstance({ instanceId, ...newOrder() }),
    release: () => market.releaseInstance(instanceId),
    check: () => market.changeInstanceCheck(instanceId, { productId: 'p' }),
  });
  const all = async (instanceId: string) => {
    const calls = say(instanceId);
    const codes: Record<string, string> = {};
    for (const [name, call] of Object.entries(calls)) codes[name] = (await call()).resultCode;
    return codes;
  };
  const none = { freeze: '000003', unfreeze: '000003', renew: '000003', upgrade: '000003' };

  test('of an instance that nobody has: 000003, a release too', async () => {
    expect(await all(randomUUID())).toEqual({ ...none, release: '000003', check: '000003' });
  });

  test.each<Situation>(['released', 'released, never applied', 'refused'])(
    '%s: 000003, but a release is done already',
    async (situation) => {
      const { id, instanceId } = await bring(situation);
      expect(await all(instanceId)).toEqual({ ...none, release: '000000', check: '000003' });
      const [counted] =
        await system.sql`select count(*)::int as n from events where instance_id = ${id}`;
      expect(counted?.['n']).toBe(1);
    },
  );

  test('after a release that is not yet applied everything else comes too late', async () => {
    const { instanceId } = await bring('release not yet applied');
    const { check: _, ...codes } = await all(instanceId);
    expect(codes).toEqual({ ...none, release: '000000' });
  });

  test('a check of an instance that serves is allowed', async () => {
    const { instanceId } = await bring('active');
    expect((await say(instanceId).check()).resultCode).toBe('000000');
  });

  test.each<Situation>(['pending', 'dead', 'active', 'frozen'])(
    '%s: each is accepted once, a re-send changes nothing',
    async (situation) => {
      const { id, instanceId } = await bring(situation);
      const facts = [
        say(instanceId).unfreeze,
        say(instanceId).freeze,
        () => renewOnce(instanceId),
        () => market.upgradeInstance({ instanceId, orderId: 'U1', orderLineId: 'U1-1' }),
        say(instanceId).release,
      ];
      const count = async () => {
        const [row] =
          await system.sql`select count(*)::int as n from events where instance_id = ${id}`;
        return Number(row?.['n']);
      };
      for (const fact of facts) {
        expect((await fact()).resultCode).toBe('000000');
        const before = await count();
        expect((await fact()).resultCode).toBe('000000');
        expect(await count()).toBe(before);
      }
      const events =
        await system.sql`select kind from events where instance_id = ${id} order by id`;
      const expected = ['created', 'unfrozen', 'frozen', 'renewed', 'upgraded', 'released'];
      // What serves already is not unfrozen.
      if (situation !== 'frozen') expected.splice(1, 1);
      expect(events.map(({ kind }) => kind as string)).toEqual(expected);
    },
  );

  test('a refund under the renewal’s own order is another fact than the renewal', async () => {
    const { id, instanceId } = await bring('active');
    await renewOnce(instanceId);
    await renewOnce(instanceId, 'UNSUBSCRIBE_RENEWAL_PERIOD');
    const events = await system.sql`
      select dedup_key as key from events where instance_id = ${id} and kind = 'renewed' order by id`;
    expect(events.map(({ key }) => key as string)).toEqual([
      'renew/RENEWAL/R1/R1-1',
      'renew/UNSUBSCRIBE_RENEWAL_PERIOD/R1/R1-1',
    ]);
  });

  test('a known renewal re-sent after the release is done, a new one comes too late', async () => {
    const { instanceId } = await bring('active');
    await renewOnce(instanceId);
    await market.releaseInstance(instanceId);
    expect((await renewOnce(instanceId)).resultCode).toBe('000000');
    expect((await renewOnce(instanceId, 'UNSUBSCRIBE_RENEWAL_PERIOD')).resultCode).toBe('000003');
  });

  function renewOnce(
    instanceId: string,
    scene: 'RENEWAL' | 'UNSUBSCRIBE_RENEWAL_PERIOD' = 'RENEWAL',
  ) {
    const order = { orderId: 'R1', orderLineId: 'R1-1' };
    return market.refreshInstance({ instanceId, ...order, scene, expireTime: '20300101000000' });
  }
});

describe('what is kept', () => {
  test('equal answers in a row are one line with a count', async () => {
    const { id, order, instanceId } = await bring('pending');
    for (let poll = 0; poll < 4; poll += 1) await market.queryInstance(instanceId);
    await market.newInstance(order);
    const lines = () => system.sql<{ activity: string; code: string; times: number }[]>`
      select activity, result_code as code, times from replies where instance_id = ${id}
      order by activity, first_at`;
    await until(
      async () => (await lines()).map((each) => ({ ...each })),
      [
        { activity: 'newInstance', code: '000004', times: 2 },
        { activity: 'queryInstance', code: '000004', times: 4 },
      ],
    );
    // And over flushes: a further equal answer is counted there, another one begins a new line.
    await market.queryInstance(instanceId);
    await until(async () => (await lines()).map(({ times }) => times), [2, 5]);
    await system.sql`update instances set state = 'released', wanted = 'released' where id = ${id}`;
    await market.queryInstance(instanceId);
    await market.newInstance(order);
    await until(
      async () => (await lines()).map(({ code, times }) => `${code} ${times}`),
      ['000004 2', '000000 1', '000004 5', '000003 1'],
    );
  });

  test('evidence is sealed: it shows nothing, and opens to exactly the bytes that were signed', async () => {
    const order = newOrder();
    const reply = await market.newInstance(order);
    const [row] = await system.sql<{ id: string; body: Buffer }[]>`
      select c.id, c.body from callbacks c join instances i on i.first_callback = c.id
      where i.order_id = ${order.orderId}`;
    if (!row) throw new Error('no evidence');
    expect(row.body.includes(order.orderId)).toBe(false);
    expect(row.body.includes('newInstance')).toBe(false);
    const opened = await operator.keyring.open(row.body, `callbacks/body/${row.id}`);
    expect(opened.toString()).toBe(reply.call.body);
    await expect(
      operator.keyring.open(row.body, `callbacks/body/${randomUUID()}`),
    ).rejects.toThrow();
  });

  test('evidence names who signed it, under the key of its month', async () => {
    const order = newOrder();
    await market.newInstance(order);
    const [row] = await system.sql`
      select c.product_id = k.product_id as same, c.family, c.activity, c.order_key as key
      from callbacks c join product_keys k on k.id = c.key_id where c.order_key = ${`${order.orderId}/${order.orderLineId}`}`;
    expect({ ...row }).toEqual({
      same: true,
      family: 'saas-v2',
      activity: 'newInstance',
      key: `${order.orderId}/${order.orderLineId}`,
    });
    const scopes = await system.sql`select scope from data_keys`;
    const month = new Date().toISOString().slice(0, 7);
    expect(scopes.some(({ scope }) => String(scope).endsWith(`/${month}`))).toBe(true);
  });

  test('refusals are counted, so that the seller can read why', async () => {
    await market.send({ activity: 'newInstance' });
    await market.send({ activity: 'newInstance' });
    await market.send('{}', { tamper: 'signature' });
    const rows = () => system.sql`
      select result_code as code, reason, sum(times)::int as times from refusals
      group by 1, 2 order by 1`;
    await until(
      async () => (await rows()).map((each) => ({ ...each })),
      [
        {
          code: '000001',
          reason: 'not signed with your only active key; body forms tried: raw, sorted',
          times: 1,
        },
        { code: '000002', reason: 'orderId is missing', times: 2 },
      ],
    );
  });
});
