import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { claimsMax } from '../../core/failure.ts';
import { claimDispatch } from '../../db/claims.ts';
import type { Database } from '../../db/client.ts';
import { handOver } from '../../db/hand-over.ts';
import { freeExpiredLeases, makeOverdueRetriesDue, readOldHandOvers } from '../../db/sweep.ts';
import type { Logger } from '../../runtime/logger.ts';
import { createLogger } from '../../runtime/logger.ts';
import { createQueueBackend } from '../../runtime/queue-backend.ts';
import { type LookPayload, lookQueue } from '../../runtime/queues.ts';
import { startDispatcher } from '../../workers/dispatcher.ts';
import { startUpkeep } from '../../workers/upkeep.ts';
import { type TestDatabase, createTestDatabase } from '../servers/database.ts';
import { queueStore } from '../servers/queue-store.ts';
import { until } from '../servers/until.ts';
import {
  type Bought,
  buyOne,
  handOne,
  openTestDatabase,
  readDispatch,
  tellEvent,
} from './dispatch-seed.ts';

let database: TestDatabase;
let db: Database;
const log: Logger = createLogger({ level: 'silent', role: 'test' });

beforeAll(async () => {
  database = await createTestDatabase();
  db = openTestDatabase(database.url);
});

afterAll(async () => {
  await db?.close();
  await database?.drop();
});

const set = ({ id }: Bought, assignment: string) =>
  db.pool.query(`update dispatches set ${assignment} where instance_id = $1`, [id]);

async function claimOne(instance: Bought, leaseMs = 60_000) {
  const dispatch = await handOne(db.pool, instance);
  return claimDispatch(db.pool, { instanceId: instance.id, dispatch, leaseMs });
}

describe('expired leases', () => {
  test('are freed and due again, those that hold are left', async () => {
    const [gone, held] = [await buyOne(db.pool), await buyOne(db.pool)];
    await claimOne(gone);
    await claimOne(held);
    await set(gone, `lease_until = now() - interval '1 millisecond'`);
    expect(await freeExpiredLeases(db.pool)).toEqual({ due: 1, dead: [] });
    expect(await readDispatch(db.pool, gone)).toMatchObject({
      state: 'due',
      isDue: true,
      isHanded: false,
      claims: 1,
    });
    expect(await readDispatch(db.pool, held)).toMatchObject({ isLeased: true });
  });

  test('five workers that died over one instance make it a dead letter that says so', async () => {
    const instance = await buyOne(db.pool);
    for (let death = 1; death <= claimsMax; death += 1) {
      await claimOne(instance);
      await set(instance, `lease_until = now() - interval '1 millisecond'`);
      const { due, dead } = await freeExpiredLeases(db.pool);
      const isLast = death === claimsMax;
      expect(due).toBe(isLast ? 0 : 1);
      expect(dead).toEqual(
        isLast ? [{ instanceId: instance.id, productId: instance.productId, state: 'dead' }] : [],
      );
    }
    expect(await readDispatch(db.pool, instance)).toMatchObject({
      state: 'dead',
      isDue: false,
      cause: 'the worker died 5 times on this',
    });
    // A new event is a new story.
    await tellEvent(db.pool, instance, 'released');
    expect(await readDispatch(db.pool, instance)).toMatchObject({
      state: 'due',
      isDue: true,
      claims: 0,
    });
  });
});

describe('overdue retries', () => {
  test('that nobody came for are due, whatever the queue says', async () => {
    const [overdue, waiting, held] = [
      await buyOne(db.pool),
      await buyOne(db.pool),
      await buyOne(db.pool),
    ];
    await claimOne(held);
    for (const instance of [overdue, waiting]) await handOne(db.pool, instance);
    const failing = (ago: string) =>
      `state = 'failing', dispatched_at = null, retry_at = now() - interval '${ago}'`;
    await set(overdue, failing('6 seconds'));
    await set(waiting, failing('4 seconds'));
    expect(await makeOverdueRetriesDue(db.pool, 5_000)).toBe(1);
    expect(await readDispatch(db.pool, overdue)).toMatchObject({
      state: 'due',
      isDue: true,
      retryInMs: null,
    });
    expect(await readDispatch(db.pool, waiting)).toMatchObject({ state: 'failing', isDue: false });
    expect(await readDispatch(db.pool, held)).toMatchObject({ isLeased: true });
  });
});

describe('old hand-overs', () => {
  test('are those that nobody has claimed for a while', async () => {
    const [old, young, held] = [
      await buyOne(db.pool),
      await buyOne(db.pool),
      await buyOne(db.pool),
    ];
    await claimOne(held);
    const dispatch = await handOne(db.pool, old);
    await handOver(db.pool, { queue: 'provisioning', windowMax: 2_000, pageMax: 500 });
    await set(old, `dispatched_at = now() - interval '6 seconds'`);
    await set(held, `dispatched_at = now() - interval '6 seconds'`);
    const found = await readOldHandOvers(db.pool, 'provisioning', 5_000);
    const ids = [old, young, held].map(({ id }) => id);
    expect(found.filter(({ instanceId }) => ids.includes(instanceId))).toEqual([
      { instanceId: old.id, dispatch, queue: 'provisioning' },
    ]);
  });
});

describe('a queue that takes nothing', () => {
  test('gets one at a time until it does; what it missed is due again meanwhile', async () => {
    await db.pool.query('truncate dispatches');
    const instances = [await buyOne(db.pool), await buyOne(db.pool), await buyOne(db.pool)];
    const pages: number[] = [];
    const taken = new Map<unknown, number>();
    let isAway = true;
    const dispatcher = startDispatcher({
      db: db.pool,
      queueName: 'provisioning',
      queue: {
        addBulk: async (jobs) => {
          pages.push(jobs.length);
          if (isAway) throw new Error('no queue');
          for (const job of jobs) taken.set(job.data.instance, job.data.dispatch);
          return [];
        },
      },
      log,
      pollMs: 10,
      windowMax: 2_000,
      failpoint: () => undefined,
    });
    try {
      await until(() => pages.length >= 2, true);
      const rows = await Promise.all(instances.map((each) => readDispatch(db.pool, each)));
      expect(rows.every((row) => row?.state === 'due' || row?.state === 'handed')).toBe(true);
      expect(rows.filter((row) => row?.isDue).length).toBeGreaterThanOrEqual(2);
      isAway = false;
      await until(() => taken.size, 3);
    } finally {
      await dispatcher.stop();
    }
    expect(pages[0]).toBe(3);
    expect(pages[1]).toBe(1);
    for (const instance of instances) {
      const row = await readDispatch(db.pool, instance);
      expect(row).toMatchObject({ state: 'handed', dispatch: taken.get(instance.id) });
    }
  });
});

describe('dispatcher and sweep on a real queue', () => {
  test('a job that the queue has lost, or that ended without a word, is handed over anew', async () => {
    const backend = createQueueBackend({ ...queueStore(database.url), poolMax: 4, log });
    await backend.prepare();
    const queue = backend.createQueue<LookPayload>('provisioning', {
      jobOptions: lookQueue.jobOptions,
    });
    const upkeep = startUpkeep({
      db,
      queues: [{ name: 'provisioning', queue }],
      log,
      sweepMs: 20,
      handedGraceMs: 200,
    });
    const dispatcher = startDispatcher({
      db: db.pool,
      queueName: 'provisioning',
      queue,
      log,
      pollMs: 10,
      windowMax: 2_000,
      failpoint: () => undefined,
    });
    try {
      const [lost, waiting, ended] = [
        await buyOne(db.pool),
        await buyOne(db.pool),
        await buyOne(db.pool),
      ];
      const jobOf = async (instance: Bought) => {
        const dispatch = (await readDispatch(db.pool, instance))?.dispatch ?? 0;
        const job = await queue.getJob(lookQueue.jobId(instance.id, dispatch));
        return job ? { job, dispatch } : undefined;
      };
      const ready = (instance: Bought) =>
        until(
          () => jobOf(instance),
          (found) => found !== undefined,
        );
      const [first, second, third] = [await ready(lost), await ready(waiting), await ready(ended)];
      expect(first?.job.data).toEqual({
        instance: lost.id,
        dispatch: first?.dispatch,
        product: lost.productId,
      });
      expect(first?.job.name).toBe('created');
      await first?.job.remove();
      await until(
        async () => (await jobOf(lost))?.dispatch ?? 0,
        (n) => n > (first?.dispatch ?? 0),
      );

      // One that ended: a worker takes only that job, and settles nothing.
      const worker = backend.createWorker<LookPayload>(
        'provisioning',
        async () => 'nothing to do',
        { concurrency: 1, lockMs: 5_000, stalledMs: 5_000 },
      );
      await until(
        async () => (await jobOf(ended))?.dispatch ?? 0,
        (n) => n > (third?.dispatch ?? 0),
      );
      await worker.close();

      // Every job of this queue was taken by that worker, so each was handed over anew.
      await until(
        async () => (await jobOf(waiting))?.dispatch ?? 0,
        (n) => n > (second?.dispatch ?? 0),
      );
    } finally {
      await Promise.all([upkeep.stop(), dispatcher.stop()]);
      await backend.close();
    }
  });
});
