import { readFileSync } from 'node:fs';
import pg from 'pg';
import { type QueueName, queueNames } from '../core/instance.ts';
import type { Queryable } from './client.ts';

/** Why callbacks cannot be stored, in words that hold no address and no secret. */
export type StorageProblem =
  | 'the database is in recovery'
  | 'the database is read-only'
  | 'migrations are missing: run latchkey migrate'
  | `the partition of ${string} for now is missing`;

type StorageRow = {
  in_recovery: boolean;
  read_only: boolean;
  migrated: boolean;
  missing: string[];
};

const undefinedTable = '42P01';
const journal = new URL('./migrations/meta/_journal.json', import.meta.url);

// The names are those of retention.ts. Only what a callback needs now: a missing partition of
// tomorrow is for doctor, not a reason to take no callbacks today.
const storageSql = `
select pg_is_in_recovery() as in_recovery,
       current_setting('transaction_read_only') = 'on' as read_only,
       coalesce((select max(created_at) from drizzle.__drizzle_migrations), 0) >= $1::bigint as migrated,
       array(
         select 'the partition of ' || t.name || ' for now is missing'
         from (values ('callbacks'), ('reads')) t (name)
         where to_regclass(t.name || '_' || to_char(now() at time zone 'utc', 'YYYYMMDD')) is null
       ) as missing`;

/**
 * Makes the check behind readyz: an empty list means that a callback which came now can be stored.
 * A database that is newer than this code is fine.
 *
 * @throws what the driver throws when the database does not answer
 */
export function createStorageCheck(db: Queryable): () => Promise<StorageProblem[]> {
  const newest = newestMigration();
  return async () => {
    try {
      const { rows } = await db.query<StorageRow>(storageSql, [newest]);
      return rows.flatMap(problemsOf);
    } catch (error) {
      // Not even the table of migrations is there.
      if (error instanceof pg.DatabaseError && error.code === undefinedTable)
        return ['migrations are missing: run latchkey migrate'];
      throw error;
    }
  };
}

function problemsOf(row: StorageRow): StorageProblem[] {
  const problems: StorageProblem[] = [];
  if (row.in_recovery) problems.push('the database is in recovery');
  else if (row.read_only) problems.push('the database is read-only');
  if (!row.migrated) problems.push('migrations are missing: run latchkey migrate');
  return [...problems, ...(row.missing as StorageProblem[])];
}

function newestMigration(): number {
  const { entries } = JSON.parse(readFileSync(journal, 'utf8')) as { entries: { when: number }[] };
  return Math.max(0, ...entries.map((entry) => entry.when));
}

/** Open work at one moment, for gauges. */
export type WorkGauges = {
  queues: { queue: QueueName; due: number; oldestDueSeconds: number }[];
  products: { product: string; deadLetters: number; parked: number; waitingRetries: number }[];
};

// One pass, so that one scrape shows one moment; dispatches holds open work only.
const workSql = `
select d.queue, p.key as product,
       count(*) filter (where d.due_at <= now())::int as due,
       coalesce(extract(epoch from now() - min(d.due_at) filter (where d.due_at <= now())), 0)::float8 as oldest,
       count(*) filter (where d.state = 'dead')::int as dead,
       count(*) filter (where d.state = 'timed' and d.due_at is null)::int as parked,
       count(*) filter (where d.retry_at is not null)::int as waiting
from products p left join dispatches d on d.product_id = p.id
group by grouping sets ((d.queue), (p.key))`;

type WorkRow = {
  queue: QueueName | null;
  product: string | null;
  due: number;
  oldest: number;
  dead: number;
  parked: number;
  waiting: number;
};

/** Reads what is due, dead, parked and waiting; nothing of it names an order. */
export async function readWorkGauges(db: Queryable): Promise<WorkGauges> {
  const { rows } = await db.query<WorkRow>(workSql);
  return {
    queues: queueNames.map((queue) => {
      const row = rows.find((r) => r.queue === queue);
      return { queue, due: row?.due ?? 0, oldestDueSeconds: row?.oldest ?? 0 };
    }),
    products: rows.flatMap(({ product, dead, parked, waiting }) =>
      product === null ? [] : [{ product, deadLetters: dead, parked, waitingRetries: waiting }],
    ),
  };
}
