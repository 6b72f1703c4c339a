import { type InstanceEvent, type SkippableKind, skippableKinds } from '../core/events.ts';
import { wantedAfter } from '../core/wanted.ts';
import { type HeldDeadLetter, type Skip, writeSkips } from '../db/dead-letter-acts.ts';
import {
  type ActOutcome,
  type Decision,
  type Wanted,
  actOnDeadLetters,
} from './act-on-dead-letters.ts';
import type { Actor } from './actor.ts';

/** Which open event of a dead letter; without any the only one that can be skipped. */
export type SkipChoice = { eventId?: number | undefined; kind?: SkippableKind | undefined };

/**
 * Takes an open event out of what an instance should be, as if it had never been told, and makes the
 * instance due with what is left. The log keeps it, and the marketplace was told that it is done.
 */
export async function skipEvent(
  actor: Actor,
  wanted: Wanted & { choice: SkipChoice },
): Promise<ActOutcome> {
  const { choice } = wanted;
  return actOnDeadLetters<Skip>(actor, wanted, {
    name: 'dead_letter.skipped',
    detail: {
      ...(choice.eventId === undefined ? {} : { event: choice.eventId }),
      ...(choice.kind === undefined ? {} : { kind: choice.kind }),
    },
    decide: (letter) => decideSkip(letter, choice),
    write: writeSkips,
  });
}

function decideSkip(letter: HeldDeadLetter, choice: SkipChoice): Decision<Skip> {
  const open = letter.events.filter((event) => event.appliedAt === null);
  const skippable = open.filter(({ kind }) => skippableKinds.some((each) => each === kind));
  const chosen = skippable.filter(
    ({ id, kind }) =>
      (choice.eventId === undefined || choice.eventId === id) &&
      (choice.kind === undefined || choice.kind === kind),
  );
  if (chosen.length === 0) return { why: whyNothingToSkip(open, choice) };
  if (chosen.length > 1 && choice.kind === undefined) {
    const names = chosen.map(({ id, kind }) => `${kind} (${id})`).join(', ');
    return { why: `several events are open, say which: ${names}` };
  }
  const events = chosen.map(({ id }) => id);
  const after: InstanceEvent[] = [...letter.events, operatorSkip(letter, events)];
  return {
    write: { instanceNumber: letter.instanceNumber, events, wanted: wantedAfter(after) },
  };
}

function whyNothingToSkip(open: readonly InstanceEvent[], choice: SkipChoice): string {
  const isChosen = choice.eventId !== undefined || choice.kind !== undefined;
  const isCreate = open.some(({ id, kind }) => kind === 'created' && (choice.eventId ?? id) === id);
  if (isCreate && choice.kind === undefined) {
    return 'a purchase cannot be skipped: refuse it, or resolve it as delivered by hand';
  }
  return isChosen ? 'it has no such open event' : 'it has no open event that can be skipped';
}

function operatorSkip(letter: HeldDeadLetter, events: readonly number[]): InstanceEvent {
  const last = letter.events.at(-1);
  const at = last?.acceptedAt ?? new Date(0);
  return {
    kind: 'skipped',
    events,
    id: (last?.id ?? 0) + 1,
    orderId: null,
    orderLineId: null,
    acceptedAt: at,
    resolvedAt: at,
    appliedAt: null,
  };
}
