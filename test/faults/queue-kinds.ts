import { findRedisServer } from '../servers/redis.ts';

export type QueueKind = 'postgres' | 'redis';

/** Both stores of the queues; without Redis one, and a line that cannot be overlooked. */
export const queueKinds: readonly QueueKind[] = findQueueKinds();

function findQueueKinds(): readonly QueueKind[] {
  if (findRedisServer() !== undefined) return ['postgres', 'redis'];
  const line = '!!! redis-server not found: the faults of the Redis lane were NOT run';
  if (process.env['REQUIRE_REDIS'] === '1') throw new Error(line);
  process.stderr.write(`\n${line}\n`);
  return ['postgres'];
}
