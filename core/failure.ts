/**
 * permanent: the same call would fail again, stop. transient: try again later. contract: the other
 * side answers nonsense, stop and tell a person.
 */
const failureClasses = ['permanent', 'transient', 'contract'] as const;
export type FailureClass = (typeof failureClasses)[number];

/** An apply that did not work, in words that an operator can act on and that hold no secret. */
export type Failure = {
  class: FailureClass;
  /** Short and stable, the same for the same reason: dead letters are grouped by it. */
  cause: string;
  /** What the other side said, for an operator; sealed at rest. */
  said?: string;
  httpStatus?: number;
  /** What the other side asked for, in milliseconds. */
  retryAfterMs?: number;
};

const secondMs = 1_000;
const minuteMs = 60 * secondMs;
const hourMs = 60 * minuteMs;

/** The waits between the tries, and the age after which nothing is tried again. */
type Schedule = { waitsMs: readonly number[]; repeatLast: boolean; deadAfterMs: number };

/**
 * The marketplace re-sends a create for three hours (documented for the old interface, assumed for
 * SaaS V2.0) and then refunds; ours ends an hour before, so that a person has time. What was
 * acknowledged is never sent again, so it is worth a day.
 */
export const schedules = {
  create: {
    waitsMs: [
      2 * secondMs,
      10 * secondMs,
      minuteMs,
      5 * minuteMs,
      15 * minuteMs,
      30 * minuteMs,
      60 * minuteMs,
    ],
    repeatLast: false,
    // The eight tries, with all spread one way and tries that take 10 s themselves.
    deadAfterMs: 114 * minuteMs,
  },
  acknowledged: {
    waitsMs: [
      2 * secondMs,
      10 * secondMs,
      minuteMs,
      5 * minuteMs,
      15 * minuteMs,
      30 * minuteMs,
      60 * minuteMs,
    ],
    repeatLast: true,
    deadAfterMs: 24 * hourMs,
  },
} as const satisfies Record<string, Schedule>;

export type ScheduleName = keyof typeof schedules;

/** How often a worker may die over one dispatch before it counts as dead. */
export const claimsMax = 5;

/** Failures in a row after which a product's queue is let through one at a time. */
export const breakerThreshold = 5;

/**
 * When to try again after the `attempts`-th failed try (from 1), or that it is over.
 *
 * @param ageMs since this run of tries began: at acceptance, at a newer event, at a redrive
 * @param random in [0, 1), spreads retries by a tenth either way so that they do not come in waves
 * @param scale 1 in production; tests shrink the waits with it
 */
export function nextTry(
  failure: Failure,
  at: { schedule: ScheduleName; attempts: number; ageMs: number; random: number; scale: number },
): { retryInMs: number } | 'dead' {
  if (failure.class !== 'transient') return 'dead';
  const schedule: Schedule = schedules[at.schedule];
  const last = schedule.waitsMs.length;
  if (at.attempts > last && !schedule.repeatLast) return 'dead';
  const waitMs = schedule.waitsMs[Math.min(at.attempts, last) - 1] ?? secondMs;
  const scaledMs = Math.max(1, waitMs * at.scale * (0.9 + at.random / 5));
  const retryInMs = Math.round(
    Math.max(scaledMs, (failure.retryAfterMs ?? 0) * (1 + at.random / 10)),
  );
  // Age counts only once the tries ran long: a create that waited for its turn still gets its tries.
  const endsAtMs = at.ageMs + retryInMs;
  if (at.attempts > 1 && endsAtMs > schedule.deadAfterMs * 1.1) return 'dead';
  return { retryInMs };
}
