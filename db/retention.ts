/** Runs one statement without parameters, in autocommit. */
type Runner = { query(text: string): PromiseLike<{ rows: unknown[] }> };

/** Null for one that was detached and not dropped. */
type FoundPartition = { name: string; isHalfDetached: boolean | null };

type Partitioning = { table: string; every: 'day' | 'month'; ahead: number; keepDays: number };

/**
 * Evidence expires, idempotency never does: the unique keys of instances and events stay for ever.
 * Queries are remembered for a week, far longer than a signature is accepted.
 */
const partitioned: readonly Partitioning[] = [
  { table: 'callbacks', every: 'day', ahead: 8, keepDays: 400 },
  { table: 'reads', every: 'day', ahead: 8, keepDays: 7 },
  { table: 'attempts', every: 'month', ahead: 2, keepDays: 400 },
];

/**
 * Makes the partitions from yesterday (a signature may be a minute old) to a week ahead. A row
 * without one is refused by Postgres (23514), so this runs at migration and every hour.
 *
 * Made apart and then attached: that lets callbacks be stored meanwhile, also while a backup reads,
 * where `create table … partition of` would queue behind the backup and everything else behind it.
 *
 * @param now decides which days
 */
export async function createPartitions(db: Runner, now: Date = new Date()): Promise<void> {
  for (const { table, every, ahead } of partitioned) {
    for (let step = -1; step <= ahead; step++) {
      const from = startOf(every, now, step);
      const to = startOf(every, now, step + 1);
      const name = nameOf(table, every, from);
      if (await isAttached(db, name)) continue;
      // One at a time and whole or not at all, because any number of processes keep partitions.
      await db.query(`do $$ begin
        lock table ${table} in share update exclusive mode;
        if to_regclass('${name}') is not null then return; end if;
        create table ${name} (like ${table} including all);
        alter table ${table} attach partition ${name} for values from ('${bound(from)}') to ('${bound(to)}');
      end $$`);
    }
  }
}

/**
 * Drops partitions that are older than their table keeps them.
 *
 * @returns the names of the dropped ones
 */
export async function dropExpiredPartitions(db: Runner, now: Date = new Date()): Promise<string[]> {
  const dropped: string[] = [];
  for (const { table, every, keepDays } of partitioned) {
    const oldest = nameOf(table, every, new Date(now.getTime() - keepDays * 86_400_000));
    const { rows } = await db.query(
      `select c.oid::regclass::text as name, h.inhdetachpending as "isHalfDetached"
       from pg_class c left join pg_inherits h on h.inhrelid = c.oid
       where c.relkind = 'r' and c.relname ~ '^${table}_[0-9]+$' and pg_table_is_visible(c.oid) order by 1`,
    );
    for (const { name, isHalfDetached } of rows as FoundPartition[]) {
      // Names sort like their days.
      if (name >= oldest) continue;
      // A backup that reads holds this up; what a time-out cut off here is taken up the next time.
      if (isHalfDetached === true) {
        await db.query(`alter table ${table} detach partition ${name} finalize`);
      } else if (isHalfDetached === false) {
        await db.query(`alter table ${table} detach partition ${name} concurrently`);
      }
      await db.query(`drop table if exists ${name}`);
      dropped.push(name);
    }
  }
  return dropped;
}

async function isAttached(db: Runner, name: string): Promise<boolean> {
  const { rows } = await db.query(
    `select 1 from pg_inherits where inhrelid = to_regclass('${name}')`,
  );
  return rows.length > 0;
}

function startOf(every: 'day' | 'month', now: Date, step: number): Date {
  const [year, month, day] = [now.getUTCFullYear(), now.getUTCMonth(), now.getUTCDate()];
  return every === 'day'
    ? new Date(Date.UTC(year, month, day + step))
    : new Date(Date.UTC(year, month + step, 1));
}

function nameOf(table: string, every: 'day' | 'month', from: Date): string {
  const length = every === 'day' ? 10 : 7;
  return `${table}_${from.toISOString().slice(0, length).replaceAll('-', '')}`;
}

/** With an offset, or the session's time zone would move the bound. */
function bound(from: Date): string {
  return `${from.toISOString().slice(0, 10)} 00:00:00+00`;
}
