import { writeAudit } from '../db/audit.ts';
import type { Transaction } from '../db/client.ts';
import { countHeldUp, countInFlight, endPause, setPaused } from '../db/product-pause.ts';
import { type ProductRow, lockProduct, readProducts } from '../db/products.ts';
import type { Actor } from './actor.ts';

type NotDone = { kind: 'reason-missing' } | { kind: 'unknown-product'; known: string[] };

export type PauseOutcome =
  | NotDone
  /** `inFlight`: applies that had begun before; they end by themselves. */
  | { kind: 'paused'; product: string; pausedAt: Date; inFlight: number }
  | { kind: 'paused-before'; product: string; pausedAt: Date };

export type ResumeOutcome =
  | NotDone
  /** `due`: instances that are worked on again. */
  | { kind: 'resumed'; product: string; due: number }
  | { kind: 'not-paused'; product: string };

/**
 * Stops applying anything of a product, for as long as its backend must be left alone. Callbacks are
 * acknowledged and stored as ever.
 */
export async function pauseProduct(
  actor: Actor,
  wanted: { product: string; reason: string },
): Promise<PauseOutcome> {
  return withProduct<PauseOutcome>(actor, wanted, async (tx, product) => {
    const pausedAt = await setPaused(tx, product.id);
    if (!pausedAt) {
      return {
        kind: 'paused-before',
        product: product.key,
        pausedAt: product.pausedAt ?? new Date(0),
      };
    }
    const inFlight = await countInFlight(tx, product.id);
    await auditPause(tx, actor, wanted, 'product.paused', { inFlight });
    return { kind: 'paused', product: product.key, pausedAt, inFlight };
  });
}

/** Goes on with all that has come meanwhile, at once. */
export async function resumeProduct(
  actor: Actor,
  wanted: { product: string; reason: string },
): Promise<ResumeOutcome> {
  return withProduct<ResumeOutcome>(actor, wanted, async (tx, product) => {
    if (!(await endPause(tx, product.id))) return { kind: 'not-paused', product: product.key };
    const due = await countHeldUp(tx, product.id);
    await auditPause(tx, actor, wanted, 'product.resumed', { due });
    return { kind: 'resumed', product: product.key, due };
  });
}

async function withProduct<T>(
  { db }: Actor,
  wanted: { product: string; reason: string },
  work: (tx: Transaction, product: ProductRow) => Promise<T>,
): Promise<T | NotDone> {
  if (wanted.reason.trim() === '') return { kind: 'reason-missing' };
  return db.transaction(async (tx): Promise<T | NotDone> => {
    const product = await lockProduct(tx, wanted.product);
    if (product) return work(tx, product);
    const products = await readProducts(tx);
    return { kind: 'unknown-product', known: products.map((each) => each.key) };
  });
}

async function auditPause(
  tx: Transaction,
  { actor }: Actor,
  wanted: { product: string; reason: string },
  act: string,
  detail: Record<string, unknown>,
): Promise<void> {
  const reason = wanted.reason.trim();
  await writeAudit(tx, { actor, act, subject: `product/${wanted.product}`, reason, detail });
}
