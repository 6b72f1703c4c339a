import { defineConfig } from 'vitest/config';
import { findRedisServer } from './test/servers/redis.ts';

// Without Redis its lane has no files, and says so where it cannot be overlooked: last.
const redisLane = findRedisServer() === undefined ? [] : ['test/integration/**/*.test.ts'];
if (redisLane.length === 0) {
  const line = '!!! redis-server not found: the Redis lane was NOT run';
  if (process.env['REQUIRE_REDIS'] === '1') throw new Error(line);
  process.once('exit', () => process.stderr.write(`\n${line}\n`));
}

// Integration files run once for each queue backend: the same tests, another BullMQ backend.
const integration = {
  include: ['test/integration/**/*.test.ts'],
  globalSetup: ['test/setup.ts'],
  testTimeout: 60_000,
  hookTimeout: 60_000,
};

export default defineConfig({
  test: {
    // Most of a test's time is waiting for processes to start and facts to come.
    maxWorkers: 3,
    projects: [
      {
        test: {
          name: 'unit',
          include: ['test/**/*.test.ts'],
          exclude: ['test/integration/**', 'test/faults/**', 'node_modules/**'],
        },
      },
      { test: { ...integration, name: 'integration', env: { TEST_QUEUE_BACKEND: 'postgres' } } },
      {
        test: {
          ...integration,
          name: 'integration-redis',
          include: redisLane,
          // These know no queue, and are the slow ones.
          exclude: [
            'runtime-embedded-postgres',
            'start-embedded',
            'cli-embedded',
            'demo',
            'driver-choice',
            'plans-large',
            'schema-migrated',
            'schema-partitions',
          ].map((name) => `test/integration/${name}.test.ts`),
          env: { TEST_QUEUE_BACKEND: 'redis' },
        },
      },
      {
        test: {
          ...integration,
          name: 'faults',
          include: ['test/faults/**/*.test.ts'],
          testTimeout: 180_000,
          hookTimeout: 120_000,
          fileParallelism: false,
        },
      },
    ],
  },
});
