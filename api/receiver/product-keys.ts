import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { Database } from '../../db/client.ts';
import type { Keyring } from '../../db/data-keys.ts';
import {
  type ActiveKey,
  type ProductRow,
  readActiveKeys,
  readProducts,
} from '../../db/products.ts';
import type { SigningKey } from '../../protocol/saas-v2/signature.ts';
import { type DataKey, SecretsError } from '../../runtime/secrets.ts';
import type { ChangeRule } from './check-change.ts';

/** A product as the receiver needs it, with what verifies its callbacks and seals their evidence. */
export type KnownProduct = {
  id: number;
  key: string;
  family: string;
  /** False while the marketplace's order API is not connected: a purchase then stands for itself. */
  ordersCanBeQueried: boolean;
  signingKeys: readonly SigningKey[];
  evidenceKey: DataKey;
  changeRule: ChangeRule;
};

export type ProductKeys = {
  /** 'unavailable': there may be such a product, but it or its secrets could never be read. */
  find(productKey: string): KnownProduct | undefined | 'unavailable';
  /**
   * Reads anew, at most once in a while, so that neither unknown products nor bad signatures can
   * keep the database busy. Never throws: what is known stays.
   *
   * @returns whether what is known may have changed
   */
  refresh(): Promise<boolean>;
  /** False when no product's secrets can be opened: the master key is a wrong one. */
  canVerify(): boolean;
  stop(): void;
};

const refreshEveryMs = 1_000;
const refreshAgainAfterMs = 250;
const waitForRefreshMs = 500;

/**
 * All products and their active keys, in memory: a callback is verified without a query, also while
 * Postgres is away. New and retired keys count within a second, without a restart.
 */
export function createProductKeys(options: {
  db: Database;
  keyring: Keyring;
  log: Pick<Logger, 'warn'>;
  nowMs: () => number;
}): ProductKeys {
  const { db, keyring, log, nowMs } = options;
  let known: Map<string, KnownProduct | 'unavailable'> | undefined;
  let reading: Promise<boolean> | undefined;
  let next: Promise<boolean> | undefined;
  let readAtMs = -Infinity;
  const reported = new Set<string>();

  async function read(): Promise<boolean> {
    try {
      const month = new Date(nowMs()).toISOString().slice(0, 7);
      const [products, keys] = await Promise.all([readProducts(db), readActiveKeys(db)]);
      const found = new Map<string, KnownProduct | 'unavailable'>();
      for (const product of products) {
        const own = keys.filter((key) => key.productId === product.id && key.class === 'base');
        const canAsk =
          product.openApiUrl !== null &&
          keys.some((key) => key.productId === product.id && key.class === 'open-api');
        const opened = await openProduct(product, own, canAsk, month);
        found.set(product.key, opened ?? 'unavailable');
      }
      known = found;
      reported.delete('');
      return true;
    } catch (error) {
      reportOnce('', () => log.warn({ err: error }, 'product_keys.not_read'));
      return false;
    } finally {
      readAtMs = nowMs();
      reading = undefined;
    }
  }

  /** One product whose secrets cannot be opened must not take the others with it. */
  async function openProduct(
    product: ProductRow,
    own: readonly ActiveKey[],
    ordersCanBeQueried: boolean,
    month: string,
  ): Promise<KnownProduct | undefined> {
    const { id, key, family } = product;
    try {
      const signingKeys = await Promise.all(
        own.map(async (one) => ({ id: one.id, secret: await secretOf(one) })),
      );
      const evidenceKey = await keyring.dataKey(`product/${id}/${month}`);
      reported.delete(key);
      const { changeRule, checkOnFailure, httpUrl, httpSecretEnc, httpSecretNextEnc } = product;
      return {
        id,
        key,
        family,
        ordersCanBeQueried,
        signingKeys,
        evidenceKey,
        changeRule: {
          id,
          changeRule,
          checkOnFailure,
          httpUrl,
          httpSecretEnc,
          httpSecretNextEnc,
        },
      };
    } catch (error) {
      if (!(error instanceof SecretsError)) throw error;
      reportOnce(key, () => log.warn({ err: error, product: key }, 'product_keys.not_opened'));
      const before = known?.get(key);
      return before === 'unavailable' ? undefined : before;
    }
  }

  /** It is read each second: a line when it fails first, not one each time. */
  function reportOnce(what: string, report: () => void): void {
    if (!reported.has(what)) report();
    reported.add(what);
  }

  async function secretOf(key: { id: number; secretEnc: Buffer }): Promise<string> {
    const secret = await keyring.open(key.secretEnc, `product_keys/secret_enc/${key.id}`);
    return secret.toString('utf8');
  }

  /** One that comes right after a read waits for the next one, together with all that come meanwhile. */
  function refresh(): Promise<boolean> {
    next ??= (async () => {
      await reading;
      const waitMs = readAtMs + refreshAgainAfterMs - nowMs();
      if (waitMs > 0) await sleep(waitMs, undefined, { ref: false });
      next = undefined;
      reading ??= read();
      return reading;
    })();
    return Promise.race([next, sleep(waitForRefreshMs, false, { ref: false })]);
  }

  const timer = setInterval(() => {
    reading ??= read();
  }, refreshEveryMs);
  timer.unref();

  return {
    find: (productKey) => (known ? known.get(productKey) : 'unavailable'),
    refresh,
    canVerify: () =>
      !known || known.size === 0 || [...known.values()].some((one) => one !== 'unavailable'),
    stop: () => clearInterval(timer),
  };
}
