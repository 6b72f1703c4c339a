import { type ApiKeyRow, listApiKeys, retireApiKey } from '../db/api-keys.ts';
import { writeAudit } from '../db/audit.ts';
import { lockProduct, readProducts } from '../db/products.ts';
import type { Actor } from './actor.ts';

export type RetireApiKeyOutcome =
  | { kind: 'retired'; key: ApiKeyRow; activeKeys: number }
  | { kind: 'unknown-product'; known: string[] }
  | { kind: 'unknown-key'; active: number[] }
  | { kind: 'already-retired'; key: ApiKeyRow };

/** Ends a key of a seller's program: the next call with it is refused. */
export async function retireProductApiKey(
  { db, actor }: Actor,
  wanted: { product: string; keyId: number; reason?: string | undefined },
): Promise<RetireApiKeyOutcome> {
  return db.transaction(async (tx): Promise<RetireApiKeyOutcome> => {
    const product = await lockProduct(tx, wanted.product);
    if (!product) {
      const products = await readProducts(tx);
      return { kind: 'unknown-product', known: products.map((each) => each.key) };
    }
    const keys = await listApiKeys(tx, product.id);
    const active = keys.filter((each) => each.retiredAt === null).map(({ id }) => id);
    const key = keys.find((each) => each.id === wanted.keyId);
    if (!key) return { kind: 'unknown-key', active };
    if (key.retiredAt !== null) return { kind: 'already-retired', key };
    const retired = await retireApiKey(tx, key.id);
    if (!retired) throw new Error(`api key ${key.id} was retired under the lock of its product`);
    await writeAudit(tx, {
      actor,
      act: 'api_key.retired',
      subject: `product/${product.key}`,
      reason: wanted.reason,
      detail: { apiKeyId: key.id },
    });
    return { kind: 'retired', key: retired, activeKeys: active.length - 1 };
  });
}
