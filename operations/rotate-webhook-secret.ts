import { randomBytes } from 'node:crypto';
import { writeAudit } from '../db/audit.ts';
import type { Transaction } from '../db/client.ts';
import {
  type ProductRow,
  findProduct,
  lockProduct,
  readProducts,
  updateProduct,
} from '../db/products.ts';
import { openWebhookSecrets, webhookSecretAad } from '../db/webhook-secrets.ts';
import { isWebhookSecret } from '../runtime/outbound.ts';
import type { KeyedActor } from './actor.ts';

// A seller's backend changes its secret at leisure: the second one is added here, then there, then
// the first one is retired. In between every call carries a signature of each.

type NotDone =
  | { kind: 'unknown-product'; known: string[] }
  /** Only the provisioner http calls a backend. */
  | { kind: 'not-http'; provisioner: string }
  /** Somebody else changed the secrets at the same moment; nothing was done. */
  | { kind: 'changed-meanwhile' };

export type AddWebhookSecretOutcome =
  | NotDone
  /** `generatedSecret` is told this once and never again. */
  | { kind: 'added'; product: string; generatedSecret: string | null }
  | { kind: 'invalid'; problem: string }
  | { kind: 'same-secret' }
  | { kind: 'two-already' };

export type RetireWebhookSecretOutcome =
  | NotDone
  | { kind: 'retired'; product: string; which: 'old' | 'new' }
  /** There is one alone, and without one no call can be signed. */
  | { kind: 'only-one' };

/**
 * Adds the second secret: from now on both sign.
 *
 * @param wanted.secret `whsec_` and base64 of at least 24 bytes; made when absent
 */
export async function addWebhookSecret(
  context: KeyedActor,
  wanted: { product: string; secret?: string | undefined },
  random: (sizeBytes: number) => Buffer = randomBytes,
): Promise<AddWebhookSecretOutcome> {
  const { keyring } = context;
  const generatedSecret =
    wanted.secret === undefined ? `whsec_${random(32).toString('base64')}` : null;
  const secret = wanted.secret ?? generatedSecret ?? '';
  if (!isWebhookSecret(secret) || Buffer.from(secret.slice(6), 'base64').length < 24) {
    return { kind: 'invalid', problem: 'must be whsec_ followed by base64 of at least 24 bytes' };
  }
  return withProduct<AddWebhookSecretOutcome>(context, wanted.product, async (product) => {
    if (product.httpSecretNextEnc) return { kind: 'two-already' };
    if ((await openWebhookSecrets(keyring, product)).includes(secret)) {
      return { kind: 'same-secret' };
    }
    const isFirst = product.httpSecretEnc === null;
    const aad = isFirst ? webhookSecretAad.current : webhookSecretAad.next;
    const sealed = await keyring.seal(`product/${product.id}`, secret, aad(product.id));
    return change(context, product, {
      act: 'webhook_secret.added',
      detail: { generated: generatedSecret !== null },
      secrets: isFirst ? { httpSecretEnc: sealed } : { httpSecretNextEnc: sealed },
      done: { kind: 'added', product: product.key, generatedSecret },
    });
  });
}

/** Ends one of two secrets: the other one signs alone. */
export async function retireWebhookSecret(
  context: KeyedActor,
  wanted: { product: string; which: 'old' | 'new' },
): Promise<RetireWebhookSecretOutcome> {
  const { keyring } = context;
  const { which } = wanted;
  return withProduct<RetireWebhookSecretOutcome>(context, wanted.product, async (product) => {
    if (!product.httpSecretNextEnc) return { kind: 'only-one' };
    // A sealed value is bound to its place, so the newer one is sealed anew for the place of the older.
    const httpSecretEnc =
      which === 'new'
        ? product.httpSecretEnc
        : await keyring.seal(
            `product/${product.id}`,
            await keyring.open(product.httpSecretNextEnc, webhookSecretAad.next(product.id)),
            webhookSecretAad.current(product.id),
          );
    return change(context, product, {
      act: 'webhook_secret.retired',
      detail: { which },
      secrets: { httpSecretEnc, httpSecretNextEnc: null },
      done: { kind: 'retired', product: product.key, which },
    });
  });
}

async function withProduct<T>(
  { db }: KeyedActor,
  key: string,
  work: (product: ProductRow) => Promise<T>,
): Promise<T | NotDone> {
  const product = await findProduct(db, key);
  if (!product) {
    const products = await readProducts(db);
    return { kind: 'unknown-product', known: products.map((each) => each.key) };
  }
  const { provisioner } = product;
  return provisioner === 'http' ? work(product) : { kind: 'not-http', provisioner };
}

/** Sealing needs connections of its own, so it comes before the transaction, which then looks again. */
async function change<T>(
  { db, actor }: KeyedActor,
  seen: ProductRow,
  to: {
    act: string;
    detail: Record<string, unknown>;
    secrets: Partial<Pick<ProductRow, 'httpSecretEnc' | 'httpSecretNextEnc'>>;
    done: T;
  },
): Promise<T | { kind: 'changed-meanwhile' }> {
  return db.transaction(async (tx: Transaction) => {
    const product = await lockProduct(tx, seen.key);
    if (!product || secretsOf(product) !== secretsOf(seen)) return { kind: 'changed-meanwhile' };
    await updateProduct(tx, product.id, to.secrets);
    const { act, detail } = to;
    await writeAudit(tx, { actor, act, subject: `product/${product.key}`, detail });
    return to.done;
  });
}

function secretsOf({ httpSecretEnc, httpSecretNextEnc }: ProductRow): string {
  return [httpSecretEnc, httpSecretNextEnc].map((each) => each?.toString('base64')).join('/');
}
