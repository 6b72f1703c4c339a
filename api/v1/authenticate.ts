import { timingSafeEqual } from 'node:crypto';
import type { Context, MiddlewareHandler } from 'hono';
import { RateLimiterMemory, RateLimiterRes } from 'rate-limiter-flexible';
import { type KnownApiKey, findApiKey, noteApiKeyUse } from '../../db/api-keys.ts';
import type { ApiScope } from '../../db/api-scopes.ts';
import type { Queryable } from '../../db/client.ts';
import { hashApiKey, looksLikeApiKey } from '../../operations/add-api-key.ts';
import type { Logger } from '../../runtime/logger.ts';
import { clientAddressOf } from '../ops/client-address.ts';
import { answerProblem } from './answers.ts';

/** Who calls: its product is the only one that the call can be about. */
export type Caller = Omit<KnownApiKey, 'hash'> & {
  /** For the audit. */
  actor: string;
};

export type V1Env = { Variables: { caller: Caller } };

/** How many wrong keys one address may show in how long. */
export type AuthenticationLimits = { failures: number; windowMs: number };

const authenticationLimits: AuthenticationLimits = { failures: 30, windowMs: 15 * 60_000 };

/**
 * Lets in who shows an active key. Whether a key is missing, misspelt, unknown or retired is not told.
 *
 * Failures are counted in this process, because a count in the database would let strangers write to
 * it; a right key always passes, so that nobody can lock a seller out from behind the same proxy.
 */
export function authenticate(options: {
  db: Queryable;
  log: Logger;
  limits?: AuthenticationLimits;
}): MiddlewareHandler<V1Env> {
  const { db, log, limits = authenticationLimits } = options;
  const limiter = new RateLimiterMemory({
    points: limits.failures,
    duration: limits.windowMs / 1_000,
  });

  return async (c, next) => {
    const key = await findCaller(db, c.req.header('authorization'));
    if (key) {
      const { hash: _hash, ...known } = key;
      c.set('caller', { ...known, actor: `api-key:${known.id}` });
      await noteApiKeyUse(db, known.id);
      return next();
    }
    const waitMs = await countFailure(limiter, clientAddressOf(c));
    if (waitMs > 0) {
      log.warn({ waitMs }, 'v1.too_many_failures');
      c.header('retry-after', String(Math.ceil(waitMs / 1_000)));
      const message = 'too many wrong keys from this address';
      return answerProblem(c, 429, { error: 'too-many-failures', message });
    }
    c.header('www-authenticate', 'Bearer');
    return answerProblem(c, 401, { error: 'unauthorized', message: 'a valid API key is needed' });
  };
}

/** Only for callers whose key has the scope; asked before anything is looked up. */
export function allow(scope: ApiScope): MiddlewareHandler<V1Env> {
  return async (c, next) => {
    if (c.get('caller').scopes.includes(scope)) return next();
    return answerForbidden(c);
  };
}

function answerForbidden(c: Context): Response {
  return answerProblem(c, 403, { error: 'forbidden', message: 'this API key may not do that' });
}

async function findCaller(
  db: Queryable,
  authorization: string | undefined,
): Promise<KnownApiKey | undefined> {
  const secret = /^Bearer +(\S+)$/i.exec(authorization ?? '')?.[1] ?? '';
  if (!looksLikeApiKey(secret)) return undefined;
  const hash = hashApiKey(secret);
  const known = await findApiKey(db, hash);
  return known && timingSafeEqual(known.hash, hash) ? known : undefined;
}

/** @returns 0 while there are failures left */
async function countFailure(limiter: RateLimiterMemory, address: string): Promise<number> {
  try {
    await limiter.consume(address);
    return 0;
  } catch (refused) {
    if (refused instanceof RateLimiterRes) return Math.max(1, refused.msBeforeNext);
    throw refused;
  }
}
