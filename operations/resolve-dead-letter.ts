import type { InstanceEvent } from '../core/events.ts';
import { type Fold, fold } from '../core/fold.ts';
import { stateAfter } from '../core/instance.ts';
import { wantedAfter } from '../core/wanted.ts';
import {
  type HandMade,
  type HeldDeadLetter,
  readDeadLettersForAct,
  writeHandMade,
} from '../db/dead-letter-acts.ts';
import { type AccessData, accessDataSchema } from '../protocol/saas-v2/reply.ts';
import {
  type ActOutcome,
  type Decision,
  type Wanted,
  actOnDeadLetters,
  checkWanted,
  filterOf,
} from './act-on-dead-letters.ts';
import type { Actor, KeyedActor } from './actor.ts';

export type DeliverOutcome =
  | ActOutcome
  /** Not the JSON that is asked for; `problem` repeats nothing of it. */
  | { kind: 'bad-access'; problem: string }
  /** Access data belongs to one instance. */
  | { kind: 'several'; count: number };

/**
 * Records that a person made real by hand all that is open on dead letters: nothing more is tried,
 * and the marketplace is answered accordingly.
 */
export async function resolveDeadLetter(actor: Actor, wanted: Wanted): Promise<ActOutcome> {
  return actOnDeadLetters<HandMade>(actor, wanted, {
    name: 'dead_letter.resolved',
    decide: (letter) => {
      const { after, folded } = resolveAll(letter);
      if (letter.state === 'pending' && folded.desired.exists) {
        return {
          why: 'it was never delivered: give the access data of what was delivered by hand',
        };
      }
      return decideResolve(letter, after, folded, undefined);
    },
    write: writeHandMade,
  });
}

/**
 * The same for one order that was delivered by hand: what the buyer was given is what re-sends and
 * queries answer from now on.
 *
 * @param wanted.accessText access data as JSON, as the seller's backend would answer it
 */
export async function resolveDelivered(
  actor: KeyedActor,
  wanted: Wanted & { accessText: string },
): Promise<DeliverOutcome> {
  const access = readAccess(wanted.accessText);
  if (typeof access === 'string') return { kind: 'bad-access', problem: access };
  const refused = await checkWanted(actor.db, wanted);
  if (refused) return refused;
  // Sealed before the transaction, because the keyring has connections of its own.
  const found = await actor.db.transaction((tx) =>
    readDeadLettersForAct(tx, filterOf(wanted.scope), { hold: false }),
  );
  const [only] = found;
  if (!only) return { kind: 'nothing-dead' };
  if (found.length > 1) return { kind: 'several', count: found.length };
  const accessEnc = await actor.keyring.seal(
    `product/${only.productId}`,
    JSON.stringify(access),
    `instances/access_enc/${only.instanceNumber}`,
  );
  return actOnDeadLetters<HandMade>(actor, wanted, {
    name: 'dead_letter.delivered',
    decide: (letter) => {
      if (letter.instanceNumber !== only.instanceNumber) return { why: 'it died a moment ago' };
      const { after, folded } = resolveAll(letter);
      if (!folded.desired.exists || letter.state === 'refused') {
        return { why: 'it was released or refused: there is nothing to deliver' };
      }
      return decideResolve(letter, after, folded, accessEnc);
    },
    write: writeHandMade,
  });
}

/** The log as it is after the act: everything open known and applied, and the act itself. */
function resolveAll(letter: HeldDeadLetter): { after: InstanceEvent[]; folded: Fold } {
  const last = letter.events.at(-1);
  const at = last?.acceptedAt ?? new Date(0);
  const open = letter.events.filter((event) => event.appliedAt === null);
  const after: InstanceEvent[] = [
    ...letter.events.map((event) => ({
      ...event,
      resolvedAt: event.resolvedAt ?? at,
      appliedAt: event.appliedAt ?? at,
    })),
    {
      kind: 'resolved',
      events: open.map(({ id }) => id),
      id: (last?.id ?? 0) + 1,
      orderId: null,
      orderLineId: null,
      acceptedAt: at,
      resolvedAt: at,
      appliedAt: at,
    },
  ];
  return { after, folded: fold(after) };
}

function decideResolve(
  letter: HeldDeadLetter,
  after: readonly InstanceEvent[],
  folded: Fold,
  accessEnc: Buffer | undefined,
): Decision<HandMade> {
  const events = letter.events.filter((event) => event.appliedAt === null).map(({ id }) => id);
  return {
    write: {
      instanceNumber: letter.instanceNumber,
      events,
      moot: folded.moot.filter((id) => events.includes(id)),
      generation: folded.generation,
      // Where even now nothing is known that could be made, it is what it was.
      state:
        letter.state === 'refused' || !folded.canApply ? letter.state : stateAfter(folded.desired),
      wanted: wantedAfter(after),
      expiresAt: folded.desired.expiresAt,
      accessEnc,
    },
  };
}

/** @returns what is wrong with it, in words that repeat nothing of it */
function readAccess(text: string): AccessData | string {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return 'it is not JSON';
  }
  const parsed = accessDataSchema.safeParse(value);
  if (parsed.success) return parsed.data;
  const fields = parsed.error.issues.map((issue) => issue.path.join('.') || 'the whole');
  return `not as expected: ${[...new Set(fields)].join(', ')}`;
}
