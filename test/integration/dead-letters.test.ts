import { randomBytes } from 'node:crypto';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import type { Marketplace } from '../../simulator/marketplace.ts';
import { type SellerBackend, createSellerBackend } from '../../simulator/seller-backend.ts';
import { type TestDatabase, createTestDatabase } from '../servers/database.ts';
import { queueStore } from '../servers/queue-store.ts';
import { type Process, type System, createSystem } from '../servers/system.ts';
import { until } from '../servers/until.ts';
import { runCli } from './cli-run.ts';

// Each verb from the command line to the seller's backend and back to the marketplace's next call.

let database: TestDatabase;
let system: System;
let api: Process;
let backend: SellerBackend;
let baseUrl: string;
const httpSecret = `whsec_${randomBytes(24).toString('base64')}`;

beforeAll(async () => {
  database = await createTestDatabase();
  const { env } = queueStore(database.url);
  system = createSystem({ databaseUrl: database.url, tenantsUrl: database.tenantsUrl, env });
  backend = createSellerBackend({ secrets: [httpSecret] });
  baseUrl = await backend.listen();
  [api] = await Promise.all([system.startApi(), system.startDispatcher(), system.startWorkers()]);
});

afterEach(() => backend?.setMode());

afterAll(async () => {
  await system?.stop();
  await backend?.close();
  await database?.drop();
});

type Line = { orderId: string; orderLineId: string };
const lineOf = (orderId: string): Line => ({ orderId, orderLineId: `${orderId}-000001` });

async function sell(): Promise<{ product: string; market: Marketplace }> {
  const product = await system.addProduct({ provisioner: 'http', httpUrl: baseUrl, httpSecret });
  return { product: product.key, market: system.marketplace(product, api) };
}

async function command(args: readonly string[], input?: string): Promise<Record<string, unknown>> {
  const { code, out, err } = await runCli([...args, '--json'], {
    env: system.env,
    ...(input === undefined ? {} : { input }),
  });
  if (code !== 0) throw new Error(`latchkey ${args.join(' ')} ended with ${code}: ${err}`);
  return JSON.parse(out) as Record<string, unknown>;
}

const deadLetter = (verb: string, order: string, ...more: string[]) =>
  command(['dead-letter', verb, '--order', order, ...more]);

async function stateOf(order: string): Promise<string> {
  const rows = await system.sql<{ state: string }[]>`
    select coalesce(d.state, i.state) as state from instances i
    left join dispatches d on d.instance_id = i.id where i.order_id = ${order}`;
  return rows[0]?.state ?? 'none';
}

const isDead = (order: string) => until(() => stateOf(order), 'dead', { timeoutMs: 20_000 });

async function haveActive(market: Marketplace, orderId: string): Promise<string> {
  const bought = await market.buy(lineOf(orderId), { retryEveryMs: 50, deadlineMs: 20_000 });
  if (bought.outcome !== 'ready') throw new Error(`not ready: ${JSON.stringify(bought)}`);
  await until(() => stateOf(orderId), 'active');
  return bought.instanceId;
}

test('a purchase that the backend refused is dead with its cause, and a redrive delivers it', async () => {
  const { market } = await sell();
  backend.refuseOrder('RD1', { status: 400 });
  await market.newInstance(lineOf('RD1'));
  await isDead('RD1');
  const shown = await command(['dead-letter', 'show', 'RD1', '--said']);
  expect(shown).toMatchObject({
    deadLetters: [
      {
        cause: 'backend answered 400',
        fingerprint: expect.stringMatching(/^[0-9a-f]{12}$/),
        events: [{ kind: 'created' }],
        refund: { assumed: true },
        tries: [{ no: 1, target: baseUrl, class: 'permanent', httpStatus: 400, hasAnswer: true }],
      },
    ],
  });
  const [{ fingerprint } = { fingerprint: '' }] = shown['deadLetters'] as { fingerprint: string }[];
  backend.acceptOrder('RD1');
  const redriven = await command([
    ...['dead-letter', 'redrive', '--cause', fingerprint, '--reason', 'mended'],
  ]);
  expect(redriven).toMatchObject({ redriven: 1, orders: ['RD1'] });
  await haveActive(market, 'RD1');
});

test('a freeze that the backend never took is skipped: the buyer is served, and the next freeze counts', async () => {
  const { market } = await sell();
  const instanceId = await haveActive(market, 'SK1');
  backend.setMode({ kind: 'fail', status: 400, times: 1 });
  await market.updateInstanceStatus(instanceId, 'FREEZE');
  await isDead('SK1');
  expect(await deadLetter('skip', 'SK1', '--reason', 'paid meanwhile')).toMatchObject({ count: 1 });
  await until(() => stateOf('SK1'), 'active');
  expect(backend.instances.get(instanceId)).toMatchObject({
    generation: 3,
    desired: { frozen: false },
  });
  expect(await market.updateInstanceStatus(instanceId, 'FREEZE')).toMatchObject({
    resultCode: '000000',
  });
  await until(() => stateOf('SK1'), 'frozen');
  expect(backend.instances.get(instanceId)).toMatchObject({
    generation: 4,
    desired: { frozen: true },
  });
});

test('an order delivered by hand is answered to re-sends and queries, and its release reaches the backend', async () => {
  const { market } = await sell();
  backend.refuseOrder('RS1', { status: 400 });
  const { instanceId = '' } = await market.newInstance(lineOf('RS1'));
  await isDead('RS1');
  const access = {
    frontEndUrl: 'https://shop.example.com/by-hand',
    userName: 'ann',
    password: 'by-hand-4711',
  };
  const delivered = await command(
    [
      ...['dead-letter', 'resolve', '--order', 'RS1', '--delivered', '--access-stdin'],
      ...['--reason', 'Li did it'],
    ],
    JSON.stringify(access),
  );
  expect(delivered).toMatchObject({ count: 1, orders: ['RS1'] });
  expect(JSON.stringify(delivered)).not.toContain(access.password);
  expect(await market.newInstance(lineOf('RS1'))).toMatchObject({
    resultCode: '000000',
    instanceId,
  });
  const asked = await market.queryInstance(instanceId);
  expect(asked).toMatchObject({ resultCode: '000000', info: [{ instanceId, appInfo: access }] });
  expect(await market.releaseInstance(instanceId)).toMatchObject({ resultCode: '000000' });
  await until(() => stateOf('RS1'), 'released');
  const calls = backend.requests.filter((request) => request.instanceId === instanceId);
  expect(calls.map(({ method }) => method)).toEqual(['PUT', 'DELETE']);
});

test('a refused purchase is answered its code, and what a lost answer left behind is deleted', async () => {
  const { market } = await sell();
  backend.setMode({ kind: 'lost answer', times: 1 }, { kind: 'fail', status: 400, times: 1 });
  const { instanceId = '' } = await market.newInstance(lineOf('RF1'));
  await isDead('RF1');
  expect(backend.instances.get(instanceId)).toMatchObject({ exists: true });
  const refused = await deadLetter('refuse', 'RF1', '--code', '000106', '--reason', 'sold out');
  expect(refused).toMatchObject({ count: 1, code: '000106' });
  expect(await market.newInstance(lineOf('RF1'))).toMatchObject({
    resultCode: '000106',
    instanceId,
  });
  await until(() => backend.instances.get(instanceId)?.exists, false);
  await until(() => stateOf('RF1'), 'refused');
  expect(await market.newInstance(lineOf('RF1'))).toMatchObject({ resultCode: '000106' });
});

test('while a product is paused callbacks are acknowledged and nothing is applied; resume applies it all', async () => {
  const { product, market } = await sell();
  const instanceId = await haveActive(market, 'PA1');
  const before = backend.requests.length;
  await command(['product', 'pause', product, '--reason', 'moving']);
  expect(await market.newInstance(lineOf('PA2'))).toMatchObject({ resultCode: '000004' });
  expect(await market.updateInstanceStatus(instanceId, 'FREEZE')).toMatchObject({
    resultCode: '000000',
  });
  // Another product, bought after it, is served: the dispatcher has been past the paused one.
  const other = await sell();
  await haveActive(other.market, 'PA3');
  const meanwhile = backend.requests.slice(before).map((request) => request.orderIds.join());
  expect(new Set(meanwhile)).toEqual(new Set(['PA3']));
  expect(await command(['product', 'resume', product, '--reason', 'moved'])).toEqual({
    product,
    due: 2,
  });
  await until(() => stateOf('PA2'), 'active');
  await until(() => stateOf('PA1'), 'frozen');
});

test('a backend that answers nonsense is alerted once, with product and cause, however many it hits', async () => {
  const { product, market } = await sell();
  backend.setMode({ kind: 'nonsense' });
  const orders = ['NS1', 'NS2', 'NS3'];
  await Promise.all(orders.map((order) => market.newInstance(lineOf(order))));
  for (const order of orders) await isDead(order);
  const alerts = () =>
    system
      .lines()
      .filter((line) => line.includes('"msg":"contract.broken"') && line.includes(product))
      .map((line) => JSON.parse(line) as Record<string, unknown>);
  await until(() => alerts().length > 0, true);
  const list = await command(['dead-letter', 'list', '--product', product]);
  expect(list).toMatchObject({ total: 3, causes: [{ product, count: 3 }] });
  const [cause] = list['causes'] as { cause: string; fingerprint: string }[];
  expect(alerts()).toMatchObject([
    { level: 'error', product, target: baseUrl, cause: `${cause?.cause} [${cause?.fingerprint}]` },
  ]);
});

test.each<[string, string[], number, string]>([
  ['no scope', ['redrive', '--reason', 'x'], 2, 'Say which dead letters'],
  [
    '--all with others',
    ['skip', '--all', '--cause', 'a', '--reason', 'x'],
    2,
    '--all goes with none',
  ],
  ['no reason', ['refuse', '--all', '--code', '000106'], 2, '--reason is empty'],
  [
    'a code that is none',
    ['refuse', '--all', '--code', '000004', '--reason', 'x'],
    2,
    '000106 sold out',
  ],
  [
    'an event that is no number',
    ['skip', '--all', '--event', 'x', '--reason', 'x'],
    2,
    'It is a number',
  ],
  [
    'half of delivered',
    ['resolve', '--order', 'X', '--delivered', '--reason', 'x'],
    2,
    'go together',
  ],
  ['nothing dead', ['show', 'NOPE'], 1, 'Nothing of order NOPE is dead'],
])('a mistake says what to do: %s', async (_, args, code, words) => {
  const result = await runCli(['dead-letter', ...args], { env: system.env });
  expect(result).toMatchObject({ code, out: '' });
  expect(result.err).toContain(words);
});
