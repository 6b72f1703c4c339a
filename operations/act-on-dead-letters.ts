import { writeAudit } from '../db/audit.ts';
import type { Transaction } from '../db/client.ts';
import { type HeldDeadLetter, readDeadLettersForAct } from '../db/dead-letter-acts.ts';
import type { DeadLetterFilter } from '../db/dead-letters.ts';
import { findProduct, readProducts } from '../db/products.ts';
import type { Actor } from './actor.ts';

/** Which dead letters: all, or those that fit every part given, of which there is at least one. */
export type DeadLetterScope =
  | { all: true }
  | { product: string; order?: string | undefined; cause?: string | undefined }
  | { order: string; product?: string | undefined; cause?: string | undefined }
  | { cause: string; product?: string | undefined; order?: string | undefined };

/** What a person asks to be done to dead letters. */
export type Wanted = {
  scope: DeadLetterScope;
  /** Why; kept in the audit. Only a dry run needs none. */
  reason: string;
  /** Counts, and does nothing. */
  isDryRun?: boolean | undefined;
};

/** A dead letter as it was when something was done to it. */
export type TouchedDeadLetter = Pick<
  HeldDeadLetter,
  'product' | 'orderId' | 'instanceId' | 'cause' | 'fingerprint'
>;

/** One for which the act makes no sense; nothing was done to it. */
export type UnfitDeadLetter = TouchedDeadLetter & { why: string };

export type ActOutcome =
  | { kind: 'done'; instances: TouchedDeadLetter[]; unfit: UnfitDeadLetter[] }
  | { kind: 'counted'; count: number; unfit: UnfitDeadLetter[] }
  | { kind: 'nothing-dead' }
  /** There are dead letters, but the act fits none of them. */
  | { kind: 'nothing-fits'; unfit: UnfitDeadLetter[] }
  | { kind: 'unknown-product'; known: string[] }
  | { kind: 'reason-missing' };

/** What an act means for one dead letter: what is to be written, or why it makes no sense. */
export type Decision<T> = { write: T } | { why: string };

/** What makes one verb different from the others. */
export type Act<T> = {
  /** For the audit, `dead_letter.past_participle`. */
  name: string;
  /** For the audit, beside the ids; no secrets. */
  detail?: Record<string, unknown>;
  decide(letter: HeldDeadLetter): Decision<T>;
  write(tx: Transaction, decided: readonly T[]): Promise<void>;
};

/**
 * Does one thing to every dead letter that is meant and that it fits, and audits it as one act, in
 * one transaction. Those that it does not fit are named and left alone.
 */
export async function actOnDeadLetters<T>(
  { db, actor }: Actor,
  wanted: Wanted,
  act: Act<T>,
): Promise<ActOutcome> {
  const refused = await checkWanted(db, wanted);
  if (refused) return refused;
  const isDryRun = wanted.isDryRun === true;
  return db.transaction(async (tx): Promise<ActOutcome> => {
    const letters = await readDeadLettersForAct(tx, filterOf(wanted.scope), { hold: !isDryRun });
    if (letters.length === 0) return { kind: 'nothing-dead' };
    const fitting: { letter: HeldDeadLetter; write: T }[] = [];
    const unfit: UnfitDeadLetter[] = [];
    for (const letter of letters) {
      const decision = act.decide(letter);
      if ('why' in decision) unfit.push({ ...touched(letter), why: decision.why });
      else fitting.push({ letter, write: decision.write });
    }
    if (isDryRun) return { kind: 'counted', count: fitting.length, unfit };
    if (fitting.length === 0) return { kind: 'nothing-fits', unfit };
    await act.write(
      tx,
      fitting.map(({ write }) => write),
    );
    const instances = fitting.map(({ letter }) => touched(letter));
    await auditAct(tx, actor, wanted, { name: act.name, instances, detail: act.detail });
    return { kind: 'done', instances, unfit };
  });
}

/** @returns why it cannot be asked so; undefined when it can */
export async function checkWanted(
  db: Actor['db'],
  wanted: Wanted,
): Promise<Extract<ActOutcome, { kind: 'reason-missing' | 'unknown-product' }> | undefined> {
  if (wanted.reason.trim() === '' && wanted.isDryRun !== true) return { kind: 'reason-missing' };
  const { product } = filterOf(wanted.scope);
  if (product === undefined || (await findProduct(db, product))) return undefined;
  const products = await readProducts(db);
  return { kind: 'unknown-product', known: products.map((each) => each.key) };
}

/** One entry for the whole act, with every instance that it touched. */
export async function auditAct(
  tx: Transaction,
  actor: string,
  wanted: Wanted,
  act: {
    name: string;
    instances: readonly TouchedDeadLetter[];
    detail?: Record<string, unknown> | undefined;
  },
): Promise<void> {
  await writeAudit(tx, {
    actor,
    act: act.name,
    subject: subjectOf(wanted.scope),
    reason: wanted.reason.trim(),
    detail: { ...act.detail, count: act.instances.length, instances: act.instances },
  });
}

export function filterOf(scope: DeadLetterScope): DeadLetterFilter {
  if ('all' in scope) return {};
  const { product, order, cause } = scope;
  return { product, order, cause };
}

function subjectOf(scope: DeadLetterScope): string {
  const { product, order, cause } = filterOf(scope);
  const parts = [
    ...(product === undefined ? [] : [`product/${product}`]),
    ...(order === undefined ? [] : [`order/${order}`]),
    ...(cause === undefined ? [] : [`cause/${cause}`]),
  ];
  return parts.join('/') || 'dead-letters';
}

function touched(letter: HeldDeadLetter): TouchedDeadLetter {
  const { product, orderId, instanceId, cause, fingerprint } = letter;
  return { product, orderId, instanceId, cause, fingerprint };
}
