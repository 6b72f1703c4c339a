import { randomBytes } from 'node:crypto';
import { inject } from 'vitest';

/**
 * Where the queues of this lane live, as options of `createQueueBackend` and as environment
 * (`REDIS_URL`, `QUEUE_PREFIX`). Each call gives a prefix of its own, so files do not meet in Redis.
 */
export function queueStore(databaseUrl: string): {
  redisUrl: string | undefined;
  databaseUrl: string;
  prefix: string;
  env: Record<string, string>;
} {
  const wanted = process.env['TEST_QUEUE_BACKEND'];
  const redisUrl = inject('redisUrl') ?? undefined;
  if (wanted === 'redis' && redisUrl === undefined) throw new Error('the Redis lane has no Redis');
  const prefix = `test-${randomBytes(4).toString('hex')}`;
  return {
    redisUrl: wanted === 'redis' ? redisUrl : undefined,
    databaseUrl,
    prefix,
    env: {
      DATABASE_URL: databaseUrl,
      REDIS_URL: wanted === 'redis' ? (redisUrl ?? '') : '',
      QUEUE_PREFIX: prefix,
    },
  };
}
