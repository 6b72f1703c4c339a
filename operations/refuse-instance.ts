import { writeRefusals } from '../db/dead-letter-acts.ts';
import { isCreateRefusalCode } from '../protocol/result-codes.ts';
import { type ActOutcome, type Wanted, actOnDeadLetters } from './act-on-dead-letters.ts';
import type { Actor } from './actor.ts';

export type RefuseOutcome = ActOutcome | { kind: 'bad-code' };

/**
 * Refuses purchases that were never made: every re-send is answered the code from now on. A try that
 * ended without an answer may have left something behind; a worker takes it away as after a release.
 *
 * @param wanted.resultCode one of the marketplace's 0001xx codes
 */
export async function refuseInstance(
  actor: Actor,
  wanted: Wanted & { resultCode: string },
): Promise<RefuseOutcome> {
  const { resultCode } = wanted;
  if (!isCreateRefusalCode(resultCode)) return { kind: 'bad-code' };
  return actOnDeadLetters<number>(actor, wanted, {
    name: 'dead_letter.refused',
    detail: { resultCode },
    decide: (letter) => {
      const isOpen = letter.events.some(
        (event) => event.kind === 'created' && event.appliedAt === null,
      );
      if (letter.state === 'refused') return { why: 'it was refused before' };
      if (letter.state !== 'pending' || letter.applied > 0 || !isOpen) {
        return { why: 'it was delivered: only a purchase that was never made can be refused' };
      }
      if (letter.wanted === 'released') return { why: 'it was released by the marketplace' };
      return { write: letter.instanceNumber };
    },
    write: (tx, instances) => writeRefusals(tx, { instances, resultCode }),
  });
}
