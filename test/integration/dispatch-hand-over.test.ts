import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { claimDispatch } from '../../db/claims.ts';
import type { Database } from '../../db/client.ts';
import { handOver, takeBack } from '../../db/hand-over.ts';
import { type TestDatabase, createTestDatabase } from '../servers/database.ts';
import {
  addTestProduct,
  buy,
  buyOne,
  handOne,
  openTestDatabase,
  readDispatch,
  tellEvent,
} from './dispatch-seed.ts';

let database: TestDatabase;
let db: Database;

beforeAll(async () => {
  database = await createTestDatabase();
  db = openTestDatabase(database.url);
});

beforeEach(async () => {
  await db.pool.query(
    'truncate callbacks, instances, events, dispatches, product_queues, products cascade',
  );
});

afterAll(async () => {
  await db?.close();
  await database?.drop();
});

const hand = (windowMax: number, pageMax = 500) =>
  handOver(db.pool, { queue: 'provisioning', windowMax, pageMax });

/** How many of each product, in the order of the products given. */
function sharesOf(handed: readonly { productId: number }[], products: readonly number[]): number[] {
  return products.map((id) => handed.filter(({ productId }) => productId === id).length);
}

async function addProducts(count: number): Promise<number[]> {
  const ids: number[] = [];
  for (let n = 0; n < count; n += 1) ids.push(await addTestProduct(db.pool));
  return ids;
}

test('a due instance is marked once, under a new number, with what it waits for', async () => {
  const instance = await buyOne(db.pool);
  await tellEvent(db.pool, instance, 'frozen');
  const [handed, ...more] = await hand(100);
  expect(more).toEqual([]);
  expect(handed).toMatchObject({
    instanceId: instance.id,
    productId: instance.productId,
    kinds: 'created+frozen',
  });
  expect(await readDispatch(db.pool, instance)).toMatchObject({
    state: 'handed',
    isDue: false,
    isHanded: true,
    retryInMs: null,
    dispatch: handed?.dispatch,
  });
  expect(await hand(100)).toEqual([]);
});

test('what is due later is left, what is due in another room too', async () => {
  const [later, elsewhere] = await buy(db.pool, await addTestProduct(db.pool), 2);
  await db.pool.query(
    `update dispatches set due_at = now() + interval '1 minute' where instance_id = $1`,
    [later?.id],
  );
  await db.pool.query(`update dispatches set queue = 'order-lookup' where instance_id = $1`, [
    elsewhere?.id,
  ]);
  expect(await hand(100)).toEqual([]);
});

describe('the window', () => {
  test('one product has at most a quarter of it', async () => {
    const [product = 0] = await addProducts(1);
    await buy(db.pool, product, 50);
    expect(await hand(40)).toHaveLength(10);
    expect(await hand(40)).toEqual([]);
  });

  test('is never more than full, however many products there are', async () => {
    const products = await addProducts(10);
    for (const product of products) await buy(db.pool, product, 10);
    const handed = await hand(40);
    expect(handed).toHaveLength(40);
    expect(await hand(40)).toEqual([]);
    expect(sharesOf(handed, products)).toEqual(Array(10).fill(4));
  });

  test('a product with a long backlog is not served before one with a single order', async () => {
    const [long = 0, short = 0] = await addProducts(2);
    await buy(db.pool, long, 100);
    await buy(db.pool, short, 1);
    const handed = await hand(8);
    expect(sharesOf(handed, [long, short])).toEqual([2, 1]);
  });

  test('with little room left, each product gets its first before any gets its second', async () => {
    const products = await addProducts(3);
    for (const product of products) await buy(db.pool, product, 10);
    const [first = 0] = products;
    await db.pool.query(
      `update dispatches set due_at = now() - interval '1 hour' where product_id = $1`,
      [first],
    );
    const handed = await hand(3);
    expect(sharesOf(handed, products).every((share) => share <= 1)).toBe(true);
  });

  test('of one product the longest due come first', async () => {
    const product = await addTestProduct(db.pool);
    const bought = await buy(db.pool, product, 8);
    const ids = bought.map(({ id }) => id).toSorted((a, b) => b - a);
    await db.pool.query(
      `update dispatches set due_at = now() - (instance_id - $1) * interval '1 second'`,
      [ids.at(-1)],
    );
    const handed = await hand(12);
    expect(handed.map(({ instanceId }) => instanceId).toSorted((a, b) => b - a)).toEqual(
      ids.slice(0, 3),
    );
  });

  test('waiting retries take no place', async () => {
    const product = await addTestProduct(db.pool);
    await buy(db.pool, product, 20);
    await hand(40);
    await db.pool.query(
      `update dispatches set retry_at = now() + interval '1 hour', dispatched_at = null, state = 'failing'
       where state = 'handed'`,
    );
    expect(await hand(40)).toHaveLength(10);
  });

  test('a page is no more than a page, of one product or of many', async () => {
    const [long = 0, ...short] = await addProducts(5);
    await buy(db.pool, long, 20);
    expect(await hand(2_000, 5)).toHaveLength(5);
    for (const product of short) await buy(db.pool, product, 1);
    expect(await hand(2_000, 1)).toHaveLength(1);
    expect(await hand(2_000, 3)).toHaveLength(3);
  });
});

describe('the breaker', () => {
  const setFailures = (product: number, failures: number) =>
    db.pool.query(
      `insert into product_queues (product_id, queue, failures_running) values ($1, 'provisioning', $2)
       on conflict (product_id, queue) do update set failures_running = $2`,
      [product, failures],
    );

  test('open: one at a time, of that product alone', async () => {
    const [broken = 0, well = 0] = await addProducts(2);
    await buy(db.pool, broken, 10);
    await buy(db.pool, well, 10);
    await setFailures(broken, 5);
    expect(sharesOf(await hand(40), [broken, well])).toEqual([1, 10]);
    expect(await hand(40)).toEqual([]);
  });

  test('four failures in a row do not open it', async () => {
    const product = await addTestProduct(db.pool);
    await buy(db.pool, product, 10);
    await setFailures(product, 4);
    expect(await hand(40)).toHaveLength(10);
  });

  test('closed again: the whole share', async () => {
    const product = await addTestProduct(db.pool);
    await buy(db.pool, product, 10);
    await setFailures(product, 7);
    expect(await hand(40)).toHaveLength(1);
    await setFailures(product, 0);
    expect(await hand(40)).toHaveLength(9);
  });
});

test('an instance that a worker holds is not handed over, though it is due', async () => {
  const instance = await buyOne(db.pool);
  const dispatch = await handOne(db.pool, instance);
  await claimDispatch(db.pool, { instanceId: instance.id, dispatch, leaseMs: 60_000 });
  await db.pool.query('update dispatches set due_at = now()');
  expect(await hand(100)).toEqual([]);
});

test('two dispatchers at once hand nothing over twice, and wait for nobody', async () => {
  const products = await addProducts(4);
  for (const product of products) await buy(db.pool, product, 50);
  const pages = await Promise.all(Array.from({ length: 4 }, () => hand(2_000, 60)));
  const ids = pages.flat().map(({ instanceId }) => instanceId);
  expect(new Set(ids).size).toBe(ids.length);
  let rest = await hand(2_000);
  while (rest.length > 0) {
    ids.push(...rest.map(({ instanceId }) => instanceId));
    rest = await hand(2_000);
  }
  expect(new Set(ids).size).toBe(200);
  expect(ids).toHaveLength(200);
});

describe('takeBack', () => {
  test('makes due again what did not reach the queue', async () => {
    const instance = await buyOne(db.pool);
    const dispatch = await handOne(db.pool, instance);
    expect(await takeBack(db.pool, [{ instanceId: instance.id, dispatch }])).toBe(1);
    expect(await readDispatch(db.pool, instance)).toMatchObject({
      state: 'due',
      isDue: true,
      isHanded: false,
    });
    // The job that did reach it has an old number.
    expect(await handOne(db.pool, instance)).toBeGreaterThan(dispatch);
    const claim = { instanceId: instance.id, dispatch, leaseMs: 1_000 };
    expect(await claimDispatch(db.pool, claim)).toBe('nothing to do');
  });

  test('leaves alone what was claimed meanwhile, and what has a newer number', async () => {
    const [claimed, newer] = await buy(db.pool, await addTestProduct(db.pool), 2);
    const handed = await hand(100);
    const of = (id = 0) => handed.find(({ instanceId }) => instanceId === id)?.dispatch ?? 0;
    const claim = { instanceId: claimed?.id ?? 0, dispatch: of(claimed?.id), leaseMs: 60_000 };
    expect(await claimDispatch(db.pool, claim)).toMatchObject({ instanceId: claimed?.id });
    await db.pool.query(`update dispatches set dispatch = dispatch + 1000 where instance_id = $1`, [
      newer?.id,
    ]);
    expect(await takeBack(db.pool, handed)).toBe(0);
  });
});
