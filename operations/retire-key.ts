import { writeAudit } from '../db/audit.ts';
import { type KeyRow, listKeys, lockProduct, readProducts, retireKey } from '../db/products.ts';
import type { Actor } from './actor.ts';

export type RetireKeyOutcome =
  | { kind: 'retired'; key: KeyRow; activeKeys: number }
  | { kind: 'unknown-product'; known: string[] }
  | { kind: 'unknown-key'; active: number[] }
  | { kind: 'already-retired'; key: KeyRow }
  /** Without it every callback of the product would be refused. */
  | { kind: 'last-key'; key: KeyRow };

/**
 * Ends a key: what is signed with it is refused from now on. Its row stays, as evidence of who
 * signed what.
 *
 * @param wanted.force retires the last active key of a product too
 */
export async function retireProductKey(
  { db, actor }: Actor,
  wanted: { product: string; keyId: number; reason?: string | undefined; force: boolean },
): Promise<RetireKeyOutcome> {
  return db.transaction(async (tx): Promise<RetireKeyOutcome> => {
    const product = await lockProduct(tx, wanted.product);
    if (!product) {
      const products = await readProducts(tx);
      return { kind: 'unknown-product', known: products.map((each) => each.key) };
    }
    const keys = await listKeys(tx, product.id);
    const active = keys.filter((each) => each.retiredAt === null);
    const key = keys.find((each) => each.id === wanted.keyId);
    if (!key) return { kind: 'unknown-key', active: active.map((each) => each.id) };
    if (key.retiredAt !== null) return { kind: 'already-retired', key };
    const verifying = active.filter((each) => each.class !== 'open-api');
    const isLast = verifying.length === 1 && verifying[0]?.id === key.id;
    if (isLast && !wanted.force) return { kind: 'last-key', key };

    const retired = await retireKey(tx, key.id);
    if (!retired) throw new Error(`key ${key.id} was retired under the lock of its product`);
    await writeAudit(tx, {
      actor,
      act: 'key.retired',
      subject: `product/${product.key}`,
      reason: wanted.reason,
      detail: { keyId: key.id, class: key.class, force: wanted.force },
    });
    return { kind: 'retired', key: retired, activeKeys: active.length - 1 };
  });
}
