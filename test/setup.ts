import pg from 'pg';
import type { TestProject } from 'vitest/node';
import { migrate } from '../db/migrate.ts';
import { createLogger } from '../runtime/logger.ts';
import { createQueueBackend } from '../runtime/queue-backend.ts';
import { startTestPostgres } from './servers/postgres.ts';
import { startTestRedis } from './servers/redis.ts';
import { withDatabase } from './servers/database.ts';

// One Postgres (and, for the Redis lane, one Redis) for all files of a run. Files isolate themselves
// with a database and a prefix of their own; tests that hurt a server start their own.

const TEMPLATE = 'latchkey_template';

type Shared = { users: number; opened: Promise<Opened> | undefined };
type Opened = { url: string; stop(): Promise<void> };

// Vitest loads this file once for each project; the server is for all of them.
const key = Symbol.for('latchkey.test.postgres');
const holder = globalThis as typeof globalThis & { [key]?: Shared };
const shared: Shared = (holder[key] ??= { users: 0, opened: undefined });

async function openPostgres(): Promise<Opened> {
  const server = await startTestPostgres();
  await createTemplate(server.url);
  return { url: server.url, stop: () => server.stop() };
}

async function createTemplate(serverUrl: string): Promise<void> {
  const client = new pg.Client({ connectionString: serverUrl });
  await client.connect();
  try {
    await client.query(`create database ${TEMPLATE}`);
  } finally {
    await client.end();
  }
  const url = withDatabase(serverUrl, TEMPLATE);
  await migrate(url);
  const backend = createQueueBackend({
    databaseUrl: url,
    prefix: 'test',
    poolMax: 1,
    log: createLogger({ level: 'warn', role: 'test' }),
  });
  await backend.prepare();
  await backend.close();
}

/** Runs before and, by what it returns, after each project's files. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  shared.users += 1;
  shared.opened ??= openPostgres();
  const postgres = await shared.opened;
  const redis = project.name === 'integration-redis' ? await startTestRedis() : undefined;
  project.provide('postgresUrl', postgres.url);
  project.provide('templateDatabase', TEMPLATE);
  project.provide('redisUrl', redis?.url ?? null);
  return async () => {
    await redis?.stop();
    shared.users -= 1;
    if (shared.users > 0) return;
    shared.opened = undefined;
    await postgres.stop();
  };
}
