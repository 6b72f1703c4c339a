import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { acceptEvents } from '../../db/accept-events.ts';
import { createOrderStore } from '../../db/accept-orders.ts';
import { acceptQueries } from '../../db/accept-queries.ts';
import { claimDispatch } from '../../db/claims.ts';
import type { Database, Queryable } from '../../db/client.ts';
import { handOver } from '../../db/hand-over.ts';
import { freeExpiredLeases, makeOverdueRetriesDue, readOldHandOvers } from '../../db/sweep.ts';
import { type TestDatabase, createTestDatabase } from '../servers/database.ts';
import { eventRow, openTestDatabase, orderRow, queryRow } from './dispatch-seed.ts';

// A plan that reads a table from end to end is fast on an empty database and fatal on a full one.

const instancesMax = 120_000;
const daysMax = 400;
const batch = 64;

let database: TestDatabase;
let db: Database;
let products: number[];

beforeAll(async () => {
  database = await createTestDatabase();
  db = openTestDatabase(database.url, 2);
  products = await fill(db);
}, 120_000);

afterAll(async () => {
  await db?.close();
  await database?.drop();
});

/** A year of trade: one in four instances has something open, in all its stages. */
async function fill({ pool }: Database): Promise<number[]> {
  const client = await pool.connect();
  try {
    await client.query('set statement_timeout = 0; set synchronous_commit = off');
    const run = (text: string) =>
      client.query({ text, query_timeout: 100_000 } as { text: string });
    const { rows } = await client.query<{ id: number }>(
      `insert into products (key, name, provisioner) select 'p' || n, 'p', 'http' from generate_series(1, 40) n
       returning id`,
    );
    const ids = rows.map(({ id }) => id);
    const first = ids[0] ?? 1;
    // Migrated were yesterday to a week ahead.
    await run(`do $$ declare day timestamptz; begin
      for n in 2..${daysMax} loop
        day := date_trunc('day', now(), 'UTC') - n * interval '24 hours';
        execute format('create table %I partition of callbacks for values from (%L) to (%L)',
          'callbacks_' || to_char(day at time zone 'UTC', 'YYYYMMDD'), day, day + interval '24 hours');
      end loop;
    end $$`);
    await run(`insert into instances (product_id, order_key, public_id, order_id, order_line_id, state, applied)
      select ${first} + n % 40, 'CS' || n || '/1', 'i-' || n, 'CS' || n, '1', 'active', 1
      from generate_series(1, ${instancesMax}) n`);
    await run(`insert into events (instance_id, kind, dedup_key, order_id, resolved_at, applied_at)
      select id, 'created', 'created', order_id, now(), case when id % 4 > 0 then now() end from instances`);
    await run(`insert into dispatches (instance_id, product_id, due_at, dispatch, dispatched_at, retry_at, lease_until, state)
      select id, product_id, case when id % 8 = 0 then now() - interval '1 minute' end, id,
        case when id % 16 = 4 then now() - interval '1 minute' end,
        case when id % 16 = 12 then now() + interval '1 hour' end,
        case when id % 256 = 4 then now() + interval '1 minute' end,
        case when id % 8 = 0 then 'due' when id % 16 = 4 then 'handed' else 'failing' end
      from instances where id % 4 = 0`);
    await run(`insert into callbacks (id, product_id, key_id, signed_at, signature, family, activity, body)
      select gen_random_uuid(), ${first}, 1, now() - (case when n % 2 = 0 then 0 else n % ${daysMax - 1} end) * interval '24 hours' - n * interval '1 millisecond',
        sha256(n::text::bytea), 'saas-v2', 'newInstance', '\\x00' from generate_series(1, 40000) n`);
    await run(`insert into reads (id, product_id, signed_at, signature, activity)
      select gen_random_uuid(), ${first}, now() - n * interval '1 millisecond', sha256(n::text::bytea), 'queryInstance'
      from generate_series(1, 20000) n`);
    await run(`insert into attempts (began, fence, instance_id, product_id, generation, no, kind, worker, target)
      select date_trunc('milliseconds', now()), id, id, product_id, 1, 1, 'apply', 'w', 't' from instances where id % 4 = 0`);
    await run('vacuum analyze instances, events, dispatches, reads, attempts');
    await run('analyze callbacks');
    return ids;
  } finally {
    // Its settings must not go back into the pool.
    client.release(true);
  }
}

type Node = {
  'Node Type': string;
  'Relation Name'?: string;
  'Actual Loops'?: number;
  Plans?: Node[];
};

/** Runs statements under EXPLAIN, in a transaction that is undone; keeps what was done. */
async function explain(work: (db: Queryable) => Promise<unknown>): Promise<Node[]> {
  const client = await db.pool.connect();
  const plans: Node[] = [];
  const query = async (
    asked: string | { text: string; values?: unknown[] },
    values?: unknown[],
  ) => {
    const text = typeof asked === 'string' ? asked : asked.text;
    const given = typeof asked === 'string' ? values : asked.values;
    const { rows } = await client.query<{ 'QUERY PLAN': { Plan: Node }[] }>(
      `explain (analyze, timing off, format json) ${text}`,
      given,
    );
    plans.push(...rows.flatMap((row) => row['QUERY PLAN'].map(({ Plan }) => Plan)));
    return { rows: [], rowCount: 0 };
  };
  try {
    await client.query('begin');
    await work({ query } as unknown as Queryable);
    return plans;
  } finally {
    await client.query('rollback');
    client.release();
  }
}

function nodesOf(plan: Node): Node[] {
  return [plan, ...(plan.Plans ?? []).flatMap(nodesOf)];
}

const large = /^(instances|events|dispatches|callbacks|reads|attempts)/;

function expectNoScanFromEndToEnd(plans: readonly Node[], statements: number): void {
  expect(plans).toHaveLength(statements);
  const nodes = plans.flatMap(nodesOf);
  const scans = nodes.filter(
    (node) =>
      node['Node Type'] === 'Seq Scan' &&
      large.test(node['Relation Name'] ?? '') &&
      node['Actual Loops'] !== 0,
  );
  expect(scans).toEqual([]);
  // Two days at most: the one of the batch and, around midnight, its neighbour.
  for (const table of ['callbacks_', 'reads_']) {
    const opened = new Set(
      nodes.flatMap((node) =>
        node['Node Type'].includes('Scan') && node['Relation Name']?.startsWith(table)
          ? [node['Relation Name']]
          : [],
      ),
    );
    expect(opened.size).toBeLessThanOrEqual(2);
  }
}

const someProduct = () => products[0] ?? 1;
/** Instances of that product, spread over the table. */
const known = (n: number) => `i-${(n + 1) * 40 * 40}`;

describe(`with ${instancesMax} instances and ${daysMax} days of evidence`, () => {
  test('orders: the short statement and the whole one read by index alone', async () => {
    const rows = Array.from({ length: batch }, (_, n) =>
      n % 2 === 0
        ? orderRow(someProduct())
        : orderRow(someProduct(), { orderId: `CS${(n + 1) * 40 * 40}` }),
    );
    expectNoScanFromEndToEnd(await explain((on) => createOrderStore()(on, rows)), 2);
  });

  test('events read by index alone', async () => {
    const rows = Array.from({ length: batch }, (_, n) =>
      eventRow(someProduct(), known(n), n % 3 === 0 ? 'frozen' : 'renewed'),
    );
    expectNoScanFromEndToEnd(await explain((on) => acceptEvents(on, rows)), 1);
  });

  test('one event alone too', async () => {
    const row = eventRow(someProduct(), known(1), 'released');
    expectNoScanFromEndToEnd(await explain((on) => acceptEvents(on, [row])), 1);
  });

  test('queries of several ids each read by index alone', async () => {
    const rows = Array.from({ length: batch }, (_, call) =>
      queryRow(
        someProduct(),
        [0, 1, 2, 3].map((n) => known(call + n)),
      ),
    );
    expectNoScanFromEndToEnd(await explain((on) => acceptQueries(on, rows)), 1);
  });

  test('handing over reads by index alone', async () => {
    const at = { queue: 'provisioning', windowMax: 100_000, pageMax: 500 } as const;
    expectNoScanFromEndToEnd(await explain((on) => handOver(on, at)), 1);
  });

  test('a claim reads by index alone', async () => {
    const { rows } = await db.pool.query<{ id: number; dispatch: number }>(
      `select instance_id as id, dispatch from dispatches where state = 'handed' and lease_until is null limit 1`,
    );
    const { id: instanceId = 0, dispatch = 0 } = rows[0] ?? {};
    const plans = await explain((on) =>
      claimDispatch(on, { instanceId, dispatch, leaseMs: 1_000 }),
    );
    expectNoScanFromEndToEnd(plans, 1);
  });

  test('the sweep reads by index alone', async () => {
    const plans = await explain(async (on) => {
      await freeExpiredLeases(on);
      await makeOverdueRetriesDue(on, 5_000);
    });
    expectNoScanFromEndToEnd(plans, 2);
  });

  test('old hand-overs are found by index while few are old', async () => {
    const plans = await explain((on) => readOldHandOvers(on, 'provisioning', 3_600_000));
    expectNoScanFromEndToEnd(plans, 1);
  });
});
