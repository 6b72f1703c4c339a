import {
  type InstanceEvent,
  type MarketplaceEventKind,
  type Plan,
  type RenewalScene,
  findSkipped,
  lookUpNeeded,
} from './events.ts';

/** What an instance should be: the state that all its accepted events add up to. */
export type DesiredState = {
  exists: boolean;
  frozen: boolean;
  expiresAt: Date | null;
  trial: boolean | null;
  plan: Plan | null;
};

/** One fact that led from what was applied before to what is desired now. */
export type Change = {
  kind: MarketplaceEventKind;
  scene: RenewalScene | null;
  orderId: string | null;
  orderLineId: string | null;
  acceptedAt: Date;
};

export type Fold = {
  desired: DesiredState;
  /** Grows with every fact that became known; the same generation always means the same desired state. */
  generation: number;
  /** False while not enough is known to make anything: the order of the purchase was not looked up. */
  canApply: boolean;
  /** Events that an apply of this state covers whole. */
  covered: readonly number[];
  /** Of these, the ones that no longer matter, because the instance was released. */
  moot: readonly number[];
  /** Events that wait for the marketplace's order. */
  unresolved: readonly number[];
  /** Not yet applied facts, oldest first. */
  changes: readonly Change[];
};

/**
 * Adds up an instance's events, given in the order of acceptance, to the state that it should have.
 *
 * - An event sets the facets that it knows; what must be looked up first withholds only those.
 * - `released` absorbs everything: it needs no look-up, and nothing else counts beside it.
 * - Of absolute facets the last accepted one wins, backwards too (a refund shortens the period).
 * - An event of which a part is known at once and a part later counts twice in the generation, so
 *   that two different states never share one.
 * - What an operator skipped sets nothing, but still counts in the generation, and so does the skip:
 *   what was sent before is older than what is sent now. A refusal absorbs as a release does.
 */
export function fold(events: readonly InstanceEvent[]): Fold {
  const skipped = findSkipped(events);
  const released = events.some(
    (event) => (event.kind === 'released' && !skipped.has(event.id)) || event.kind === 'refused',
  );
  const desired: DesiredState = {
    exists: false,
    frozen: false,
    expiresAt: null,
    trial: null,
    plan: null,
  };
  let frozen = false;
  let expired = false;
  let generation = 0;
  let createdIsKnown = !events.some((event) => event.kind === 'created' && !skipped.has(event.id));
  const covered: number[] = [];
  const moot: number[] = [];
  const unresolved: number[] = [];
  const changes: Change[] = [];

  for (const event of events) {
    if (event.kind === 'imported') continue;
    const scene = event.kind === 'renewed' ? event.scene : null;
    const isResolved = event.resolvedAt !== null;
    const isPartlyKnown = !isResolved && lookUpNeeded(event.kind, scene, true) === 'plan';
    generation += stepsOf(event, scene, isResolved, isPartlyKnown);

    if (isResolved || released || skipped.has(event.id)) covered.push(event.id);
    else unresolved.push(event.id);
    if (skipped.has(event.id)) continue;
    if (released && event.kind !== 'released' && event.kind !== 'refused') moot.push(event.id);
    if (event.kind === 'skipped' || event.kind === 'resolved' || event.kind === 'refused') continue;
    if (event.appliedAt === null && (isResolved || isPartlyKnown)) {
      const { kind, orderId, orderLineId, acceptedAt } = event;
      changes.push({ kind, scene, orderId, orderLineId, acceptedAt });
    }
    if (!isResolved && !isPartlyKnown) continue;

    switch (event.kind) {
      case 'created':
        createdIsKnown = true;
        desired.exists = true;
        desired.plan = event.plan ?? desired.plan;
        desired.trial = event.trial ?? desired.trial;
        desired.expiresAt = event.expiresAt ?? desired.expiresAt;
        break;
      case 'renewed':
        desired.expiresAt = event.expiresAt;
        if (isResolved && event.plan) desired.plan = event.plan;
        if (event.scene === 'TRIAL_TO_FORMAL') desired.trial = false;
        // The old interface sends no unfreeze after a renewal; a freeze is another matter.
        if (event.expiresAt > event.acceptedAt) expired = false;
        break;
      case 'upgraded':
        desired.plan = event.plan ?? desired.plan;
        break;
      case 'frozen':
        frozen = true;
        break;
      case 'expired':
        expired = true;
        break;
      case 'unfrozen':
        frozen = false;
        expired = false;
        break;
      case 'released':
        break;
    }
  }

  desired.frozen = frozen || expired;
  if (released) desired.exists = false;
  const canApply = released || (createdIsKnown && desired.exists);
  return { desired, generation, canApply, covered, moot, unresolved, changes };
}

function stepsOf(
  event: InstanceEvent,
  scene: RenewalScene | null,
  isResolved: boolean,
  isPartlyKnown: boolean,
): number {
  if (!isResolved) return isPartlyKnown ? 1 : 0;
  return lookUpNeeded(event.kind, scene, true) === 'plan' ? 2 : 1;
}
