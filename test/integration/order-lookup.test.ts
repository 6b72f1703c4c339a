import { createServer } from 'node:http';
import { once } from 'node:events';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { setProduct } from '../../operations/set-product.ts';
import { createOrder } from '../../simulator/mock-orders.ts';
import type { OpenApiMode } from '../../simulator/open-api.ts';
import { type TestDatabase, createTestDatabase } from '../servers/database.ts';
import { queueStore } from '../servers/queue-store.ts';
import { type Process, type System, createSystem } from '../servers/system.ts';
import { until } from '../servers/until.ts';
import { runCli } from './cli-run.ts';
import { type Rig, createRig, readLife, withOperations } from './order-lookup-rig.ts';

const perSecond = 5;
let database: TestDatabase;
let system: System;
let api: Process;
const rigs: Rig[] = [];

beforeAll(async () => {
  database = await createTestDatabase();
  const { env } = queueStore(database.url);
  system = createSystem({ databaseUrl: database.url, tenantsUrl: database.tenantsUrl, env });
  const workers = { ORDER_QUERY_PER_SECOND: String(perSecond) };
  [api] = await Promise.all([
    system.startApi(),
    system.startDispatcher(),
    system.startWorkers(workers),
    system.startWorkers(workers),
  ]);
});

afterAll(async () => {
  await system?.stop();
  await database?.drop();
});

afterEach(async () => {
  await Promise.all(rigs.splice(0).map((rig) => rig.close()));
});

async function rigOf(options?: Parameters<typeof createRig>[2]): Promise<Rig> {
  const rig = await createRig(system, api, options);
  rigs.push(rig);
  return rig;
}

const lifeOf = (publicId: string) => readLife(system, publicId);

async function untilLife(publicId: string, like: object, timeoutMs = 15_000) {
  return until(
    () => lifeOf(publicId),
    (life) => {
      expect(life).toMatchObject(like);
      return true;
    },
    { timeoutMs, what: `${publicId} in the database` },
  );
}

const year = { type: 'year', number: 1 };
const plan = { productId: 'OFFI0000000000001', quantity: 10, period: year };

describe('a purchase that is looked up', () => {
  test('is made with plan, period and trial of its order, asked for once and kept sealed', async () => {
    const rig = await rigOf();
    const bought = await rig.buy('MOCKPERIODYEARNEW');
    await rig.untilThere(bought, {
      desired: { exists: true, trial: false, plan, expiresAt: '2027-11-01T15:59:59.000Z' },
    });
    const trial = await rig.buy('MOCKPERIODDAYTRIAL');
    await rig.untilThere(trial, {
      desired: { trial: true, plan: { period: { type: 'day', number: 7 } } },
    });
    const done = await untilLife(bought, { state: 'active', queue: null });
    expect(done?.['attempts_made']).toMatchObject([
      { kind: 'look-up', class: 'resolved', no: 1 },
      { kind: 'apply', class: 'applied', no: 1 },
    ]);
    expect(rig.openApi.calls.map(({ orderId, status }) => [orderId, status])).toEqual([
      ['MOCKPERIODYEARNEW', 200],
      ['MOCKPERIODDAYTRIAL', 200],
    ]);
    const [kept] =
      await system.sql`select reply_enc from orders where order_id = 'MOCKPERIODYEARNEW'`;
    expect(kept?.['reply_enc'].includes('13800000000')).toBe(false);
    const said = system.lines().join('\n');
    for (const secret of ['13800000000', '示例公司', rig.secretKey]) {
      expect(said).not.toContain(secret);
    }
    expect(
      await rig.market.newInstance({
        orderId: 'MOCKPERIODYEARNEW',
        orderLineId: 'MOCKPERIODYEARNEW-000001',
      }),
    ).toMatchObject({ resultCode: '000000', instanceId: bought });
  });

  test('tells the backend who bought, beside the desired state', async () => {
    const bodies: Record<string, unknown>[] = [];
    const backend = createServer((incoming, outgoing) => {
      let text = '';
      incoming.on('data', (chunk: Buffer) => (text += chunk.toString()));
      incoming.on('end', () => {
        bodies.push(JSON.parse(text) as Record<string, unknown>);
        outgoing.end(JSON.stringify({ appInfo: { frontEndUrl: 'https://shop.example' } }));
      });
    }).listen(0, '127.0.0.1');
    await once(backend, 'listening');
    const address = backend.address();
    const port = typeof address === 'object' ? address?.port : 0;
    const rig = await rigOf();
    await system.sql`update products set http_url = ${`http://127.0.0.1:${port}`} where key = ${rig.product.key}`;
    await new Promise((resolve) => setTimeout(resolve, 1_200));
    try {
      const bought = await rig.buy('MOCKONETIMENEW');
      await untilLife(bought, { state: 'active' });
      expect(bodies).toMatchObject([
        { instanceId: bought, buyer: { customerName: '示例公司', mobilePhone: '13800000000' } },
      ]);
      expect(bodies[0]?.['desired']).not.toHaveProperty('buyer');
    } finally {
      backend.close();
      backend.closeAllConnections();
    }
  });
});

describe('one order, asked for once', () => {
  test('though two of its lines are bought', async () => {
    const rig = await rigOf();
    const order = createOrder('CSTWO');
    const [first] = order.orderLine;
    if (!first) throw new Error('an order has a line');
    const second = {
      ...first,
      orderLineId: 'CSTWO-000002',
      productInfo: [{ productId: 'B', skuCode: 's' }],
    };
    rig.openApi.addOrder({ ...order, orderLine: [first, second] });
    const one = await rig.buy('CSTWO', 'CSTWO-000001');
    await rig.untilThere(one, { desired: { plan } });
    const two = await rig.buy('CSTWO', 'CSTWO-000002');
    await rig.untilThere(two, {
      desired: { plan: { productId: 'B', skuCode: 's', quantity: null } },
    });
    expect(rig.openApi.calls.length).toBe(1);
  });

  test('though an upgrade and a changed renewal name it', async () => {
    const rig = await rigOf();
    const id = await rig.buy('MOCKPERIODYEARNEW');
    await rig.untilThere(id, { desired: { plan } });
    rig.openApi.setMode({ kind: 'fail', status: 503, times: 2 });
    const named = { instanceId: id, orderId: 'CSUP', orderLineId: 'CSUP-000001' };
    rig.openApi.addOrder(createOrder('CSUP', { orderType: 'CHANGE', productId: 'BIGGER' }));
    await rig.market.upgradeInstance(named);
    await rig.market.refreshInstance({
      ...named,
      scene: 'RENEWAL_CHANGE',
      expireTime: '20290101000000',
    });
    await rig.untilThere(id, {
      desired: { plan: { productId: 'BIGGER' }, expiresAt: '2029-01-01T00:00:00.000Z' },
    });
    await untilLife(id, { queue: null });
    const good = rig.openApi.calls.filter(
      ({ orderId, status }) => orderId === 'CSUP' && status === 200,
    );
    expect(good.length).toBe(1);
    expect(rig.backend.problems).toEqual([]);
  });
});

const pending = { state: 'pending', queue: 'order-lookup' };
const failing = { ...pending, dispatch: 'failing' };
const dead = { ...pending, dispatch: 'dead' };

describe('while the order cannot be had the purchase stays pending, with the cause', () => {
  test.each<[string, OpenApiMode, object, string]>([
    ['5xx', { kind: 'fail', status: 503 }, failing, 'marketplace answered 503'],
    ['a cut connection', { kind: 'cut' }, failing, 'marketplace closed the connection'],
    [
      'HTML instead of JSON',
      { kind: 'html' },
      failing,
      'marketplace answered with nonsense: it is not JSON',
    ],
    [
      'an error under 200',
      { kind: 'error under 200', code: 'CBC.0999' },
      failing,
      'marketplace is out of order (CBC.0999)',
    ],
    ['a slow body', { kind: 'slow body' }, failing, 'marketplace did not answer in 8 s'],
  ])('%s, and is made when the API heals', async (_, mode, state, cause) => {
    const rig = await rigOf();
    rig.openApi.setMode(mode);
    const id = await rig.buy('MOCKPERIODYEARNEW');
    await untilLife(id, { ...state, cause: expect.stringContaining(cause) });
    expect(rig.backend.requests).toEqual([]);
    expect(
      await rig.market.newInstance({
        orderId: 'MOCKPERIODYEARNEW',
        orderLineId: 'MOCKPERIODYEARNEW-000001',
      }),
    ).toMatchObject({ resultCode: '000004', instanceId: id });
    rig.openApi.setMode({ kind: 'ok' });
    await rig.untilThere(id, { desired: { exists: true, plan } });
  });

  test.each([
    ['a wrong SK', { secretKey: 'not-the-secret-key' }],
    ['no right to ask', {}],
  ])('%s ends it at once', async (_, options) => {
    const rig = await rigOf(options);
    if (!('secretKey' in options))
      rig.openApi.setMode({ kind: 'fail', status: 401, code: 'MKT.0151' });
    const id = await rig.buy('MOCKPERIODYEARNEW');
    const cause = expect.stringMatching(
      /^marketplace refuses the access key \(\S+\): check AK and SK/,
    );
    await untilLife(id, { ...dead, attempts: 1, cause });
    expect(rig.backend.requests).toEqual([]);
    expect(
      await rig.market.newInstance({
        orderId: 'MOCKPERIODYEARNEW',
        orderLineId: 'MOCKPERIODYEARNEW-000001',
      }),
    ).toMatchObject({ resultCode: '000004', instanceId: id });
  });

  test('a clock that is off is named', async () => {
    const rig = await rigOf({ clock: () => Date.now() + 3_600_000 });
    const id = await rig.buy('MOCKPERIODYEARNEW');
    await untilLife(id, { ...failing, cause: expect.stringContaining('clock here') });
  });

  test('nonsense to the end of all tries is a breach of contract', async () => {
    const rig = await rigOf();
    rig.openApi.setMode({ kind: 'html' });
    const id = await rig.buy('MOCKPERIODYEARNEW');
    const life = await untilLife(id, failing);
    await system.sql`update dispatches set attempts = 7, due_at = now(), retry_at = null, state = 'due'
      where instance_id = ${life?.['id']} and lease_until is null`;
    const ended = await untilLife(id, dead);
    expect(ended?.['attempts_made'].at(-1)).toMatchObject({ kind: 'look-up', class: 'contract' });
  });

  test('an order that is not there holds up no other order', async () => {
    const rig = await rigOf();
    const missing = await Promise.all(Array.from({ length: 6 }, (_, n) => rig.buy(`CSNONE${n}`)));
    for (const id of missing) await untilLife(id, failing);
    const id = await rig.buy('MOCKPERIODYEARNEW');
    await rig.untilThere(id, { desired: { plan } });
    const [running] =
      await system.sql`select failures_running from product_queues where queue = 'order-lookup'
      and product_id = (select id from products where key = ${rig.product.key})`;
    expect(running?.['failures_running'] ?? 0).toBe(0);
  });
});

describe('what is known is applied meanwhile', () => {
  test('a freeze with the old plan, and the upgrade follows when its order is there', async () => {
    const rig = await rigOf();
    const id = await rig.buy('MOCKPERIODYEARNEW');
    await rig.untilThere(id, { desired: { plan } });
    const named = { instanceId: id, orderId: 'CSLATE', orderLineId: 'CSLATE-000001' };
    expect(await rig.market.upgradeInstance(named)).toMatchObject({ resultCode: '000000' });
    await untilLife(id, { queue: 'order-lookup', dispatch: 'failing' });
    await rig.market.updateInstanceStatus(id, 'FREEZE');
    await rig.untilThere(id, { desired: { frozen: true, plan } });
    await untilLife(id, {
      state: 'frozen',
      queue: 'order-lookup',
      dispatch: 'failing',
      cause: expect.stringContaining('marketplace does not know the order'),
    });
    rig.openApi.addOrder(createOrder('CSLATE', { orderType: 'CHANGE', productId: 'BIGGER' }));
    await rig.untilThere(id, { desired: { frozen: true, plan: { productId: 'BIGGER' } } });
    await untilLife(id, { state: 'frozen', queue: null });
    expect(rig.backend.problems).toEqual([]);
  });

  test.each<OpenApiMode>([
    { kind: 'fail', status: 503 },
    { kind: 'hang' },
    { kind: 'fail', status: 401 },
    { kind: 'fail', status: 406 },
  ])('a release overtakes a purchase that waits for its order: %o', async (mode) => {
    const rig = await rigOf();
    rig.openApi.setMode(mode);
    const id = await rig.buy('MOCKPERIODYEARNEW');
    await until(
      () => rig.openApi.calls.length,
      (calls) => calls > 0,
    );
    expect(await rig.market.releaseInstance(id)).toMatchObject({ resultCode: '000000' });
    const life = await untilLife(id, { state: 'released', queue: null });
    expect(life?.['events']).toMatchObject([
      { kind: 'created', outcome: 'moot', isResolved: false },
      { kind: 'released', outcome: 'applied' },
    ]);
    expect(rig.backend.requests).toEqual([]);
    const calls = rig.openApi.calls.length;
    expect(
      await rig.market.newInstance({
        orderId: 'MOCKPERIODYEARNEW',
        orderLineId: 'MOCKPERIODYEARNEW-000001',
      }),
    ).toMatchObject({ resultCode: '000000', instanceId: id });
    expect(rig.openApi.calls.length).toBe(calls);
  });
});

describe('the marketplace is not called too often', () => {
  test('a rate holds over two worker processes, and nothing fails by it', async () => {
    const rig = await rigOf();
    const orders = Array.from({ length: 25 }, (_, n) => `CSRATE${n}`);
    rig.openApi.addOrder(...orders.map((orderId) => createOrder(orderId)));
    const ids = await Promise.all(orders.map((orderId) => rig.buy(orderId)));
    for (const id of ids) await untilLife(id, { state: 'active', queue: null }, 30_000);
    const atMs = rig.openApi.calls.map((call) => call.atMs).toSorted((a, b) => a - b);
    expect(atMs.length).toBe(orders.length);
    // Counted by fixed seconds: at the edge of two, one second may see both their shares.
    for (const from of atMs) {
      expect(atMs.filter((at) => at >= from && at < from + 950).length).toBeLessThanOrEqual(
        2 * perSecond,
      );
    }
    const tookMs = (atMs.at(-1) ?? 0) - (atMs[0] ?? 0);
    expect(tookMs).toBeGreaterThan((orders.length / perSecond - 1) * 1_000 - 300);
    const workers =
      await system.sql`select distinct a.worker from attempts a join products p on p.id = a.product_id
      where p.key = ${rig.product.key} and a.kind = 'look-up'`;
    expect(workers.length).toBe(2);
    const bad =
      await system.sql`select count(*)::int as n from attempts a join products p on p.id = a.product_id
      where p.key = ${rig.product.key} and a.class not in ('resolved', 'applied')`;
    expect(bad[0]?.['n']).toBe(0);
  });

  test('406 pauses its access key for a minute, and no try is lost', async () => {
    const rig = await rigOf();
    rig.openApi.setMode({ kind: 'fail', status: 406, code: 'MKT.0250', times: 1 });
    const first = await rig.buy('MOCKPERIODYEARNEW');
    await until(
      () => lifeOf(first),
      (life) => {
        expect(life).toMatchObject({ ...pending, dispatch: 'due', attempts: 0, cause: null });
        return Number(life?.['dueInMs']) > 50_000;
      },
    );
    const second = await rig.buy('MOCKONETIMENEW');
    const waiting = await untilLife(second, { ...pending, dispatch: 'due', attempts: 0 });
    await until(
      async () => (await lifeOf(second))?.['dueInMs'],
      (ms) => Number(ms) > 40_000,
    );
    expect(waiting?.['attempts_made']).toBeNull();
    expect(rig.openApi.calls.length).toBe(1);
    // The minute is over.
    const [key] =
      await system.sql`select access_key_id from product_keys k join products p on p.id = k.product_id
      where p.key = ${rig.product.key} and class = 'open-api'`;
    await system.sql`update open_api_limits set expire = now() where key like ${`%${key?.['access_key_id']}`}`;
    await system.sql`update dispatches set due_at = now() where due_at > now()`;
    await rig.untilThere(first, { desired: { plan } });
    await rig.untilThere(second, { desired: { exists: true } });
  });
});

describe('connecting and disconnecting', () => {
  test('what waited for the connection goes on when it is made by the commands', async () => {
    const rig = await rigOf({ isConnected: false });
    const id = await rig.buy('MOCKPERIODYEARNEW');
    await rig.untilThere(id, { desired: { exists: true, plan: null } });
    await untilLife(id, { state: 'active', queue: null });
    await rig.market.upgradeInstance({
      instanceId: id,
      orderId: 'MOCKMONTYCHANGE',
      orderLineId: 'MOCKMONTYCHANGE-000001',
    });
    await untilLife(id, { queue: 'order-lookup', dispatch: 'timed' });
    const base = rig.openApiUrl;
    const { env } = system;
    rig.openApi.addKey('AKCLI', rig.secretKey);
    const set = await runCli(
      ['product', 'set', rig.product.key, '--open-api-url', base, '--json'],
      { env },
    );
    expect(JSON.parse(set.out)).toEqual({
      product: rig.product.key,
      openApiUrl: base,
      hasAccessKey: false,
      lookUpsDue: 0,
    });
    const added = await runCli(
      [
        'key',
        'add',
        rig.product.key,
        '--class',
        'open-api',
        '--id',
        'AKCLI',
        '--secret-stdin',
        '--json',
      ],
      { env, input: rig.secretKey },
    );
    expect(JSON.parse(added.out)).toMatchObject({ class: 'open-api', accessKeyId: 'AKCLI' });
    await rig.untilThere(id, { desired: { plan: { period: { type: 'month', number: 1 } } } });
    await untilLife(id, { queue: null });
  });

  test('without look-ups a purchase stands for itself, also one that waits already', async () => {
    const rig = await rigOf();
    rig.openApi.setMode({ kind: 'fail', status: 503 });
    const id = await rig.buy('MOCKPERIODYEARNEW');
    await untilLife(id, failing);
    await withOperations(system, async (context) => {
      expect(
        await setProduct(context, { product: rig.product.key, openApiUrl: null }),
      ).toMatchObject({ kind: 'set' });
    });
    await rig.untilThere(id, { desired: { exists: true, plan: null } });
    await untilLife(id, { state: 'active', queue: null });
  });
});

test('a pay-per-use sibling of the same product is an alias: no second tenant, the same access data', async () => {
  const rig = await rigOf();
  const order = createOrder('CSPPU', { line: { chargingMode: 'ON_DEMAND' } });
  const [line] = order.orderLine;
  if (!line) throw new Error('an order has a line');
  rig.openApi.addOrder({ ...order, orderLine: [line, { ...line, orderLineId: 'CSPPU-000002' }] });
  const first = await rig.buy('CSPPU', 'CSPPU-000001');
  const second = await rig.buy('CSPPU', 'CSPPU-000002');
  expect(second).not.toBe(first);
  const one = await untilLife(first, { state: 'active', queue: null, aliasOf: null });
  const other = await untilLife(second, { state: 'active', queue: null, aliasOf: one?.['id'] });
  expect(other?.['events']).toMatchObject([{ kind: 'created', outcome: 'moot' }]);
  expect([...rig.backend.instances.keys()]).toEqual([first]);
  const reply = await rig.market.queryInstance([first, second]);
  expect(reply.info?.map(({ instanceId }) => instanceId)).toEqual([first, second]);
  expect(reply.info?.[1]?.appInfo).toEqual(reply.info?.[0]?.appInfo);
  await rig.market.releaseInstance(second);
  await untilLife(second, { state: 'released', queue: null });
  expect(rig.backend.instances.get(first)).toMatchObject({ exists: true });
});
