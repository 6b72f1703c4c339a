import { RateLimiterDrizzle, RateLimiterRes } from 'rate-limiter-flexible';
import type { Failure } from '../core/failure.ts';
import type { Orm } from '../db/client.ts';
import { openApiLimits } from '../db/schema.ts';
import { signAkSk } from '../protocol/ak-sk.ts';
import {
  type Order,
  meaningOfOrderError,
  orderQueryUrls,
  readOrderReply,
} from '../protocol/open-api/order-query.ts';
import type { Outbound, OutboundFailure, OutboundResult } from '../runtime/outbound.ts';

// Calls to the marketplace's own API, signed with the seller's access key.

/** How a product may call the marketplace. */
export type OpenApiAccess = { baseUrl: string; accessKeyId: string; secretKey: string };

export type LookUpFailure = Failure & {
  /** `order`: this one alone, which says nothing about the next. */
  concerns: 'order' | 'api';
  /** What it counts as once all tries are used up, where that is another class. */
  endsAs?: 'contract';
};

type OrderQueryOutcome =
  | { kind: 'found'; order: Order; reply: string }
  /** Not now: the marketplace has had too many of our calls. */
  | { kind: 'over the limit'; httpStatus: number }
  | { kind: 'failed'; failure: LookUpFailure };

export type MarketplaceClient = {
  queryOrder(
    access: OpenApiAccess,
    orderId: string,
    signal: AbortSignal,
  ): Promise<OrderQueryOutcome>;
};

/** Beyond this the gateway takes a signature for an old one. */
const clockSkewMaxMs = 15 * 60_000;

export function createMarketplaceClient(options: {
  outbound: Pick<Outbound, 'call'>;
  now: () => Date;
  totalTimeoutMs?: number;
}): MarketplaceClient {
  const { outbound, now, totalTimeoutMs = 8_000 } = options;
  return {
    async queryOrder(access, orderId, signal) {
      const [first, second] = orderQueryUrls(access.baseUrl, orderId);
      let result = await call(access, first, signal);
      // Only where nothing can have arrived: else one failure would cost two calls.
      if (second !== undefined && neverArrived(result)) result = await call(access, second, signal);
      switch (result.kind) {
        case 'refused-address':
          return failed({
            class: 'permanent',
            cause: 'address of the marketplace is private: set OUTBOUND_ALLOWED_CIDRS',
            concerns: 'api',
          });
        case 'failed':
          return failed(describeNoAnswer(result.reason, totalTimeoutMs));
        case 'answered':
          return readAnswer(result, orderId, now());
      }
    },
  };

  function call(access: OpenApiAccess, url: URL, signal: AbortSignal): Promise<OutboundResult> {
    const request = {
      method: 'GET',
      url,
      headers: { 'Content-Type': 'application/json' },
    } as const;
    const headers = signAkSk(access, request, now());
    return outbound.call({ method: 'GET', url: url.href, headers, totalTimeoutMs, signal });
  }
}

function neverArrived(result: OutboundResult): boolean {
  return result.kind === 'failed' && ['connect', 'dns', 'tls'].includes(result.reason);
}

type Answer = Extract<OutboundResult, { kind: 'answered' }>;

function readAnswer(answer: Answer, orderId: string, now: Date): OrderQueryOutcome {
  const { status } = answer;
  // The reason of a refusal helps an operator; an order would name its buyer.
  const about = { httpStatus: status, ...(status === 200 ? {} : saidIn(answer)) };
  const reply = readOrderReply(answer.body);
  if (status === 406 || status === 429) return { kind: 'over the limit', httpStatus: status };
  switch (reply.kind) {
    case 'order':
      if (status !== 200) break;
      if (reply.order.orderId !== orderId) {
        return failed({ ...nonsense, cause: 'marketplace answered with another order', ...about });
      }
      return { kind: 'found', order: reply.order, reply: answer.body };
    case 'nonsense':
      if (status !== 200) break;
      return failed({
        ...nonsense,
        cause: `marketplace answered with nonsense: it ${reply.problem}`,
        ...about,
      });
    case 'error': {
      if (meaningOfOrderError(reply.code) === 'over the limit') {
        return { kind: 'over the limit', httpStatus: status };
      }
      return failed({ ...describeError(reply.code, answer, now), ...about, ...saidIn(answer) });
    }
  }
  return failed({ ...describeStatus(answer, now), ...about });
}

const nonsense = { class: 'transient', endsAs: 'contract', concerns: 'api' } as const;

function describeError(code: string, answer: Answer, now: Date): LookUpFailure {
  switch (meaningOfOrderError(code)) {
    case 'over the limit':
    case 'out of order':
      return {
        class: 'transient',
        cause: `marketplace is out of order (${code})`,
        concerns: 'api',
      };
    case 'access key refused':
      return describeRefusedKey(answer, now, code);
    case 'order unknown':
      // It may be known in a moment: the callback can be faster than the record.
      return {
        class: 'transient',
        cause: `marketplace does not know the order (${code})`,
        concerns: 'order',
      };
    case 'request refused':
      return {
        class: 'permanent',
        cause: `marketplace refuses the order query (${code})`,
        concerns: 'order',
      };
    case 'not documented':
      if (answer.status !== 200) return describeStatus(answer, now, code);
      return { ...nonsense, cause: `marketplace answered with an unknown error (${code})` };
  }
}

function describeStatus(answer: Answer, now: Date, code?: string): LookUpFailure {
  const { status } = answer;
  const what = code === undefined ? `${status}` : `${status} ${code}`;
  const cause = `marketplace answered ${what}`;
  if (status === 401 || status === 403) return describeRefusedKey(answer, now, what);
  if (status >= 500 || status === 408 || status === 425) {
    return { class: 'transient', cause, concerns: 'api' };
  }
  if (status >= 400) return { class: 'permanent', cause, concerns: 'order' };
  return { ...nonsense, cause };
}

/** A signature is refused for a wrong key, and for a time that is not the gateway's. */
function describeRefusedKey(answer: Answer, now: Date, what: string): LookUpFailure {
  const theirs = Date.parse(answer.headers['date'] ?? '');
  if (Math.abs(theirs - now.getTime()) > clockSkewMaxMs) {
    const cause = 'clock here is more than 15 minutes off, so the marketplace refuses signatures';
    return { class: 'transient', cause, concerns: 'api' };
  }
  return {
    class: 'permanent',
    cause: `marketplace refuses the access key (${what}): check AK and SK`,
    concerns: 'api',
  };
}

function saidIn(answer: Answer): { said?: string } {
  return answer.body === '' ? {} : { said: answer.body.slice(0, 2_000) };
}

function describeNoAnswer(reason: OutboundFailure, totalTimeoutMs: number): LookUpFailure {
  const words: Record<OutboundFailure, string> = {
    connect: 'marketplace cannot be connected to',
    dns: 'marketplace name does not resolve',
    tls: 'marketplace certificate or TLS is not usable',
    timeout: `marketplace did not answer in ${totalTimeoutMs / 1_000} s`,
    reset: 'marketplace closed the connection',
    cancelled: 'the call was cancelled here',
    'too-large': 'marketplace answered more than 1 MiB',
    protocol: 'marketplace does not speak HTTP',
  };
  const cause = words[reason];
  const isNonsense = reason === 'too-large' || reason === 'protocol';
  return isNonsense ? { ...nonsense, cause } : { class: 'transient', cause, concerns: 'api' };
}

function failed(failure: LookUpFailure): OrderQueryOutcome {
  return { kind: 'failed', failure };
}

export type OrderQueryLimit = {
  /** Counts a call, for all workers together. @returns 0, or how long to wait before asking again */
  take(accessKeyId: string): Promise<{ waitMs: number }>;
  /** After the marketplace's own "too many": nobody calls with this key for so long. */
  block(accessKeyId: string, durationMs: number): Promise<void>;
};

const waitMaxMs = 60_000;

/**
 * So many calls a second for each access key, counted in Postgres. Who is refused is given a time of
 * his own, or a backlog would come back all at once for a handful of places.
 */
export function createOrderQueryLimit(options: {
  db: { orm: Orm };
  perSecond: number;
  nowMs: () => number;
}): OrderQueryLimit {
  const { db, perSecond, nowMs } = options;
  const limiter = new RateLimiterDrizzle({
    storeClient: db.orm,
    schema: openApiLimits,
    keyPrefix: 'order-query',
    points: perSecond,
    duration: 1,
    // It would write to the console from a timer of its own; there is a row a key, no more.
    clearExpiredByTimeout: false,
  });
  const lastPlaceMs = new Map<string, number>();

  return {
    async take(accessKeyId) {
      try {
        await limiter.consume(accessKeyId);
        return { waitMs: 0 };
      } catch (refused) {
        if (!(refused instanceof RateLimiterRes)) throw refused;
        const at = nowMs();
        const opensMs = at + Math.max(1, refused.msBeforeNext);
        const placeMs = Math.max(opensMs, (lastPlaceMs.get(accessKeyId) ?? 0) + 1_000 / perSecond);
        lastPlaceMs.set(accessKeyId, Math.min(placeMs, opensMs + waitMaxMs));
        return { waitMs: Math.min(placeMs, opensMs + waitMaxMs) - at };
      }
    },
    async block(accessKeyId, durationMs) {
      await limiter.block(accessKeyId, durationMs / 1_000);
    },
  };
}
