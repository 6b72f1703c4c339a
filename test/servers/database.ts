import { randomBytes } from 'node:crypto';
import pg from 'pg';
import { inject } from 'vitest';

declare module 'vitest' {
  interface ProvidedContext {
    /** Superuser's address of the run's Postgres. */
    postgresUrl: string;
    /** Name of the migrated database that is cloned for each test file. */
    templateDatabase: string;
    /** The run's Redis, in the Redis lane only. */
    redisUrl: string | null;
  }
}

export type TestDatabase = {
  /** A migrated database of its own. */
  url: string;
  /** An empty database of its own beside it, for the postgres-schema provisioner. */
  tenantsUrl: string;
  drop(): Promise<void>;
};

/** Clones the template: some tens of milliseconds, nothing shared but the server and its roles. */
export async function createTestDatabase(): Promise<TestDatabase> {
  const server = inject('postgresUrl');
  const name = `test_${randomBytes(6).toString('hex')}`;
  await onServer(server, [
    `create database ${name} template ${inject('templateDatabase')}`,
    `create database ${name}_tenants`,
  ]);
  return {
    url: withDatabase(server, name),
    tenantsUrl: withDatabase(server, `${name}_tenants`),
    drop: () =>
      onServer(server, [
        `drop database if exists ${name} with (force)`,
        `drop database if exists ${name}_tenants with (force)`,
      ]),
  };
}

/** The same server, another database. */
export function withDatabase(url: string, name: string): string {
  const changed = new URL(url);
  changed.pathname = `/${name}`;
  return changed.toString();
}

async function onServer(url: string, statements: readonly string[]): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    for (const statement of statements) await client.query(statement);
  } finally {
    await client.end();
  }
}
