import { countDeadLetters, redriveDeadLetters } from '../db/dead-letters.ts';
import {
  type ActOutcome,
  type TouchedDeadLetter,
  type Wanted,
  auditAct,
  checkWanted,
  filterOf,
} from './act-on-dead-letters.ts';
import type { Actor } from './actor.ts';

export type RedriveOutcome =
  | { kind: 'redriven'; instances: TouchedDeadLetter[] }
  | { kind: 'counted'; count: number }
  | Extract<ActOutcome, { kind: 'nothing-dead' | 'unknown-product' | 'reason-missing' }>;

/**
 * Makes dead letters due again. It needs no queue: the dispatcher finds them within a poll. Two at
 * once share the dead letters between them, and none is redriven twice.
 *
 * @param wanted.reason why a person thinks that it will work now; kept in the audit
 */
export async function redrive({ db, actor }: Actor, wanted: Wanted): Promise<RedriveOutcome> {
  const refused = await checkWanted(db, wanted);
  if (refused) return refused;
  const filter = filterOf(wanted.scope);
  if (wanted.isDryRun === true) {
    const causes = await countDeadLetters(db, filter);
    return { kind: 'counted', count: causes.reduce((sum, each) => sum + each.count, 0) };
  }
  return db.transaction(async (tx): Promise<RedriveOutcome> => {
    const instances = await redriveDeadLetters(tx, filter);
    if (instances.length === 0) return { kind: 'nothing-dead' };
    await auditAct(tx, actor, wanted, { name: 'dead_letter.redriven', instances });
    return { kind: 'redriven', instances };
  });
}
