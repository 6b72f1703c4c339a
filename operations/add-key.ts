import { createHash, timingSafeEqual } from 'node:crypto';
import { writeAudit } from '../db/audit.ts';
import { makeLookUpsDue } from '../db/look-ups.ts';
import type { KeyClass } from '../db/key-classes.ts';
import {
  type KeyRow,
  drawKeyId,
  findProduct,
  insertKey,
  lockProduct,
  readActiveKeys,
  readProducts,
} from '../db/products.ts';
import type { KeyedActor } from './actor.ts';

/** Two are enough to change keys without a gap; more than a handful is a leak or a mistake. */
const activeKeysMax = 5;

export type AddKeyOutcome =
  | { kind: 'added'; key: KeyRow; activeKeys: number }
  | { kind: 'unknown-product'; known: string[] }
  | { kind: 'invalid'; problem: string }
  | { kind: 'invalid-id'; problem: string }
  /** The same secret is active already, as this key. */
  | { kind: 'known-secret'; key: { id: number; class: KeyClass } }
  | { kind: 'too-many'; activeKeys: number };

/**
 * Adds a key. Callbacks signed with it are accepted from now on, those signed with the others too; one
 * of the class open-api signs our own calls, in place of an older one.
 *
 * @param wanted.secret as the marketplace shows it; one line break at its end is not part of it
 */
export async function addKey(
  { db, keyring, actor }: KeyedActor,
  wanted: {
    product: string;
    class: KeyClass;
    /** Only for open-api: the public half of the pair (AK). */
    accessKeyId?: string | undefined;
    secret: string;
  },
): Promise<AddKeyOutcome> {
  const secret = wanted.secret.replace(/\r?\n$/, '');
  const problem = findProblem(secret);
  if (problem !== undefined) return { kind: 'invalid', problem };
  const accessKeyId = wanted.accessKeyId ?? null;
  const idProblem = findIdProblem(wanted.class, accessKeyId);
  if (idProblem !== undefined) return { kind: 'invalid-id', problem: idProblem };

  const product = await findProduct(db, wanted.product);
  if (!product) {
    const products = await readProducts(db);
    return { kind: 'unknown-product', known: products.map((each) => each.key) };
  }

  const id = await drawKeyId(db.pool);
  const place = `product_keys/secret_enc/${id}`;
  const secretEnc = await keyring.seal(`product/${product.id}`, secret, place);
  // What cannot be opened again must not be stored; and now the keyring asks for no second
  // connection inside the transaction.
  await keyring.open(secretEnc, place);
  return db.transaction(async (tx): Promise<AddKeyOutcome> => {
    await lockProduct(tx, product.key);
    const active = await readActiveKeys(tx, product.id);
    for (const key of active) {
      const known = await keyring.open(key.secretEnc, `product_keys/secret_enc/${key.id}`);
      if (isSame(known, secret)) {
        return { kind: 'known-secret', key: { id: key.id, class: key.class } };
      }
    }
    if (active.length >= activeKeysMax) return { kind: 'too-many', activeKeys: active.length };

    const key = await insertKey(tx, {
      id,
      productId: product.id,
      class: wanted.class,
      accessKeyId,
      secretEnc,
    });
    await writeAudit(tx, {
      actor,
      act: 'key.added',
      subject: `product/${product.key}`,
      detail: { keyId: id, class: wanted.class },
    });
    if (wanted.class === 'open-api' && product.openApiUrl !== null) {
      await makeLookUpsDue(tx, product.id, 'parked');
    }
    return { kind: 'added', key, activeKeys: active.length + 1 };
  });
}

function findProblem(secret: string): string | undefined {
  const length = secret.length;
  if (length < 8 || length > 200) return `must have 8 to 200 characters, not ${length}`;
  if (/\p{Cc}/u.test(secret)) return 'must be one line without control characters';
  if (secret.trim() !== secret) return 'must not begin or end with a space';
  return undefined;
}

/** It goes into a header as it is. */
function findIdProblem(keyClass: KeyClass, id: string | null): string | undefined {
  if (keyClass !== 'open-api')
    return id === null ? undefined : 'belongs to the class open-api only';
  if (id === null) return 'is required for the class open-api: the access key id (AK)';
  return /^[\w.-]{4,128}$/.test(id) ? undefined : 'must be 4 to 128 letters and digits';
}

function isSame(known: Buffer, secret: string): boolean {
  const digest = (value: Buffer | string) => createHash('sha256').update(value).digest();
  return timingSafeEqual(digest(known), digest(secret));
}
