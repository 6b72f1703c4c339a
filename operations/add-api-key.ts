import { createHash, randomBytes } from 'node:crypto';
import { type ApiKeyRow, insertApiKey, listApiKeys } from '../db/api-keys.ts';
import { type ApiScope, apiScopes } from '../db/api-scopes.ts';
import { writeAudit } from '../db/audit.ts';
import { lockProduct, readProducts } from '../db/products.ts';
import type { Actor } from './actor.ts';

/** Enough to change a key without a gap. */
const activeKeysMax = 2;
const keySizeBytes = 32;

export type AddApiKeyOutcome =
  /** `secret` is the key itself; it is kept nowhere, so this is the only time to see it. */
  | { kind: 'added'; key: ApiKeyRow; secret: string; activeKeys: number }
  | { kind: 'unknown-product'; known: string[] }
  | { kind: 'no-scope' }
  | { kind: 'too-many'; active: number[] };

/** Makes a key with which a seller's program calls /v1 about one product. */
export async function addApiKey(
  { db, actor }: Actor,
  wanted: { product: string; scopes: readonly ApiScope[] },
  random: (sizeBytes: number) => Buffer = randomBytes,
): Promise<AddApiKeyOutcome> {
  // In the order of the table and each once, so that two lists that mean the same look the same.
  const scopes = apiScopes.filter((scope) => wanted.scopes.includes(scope));
  if (scopes.length === 0) return { kind: 'no-scope' };
  return db.transaction(async (tx): Promise<AddApiKeyOutcome> => {
    const product = await lockProduct(tx, wanted.product);
    if (!product) {
      const products = await readProducts(tx);
      return { kind: 'unknown-product', known: products.map((each) => each.key) };
    }
    const keys = await listApiKeys(tx, product.id);
    const active = keys.filter((each) => each.retiredAt === null).map(({ id }) => id);
    if (active.length >= activeKeysMax) return { kind: 'too-many', active };
    const secret = `lk_${random(keySizeBytes).toString('base64url')}`;
    const key = await insertApiKey(tx, { productId: product.id, scopes, hash: hashApiKey(secret) });
    await writeAudit(tx, {
      actor,
      act: 'api_key.added',
      subject: `product/${product.key}`,
      detail: { apiKeyId: key.id, scopes },
    });
    return { kind: 'added', key, secret, activeKeys: active.length + 1 };
  });
}

/** What of a key is stored. The key has 256 random bits, so that no slow hash is needed. */
export function hashApiKey(secret: string): Buffer {
  return createHash('sha256').update(secret).digest();
}

/** Whether a text has the form of a key at all. */
export function looksLikeApiKey(text: string): boolean {
  return /^lk_[\w-]{43}$/.test(text);
}
