import { UnrecoverableError } from 'bullmq';
import type { Logger } from 'pino';
import type { InstanceEvent, Plan } from '../core/events.ts';
import { nextTry } from '../core/failure.ts';
import { type Fold, fold } from '../core/fold.ts';
import type { EventDetail } from '../db/accept-events.ts';
import { type BegunAttempt, beginAttempt } from '../db/attempts.ts';
import { type Claim, claimDispatch, postponeDispatch } from '../db/claims.ts';
import type { Database } from '../db/client.ts';
import type { Keyring } from '../db/data-keys.ts';
import { findOrderReply, saveOrderReply } from '../db/orders.ts';
import type { ProductRow } from '../db/products.ts';
import { type ResolvedEvent, settleFailed, settleLookedUp, settlePostponed } from '../db/settle.ts';
import {
  type Order,
  type OrderLine,
  findOrderLine,
  findOrderedProduct,
  readOrderReply,
} from '../protocol/open-api/order-query.ts';
import { RetryAt, lookQueue } from '../runtime/queues.ts';
import { causeOf } from './failure-cause.ts';
import type { FairShare } from './fair-share.ts';
import { holdLease } from './hold-lease.ts';
import type {
  LookUpFailure,
  MarketplaceClient,
  OpenApiAccess,
  OrderQueryLimit,
} from './marketplace-client.ts';
import { scheduleOf, settledOf } from './processor.ts';

export type OrderLookupOptions = {
  db: Database;
  keyring: Keyring;
  /** @returns undefined when there is no such product (any more) */
  findProduct: (productId: number) => Promise<ProductRow | undefined>;
  /** @returns undefined while the product is not connected to the marketplace's API */
  findAccess: (product: ProductRow) => Promise<OpenApiAccess | undefined>;
  client: MarketplaceClient;
  limit: OrderQueryLimit;
  fairShare: FairShare;
  /** Name of this process, for attempts. */
  worker: string;
  log: Logger;
  random: () => number;
  timings: { leaseMs: number; leaseRenewMs: number; dueAgainMs: number; retryScalePercent: number };
};

/** How long nobody calls with an access key after the marketplace said "too many". */
const pauseMs = 60_000;

/** What the look-ups of one claim came to. */
type LookedUp = {
  resolved: ResolvedEvent[];
  siblings: { orderId: string; orderLineIds: string[] } | undefined;
  failures: LookUpFailure[];
  postponed: { delayMs: number; httpStatus?: number } | undefined;
  attempt: BegunAttempt | undefined;
};

type OrderFound =
  | { kind: 'order'; order: Order }
  | { kind: 'failed'; failure: LookUpFailure }
  | { kind: 'postponed'; delayMs: number; httpStatus?: number };

/**
 * The room in which instances wait for the marketplace's order. What is found becomes part of their
 * events, and they go back to be applied; what is not found withholds only itself.
 *
 * @returns a processor for BullMQ; it throws `RetryAt` when Postgres holds a time for the next try,
 *   and `UnrecoverableError` for a dead letter
 */
export function createOrderLookup(options: OrderLookupOptions) {
  const { db, keyring, fairShare, limit, log, timings } = options;

  return async (job: { data: unknown }): Promise<string> => {
    const {
      instance: instanceId,
      dispatch,
      product: productId,
    } = lookQueue.payload.parse(job.data);
    const product = await options.findProduct(productId);
    if (!product) throw new UnrecoverableError(`there is no product number ${productId}`);
    const giveBack = fairShare.take(productId, null);
    if (!giveBack) return postpone(instanceId, dispatch);
    try {
      const claim = await claimDispatch(db.pool, {
        instanceId,
        dispatch,
        leaseMs: timings.leaseMs,
      });
      if (claim === 'nothing to do') return await postpone(instanceId, dispatch);
      const lease = holdLease(options, claim);
      try {
        return await look(claim, product, lease.signal);
      } finally {
        lease.letGo();
      }
    } finally {
      giveBack();
    }
  };

  async function postpone(instanceId: number, dispatch: number): Promise<string> {
    const delayMs = timings.dueAgainMs;
    const postponed = await postponeDispatch(db.pool, { instanceId, dispatch, delayMs });
    return postponed ? 'product at its limit, later' : 'nothing to do';
  }

  async function look(claim: Claim, product: ProductRow, signal: AbortSignal): Promise<string> {
    const folded = fold(claim.events);
    const waiting = claim.events.filter(({ id }) => folded.unresolved.includes(id));
    // A release, or an operator, has made the look-up needless.
    if (waiting.length === 0) return goOn(claim, [], false);
    const access = await options.findAccess(product);
    if (!access) {
      // Look-up is off: a purchase stands for itself, the rest waits for what may come.
      const resolved = waiting.flatMap(({ id, kind }) =>
        kind === 'created' ? { id, detail: {} } : [],
      );
      return goOn(claim, resolved, resolved.length === 0);
    }
    const found = await lookUp(claim, product, access, folded, waiting, signal);
    return settle(claim, product, access, found);
  }

  async function goOn(claim: Claim, resolved: ResolvedEvent[], isParked: boolean): Promise<string> {
    const result = await settleLookedUp(db, settledOf(claim, undefined), {
      resolved,
      isParked,
      openEventsAtClaim: claim.openEvents,
    });
    return `nothing to look up, ${result}`;
  }

  async function lookUp(
    claim: Claim,
    product: ProductRow,
    access: OpenApiAccess,
    folded: Fold,
    waiting: readonly InstanceEvent[],
    signal: AbortSignal,
  ): Promise<LookedUp> {
    const found: LookedUp = {
      resolved: [],
      siblings: undefined,
      failures: [],
      postponed: undefined,
      attempt: undefined,
    };
    const begin = async () => {
      found.attempt ??= await beginAttempt(db.pool, {
        fence: claim.fence,
        instanceId: claim.instanceId,
        productId: product.id,
        generation: folded.generation,
        no: claim.attempts + 1,
        kind: 'look-up',
        worker: options.worker,
        target: access.baseUrl,
      });
    };
    for (const [orderId, events] of groupByOrder(waiting)) {
      const lineIds = events.map(({ orderLineId }) => orderLineId);
      const asked =
        orderId === null
          ? unknownOrder('the event names no order')
          : await findOrder(product, access, orderId, lineIds, begin, signal);
      if (asked.kind === 'postponed') {
        found.postponed = asked;
        break;
      }
      if (asked.kind === 'failed') {
        found.failures.push(asked.failure);
        continue;
      }
      for (const event of events) resolve(found, event, asked.order);
    }
    return found;
  }

  /** One answer serves all events that speak of the order, now and later. */
  async function findOrder(
    product: ProductRow,
    access: OpenApiAccess,
    orderId: string,
    lineIds: readonly (string | null)[],
    begin: () => Promise<void>,
    signal: AbortSignal,
  ): Promise<OrderFound> {
    const kept = await findOrderReply({ db: db.pool, keyring }, { productId: product.id, orderId });
    const known = kept === undefined ? undefined : readOrderReply(kept);
    if (known?.kind === 'order') {
      const { order } = known;
      if (lineIds.every((id) => findOrderLine(order, id))) return { kind: 'order', order };
    }
    const { waitMs } = await limit.take(access.accessKeyId);
    if (waitMs > 0) return { kind: 'postponed', delayMs: waitMs };
    await begin();
    const outcome = await options.client.queryOrder(access, orderId, signal);
    switch (outcome.kind) {
      case 'over the limit': {
        await limit.block(access.accessKeyId, pauseMs);
        log.warn({ product: product.key, pauseMs }, 'order_query.over_the_limit');
        return { kind: 'postponed', delayMs: pauseMs, httpStatus: outcome.httpStatus };
      }
      case 'failed':
        return outcome;
      case 'found':
        await saveOrderReply(
          { db: db.pool, keyring },
          { productId: product.id, orderId, reply: outcome.reply },
        );
        return { kind: 'order', order: outcome.order };
    }
  }

  async function settle(
    claim: Claim,
    product: ProductRow,
    access: OpenApiAccess,
    found: LookedUp,
  ): Promise<string> {
    const settled = settledOf(claim, found.attempt);
    const openEventsAtClaim = claim.openEvents;
    const line = {
      product: product.key,
      instance: claim.publicId,
      attempt: claim.attempts + 1,
      fence: claim.fence,
      target: access.baseUrl,
      callbacks: claim.callbackIds,
    };
    if (found.resolved.length > 0) {
      const { resolved, siblings } = found;
      const result = await settleLookedUp(db, settled, {
        resolved,
        siblings,
        isParked: false,
        openEventsAtClaim,
      });
      log.info({ ...line, outcome: 'resolved', result }, 'look_up.attempted');
      return `resolved, ${result}`;
    }
    const failure = found.failures.find((each) => each.class === 'transient') ?? found.failures[0];
    if (failure === undefined || (found.postponed && failure.class !== 'transient')) {
      const { delayMs = timings.dueAgainMs, httpStatus } = found.postponed ?? {};
      const result = await settlePostponed(db, settled, { delayMs, httpStatus, openEventsAtClaim });
      log.debug({ ...line, outcome: 'postponed', result, delayMs }, 'look_up.postponed');
      return `postponed, ${result}`;
    }
    const next = nextTry(failure, {
      schedule: scheduleOf(claim),
      attempts: claim.attempts + 1,
      ageMs: claim.ageMs,
      random: options.random(),
      scale: timings.retryScalePercent / 100,
    });
    const retryInMs = next === 'dead' ? undefined : next.retryInMs;
    const failureClass = next === 'dead' ? (failure.endsAs ?? failure.class) : failure.class;
    const { said, httpStatus } = failure;
    const cause = causeOf(claim, { ...failure, class: failureClass });
    const result = await settleFailed(db, settled, {
      class: failureClass,
      cause,
      httpStatus,
      saidEnc:
        said === undefined
          ? undefined
          : await keyring.seal(`product/${product.id}`, said, `attempts/said_enc/${claim.fence}`),
      retryInMs,
      // An order that is not there says nothing about the others.
      isTransient: failure.class === 'transient' && failure.concerns === 'api',
      openEventsAtClaim,
    });
    log.warn(
      { ...line, outcome: failureClass, cause, httpStatus, result, retryInMs },
      'look_up.attempted',
    );
    if (result === 'failing' && retryInMs !== undefined) throw new RetryAt(retryInMs);
    if (result === 'dead') throw new UnrecoverableError(`dead letter: ${cause}`);
    return `${failureClass}, ${result}`;
  }
}

function groupByOrder(events: readonly InstanceEvent[]): Map<string | null, InstanceEvent[]> {
  const groups = new Map<string | null, InstanceEvent[]>();
  for (const event of events) {
    groups.set(event.orderId, [...(groups.get(event.orderId) ?? []), event]);
  }
  return groups;
}

function resolve(found: LookedUp, event: InstanceEvent, order: Order): void {
  const line = findOrderLine(order, event.orderLineId);
  if (!line) {
    found.failures.push(unknownOrder('the order has no such line').failure);
    return;
  }
  found.resolved.push({ id: event.id, detail: describe(event, order, line) });
  if (event.kind === 'created') found.siblings = findSiblings(order, line);
}

/** What the order adds to what the callback said; the period of a renewal is the callback's. */
function describe(event: InstanceEvent, order: Order, line: OrderLine): EventDetail {
  const plan = planOf(line);
  if (event.kind !== 'created') return { plan };
  return {
    plan,
    trial: order.orderType === 'TRIAL',
    ...(line.expiresAt ? { expiresAt: line.expiresAt.toISOString() } : {}),
  };
}

function planOf(line: OrderLine): Plan | null {
  const bought = findOrderedProduct(line, null);
  if (!bought) return null;
  return { ...bought, period: line.period };
}

/**
 * A pay-per-use specification with several things to meter is sent as several purchases of one
 * product in one order: one instance, under several ids (saas-v2.md §2.1).
 */
function findSiblings(order: Order, line: OrderLine): LookedUp['siblings'] {
  const productId = findOrderedProduct(line, null)?.productId ?? null;
  if (line.chargingMode !== 'ON_DEMAND' || productId === null) return undefined;
  const orderLineIds = order.lines
    .filter((each) => each.chargingMode === 'ON_DEMAND')
    .filter((each) => findOrderedProduct(each, null)?.productId === productId)
    .map(({ orderLineId }) => orderLineId);
  return orderLineIds.length > 1 ? { orderId: order.orderId, orderLineIds } : undefined;
}

function unknownOrder(cause: string): { kind: 'failed'; failure: LookUpFailure } {
  return { kind: 'failed', failure: { class: 'transient', cause, concerns: 'order' } };
}
