import { fileURLToPath } from 'node:url';
import { drizzle } from 'drizzle-orm/postgres-js';
import { migrate as runMigrations } from 'drizzle-orm/postgres-js/migrator';
import postgres from 'postgres';
import { createPartitions } from './retention.ts';

const folder = fileURLToPath(new URL('./migrations', import.meta.url));

/**
 * Brings a database to the newest schema; does nothing where it is. Processes that start together
 * wait for each other.
 *
 * @throws when the database cannot be reached or a migration fails; what failed is rolled back
 */
export async function migrate(databaseUrl: string): Promise<void> {
  const sql = postgres(databaseUrl, { max: 1, onnotice: () => undefined, connect_timeout: 10 });
  try {
    await sql`select pg_advisory_lock(hashtext('latchkey.migrate'))`;
    await runMigrations(drizzle(sql), { migrationsFolder: folder });
    await createPartitions({ query: async (text) => ({ rows: await sql.unsafe(text) }) });
  } finally {
    await sql.end({ timeout: 5 });
  }
}
