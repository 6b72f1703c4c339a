import { getTableName } from 'drizzle-orm';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { type ProductKeys, createProductKeys } from '../../api/receiver/product-keys.ts';
import type { Database } from '../../db/client.ts';
import type { Keyring } from '../../db/data-keys.ts';
import type { productKeys, products } from '../../db/schema.ts';

type StoredKey = Pick<typeof productKeys.$inferSelect, 'id' | 'productId' | 'class' | 'secretEnc'>;
type StoredProduct = Pick<typeof products.$inferSelect, 'id' | 'key' | 'family'>;

let stored: { products: StoredProduct[]; keys: StoredKey[] };
let state: 'well' | 'failing' | 'hanging';
let reads: number;
let keys: ProductKeys;

const shop = { id: 1, key: 'shop', family: 'saas-v2' };
const keyOf = (id: number, secret: string, kind: StoredKey['class'] = 'base'): StoredKey => ({
  id,
  productId: 1,
  class: kind,
  secretEnc: Buffer.from(secret),
});

/** Only what is read here: products and their active keys. */
function fakeDatabase(): Database {
  const read = async (table: string): Promise<unknown[]> => {
    if (table === 'products') reads += 1;
    if (state === 'failing') throw new Error('no database');
    if (state === 'hanging') return new Promise(() => undefined);
    return table === 'products' ? [...stored.products] : [...stored.keys];
  };
  const from = (table: Parameters<typeof getTableName>[0]) => {
    const orderBy = () => read(getTableName(table));
    return { orderBy, where: () => ({ orderBy }) };
  };
  return { orm: { select: () => ({ from }) } } as unknown as Database;
}

beforeEach(() => {
  // The waits inside a refresh are real: a quarter of a second, and half a one at most.
  vi.useFakeTimers({
    now: new Date('2026-03-31T12:00:00Z'),
    toFake: ['setInterval', 'clearInterval', 'Date'],
  });
  stored = { products: [shop], keys: [keyOf(1, 'first')] };
  state = 'well';
  reads = 0;
  const keyring = {
    dataKey: async (scope: string) => ({ scope }),
    open: async (sealed: Buffer) => sealed,
  } as unknown as Keyring;
  const log = { warn: () => undefined } as unknown as Parameters<
    typeof createProductKeys
  >[0]['log'];
  keys = createProductKeys({ db: fakeDatabase(), keyring, log, nowMs: Date.now });
});

afterEach(() => {
  keys.stop();
  vi.useRealTimers();
});

const secrets = () => {
  const found = keys.find('shop');
  return typeof found === 'object' ? found.signingKeys.map(({ secret }) => secret) : found;
};

test('before anything was read nobody can say whether there is such a product', () => {
  expect(keys.find('shop')).toBe('unavailable');
});

test('a product is found with its keys and with the month’s key for its evidence', async () => {
  expect(await keys.refresh()).toBe(true);
  expect(keys.find('shop')).toEqual({
    id: 1,
    key: 'shop',
    family: 'saas-v2',
    ordersCanBeQueried: false,
    signingKeys: [{ id: 1, secret: 'first' }],
    evidenceKey: { scope: 'product/1/2026-03' },
    changeRule: expect.objectContaining({ id: 1 }),
  });
  expect(keys.find('other')).toBeUndefined();
});

test('keys of other interfaces do not verify callbacks', async () => {
  stored.keys.push(
    keyOf(2, 'kit', 'kit'),
    keyOf(3, 'license', 'license'),
    keyOf(4, 'g', 'general'),
  );
  await keys.refresh();
  expect(secrets()).toEqual(['first']);
});

test('new keys, retired keys, new products and a new month count within a second', async () => {
  await keys.refresh();
  stored.keys = [keyOf(2, 'second')];
  stored.products = [shop, { ...shop, id: 2, key: 'new' }];
  vi.setSystemTime(new Date('2026-04-01T00:00:00Z'));
  await vi.advanceTimersByTimeAsync(1_000);
  expect(secrets()).toEqual(['second']);
  expect(keys.find('new')).toMatchObject({
    id: 2,
    signingKeys: [],
    evidenceKey: { scope: 'product/2/2026-04' },
  });
});

describe('refresh', () => {
  test('right after a read waits for the next one, so that what was just added is found', async () => {
    await keys.refresh();
    stored.keys.push(keyOf(2, 'second'));
    const refreshing = keys.refresh();
    expect(await refreshing).toBe(true);
    expect(secrets()).toEqual(['first', 'second']);
  });

  test('a thousand at once are one read', async () => {
    await keys.refresh();
    const refreshing = Promise.all(Array.from({ length: 1_000 }, () => keys.refresh()));
    await refreshing;
    expect(reads).toBe(2);
  });

  test('bad calls without end cannot keep the database busy', async () => {
    const untilMs = performance.now() + 600;
    const asked: Promise<boolean>[] = [];
    while (performance.now() < untilMs) {
      asked.push(keys.refresh());
      await new Promise((resolve) => setTimeout(resolve, 5));
      await vi.advanceTimersByTimeAsync(5);
    }
    await Promise.all(asked);
    expect(reads).toBeLessThanOrEqual(6);
  });

  test('while the database hangs the asker waits half a second, and what is known stays', async () => {
    await keys.refresh();
    state = 'hanging';
    await vi.advanceTimersByTimeAsync(1_000);
    const askedAtMs = performance.now();
    expect(await keys.refresh()).toBe(false);
    expect(performance.now() - askedAtMs).toBeLessThan(1_000);
    expect(secrets()).toEqual(['first']);
  });

  test('a read that fails changes nothing, says so, and the next one is made', async () => {
    await keys.refresh();
    state = 'failing';
    stored.keys = [];
    const refreshing = keys.refresh();
    expect(await refreshing).toBe(false);
    expect(secrets()).toEqual(['first']);
    state = 'well';
    await vi.advanceTimersByTimeAsync(1_000);
    expect(secrets()).toEqual([]);
  });
});
