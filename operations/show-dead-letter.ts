import { isOperatorKind } from '../core/events.ts';
import { type Outlook, outlookOf } from '../core/marketplace-rules.ts';
import { writeAudit } from '../db/audit.ts';
import type { Keyring } from '../db/data-keys.ts';
import {
  type DeadLetterAttempt,
  type DeadLetterStory,
  type OpenEvent,
  readDeadLetterStories,
} from '../db/dead-letters.ts';
import type { Actor } from './actor.ts';

export type ShownDeadLetter = Omit<
  DeadLetterStory,
  'instanceNumber' | 'productId' | 'events' | 'tries'
> & {
  /** Oldest first; `outlook` is null for what an operator decided. */
  events: (OpenEvent & { outlook: Outlook | null })[];
  /** The one to watch: when the buyer is refunded. Null when nothing open is refunded. */
  refund: { at: Date; inMs: number; source: string; assumed: boolean } | null;
  tries: ShownAttempt[];
};

type ShownAttempt = Omit<DeadLetterAttempt, 'saidEnc' | 'fence'> & {
  /** Whether there is an answer that can be opened. */
  hasAnswer: boolean;
  /** The answer in clear; only where it was asked for. */
  said?: string;
};

/**
 * All that helps to decide about the dead letters of one order. What a backend answered may hold
 * anything, so it is opened only on request, and each opening is audited.
 */
export async function showDeadLetter(
  { db, actor }: Actor,
  wanted: {
    order: string;
    now: Date;
    /** Opens what was answered. */
    said?: { keyring: Keyring; reason?: string | undefined } | undefined;
  },
): Promise<ShownDeadLetter[]> {
  const { order, now, said } = wanted;
  const stories = await readDeadLetterStories(db, { order });
  const shown: ShownDeadLetter[] = [];
  for (const story of stories) shown.push(await showStory(story, now, said?.keyring));
  if (said && shown.length > 0) {
    await writeAudit(db, {
      actor,
      act: 'dead_letter.answers_opened',
      subject: `order/${order}`,
      reason: said.reason?.trim() || undefined,
      detail: {
        instances: stories.map(({ product, instanceId }) => ({ product, instanceId })),
        answers: stories.flatMap(({ tries }) => tries).filter(({ saidEnc }) => saidEnc).length,
      },
    });
  }
  return shown;
}

async function showStory(
  story: DeadLetterStory,
  now: Date,
  keyring: Keyring | undefined,
): Promise<ShownDeadLetter> {
  const { instanceNumber: _number, productId: _product, events, tries, ...rest } = story;
  const seen = events.map((event) => ({
    ...event,
    outlook:
      isOperatorKind(event.kind) || event.kind === 'imported'
        ? null
        : outlookOf({ family: story.family, kind: event.kind, acceptedAt: event.acceptedAt }, now),
  }));
  const attempts: ShownAttempt[] = [];
  for (const { saidEnc, fence, ...attempt } of tries) {
    const hasAnswer = saidEnc !== null;
    if (!keyring || saidEnc === null) attempts.push({ ...attempt, hasAnswer });
    else {
      const said = (await keyring.open(saidEnc, `attempts/said_enc/${fence}`)).toString('utf8');
      attempts.push({ ...attempt, hasAnswer, said });
    }
  }
  return { ...rest, events: seen, refund: refundOf(seen), tries: attempts };
}

function refundOf(events: ShownDeadLetter['events']): ShownDeadLetter['refund'] {
  const refunded = events.flatMap(({ outlook }) => {
    if (!outlook?.refundAt || outlook.refundInMs === null) return [];
    const { refundAt: at, refundInMs: inMs, source, assumed } = outlook;
    return [{ at, inMs, source, assumed }];
  });
  return refunded.toSorted((a, b) => a.at.getTime() - b.at.getTime())[0] ?? null;
}
