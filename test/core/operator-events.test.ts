import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { InstanceEvent } from '../../core/events.ts';
import { fold } from '../../core/fold.ts';
import { wantedAfter } from '../../core/wanted.ts';
import {
  created,
  expired,
  frozen,
  minute,
  released,
  renewed,
  tell,
  unfrozen,
  upgraded,
} from './facts.ts';

const later = new Date('2027-01-01T00:00:00Z');
const earlier = new Date('2026-06-01T00:00:00Z');
const skipOf = (...events: number[]) => ({ kind: 'skipped', events }) as const;
const resolveOf = (...events: number[]) => ({ kind: 'resolved', events }) as const;
const refused = { kind: 'refused' } as const;

describe('skipped', () => {
  test('a skipped freeze counts in no facet, and the skip is newer than what was sent before', () => {
    const before = fold(tell({ ...created, isApplied: true }, frozen));
    const after = fold(
      tell({ ...created, isApplied: true }, { ...frozen, isApplied: true }, skipOf(2)),
    );
    expect(before).toMatchObject({ generation: 2, desired: { frozen: true } });
    expect(after).toMatchObject({
      generation: 3,
      canApply: true,
      desired: { frozen: false },
      covered: [1, 2, 3],
      moot: [],
      changes: [],
    });
  });

  test('the renewal before a skipped one counts again', () => {
    const log = tell(created, renewed(earlier), renewed(later), skipOf(3));
    expect(fold(log).desired.expiresAt).toEqual(earlier);
    expect(fold(log).changes.map(({ kind }) => kind)).toEqual(['created', 'renewed']);
  });

  test('a skipped release brings back what the instance was', () => {
    const log = tell(created, frozen, released, skipOf(3));
    expect(fold(log)).toMatchObject({
      desired: { exists: true, frozen: true },
      moot: [],
      generation: 4,
    });
    expect(wantedAfter(log)).toBe('frozen');
  });

  test('a skipped upgrade is not waited for', () => {
    const log = tell(created, { ...upgraded(null), isResolved: false }, skipOf(2));
    expect(fold(log)).toMatchObject({ unresolved: [], covered: [1, 2, 3], generation: 2 });
  });
});

test('what was resolved by hand keeps its facets and is no change any more', () => {
  const log = tell(
    { ...created, isApplied: true },
    { ...renewed(later), isApplied: true },
    { ...resolveOf(1, 2), isApplied: true },
  );
  expect(fold(log)).toMatchObject({
    generation: 3,
    desired: { exists: true, expiresAt: later },
    covered: [1, 2, 3],
    changes: [],
  });
});

test('a refusal absorbs as a release does: what may be out there is taken away', () => {
  const log = tell({ ...created, isResolved: false }, renewed(later), refused);
  expect(fold(log)).toMatchObject({
    canApply: true,
    desired: { exists: false },
    covered: [1, 2, 3],
    moot: [1, 2],
    unresolved: [],
  });
  expect(wantedAfter(log)).toBe('released');
});

describe('wanted is made anew', () => {
  test.each<[string, Parameters<typeof tell>, ReturnType<typeof wantedAfter>]>([
    ['nothing but a purchase', [created], 'serving'],
    ['FREEZE', [created, frozen], 'frozen'],
    ['a skipped FREEZE', [created, frozen, skipOf(2)], 'serving'],
    ['a skipped UNFREEZE', [created, frozen, unfrozen, skipOf(3)], 'frozen'],
    ['a skipped RELEASE', [created, released, skipOf(2)], 'serving'],
    ['expired', [created, expired], 'expired'],
    ['expired, then renewed', [created, expired, renewed(later)], 'serving'],
    ['expired, then a skipped renewal', [created, expired, renewed(later), skipOf(3)], 'expired'],
    ['expired, FREEZE, renewed', [created, expired, frozen, renewed(later)], 'frozen'],
    ['expired, FREEZE, UNFREEZE', [created, expired, frozen, unfrozen], 'serving'],
  ])('%s', (_, facts, wanted) => {
    expect(wantedAfter(tell(...facts))).toBe(wanted);
  });
});

const anyFact = fc.constantFrom(
  frozen,
  unfrozen,
  expired,
  released,
  renewed(later),
  renewed(earlier, 'RENEWAL_CHANGE'),
  upgraded(null),
);
const mustBeLookedUp = (fact: { kind: string; scene?: string | null }): boolean =>
  fact.kind === 'upgraded' || fact.scene === 'RENEWAL_CHANGE';
const anyLog = fc
  .record({
    facts: fc.array(fc.record({ fact: anyFact, isResolved: fc.boolean() }), { maxLength: 8 }),
    isPurchaseKnown: fc.boolean(),
  })
  .map(({ facts, isPurchaseKnown }) =>
    tell(
      { ...created, isResolved: isPurchaseKnown },
      ...facts.map(({ fact, isResolved }) => ({
        ...fact,
        isResolved: isResolved || !mustBeLookedUp(fact),
      })),
    ),
  );

function append(
  log: readonly InstanceEvent[],
  fact: ReturnType<typeof skipOf> | typeof refused,
): InstanceEvent[] {
  const id = log.length + 1;
  const at = { orderId: null, orderLineId: null, acceptedAt: minute(id), resolvedAt: minute(id) };
  return [...log, { ...fact, ...at, id, appliedAt: null }];
}

test('whatever an operator does, the generation grows', () => {
  fc.assert(
    fc.property(anyLog, fc.nat(), (log, place) => {
      const { id } = log[1 + (place % Math.max(1, log.length - 1))] ?? { id: 1 };
      const before = fold(log).generation;
      expect(fold(append(log, skipOf(id))).generation).toBeGreaterThan(before);
      expect(fold(append(log, refused)).generation).toBeGreaterThan(before);
    }),
  );
});

test('a skipped event counts as if it had never been told', () => {
  fc.assert(
    fc.property(anyLog, fc.nat(), (log, place) => {
      fc.pre(log.length > 1);
      const { id } = log[1 + (place % (log.length - 1))] ?? { id: 2 };
      const without = log.filter((event) => event.id !== id);
      const skipped = append(log, skipOf(id));
      expect(fold(skipped).desired).toEqual(fold(without).desired);
      expect(fold(skipped).canApply).toBe(fold(without).canApply);
      expect(wantedAfter(skipped)).toBe(wantedAfter(without));
    }),
  );
});

test('wanted and the desired state say the same of what is known', () => {
  fc.assert(
    fc.property(anyLog, (log) => {
      const wanted = wantedAfter(log);
      const { desired } = fold(log);
      if (wanted === 'released') expect(desired.exists).toBe(false);
      else expect(desired.frozen).toBe(wanted !== 'serving');
    }),
  );
});
