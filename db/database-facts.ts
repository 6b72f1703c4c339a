import { readFile } from 'node:fs/promises';
import type { Queryable } from './client.ts';

/** What a check of the installation must know of a database; says nothing of what is in it. */
export type DatabaseFacts = {
  /** Like 18.4. */
  version: string;
  /** Major times 10,000 plus minor. */
  versionNumber: number;
  fsync: string;
  fullPageWrites: string;
  /** As our own sessions have it, which a connection pooler may have changed. */
  synchronousCommit: string;
  /** The database's clock minus ours, half of the way there and back taken off. */
  clockSkewMs: number;
};

export async function readDatabaseFacts(db: Queryable, now: () => number): Promise<DatabaseFacts> {
  await db.query('select 1');
  const began = now();
  const { rows } = await db.query<{ at: string } & Omit<DatabaseFacts, 'clockSkewMs'>>(
    `select (extract(epoch from clock_timestamp()) * 1000)::text as at,
       current_setting('server_version') as version,
       current_setting('server_version_num')::int as "versionNumber",
       current_setting('fsync') as fsync,
       current_setting('full_page_writes') as "fullPageWrites",
       current_setting('synchronous_commit') as "synchronousCommit"`,
  );
  const here = (began + now()) / 2;
  const row = rows[0];
  if (!row) throw new Error('the database answered nothing');
  const { at, ...facts } = row;
  return { ...facts, clockSkewMs: Math.round(Number(at) - here) };
}

/** How many of our migrations this database still lacks; all of them when it is empty. */
export async function countPendingMigrations(db: Queryable): Promise<number> {
  const text = await readFile(new URL('./migrations/meta/_journal.json', import.meta.url), 'utf8');
  const journal = JSON.parse(text) as { entries: { when: number }[] };
  const table = await db.query<{ exists: boolean }>(
    `select to_regclass('drizzle.__drizzle_migrations') is not null as exists`,
  );
  if (table.rows[0]?.exists !== true) return journal.entries.length;
  const { rows } = await db.query<{ newest: string | null }>(
    'select max(created_at)::text as newest from drizzle.__drizzle_migrations',
  );
  const newest = Number(rows[0]?.newest ?? 0);
  return journal.entries.filter((each) => each.when > newest).length;
}

/**
 * Which partitioned tables cannot take a row of that time; Postgres would refuse it (23514), and
 * with it a callback.
 */
export async function findMissingPartitions(db: Queryable, at: Date): Promise<string[]> {
  const day = at.toISOString().slice(0, 10).replaceAll('-', '');
  const wanted = { callbacks: day, reads: day, attempts: day.slice(0, 6) };
  const { rows } = await db.query<{ name: string }>(
    `select name from unnest($1::text[]) as name where to_regclass(name) is null order by name`,
    [Object.entries(wanted).map(([table, suffix]) => `${table}_${suffix}`)],
  );
  return rows.map((row) => row.name);
}

/** Time here minus the time that the marketplace signed with, of verified calls; network and queues are in it. */
export type ClockSkew = { calls: number; medianMs: number; minMs: number; maxMs: number };

// Two minutes on: signed by a clock that is ahead.
const lately = `signed_at between now() - interval '1 hour' and now() + interval '2 minutes'`;

/**
 * How far the marketplace's clock and the database's are apart, from the newest calls of the last
 * hour: the thousand that asked for something, and as many that only asked.
 */
export async function readClockSkew(db: Queryable): Promise<ClockSkew | null> {
  const { rows } = await db.query<ClockSkew>(
    `select count(*)::int as calls, min(skew)::float8 as "minMs", max(skew)::float8 as "maxMs",
       percentile_cont(0.5) within group (order by skew)::float8 as "medianMs"
     from (
       select extract(epoch from received_at - signed_at) * 1000 as skew from (
         (select received_at, signed_at from callbacks where ${lately} order by signed_at desc limit 1000)
         union all
         (select received_at, signed_at from reads where ${lately} order by signed_at desc limit 1000)
       ) calls) skews`,
  );
  const [row] = rows;
  return row && row.calls > 0 ? row : null;
}

/** The master keys that wrap this database's data keys, by id. */
export async function readMasterKeyIds(db: Queryable): Promise<string[]> {
  const { rows } = await db.query<{ id: string }>(
    'select distinct master_key_id as id from data_keys order by 1',
  );
  return rows.map((row) => row.id);
}

/** How many others work on this database whose application name begins alike but is not ours. */
export async function countSiblingSessions(db: Queryable, namePrefix: string): Promise<number> {
  const { rows } = await db.query<{ count: number }>(
    `select count(*)::int as count
     from pg_stat_activity
     where datname = current_database() and starts_with(application_name, $1)
       and application_name <> current_setting('application_name')`,
    [namePrefix],
  );
  return rows[0]?.count ?? 0;
}
