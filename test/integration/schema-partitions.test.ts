import postgres from 'postgres';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { createOrderStore } from '../../db/accept-orders.ts';
import type { Database } from '../../db/client.ts';
import { createPartitions, dropExpiredPartitions } from '../../db/retention.ts';
import { type TestDatabase, createTestDatabase } from '../servers/database.ts';
import { addTestProduct, openTestDatabase, orderRow } from './dispatch-seed.ts';

let database: TestDatabase;
let db: Database;
let sql: postgres.Sql;
let productId: number;
const dayMs = 86_400_000;
const inDays = (days: number) => new Date(Date.now() + days * dayMs);

beforeAll(async () => {
  database = await createTestDatabase();
  db = openTestDatabase(database.url);
  sql = postgres(database.url, { max: 2, onnotice: () => undefined });
  productId = await addTestProduct(db.pool);
});

beforeEach(async () => {
  await sql`truncate callbacks, reads, instances, events, dispatches`;
});

afterAll(async () => {
  await sql?.end();
  await db?.close();
  await database?.drop();
});

async function namesOf(table: string): Promise<string[]> {
  const rows = await sql<{ name: string }[]>`
    select inhrelid::regclass::text as name from pg_inherits
    where inhparent = ${table}::regclass and not inhdetachpending order by 1`;
  return rows.map(({ name }) => name);
}

const nameOf = (table: string, at: Date) =>
  `${table}_${at.toISOString().slice(0, 10).replaceAll('-', '')}`;

const store = (signedAt: Date) => createOrderStore()(db.pool, [orderRow(productId, { signedAt })]);

describe('a migrated database', () => {
  test.each(['callbacks', 'reads'])(
    '%s has a partition a day, from yesterday to a week ahead',
    async (table) => {
      const wanted = Array.from({ length: 10 }, (_, n) => nameOf(table, inDays(n - 1)));
      // The run may have been migrated before midnight.
      expect(await namesOf(table)).toEqual(expect.arrayContaining(wanted.slice(0, 9)));
    },
  );

  test('attempts has this month and the next', async () => {
    const months = (await namesOf('attempts')).map((name) => name.slice(-6));
    const month = (at: Date) => at.toISOString().slice(0, 7).replace('-', '');
    const now = new Date();
    const next = new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth() + 1, 1));
    expect(months).toEqual(expect.arrayContaining([month(now), month(next)]));
  });

  test('days begin at midnight UTC and leave no gap, whatever the session’s time zone', async () => {
    await sql.begin(async (tx) => {
      await tx`set local time zone 'UTC'`;
      const bounds = await tx<{ bound: string }[]>`
        select pg_get_expr(c.relpartbound, c.oid) as bound from pg_class c join pg_inherits on inhrelid = c.oid
        where inhparent = 'callbacks'::regclass order by c.relname`;
      const days = bounds.map(({ bound }) =>
        [...bound.matchAll(/'([^']+)'/g)].map(([, time]) => time),
      );
      days.forEach(([from, to], place) => {
        expect(from).toMatch(/ 00:00:00\+00$/);
        const next = days[place + 1];
        if (next) expect(next[0]).toBe(to);
      });
    });
  });

  test('what is signed a minute before midnight or a week ahead is stored, what has no day is refused', async () => {
    const midnight = new Date(Math.floor(Date.now() / dayMs) * dayMs);
    for (const at of [new Date(midnight.getTime() - 60_000), midnight, inDays(7)])
      expect(await store(at)).toMatchObject([{ kind: 'accepted' }]);
    await expect(store(inDays(60))).rejects.toMatchObject({ code: '23514' });
  });
});

/** A transaction that has read the tables and stays open, as a backup does. */
async function holdAsReader<T>(work: () => Promise<T>): Promise<T> {
  const reader = await sql.reserve();
  try {
    await reader`begin isolation level repeatable read`;
    await reader`select count(*) from callbacks`;
    await reader`select count(*) from reads`;
    return await work();
  } finally {
    await reader`rollback`;
    reader.release();
  }
}

describe('partitions ahead', () => {
  test('are made while a backup reads, and callbacks are stored meanwhile', async () => {
    const later = inDays(20);
    await holdAsReader(async () => {
      let isMade = false;
      let stored = 0;
      const storing = (async () => {
        while (!isMade || stored < 20) {
          await store(new Date());
          stored += 1;
        }
      })();
      await createPartitions(db.pool, later);
      isMade = true;
      await storing;
      expect(stored).toBeGreaterThanOrEqual(20);
    });
    expect(await namesOf('callbacks')).toEqual(
      expect.arrayContaining([nameOf('callbacks', later), nameOf('callbacks', inDays(28))]),
    );
    expect(await store(later)).toMatchObject([{ kind: 'accepted' }]);
  });

  test('made again they are left as they are, rows and all', async () => {
    await store(new Date());
    await createPartitions(db.pool);
    const [row] = await sql`select count(*)::int as n from callbacks`;
    expect(row?.['n']).toBe(1);
  });

  test('made by several processes at once each is there, and no row is lost', async () => {
    const later = inDays(40);
    const others = Array.from({ length: 4 }, () => openTestDatabase(database.url, 1));
    try {
      await Promise.all(others.map((each) => createPartitions(each.pool, later)));
    } finally {
      await Promise.all(others.map((each) => each.close()));
    }
    for (let day = 39; day <= 48; day += 1)
      expect(await namesOf('callbacks')).toContain(nameOf('callbacks', inDays(day)));
  });

  test('an attached partition has the key and the indexes of its table', async () => {
    const rows = await sql<{ name: string }[]>`
      select c.relname as name from pg_class c join pg_inherits h on h.inhrelid = c.oid
      where h.inhparent in ('callbacks'::regclass, 'reads'::regclass, 'attempts'::regclass)
        and (select count(*) from pg_index i where i.indrelid = c.oid)
          <> (select count(*) from pg_index i where i.indrelid = h.inhparent)`;
    expect(rows.map(({ name }) => name)).toEqual([]);
  });
});

describe('expired partitions', () => {
  test('go after a week for questions and after 400 days for evidence', async () => {
    const then = inDays(300);
    await createPartitions(db.pool, then);
    const readsBefore = await namesOf('reads');
    expect(readsBefore).toContain(nameOf('reads', inDays(0)));
    const callbacksBefore = await namesOf('callbacks');
    await dropExpiredPartitions(db.pool, then);
    const oldest = nameOf('reads', inDays(293));
    expect((await namesOf('reads')).every((name) => name >= oldest)).toBe(true);
    expect(await namesOf('reads')).toContain(nameOf('reads', then));
    expect(await namesOf('callbacks')).toEqual(callbacksBefore);

    const dropped = await dropExpiredPartitions(db.pool, inDays(401));
    expect(dropped).toContain(nameOf('callbacks', inDays(0)));
    expect(await namesOf('callbacks')).toContain(nameOf('callbacks', then));
    const left = await sql`select to_regclass(${nameOf('callbacks', inDays(0))}) as name`;
    expect(left[0]?.['name']).toBeNull();
    await createPartitions(db.pool);
  });

  test('one that was detached and not dropped, by a crash in between, is dropped the next time', async () => {
    const name = nameOf('callbacks', new Date('2020-01-01T00:00:00Z'));
    await sql.unsafe(`create table ${name} (like callbacks including all)`);
    expect(await dropExpiredPartitions(db.pool)).toContain(name);
    const left = await sql`select to_regclass(${name}) as name`;
    expect(left[0]?.['name']).toBeNull();
  });

  test('a drop that a backup held up is finished the next time', async () => {
    const then = inDays(500);
    await createPartitions(db.pool, then);
    const impatient = await db.pool.connect();
    const query = async (text: string) => impatient.query(text);
    const later = new Date(then.getTime() + 20 * dayMs);
    try {
      await impatient.query('set statement_timeout = 300');
      await holdAsReader(async () => {
        await expect(dropExpiredPartitions({ query }, later)).rejects.toMatchObject({
          code: '57014',
        });
        // Callbacks go on.
        expect(await store(then)).toMatchObject([{ kind: 'accepted' }]);
      });
      await impatient.query('set statement_timeout = 0');
      await dropExpiredPartitions({ query }, later);
    } finally {
      impatient.release();
    }
    const oldest = nameOf('reads', new Date(later.getTime() - 7 * dayMs));
    expect((await namesOf('reads')).every((name) => name >= oldest)).toBe(true);
    const pending = await sql`select from pg_inherits where inhdetachpending`;
    expect(pending).toHaveLength(0);
  });
});
