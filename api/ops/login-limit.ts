import { createHash } from 'node:crypto';
import { RateLimiterDrizzle, RateLimiterRes } from 'rate-limiter-flexible';
import type { Orm } from '../../db/client.ts';
import { loginAttempts } from '../../db/schema.ts';

/** How many attempts pass in how long, from one address and for one name at that address. */
export type LoginLimits = {
  perNameAndAddress: number;
  perAddress: number;
  windowMs: number;
};

export const loginLimits: LoginLimits = {
  perNameAndAddress: 5,
  perAddress: 30,
  windowMs: 15 * 60_000,
};

export type LoginLimiter = {
  /** Counts an attempt, before anything is checked; all processes share the counts. */
  take(name: string, address: string): Promise<{ waitMs: number }>;
  /** A right password clears the count of its name. */
  forgive(name: string, address: string): Promise<void>;
};

// Not by name alone: else anybody could lock an operator out from afar.
export function createLoginLimiter(db: { orm: Orm }, limits: LoginLimits): LoginLimiter {
  const limiter = (keyPrefix: string, points: number): RateLimiterDrizzle =>
    new RateLimiterDrizzle({
      storeClient: db.orm,
      schema: loginAttempts,
      keyPrefix,
      points,
      duration: limits.windowMs / 1_000,
      // It would write to the console from a timer of its own; deleteExpiredLogins does it.
      clearExpiredByTimeout: false,
    });
  const byAddress = limiter('login-address', limits.perAddress);
  const byName = limiter('login-name', limits.perNameAndAddress);

  return {
    async take(name, address) {
      const waitMs = await consume(byAddress, address);
      if (waitMs > 0) return { waitMs };
      return { waitMs: await consume(byName, keyOf(name, address)) };
    },
    async forgive(name, address) {
      await byName.delete(keyOf(name, address));
    },
  };
}

/** Hashed, because people type passwords where the name belongs. */
function keyOf(name: string, address: string): string {
  return createHash('sha256').update(`${name}\0${address}`).digest('base64url');
}

async function consume(limiter: RateLimiterDrizzle, key: string): Promise<number> {
  try {
    await limiter.consume(key);
    return 0;
  } catch (refused) {
    if (refused instanceof RateLimiterRes) return Math.max(1, refused.msBeforeNext);
    throw refused;
  }
}
