import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { type EventRow, acceptEvents } from '../../db/accept-events.ts';
import { createOrderStore } from '../../db/accept-orders.ts';
import { acceptQueries } from '../../db/accept-queries.ts';
import { claimDispatch } from '../../db/claims.ts';
import type { Database } from '../../db/client.ts';
import { handOver } from '../../db/hand-over.ts';
import { settleApplied } from '../../db/settle.ts';
import { fold } from '../../core/fold.ts';
import { stateAfter } from '../../core/instance.ts';
import { type TestDatabase, createTestDatabase } from '../servers/database.ts';
import {
  addTestProduct,
  buy,
  buyOne,
  eventRow,
  openTestDatabase,
  orderRow,
  queryRow,
  readDispatch,
  readOutcomes,
  tellEvent,
} from './dispatch-seed.ts';

let database: TestDatabase;
// Two processes: each has one connection for its lane.
let left: Database;
let right: Database;
let productId: number;

beforeAll(async () => {
  database = await createTestDatabase();
  [left, right] = [openTestDatabase(database.url, 1), openTestDatabase(database.url, 1)];
  productId = await addTestProduct(left.pool);
});

afterEach(async () => {
  await left.pool.query('truncate callbacks, reads, instances, events, dispatches, product_queues');
});

afterAll(async () => {
  await Promise.all([left?.close(), right?.close()]);
  await database?.drop();
});

/** A process's lane: batch after batch, and what must ride again rides in front of the next. */
async function ride<Row, Outcome>(
  rows: readonly Row[],
  accept: (batch: readonly Row[]) => Promise<(Outcome | 'again')[]>,
  options: { batchMax: number; keyOf?: (row: Row) => string },
): Promise<{ outcomes: Map<Row, Outcome>; mostRides: number }> {
  const outcomes = new Map<Row, Outcome>();
  const rides = new Map<Row, number>();
  let line = [...rows];
  while (line.length > 0) {
    const batch: Row[] = [];
    const keys = new Set<string>();
    for (const row of line) {
      const key = options.keyOf?.(row);
      if (batch.length >= options.batchMax || (key !== undefined && keys.has(key))) continue;
      if (key !== undefined) keys.add(key);
      batch.push(row);
    }
    const said = await accept(batch);
    expect(said).toHaveLength(batch.length);
    batch.forEach((row, place) => {
      const outcome = said[place];
      rides.set(row, (rides.get(row) ?? 0) + 1);
      if (outcome !== undefined && outcome !== 'again') outcomes.set(row, outcome);
    });
    line = line.filter((row) => !outcomes.has(row));
  }
  return { outcomes, mostRides: Math.max(...rides.values()) };
}

function kindsOf(...outcomes: ({ kind: string } | undefined)[]): string[] {
  return outcomes.map((outcome) => outcome?.kind ?? 'none').toSorted();
}

function shuffle<T>(items: readonly T[]): T[] {
  return items
    .map((item) => ({ item, at: Math.random() }))
    .toSorted((a, b) => a.at - b.at)
    .map(({ item }) => item);
}

async function count(table: string): Promise<number> {
  const { rows } = await left.pool.query<{ n: number }>(`select count(*)::int as n from ${table}`);
  return Number(rows[0]?.n);
}

describe('orders', () => {
  test('two processes with the same orders in rival batches: one id, event and dispatch each', async () => {
    const orders = Array.from({ length: 60 }, (_, n) => `CS-RACE-${n}`);
    const copies = () =>
      shuffle(
        orders.flatMap((orderId) =>
          Array.from({ length: 10 }, () => orderRow(productId, { orderId })),
        ),
      );
    const [ours, theirs] = await Promise.all(
      [left, right].map((db) => {
        const accept = createOrderStore();
        return ride(copies(), (batch) => accept(db.pool, batch), { batchMax: 64 });
      }),
    );
    const all = [...(ours?.outcomes ?? []), ...(theirs?.outcomes ?? [])];
    expect(all).toHaveLength(1_200);
    const ids = new Map<string, Set<string>>();
    let accepted = 0;
    for (const [row, outcome] of all) {
      if (outcome.kind === 'replay') throw new Error('nobody replayed');
      if (outcome.kind === 'accepted') accepted += 1;
      ids.set(row.orderId, (ids.get(row.orderId) ?? new Set()).add(outcome.publicId));
    }
    expect([...ids.values()].every((each) => each.size === 1)).toBe(true);
    expect(accepted).toBe(60);
    for (const table of ['instances', 'events', 'dispatches']) expect(await count(table)).toBe(60);
    expect(await count('callbacks')).toBe(1_200);
    expect(Math.max(ours?.mostRides ?? 0, theirs?.mostRides ?? 0)).toBeLessThanOrEqual(3);
  });

  test('the same signed bytes at two processes at once: one accepted, one replay', async () => {
    const pairs = Array.from({ length: 100 }, () => {
      const row = orderRow(productId);
      return [row, { ...orderRow(productId, { ...row }), id: orderRow(productId).id }] as const;
    });
    const [ours, theirs] = await Promise.all([
      ride(
        pairs.map(([row]) => row),
        (batch) => createOrderStore()(left.pool, batch),
        { batchMax: 10 },
      ),
      ride(shuffle(pairs.map(([, row]) => row)), (batch) => createOrderStore()(right.pool, batch), {
        batchMax: 10,
      }),
    ]);
    for (const [a, b] of pairs) {
      const kinds = kindsOf(ours.outcomes.get(a), theirs.outcomes.get(b));
      expect(kinds).toEqual(['accepted', 'replay']);
    }
    expect(await count('callbacks')).toBe(100);
  });

  test('the same signed bytes twice in one batch: one accepted, one replay', async () => {
    const row = orderRow(productId);
    const copy = { ...row, id: orderRow(productId).id };
    const { outcomes } = await ride([row, copy], (batch) => createOrderStore()(left.pool, batch), {
      batchMax: 2,
    });
    expect(kindsOf(outcomes.get(row), outcomes.get(copy))).toEqual(['accepted', 'replay']);
  });

  test('the own row sent again after a lost reply is no replay', async () => {
    const first = orderRow(productId);
    const resent = orderRow(productId, { orderId: first.orderId });
    const once = await createOrderStore()(left.pool, [first, resent]);
    const twice = await createOrderStore()(right.pool, [first, resent]);
    expect(once.map((each) => (each === 'again' ? each : each.kind))).toEqual([
      'accepted',
      'duplicate',
    ]);
    expect(twice).toEqual(once);
    expect(await count('events')).toBe(1);
  });
});

describe('events', () => {
  test('two processes and rival settles: accepted is what is in the log, no FREEZE after FREEZE', async () => {
    const bought = await buy(left.pool, productId, 12);
    const settler = openTestDatabase(database.url, 2);
    const isDone = { value: false };
    const settling = (async () => {
      let settles = 0;
      while (!isDone.value) {
        const handed = await handOver(settler.pool, {
          queue: 'provisioning',
          windowMax: 2_000,
          pageMax: 500,
        });
        for (const { instanceId, dispatch } of handed) {
          const claim = await claimDispatch(settler.pool, { instanceId, dispatch, leaseMs: 5_000 });
          if (claim === 'nothing to do') continue;
          const { desired, generation, covered, moot, unresolved } = fold(claim.events);
          const { productId: product, queue, fence } = claim;
          await settleApplied(
            settler,
            { instanceId, productId: product, queue, fence, attempt: undefined },
            {
              generation,
              state: stateAfter(desired),
              expiresAt: desired.expiresAt,
              accessEnc: undefined,
              covered,
              moot,
              unresolved: unresolved.length,
            },
          );
          settles += 1;
        }
      }
      return settles;
    })();
    const kinds = ['frozen', 'unfrozen', 'frozen', 'unfrozen', 'renewed', 'upgraded'] as const;
    const story = (): EventRow[] =>
      shuffle(
        bought.flatMap(({ publicId }) =>
          Array.from({ length: 40 }, (_, n) =>
            eventRow(productId, publicId, kinds[n % kinds.length] ?? 'frozen'),
          ),
        ),
      );
    const lanes = await Promise.all(
      [left, right].map((db) =>
        ride(story(), (batch) => acceptEvents(db.pool, batch), {
          batchMax: 64,
          keyOf: (row) => row.publicId,
        }),
      ),
    );
    isDone.value = true;
    expect(await settling).toBeGreaterThan(0);
    await settler.close();

    const outcomes = lanes.flatMap((lane) => [...lane.outcomes.values()]);
    expect(outcomes).toHaveLength(2 * 12 * 40);
    const accepted = outcomes.filter(({ kind }) => kind === 'accepted').length;
    expect(await count('events')).toBe(12 + accepted);
    expect(outcomes.every(({ kind }) => kind === 'accepted' || kind === 'duplicate')).toBe(true);
    for (const instance of bought) {
      const status = (await readOutcomes(left.pool, instance))
        .map((said) => said.split(' ')[0])
        .filter((kind) => kind === 'frozen' || kind === 'unfrozen');
      status.forEach((kind, place) => {
        expect(kind).toBe(place % 2 === 0 ? 'frozen' : 'unfrozen');
      });
      const open = (await readOutcomes(left.pool, instance)).filter((said) =>
        said.endsWith('open'),
      );
      expect((await readDispatch(left.pool, instance))?.openEvents ?? 0).toBe(open.length);
    }
  });

  test('the same signed bytes at two processes at once: one accepted, one replay', async () => {
    const bought = await buy(left.pool, productId, 60);
    const pairs = bought.map(({ publicId }) => {
      const row = eventRow(productId, publicId, 'frozen');
      return [row, { ...row, id: eventRow(productId, publicId, 'frozen').id }] as const;
    });
    const [ours, theirs] = await Promise.all([
      ride(
        pairs.map(([row]) => row),
        (batch) => acceptEvents(left.pool, batch),
        { batchMax: 8 },
      ),
      ride(
        pairs.map(([, row]) => row),
        (batch) => acceptEvents(right.pool, batch),
        { batchMax: 8 },
      ),
    ]);
    for (const [a, b] of pairs) {
      const kinds = kindsOf(ours.outcomes.get(a), theirs.outcomes.get(b));
      expect(kinds).toEqual(['accepted', 'replay']);
    }
    expect(await count('events')).toBe(120);
  });

  test.each(['frozen', 'renewed', 'upgraded', 'released'] as const)(
    '%s: the own row sent again after a lost reply is no replay, and counts once',
    async (kind) => {
      const instance = await buyOne(left.pool, productId);
      const row = eventRow(productId, instance.publicId, kind);
      const kindOf = async (db: Database) => {
        const [outcome] = await acceptEvents(db.pool, [row]);
        return outcome === 'again' ? outcome : outcome?.kind;
      };
      expect(await kindOf(left)).toBe('accepted');
      expect(await kindOf(right)).toBe('duplicate');
      // Also when the instance went on meanwhile.
      if (kind === 'frozen') {
        expect(await tellEvent(left.pool, instance, 'unfrozen')).toBe('accepted');
        expect(await kindOf(right)).toBe('duplicate');
      }
      const kinds = (await readOutcomes(left.pool, instance)).map((said) => said.split(' ')[0]);
      expect(kinds.filter((each) => each === kind)).toHaveLength(1);
    },
  );

  test('an instance that somebody holds rides again, and nobody waits for it', async () => {
    const [held, free] = await buy(left.pool, productId, 2);
    const holder = await right.pool.connect();
    try {
      await holder.query('begin');
      await holder.query('select from instances where id = $1 for update', [held?.id]);
      const rows = [held, free].map((each) => eventRow(productId, each?.publicId ?? '', 'frozen'));
      const said = await acceptEvents(left.pool, rows);
      expect(said.map((each) => (each === 'again' ? each : each.kind))).toEqual([
        'again',
        'accepted',
      ]);
      await holder.query('rollback');
      const [after] = await acceptEvents(left.pool, rows.slice(0, 1));
      expect(after).toMatchObject({ kind: 'accepted' });
    } finally {
      holder.release();
    }
  });
});

describe('queries', () => {
  test('the same signed bytes at two processes at once: one answered, one replay', async () => {
    const instance = await buyOne(left.pool, productId);
    const pairs = Array.from({ length: 100 }, () => {
      const row = queryRow(productId, [instance.publicId]);
      return [row, { ...row, id: queryRow(productId, []).id }] as const;
    });
    const [ours, theirs] = await Promise.all([
      ride(
        pairs.map(([row]) => row),
        (batch) => acceptQueries(left.pool, batch),
        { batchMax: 10 },
      ),
      ride(
        pairs.map(([, row]) => row),
        (batch) => acceptQueries(right.pool, batch),
        { batchMax: 10 },
      ),
    ]);
    for (const [a, b] of pairs) {
      const kinds = kindsOf(ours.outcomes.get(a), theirs.outcomes.get(b));
      expect(kinds).toEqual(['answered', 'replay']);
    }
    expect(await count('reads')).toBe(100);
  });

  test('the own question sent again after a lost reply is answered again', async () => {
    const instance = await buyOne(left.pool, productId);
    const row = queryRow(productId, [instance.publicId, 'nobody']);
    const [once] = await acceptQueries(left.pool, [row]);
    const [twice] = await acceptQueries(right.pool, [row]);
    expect(twice).toEqual(once);
    expect(once).toMatchObject({
      kind: 'answered',
      instances: [
        { publicId: instance.publicId, state: 'pending', instanceId: instance.id },
        { publicId: 'nobody', state: 'unknown', instanceId: null },
      ],
    });
  });
});
