/** How a renewal came about; the marketplace's own names, because the dedup key carries them. */
export type RenewalScene =
  | 'TRIAL_TO_FORMAL'
  | 'RENEWAL'
  | 'UNSUBSCRIBE_RENEWAL_PERIOD'
  | 'RENEWAL_CHANGE';

export type Plan = {
  productId: string | null;
  skuCode: string | null;
  quantity: number | null;
  /** What was bought at a time, like one year; null where it has no period. */
  period: { type: string; number: number } | null;
};

type EventFacts =
  | { kind: 'created'; plan: Plan | null; trial: boolean | null; expiresAt: Date | null }
  | { kind: 'renewed'; scene: RenewalScene | null; expiresAt: Date; plan: Plan | null }
  | { kind: 'frozen' }
  | { kind: 'expired' }
  | { kind: 'unfrozen' }
  | { kind: 'upgraded'; plan: Plan | null }
  | { kind: 'released' }
  | HistoryFacts
  | OperatorFacts;

/**
 * Something that was done before the instance was taken over from elsewhere. Only its key matters: a
 * re-send of it is a duplicate. It sets no facet and counts in no generation.
 */
type HistoryFacts = { kind: 'imported' };

/** What an operator decided about one instance; facts beside the marketplace's own, in the same order. */
type OperatorFacts =
  /** The events named count in no facet any more, as if they had never been told. */
  | { kind: 'skipped'; events: readonly number[] }
  /** The events named were made real by hand; they stand as resolved and applied themselves. */
  | { kind: 'resolved'; events: readonly number[] }
  /**
   * The purchase will never be made; whatever a try may have left behind is taken away. Also told by
   * the seller's backend.
   */
  | { kind: 'refused' };

export type EventKind = EventFacts['kind'];

export type OperatorEventKind = OperatorFacts['kind'];

/** What the marketplace, or a buyer through it, asked for. */
export type MarketplaceEventKind = Exclude<EventKind, OperatorEventKind | HistoryFacts['kind']>;

/** What an operator can skip; a purchase is refused or resolved instead. */
export const skippableKinds = [
  'renewed',
  'frozen',
  'expired',
  'unfrozen',
  'upgraded',
  'released',
] as const satisfies readonly MarketplaceEventKind[];
export type SkippableKind = (typeof skippableKinds)[number];

const operatorKinds: Record<OperatorEventKind, true> = {
  skipped: true,
  resolved: true,
  refused: true,
};

export function isOperatorKind(kind: string): kind is OperatorEventKind {
  return Object.hasOwn(operatorKinds, kind);
}

/** Events that an operator took out: they are in the log and count in no facet. */
export function findSkipped(events: readonly InstanceEvent[]): ReadonlySet<number> {
  return new Set(events.flatMap((event) => (event.kind === 'skipped' ? event.events : [])));
}

/** One accepted fact about one instance, as it stands in the log. Ids grow in the order of acceptance. */
export type InstanceEvent = EventFacts & {
  id: number;
  orderId: string | null;
  orderLineId: string | null;
  acceptedAt: Date;
  /** When all that the event means became known; null while the marketplace's order is not looked up. */
  resolvedAt: Date | null;
  /** When an apply that contained it was settled. */
  appliedAt: Date | null;
};

/**
 * What an event leaves open until the marketplace's order was queried: the callback of SaaS V2.0
 * carries no commercial data.
 */
export type LookUp = 'none' | 'plan' | 'all';

const lookUpOfScene: Record<RenewalScene, LookUp> = {
  RENEWAL: 'none',
  UNSUBSCRIBE_RENEWAL_PERIOD: 'none',
  TRIAL_TO_FORMAL: 'plan',
  RENEWAL_CHANGE: 'plan',
};

/** What of this kind (and scene) must be looked up before it can be applied whole. */
export function lookUpNeeded(
  kind: EventKind,
  scene: RenewalScene | null,
  ordersCanBeQueried: boolean,
): LookUp {
  switch (kind) {
    case 'created':
      // A product without access to the order API must still deliver: then created stands for itself.
      return ordersCanBeQueried ? 'all' : 'none';
    case 'upgraded':
      return 'all';
    case 'renewed':
      return scene === null ? 'none' : lookUpOfScene[scene];
    case 'frozen':
    case 'expired':
    case 'unfrozen':
    case 'released':
    case 'skipped':
    case 'resolved':
    case 'refused':
    case 'imported':
      return 'none';
  }
}
