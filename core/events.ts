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
};

type EventFacts =
  | { kind: 'created'; plan: Plan | null; trial: boolean | null; expiresAt: Date | null }
  | { kind: 'renewed'; scene: RenewalScene | null; expiresAt: Date; plan: Plan | null }
  | { kind: 'frozen' }
  | { kind: 'expired' }
  | { kind: 'unfrozen' }
  | { kind: 'upgraded'; plan: Plan | null }
  | { kind: 'released' };

export type EventKind = EventFacts['kind'];

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
      return 'none';
  }
}
