import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type Failure, type ScheduleName, nextTry } from '../../core/failure.ts';

const transient: Failure = { class: 'transient', cause: 'backend answered 503' };
const minuteMs = 60_000;
const hourMs = 60 * minuteMs;

/** Fails again and again: the age at each try, the last one being where it died. */
function failOn(
  schedule: ScheduleName,
  options: { random?: () => number; failure?: Failure; tryMs?: number; startMs?: number } = {},
): number[] {
  const { random = () => 0.5, failure = transient, tryMs = 0, startMs = 0 } = options;
  const tries: number[] = [];
  let ageMs = startMs;
  for (let attempts = 1; attempts < 100; attempts += 1) {
    tries.push(ageMs);
    ageMs += tryMs;
    const next = nextTry(failure, { schedule, attempts, ageMs, random: random(), scale: 1 });
    if (next === 'dead') return tries;
    ageMs += next.retryInMs;
  }
  throw new Error('it never ended');
}

describe('a create', () => {
  test('is tried eight times, the waits growing from seconds to an hour, and is dead at 1 h 51', () => {
    expect(failOn('create').map((ageMs) => ageMs / 1_000)).toEqual([
      0, 2, 12, 72, 372, 1_272, 3_072, 6_672,
    ]);
  });

  test.each([0, 0.25, 0.5, 0.75, 0.999])(
    'is tried eight times also by a backend that takes 10 s to fail, spread %d',
    (spread) => {
      const tries = failOn('create', { random: () => spread, tryMs: 10_000 });
      expect(tries).toHaveLength(8);
      expect(tries.at(-1)).toBeGreaterThan(98 * minuteMs);
      expect(tries.at(-1)).toBeLessThan(126 * minuteMs);
    },
  );

  test('ends an hour before the refund also when it had to wait for its turn', () => {
    const tries = failOn('create', { startMs: 100 * minuteMs });
    expect(tries.length).toBeGreaterThanOrEqual(2);
    expect(Math.max(...tries)).toBeLessThan(126 * minuteMs);
  });
});

describe('what was acknowledged and is never sent again', () => {
  test('goes on hourly to a day', () => {
    const tries = failOn('acknowledged');
    const waits = tries.slice(1).map((ageMs, place) => ageMs - (tries[place] ?? 0));
    expect(waits.slice(6).every((waitMs) => waitMs === hourMs)).toBe(true);
    expect(tries.at(-1)).toBeGreaterThanOrEqual(23 * hourMs);
    expect(tries.at(-1)).toBeLessThan(27 * hourMs);
  });
});

test.each(['permanent', 'contract'] as const)('%s is dead at once', (kind) => {
  const failure: Failure = { class: kind, cause: 'backend answered 400', retryAfterMs: 1_000 };
  for (const schedule of ['create', 'acknowledged'] as const)
    expect(failOn(schedule, { failure })).toHaveLength(1);
});

describe('what the other side asks for', () => {
  const at = { schedule: 'create', attempts: 1, ageMs: 0, random: 0.5, scale: 1 } as const;

  test('a longer wait is kept, and spread so that not all come back at once', () => {
    expect(nextTry({ ...transient, retryAfterMs: 30_000 }, { ...at, random: 0.5 })).toEqual({
      retryInMs: 31_500,
    });
    const asked = { ...transient, retryAfterMs: 30_000 };
    expect(nextTry(asked, { ...at, random: 0 })).toEqual({ retryInMs: 30_000 });
  });

  test('a shorter one does not hurry the schedule', () => {
    expect(nextTry({ ...transient, retryAfterMs: 10 }, at)).toEqual({ retryInMs: 2_000 });
  });

  test('it is not scaled: the other side knows nothing of our tests', () => {
    const asked = { ...transient, retryAfterMs: 1_000 };
    expect(nextTry(asked, { ...at, random: 0, scale: 0.01 })).toEqual({ retryInMs: 1_000 });
  });
});

test('retries are spread by a tenth either way', () => {
  fc.assert(
    fc.property(
      fc.double({ min: 0, max: 0.999999, noNaN: true }),
      fc.integer({ min: 1, max: 7 }),
      (random, attempts) => {
        const at = { schedule: 'acknowledged', attempts, ageMs: 0, scale: 1 } as const;
        const middle = nextTry(transient, { ...at, random: 0.5 });
        const spread = nextTry(transient, { ...at, random });
        if (middle === 'dead' || spread === 'dead') throw new Error('dead');
        expect(spread.retryInMs).toBeGreaterThanOrEqual(Math.floor(middle.retryInMs * 0.9));
        expect(spread.retryInMs).toBeLessThanOrEqual(Math.ceil(middle.retryInMs * 1.1));
      },
    ),
  );
});

test('a scale shrinks the waits and never to nothing', () => {
  const at = { schedule: 'create', ageMs: 0, random: 0.5 } as const;
  expect(nextTry(transient, { ...at, attempts: 3, scale: 0.02 })).toEqual({ retryInMs: 1_200 });
  expect(nextTry(transient, { ...at, attempts: 1, scale: 0 })).toEqual({ retryInMs: 1 });
});
