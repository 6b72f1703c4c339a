// What the marketplace holds the seller to: its own record of every call and every answer.
// Everything that the system under test claims is compared with this, never with its own tables.

export type LedgerEntry = {
  readonly at: number;
  readonly activity: string;
  /** 'unanswered': no answer came, so the call may or may not have been accepted. */
  readonly outcome: 'acknowledged' | 'refused' | 'unanswered';
  readonly resultCode: string;
  readonly isTest: boolean;
  readonly orderId?: string;
  readonly orderLineId?: string;
  readonly instanceId?: string;
  readonly status?: string;
  readonly expireTime?: string;
};

export type ExpectedState = {
  readonly exists: boolean;
  readonly frozen: boolean;
  /** ISO 8601, UTC, whole seconds; null when nothing acknowledged has set it. */
  readonly expiresAt: string | null;
  /** The seller's own code (0001xx) when the order was refused for good. */
  readonly refusedWith: string | null;
};

export type Ledger = ReturnType<typeof createLedger>;

export function createLedger() {
  const entries: LedgerEntry[] = [];
  const idsByOrder = new Map<string, Set<string>>();
  const ordersById = new Map<string, Set<string>>();

  function record(entry: LedgerEntry): void {
    entries.push(entry);
    if (entry.activity !== 'newInstance' || entry.isTest) return;
    if (entry.outcome !== 'acknowledged' || entry.instanceId === undefined) return;
    const order = orderKey(entry);
    addTo(idsByOrder, order, entry.instanceId);
    addTo(ordersById, entry.instanceId, order);
  }

  /** Folds the acknowledged calls about one instance, in the order of their acknowledgement. */
  function expectedState(instanceId: string): ExpectedState {
    const orders = ordersById.get(instanceId) ?? new Set();
    let state: ExpectedState = { exists: false, frozen: false, expiresAt: null, refusedWith: null };
    let isOver = false;
    for (const entry of entries) {
      if (entry.isTest || isOver) continue;
      if (isRefusalOf(entry, orders)) {
        state = { ...state, exists: false, refusedWith: entry.resultCode };
        isOver = true;
      }
      if (entry.outcome !== 'acknowledged' || entry.instanceId !== instanceId) continue;
      if (entry.activity === 'newInstance') state = { ...state, exists: true };
      if (entry.activity === 'updateInstanceStatus') {
        state = { ...state, frozen: entry.status === 'FREEZE' };
      }
      if (entry.activity === 'refreshInstance' && entry.expireTime !== undefined) {
        state = { ...state, expiresAt: readTime(entry.expireTime) };
      }
      if (entry.activity === 'releaseInstance') {
        state = { ...state, exists: false };
        isOver = true;
      }
    }
    return state;
  }

  /** Broken promises that need no look at the other side: two ids for an order, two orders for an id. */
  function problems(): string[] {
    const twoIds = [...idsByOrder].filter(([, ids]) => ids.size > 1);
    const twoOrders = [...ordersById].filter(([, orders]) => orders.size > 1);
    return [
      ...twoIds.map(([order, ids]) => `order ${order} was given ${ids.size} ids`),
      ...twoOrders.map(([id, orders]) => `id ${id} was given to ${orders.size} orders`),
    ];
  }

  return {
    record,
    expectedState,
    problems,
    entries: (): readonly LedgerEntry[] => entries,
    /** Every instance id that was acknowledged for a real order, in the order of purchase. */
    instanceIds: (): string[] => [...ordersById.keys()],
    /** The ids that an order was given: one, if all is well. */
    idsOf: (order: { orderId: string; orderLineId: string }): string[] => [
      ...(idsByOrder.get(orderKey(order)) ?? []),
    ],
    count: (outcome: LedgerEntry['outcome']): number =>
      entries.filter((entry) => entry.outcome === outcome).length,
  };
}

/** Reads the protocol's UTC times, `yyyyMMddHHmmss` with or without milliseconds, as ISO 8601. */
function readTime(digits: string): string {
  const [, year, month, day, hour, minute, second] =
    /^(\d{4})(\d{2})(\d{2})(\d{2})(\d{2})(\d{2})/.exec(digits) ?? [];
  return `${year}-${month}-${day}T${hour}:${minute}:${second}.000Z`;
}

function isRefusalOf(entry: LedgerEntry, orders: ReadonlySet<string>): boolean {
  return (
    entry.activity === 'newInstance' &&
    /^0001\d\d$/.test(entry.resultCode) &&
    orders.has(orderKey(entry))
  );
}

function orderKey(order: { readonly orderId?: string; readonly orderLineId?: string }): string {
  return `${order.orderId ?? ''}/${order.orderLineId ?? ''}`;
}

function addTo(map: Map<string, Set<string>>, key: string, value: string): void {
  const values = map.get(key) ?? new Set();
  map.set(key, values.add(value));
}
