import { writeAudit } from '../db/audit.ts';
import { type RedrivenInstance, redriveDeadLetters } from '../db/dead-letters.ts';
import { findProduct, readProducts } from '../db/products.ts';
import type { Actor } from './actor.ts';

/** Which dead letters: all, or those of a product, of an order, or of both together. */
export type RedriveScope =
  | { all: true }
  | { product: string; order?: string | undefined }
  | { order: string };

export type RedriveOutcome =
  | { kind: 'redriven'; instances: RedrivenInstance[] }
  | { kind: 'nothing-dead' }
  | { kind: 'unknown-product'; known: string[] }
  | { kind: 'reason-missing' };

/**
 * Makes dead letters due again. It needs no queue: the dispatcher finds them within a poll. Two at
 * once share the dead letters between them, and none is redriven twice.
 *
 * @param wanted.reason why a person thinks that it will work now; kept in the audit
 */
export async function redrive(
  { db, actor }: Actor,
  wanted: { scope: RedriveScope; reason: string },
): Promise<RedriveOutcome> {
  const reason = wanted.reason.trim();
  if (reason === '') return { kind: 'reason-missing' };
  const { scope } = wanted;
  if ('product' in scope && !(await findProduct(db, scope.product))) {
    const products = await readProducts(db);
    return { kind: 'unknown-product', known: products.map((each) => each.key) };
  }

  return db.transaction(async (tx): Promise<RedriveOutcome> => {
    const instances = await redriveDeadLetters(tx, 'all' in scope ? {} : scope);
    if (instances.length === 0) return { kind: 'nothing-dead' };
    await writeAudit(tx, {
      actor,
      act: 'dead_letter.redriven',
      subject: subjectOf(scope),
      reason,
      detail: {
        count: instances.length,
        instances: instances.map(({ product, orderId, instanceId, cause }) => ({
          product,
          orderId,
          instanceId,
          cause,
        })),
      },
    });
    return { kind: 'redriven', instances };
  });
}

function subjectOf(scope: RedriveScope): string {
  if ('all' in scope) return 'dead-letters';
  if (!('product' in scope)) return `order/${scope.order}`;
  const ofProduct = `product/${scope.product}`;
  return scope.order === undefined ? ofProduct : `${ofProduct}/order/${scope.order}`;
}
