import type { Logger } from 'pino';
import { writeCause } from '../core/cause.ts';
import type { Failure } from '../core/failure.ts';
import type { Claim } from '../db/claims.ts';

/** Why an instance is not what it should be, as its dispatch keeps it: dead letters are grouped by it. */
export function causeOf(claim: Claim, failure: Failure): string {
  const open = claim.events.filter((event) => event.appliedAt === null);
  return writeCause({
    product: claim.productId,
    kinds: open.map(({ kind }) => kind),
    class: failure.class,
    message: failure.cause,
    httpStatus: failure.httpStatus,
  });
}

const againAfterMs = 3_600_000;

/**
 * Raises a breach of contract once: a backend that answers nonsense does so to every instance, and
 * one line an hour is what a person can act on. Each attempt has its own line beside it.
 */
export function createContractAlerts(options: { log: Logger; nowMs: () => number }): {
  raise(breach: { product: string; cause: string; instance: string; target: string }): void;
} {
  const raisedAtMs = new Map<string, number>();
  return {
    raise(breach) {
      const nowMs = options.nowMs();
      for (const [cause, atMs] of raisedAtMs) {
        if (nowMs - atMs >= againAfterMs) raisedAtMs.delete(cause);
      }
      if (raisedAtMs.has(breach.cause)) return;
      raisedAtMs.set(breach.cause, nowMs);
      options.log.error(breach, 'contract.broken');
    },
  };
}
