import { afterAll, beforeAll, expect, test } from 'vitest';
import { acceptEvents } from '../../db/accept-events.ts';
import { claimDispatch } from '../../db/claims.ts';
import type { Database } from '../../db/client.ts';
import { settleApplied, settleFailed, settleRefused } from '../../db/settle.ts';
import { freeExpiredLeases } from '../../db/sweep.ts';
import { type TestDatabase, createTestDatabase } from '../servers/database.ts';
import { until } from '../servers/until.ts';
import {
  type Bought,
  buyOne,
  eventRow,
  handOne,
  openTestDatabase,
  readDispatch,
  tellEvent,
} from './dispatch-seed.ts';

let database: TestDatabase;
let db: Database;

beforeAll(async () => {
  database = await createTestDatabase();
  db = openTestDatabase(database.url, 8);
});

afterAll(async () => {
  await db?.close();
  await database?.drop();
});

const settled = (one: Bought, fence: number) => ({
  instanceId: one.id,
  productId: one.productId,
  queue: 'provisioning' as const,
  fence,
  attempt: undefined,
});

async function claim(one: Bought, leaseMs = 60_000) {
  const claimed = await claimDispatch(db.pool, {
    instanceId: one.id,
    dispatch: await handOne(db.pool, one),
    leaseMs,
  });
  if (claimed === 'nothing to do') throw new Error('it could not be claimed');
  return claimed;
}

/** Runs `work` while a callback's statement has done its work and not committed yet. */
async function whileTelling<T>(
  one: Bought,
  kind: 'frozen' | 'released',
  work: () => Promise<T>,
  isWaiting: () => Promise<boolean>,
): Promise<T> {
  const teller = await db.pool.connect();
  try {
    await teller.query('begin');
    const [told] = await acceptEvents(teller, [eventRow(one.productId, one.publicId, kind)]);
    expect(told).toMatchObject({ kind: 'accepted' });
    const working = work();
    await until(isWaiting, true, { what: 'somebody to wait for the callback' });
    await teller.query('commit');
    return await working;
  } finally {
    teller.release();
  }
}

async function somebodyWaits(): Promise<boolean> {
  const { rows } = await db.pool.query(
    `select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`,
  );
  return rows.length > 0;
}

test('an event that is committed while its instance is claimed makes it due again, and is not parked', async () => {
  const one = await buyOne(db.pool);
  const dispatch = await handOne(db.pool, one);
  const claimed = await whileTelling(
    one,
    'frozen',
    () => claimDispatch(db.pool, { instanceId: one.id, dispatch, leaseMs: 60_000 }),
    somebodyWaits,
  );
  if (claimed === 'nothing to do') throw new Error('it could not be claimed');
  // The claim did not see the freeze, whatever the row counts.
  expect(claimed.events.map(({ kind }) => kind)).toEqual(['created']);
  expect(claimed.openEvents).toBe(1);
  const result = await settleApplied(db, settled(one, claimed.fence), {
    generation: 0,
    state: 'pending',
    expiresAt: null,
    accessEnc: undefined,
    covered: [],
    moot: [],
    unresolved: claimed.openEvents,
  });
  expect(result).toBe('due');
});

test('an attempt that fails for good while a release is committed leaves no dead letter', async () => {
  const one = await buyOne(db.pool);
  const dispatch = await handOne(db.pool, one);
  const claimed = await whileTelling(
    one,
    'released',
    () => claimDispatch(db.pool, { instanceId: one.id, dispatch, leaseMs: 60_000 }),
    somebodyWaits,
  );
  if (claimed === 'nothing to do') throw new Error('it could not be claimed');
  const result = await settleFailed(db, settled(one, claimed.fence), {
    class: 'permanent',
    cause: 'backend answered 400',
    httpStatus: 400,
    saidEnc: undefined,
    retryInMs: undefined,
    isTransient: false,
    openEventsAtClaim: claimed.openEvents,
  });
  expect(result).toBe('due');
});

test('an event that is committed while its instance is refused does not stay open for ever', async () => {
  const one = await buyOne(db.pool);
  const claimed = await claim(one);
  const result = await whileTelling(
    one,
    'frozen',
    () => settleRefused(db, settled(one, claimed.fence), { resultCode: '000106' }),
    somebodyWaits,
  );
  expect(result).toBe('refused');
  const { rows } = await db.pool.query(
    'select kind, outcome from events where instance_id = $1 order by id',
    [one.id],
  );
  expect(rows).toEqual([
    { kind: 'created', outcome: 'moot' },
    { kind: 'frozen', outcome: 'moot' },
  ]);
  expect(await readDispatch(db.pool, one)).toBeUndefined();
});

test('a claim that was lost asks for the newest state once more, and a later event keeps that wish', async () => {
  const one = await buyOne(db.pool);
  const late = await claim(one, 1);
  await until(async () => (await freeExpiredLeases(db.pool)).due > 0, true);
  const next = await claim(one);
  const made = {
    generation: 1,
    state: 'active' as const,
    expiresAt: null,
    accessEnc: undefined,
    covered: next.events.map(({ id }) => id),
    moot: [],
    unresolved: 0,
  };
  expect(await settleApplied(db, settled(one, late.fence), made)).toBe('lost');
  expect(await tellEvent(db.pool, one, 'upgraded')).toBe('accepted');
  expect(await settleApplied(db, settled(one, next.fence), made)).toBe('due');
  expect(await claim(one)).toMatchObject({ putAgain: true, openEvents: 1 });
});

test('a claim lost to a refusal wakes the instance only to have it taken away', async () => {
  const one = await buyOne(db.pool);
  const late = await claim(one, 1);
  await until(async () => (await freeExpiredLeases(db.pool)).due > 0, true);
  const next = await claim(one);
  await settleRefused(db, settled(one, next.fence), { resultCode: '000106' });
  const made = {
    generation: 1,
    state: 'active' as const,
    expiresAt: null,
    accessEnc: Buffer.from('x'),
    covered: [],
    moot: [],
    unresolved: 0,
  };
  expect(await settleApplied(db, settled(one, late.fence), made)).toBe('lost');
  expect(await claim(one)).toMatchObject({ state: 'refused', putAgain: true });
});

test('the attempt of a worker that died ends with its lease', async () => {
  const one = await buyOne(db.pool);
  const claimed = await claim(one, 1);
  const { rows } = await db.pool.query<{ began: Date }>(
    `insert into attempts (began, fence, instance_id, product_id, generation, no, kind, worker, target)
     values (now(), $1, $2, $3, 1, 1, 'apply', 'w', 't') returning began`,
    [claimed.fence, one.id, one.productId],
  );
  expect(rows).toHaveLength(1);
  await until(async () => (await freeExpiredLeases(db.pool)).due > 0, true);
  const ended = await db.pool.query(
    'select class, ended is not null as ended from attempts where instance_id = $1',
    [one.id],
  );
  expect(ended.rows).toEqual([{ class: 'lost', ended: true }]);
});
