import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { InstanceEvent, RenewalScene } from '../../core/events.ts';
import { fold } from '../../core/fold.ts';
import {
  created,
  expired,
  frozen,
  minute,
  planOf,
  released,
  renewed,
  tell,
  unfrozen,
  upgraded,
} from './facts.ts';

const later = new Date('2027-01-01T00:00:00Z');
const earlier = new Date('2026-06-01T00:00:00Z');
const past = new Date('2025-01-01T00:00:00Z');
const bare = { exists: true, frozen: false, expiresAt: null, trial: null, plan: null };

describe('facets', () => {
  test('a purchase alone makes an instance that serves', () => {
    expect(fold(tell(created))).toEqual({
      desired: bare,
      generation: 1,
      canApply: true,
      covered: [1],
      moot: [],
      unresolved: [],
      changes: [
        {
          kind: 'created',
          scene: null,
          orderId: 'CS1',
          orderLineId: 'CS1-1',
          acceptedAt: minute(1),
        },
      ],
    });
  });

  test('a purchase that was looked up sets plan, trial and period', () => {
    const plan = planOf('p1');
    const { desired } = fold(tell({ kind: 'created', plan, trial: true, expiresAt: later }));
    expect(desired).toEqual({ ...bare, plan, trial: true, expiresAt: later });
  });

  test('no events ask for nothing', () => {
    expect(fold([])).toMatchObject({ generation: 0, canApply: false, covered: [], changes: [] });
  });

  test('a renewal, an upgrade and a freeze each set their facet and leave the others', () => {
    const plan = planOf('p2');
    const { desired, generation } = fold(tell(created, renewed(later), upgraded(plan), frozen));
    expect(desired).toEqual({ ...bare, frozen: true, expiresAt: later, plan });
    expect(generation).toBe(4);
  });
});

describe('what is not known yet', () => {
  test('before the purchase is looked up nothing is applied but a release', () => {
    const waiting = fold(tell({ ...created, isResolved: false }, renewed(later), frozen));
    expect(waiting).toMatchObject({ canApply: false, generation: 2, unresolved: [1] });
    const ended = fold(tell({ ...created, isResolved: false }, renewed(later), released));
    expect(ended).toMatchObject({
      canApply: true,
      desired: { exists: false },
      covered: [1, 2, 3],
      moot: [1, 2],
      unresolved: [],
    });
  });

  test('a renewal before the purchase is done is folded into the first apply', () => {
    const folded = fold(tell(created, renewed(later)));
    expect(folded).toMatchObject({
      canApply: true,
      covered: [1, 2],
      desired: { expiresAt: later },
    });
    expect(folded.changes.map(({ kind }) => kind)).toEqual(['created', 'renewed']);
  });

  test('an upgrade whose order is unknown withholds only the plan: a freeze after it applies', () => {
    const folded = fold(
      tell({ ...created, isApplied: true }, { ...upgraded(null), isResolved: false }, frozen),
    );
    expect(folded).toMatchObject({
      canApply: true,
      generation: 2,
      desired: { exists: true, frozen: true, plan: null },
      covered: [1, 3],
      unresolved: [2],
    });
    expect(folded.changes.map(({ kind }) => kind)).toEqual(['frozen']);
  });

  test.each<RenewalScene>(['TRIAL_TO_FORMAL', 'RENEWAL_CHANGE'])(
    '%s gives its period at once, its plan once looked up, and counts twice in all',
    (scene) => {
      const plan = planOf('p3');
      const before = fold(tell(created, { ...renewed(later, scene, plan), isResolved: false }));
      expect(before).toMatchObject({
        generation: 2,
        desired: { expiresAt: later, plan: null },
        covered: [1],
        unresolved: [2],
      });
      const after = fold(tell(created, renewed(later, scene, plan)));
      expect(after).toMatchObject({
        generation: 3,
        desired: { expiresAt: later, plan },
        unresolved: [],
      });
    },
  );

  test('TRIAL_TO_FORMAL ends the trial at once', () => {
    const trial = { kind: 'created', plan: null, trial: true, expiresAt: null } as const;
    const renewal = { ...renewed(later, 'TRIAL_TO_FORMAL'), isResolved: false };
    expect(fold(tell(trial)).desired.trial).toBe(true);
    expect(fold(tell(trial, renewal)).desired.trial).toBe(false);
  });

  test.each<RenewalScene>(['RENEWAL', 'UNSUBSCRIBE_RENEWAL_PERIOD'])('%s counts once', (scene) => {
    expect(fold(tell(created, renewed(later, scene))).generation).toBe(2);
  });
});

describe('released absorbs', () => {
  test.each([
    ['nothing after it counts', [created, released, renewed(later), unfrozen]],
    ['it wins over what came before', [created, frozen, renewed(later), released]],
  ])('%s', (_, facts) => {
    const folded = fold(tell(...facts));
    expect(folded).toMatchObject({ canApply: true, desired: { exists: false }, unresolved: [] });
    expect(folded.covered).toEqual([1, 2, 3, 4]);
    const release = facts.indexOf(released) + 1;
    expect(folded.moot).toEqual([1, 2, 3, 4].filter((id) => id !== release));
  });

  test('it ends look-ups: an upgrade that was never looked up is covered', () => {
    const folded = fold(tell(created, { ...upgraded(null), isResolved: false }, released));
    expect(folded).toMatchObject({ covered: [1, 2, 3], moot: [1, 2], unresolved: [] });
  });
});

describe('the last accepted wins', () => {
  test('a refund shortens the period again', () => {
    const folded = fold(
      tell(created, renewed(later), renewed(earlier, 'UNSUBSCRIBE_RENEWAL_PERIOD')),
    );
    expect(folded).toMatchObject({ desired: { expiresAt: earlier }, generation: 3 });
  });

  test('two renewals, the first dead: one period, both orders among the changes', () => {
    const folded = fold(tell({ ...created, isApplied: true }, renewed(earlier), renewed(later)));
    expect(folded.desired.expiresAt).toEqual(later);
    expect(folded.changes.map(({ orderId }) => orderId)).toEqual(['CS2', 'CS3']);
  });

  test.each([
    ['FREEZE', [frozen], true],
    ['FREEZE, UNFREEZE', [frozen, unfrozen], false],
    ['FREEZE, UNFREEZE, FREEZE', [frozen, unfrozen, frozen], true],
    ['FREEZE, renewal, UNFREEZE', [frozen, renewed(later), unfrozen], false],
    ['UNFREEZE, FREEZE', [unfrozen, frozen], true],
  ])('%s', (_, facts, isFrozen) => {
    const folded = fold(tell(created, ...facts));
    expect(folded.desired.frozen).toBe(isFrozen);
    expect(folded.generation).toBe(facts.length + 1);
  });
});

describe('expired', () => {
  test('freezes what serves', () => {
    expect(fold(tell(created, expired)).desired.frozen).toBe(true);
  });

  test('is lifted by a renewal to a time after its acceptance', () => {
    expect(fold(tell(created, expired, renewed(later))).desired.frozen).toBe(false);
  });

  test('is not lifted by a renewal to a time that is over', () => {
    expect(fold(tell(created, expired, renewed(past))).desired.frozen).toBe(true);
  });

  test('a renewal never lifts a freeze', () => {
    expect(fold(tell(created, frozen, renewed(later))).desired.frozen).toBe(true);
    expect(fold(tell(created, expired, frozen, renewed(later))).desired.frozen).toBe(true);
  });

  test('NORMAL lifts both', () => {
    expect(fold(tell(created, expired, frozen, unfrozen)).desired.frozen).toBe(false);
  });
});

test('what was applied before is covered and no change any more', () => {
  const folded = fold(
    tell({ ...created, isApplied: true }, { ...frozen, isApplied: true }, unfrozen),
  );
  expect(folded.covered).toEqual([1, 2, 3]);
  expect(folded.changes.map(({ kind }) => kind)).toEqual(['unfrozen']);
});

// An instance's life: events are appended, and those that had to be looked up become known later.
const scenes = [
  'TRIAL_TO_FORMAL',
  'RENEWAL',
  'UNSUBSCRIBE_RENEWAL_PERIOD',
  'RENEWAL_CHANGE',
] as const;
const anyDate = fc.constantFrom(past, earlier, later);
const anyPlan = fc.constantFrom(null, planOf('a'), planOf('b'));
const anyFact = fc.oneof(
  fc.constantFrom(frozen, unfrozen, expired, released),
  fc
    .record({ expiresAt: anyDate, scene: fc.constantFrom(...scenes, null), plan: anyPlan })
    .map(({ expiresAt, scene, plan }) => renewed(expiresAt, scene, plan)),
  anyPlan.map((plan) => upgraded(plan)),
);
const anyStep = fc.oneof(
  { weight: 3, arbitrary: anyFact.map((fact) => ({ kind: 'append' as const, fact })) },
  {
    weight: 2,
    arbitrary: fc.nat({ max: 12 }).map((place) => ({ kind: 'resolve' as const, place })),
  },
);
const anyLife = fc.record({
  purchase: fc.record({
    plan: anyPlan,
    trial: fc.constantFrom(null, true, false),
    expiresAt: anyDate,
  }),
  isPurchaseKnown: fc.boolean(),
  steps: fc.array(anyStep, { maxLength: 14 }),
});

const mustBeLookedUp = (fact: typeof anyFact extends fc.Arbitrary<infer F> ? F : never): boolean =>
  fact.kind === 'upgraded' ||
  (fact.kind === 'renewed' &&
    (fact.scene === 'TRIAL_TO_FORMAL' || fact.scene === 'RENEWAL_CHANGE'));

/** The log after each step of a life, the first after the purchase. */
function live(life: typeof anyLife extends fc.Arbitrary<infer L> ? L : never): InstanceEvent[][] {
  let log = tell({ kind: 'created', ...life.purchase, isResolved: life.isPurchaseKnown });
  const logs = [log];
  for (const step of life.steps) {
    if (step.kind === 'append') {
      const story = tell(...log.map(() => created), {
        ...step.fact,
        isResolved: !mustBeLookedUp(step.fact),
      });
      log = log.concat(story.slice(-1));
    } else {
      log = log.map((event, place) =>
        place === step.place && event.resolvedAt === null
          ? { ...event, resolvedAt: minute(100) }
          : event,
      );
    }
    logs.push(log);
  }
  return logs;
}

describe('generation', () => {
  test('never falls, and the same one always means the same desired state', () => {
    fc.assert(
      fc.property(anyLife, (life) => {
        const folds = live(life).map(fold);
        folds.reduce((before, after) => {
          expect(after.generation).toBeGreaterThanOrEqual(before.generation);
          if (after.generation === before.generation) expect(after.desired).toEqual(before.desired);
          return after;
        });
      }),
      { numRuns: 500 },
    );
  });

  test('grows with every event that is known, and with every look-up', () => {
    fc.assert(
      fc.property(anyLife, (life) => {
        const logs = live(life);
        logs.reduce((before, after) => {
          const known = (log: InstanceEvent[]) => log.filter((event) => event.resolvedAt).length;
          if (known(after) > known(before)) {
            expect(fold(after).generation).toBeGreaterThan(fold(before).generation);
          }
          return after;
        });
      }),
      { numRuns: 500 },
    );
  });

  test('each event is covered or waits, and only a release makes anything moot', () => {
    fc.assert(
      fc.property(anyLife, (life) => {
        const log = live(life).at(-1) ?? [];
        const { covered, unresolved, moot } = fold(log);
        const ids = [...covered, ...unresolved].toSorted((a, b) => a - b);
        expect(ids).toEqual(log.map(({ id }) => id));
        const isReleased = log.some(({ kind }) => kind === 'released');
        expect(moot.length > 0).toBe(isReleased);
        if (isReleased) expect(unresolved).toEqual([]);
      }),
      { numRuns: 300 },
    );
  });
});
