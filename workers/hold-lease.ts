import type { Logger } from 'pino';
import { type Claim, renewLease } from '../db/claims.ts';
import type { Queryable } from '../db/client.ts';

export type HeldLease = {
  /** Aborted when the claim was lost: then the effect is called off. */
  signal: AbortSignal;
  letGo(): void;
};

/** Renews a claim while its effect is under way. */
export function holdLease(
  {
    db,
    log,
    timings,
  }: {
    db: { pool: Queryable };
    log: Logger;
    timings: { leaseMs: number; leaseRenewMs: number };
  },
  claim: Claim,
): HeldLease {
  const lost = new AbortController();
  const timer = setInterval(() => {
    renewLease(db.pool, claim, timings.leaseMs).then(
      (held) => {
        if (!held) lost.abort(new Error('the claim was lost'));
      },
      // The lease outlives a moment without Postgres; the settle decides.
      (error: unknown) => log.warn({ err: error, instance: claim.publicId }, 'lease.not_renewed'),
    );
  }, timings.leaseRenewMs);
  return { signal: lost.signal, letGo: () => clearInterval(timer) };
}
