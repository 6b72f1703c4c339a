import { randomBytes } from 'node:crypto';
import { UnrecoverableError } from 'bullmq';
import type { DestinationStream } from 'pino';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createLogger } from '../../runtime/logger.ts';
import { createQueueBackend } from '../../runtime/queue-backend.ts';
import type { Processor, QueueBackend } from '../../runtime/queue-backend.ts';
import { RetryAt, lookQueue } from '../../runtime/queues.ts';
import type { LookPayload } from '../../runtime/queues.ts';
import { startChild } from '../servers/child.ts';
import { createTestDatabase } from '../servers/database.ts';
import type { TestDatabase } from '../servers/database.ts';
import { startFaultProxy } from '../servers/fault-proxy.ts';
import { queueStore } from '../servers/queue-store.ts';
import { until } from '../servers/until.ts';

// What the dispatcher and the workers rely on, on the store of this lane.

let database: TestDatabase;
let backend: QueueBackend;
let store: ReturnType<typeof queueStore>;
const lines: string[] = [];
const destination: DestinationStream = { write: (line) => lines.push(line) };
const log = createLogger({ level: 'info', role: 'test', destination });

beforeAll(async () => {
  database = await createTestDatabase();
  store = queueStore(database.url);
  backend = createQueueBackend({ ...store, poolMax: 3, log });
  await backend.prepare();
});

afterAll(async () => {
  await backend.close();
  await database.drop();
});

const newName = () => `q-${randomBytes(4).toString('hex')}`;
const fast = { concurrency: 4, lockMs: 1_000, stalledMs: 300 };

function openQueue(name = newName()) {
  const queue = backend.createQueue<LookPayload>(name, { jobOptions: lookQueue.jobOptions });
  const add = (instance: number, dispatch = 1) =>
    queue.add(
      'created',
      { instance, dispatch, product: 1 },
      { jobId: lookQueue.jobId(instance, dispatch) },
    );
  const work = (processor: Processor<LookPayload>) => backend.createWorker(name, processor, fast);
  return { name, queue, add, work };
}

test('the lane runs on the store that it names', () => {
  expect(backend.kind).toBe(process.env['TEST_QUEUE_BACKEND']);
});

test('a job reaches a worker with its payload, once', async () => {
  const { queue, add, work } = openQueue();
  const seen: unknown[] = [];
  work(async (job) => seen.push(lookQueue.payload.parse(job.data)));
  await add(7, 3);
  await until(() => queue.getJobState(lookQueue.jobId(7, 3)), 'completed');
  expect(seen).toEqual([{ instance: 7, dispatch: 3, product: 1 }]);
});

test('the same dispatch handed over twice is one job, also after it is done', async () => {
  const { queue, add, work } = openQueue();
  await Promise.all([add(1), add(1), add(1)]);
  expect(await queue.getJobCountByTypes('waiting', 'active', 'delayed')).toBe(1);
  let runs = 0;
  work(async () => (runs += 1));
  await until(() => queue.getJobState(lookQueue.jobId(1, 1)), 'completed');
  await add(1);
  await add(1, 2);
  await until(() => queue.getJobState(lookQueue.jobId(1, 2)), 'completed');
  expect(runs).toBe(2);
});

test('many jobs at once are all added, and adding them again adds none', async () => {
  const { queue } = openQueue();
  const jobs = Array.from({ length: 200 }, (_, i) => ({
    name: 'created',
    data: { instance: i + 1, dispatch: 1, product: 1 },
    opts: { jobId: lookQueue.jobId(i + 1, 1) },
  }));
  await queue.addBulk(jobs);
  await queue.addBulk(jobs);
  expect(await queue.getJobCountByTypes('waiting')).toBe(200);
});

test('RetryAt runs the job again after its delay, whatever the number of the attempt', async () => {
  const { queue, add, work } = openQueue();
  const runs: number[] = [];
  work(async () => {
    runs.push(performance.now());
    const delayMs = [300, 600][runs.length - 1];
    if (delayMs !== undefined) throw new RetryAt(delayMs);
  });
  await add(1);
  await until(() => queue.getJobState(lookQueue.jobId(1, 1)), 'completed');
  const [a = 0, b = 0, c = 0] = runs;
  expect(runs).toHaveLength(3);
  expect(b - a).toBeGreaterThan(290);
  expect(b - a).toBeLessThan(600);
  expect(c - b).toBeGreaterThan(590);
  expect(c - b).toBeLessThan(1_000);
});

test('a job that waits for its time is found as delayed', async () => {
  const { queue, add, work } = openQueue();
  work(async () => {
    throw new RetryAt(60_000);
  });
  await add(1);
  await until(() => queue.getJobState(lookQueue.jobId(1, 1)), 'delayed');
  expect((await queue.getJob(lookQueue.jobId(1, 1)))?.data.instance).toBe(1);
});

test('UnrecoverableError puts the job into the failed set at once', async () => {
  const { queue, add, work } = openQueue();
  let runs = 0;
  work(async () => {
    runs += 1;
    throw new UnrecoverableError('dead');
  });
  await add(1);
  await until(() => queue.getJobState(lookQueue.jobId(1, 1)), 'failed');
  expect(runs).toBe(1);
  expect((await queue.getJob(lookQueue.jobId(1, 1)))?.failedReason).toBe('dead');
});

test('an unexpected error is tried again, and its words get into the log but not into the job', async () => {
  const { queue, add, work } = openQueue();
  let runs = 0;
  work(async () => {
    runs += 1;
    if (runs === 1)
      throw Object.assign(new Error('Failed query\nparams: tell-nobody'), { code: '23505' });
  });
  await add(1);
  await until(
    async () => (await queue.getJob(lookQueue.jobId(1, 1)))?.failedReason,
    'unexpected Error 23505, see the log',
  );
  await until(() => queue.getJobState(lookQueue.jobId(1, 1)), 'completed');
  expect(runs).toBe(2);
  const job = await queue.getJob(lookQueue.jobId(1, 1));
  expect(JSON.stringify(job?.toJSON())).not.toContain('tell-nobody');
  expect(lines.filter((line) => line.includes('job.failed_unexpectedly'))).toHaveLength(1);
  expect(lines.join('')).not.toContain('tell-nobody');
});

test('the job of a worker that was killed comes back, more often than BullMQ would allow', async () => {
  const { name, queue, add, work } = openQueue();
  await add(1);
  for (let kills = 0; kills < 3; kills++) {
    const child = startChild(new URL('../runtime/fixtures/holding-worker.ts', import.meta.url), [
      name,
      store.databaseUrl,
      store.prefix,
      store.redisUrl ?? '',
    ]);
    await until(() => child.lines, ['took look-1-1'], { what: 'the job' });
    child.kill('SIGKILL');
    await child.ended;
  }
  let runs = 0;
  work(async () => (runs += 1));
  await until(() => queue.getJobState(lookQueue.jobId(1, 1)), 'completed');
  expect(runs).toBe(1);
});

test('closing waits for the job that runs and takes no other', async () => {
  const { name, queue, add } = openQueue();
  const own = createQueueBackend({ ...store, poolMax: 2, log });
  let open: () => void = () => undefined;
  const gate = new Promise<void>((resolve) => (open = resolve));
  let runs = 0;
  own.createWorker(
    name,
    async () => {
      runs += 1;
      await gate;
    },
    { ...fast, concurrency: 1 },
  );
  await add(1);
  await add(2);
  await until(() => runs, 1);
  const closed = own.close();
  open();
  await closed;
  expect(await queue.getJobState(lookQueue.jobId(1, 1))).toBe('completed');
  expect(await queue.getJobState(lookQueue.jobId(2, 1))).toBe('waiting');
  expect(runs).toBe(1);
});

test('an outage of the store: adds fail soon, the log says it once, workers go on afterwards', async () => {
  const target = new URL(store.redisUrl ?? store.databaseUrl);
  const proxy = await startFaultProxy({ port: Number(target.port) });
  const own = createQueueBackend({
    prefix: store.prefix,
    databaseUrl: proxy.through(store.databaseUrl),
    redisUrl: store.redisUrl === undefined ? undefined : proxy.through(store.redisUrl),
    poolMax: 2,
    log,
  });
  try {
    const name = newName();
    await own.prepare();
    const queue = own.createQueue<LookPayload>(name, { jobOptions: lookQueue.jobOptions });
    const seen: number[] = [];
    own.createWorker<LookPayload>(name, async (job) => seen.push(job.data.instance), fast);
    const add = (instance: number) =>
      queue.add(
        'created',
        { instance, dispatch: 1, product: 1 },
        { jobId: lookQueue.jobId(instance, 1) },
      );
    await add(1);
    await until(() => seen, [1]);

    lines.length = 0;
    await proxy.set({ kind: 'refuse' });
    const before = performance.now();
    await expect(add(2)).rejects.toThrow();
    expect(performance.now() - before).toBeLessThan(1_000);
    await until(
      () => lines.filter((l) => l.includes('queue.failing')).length,
      (n) => n >= 1,
    );

    await proxy.set({ kind: 'pass' });
    await until(() => add(3).then(() => 'added'), 'added');
    await until(
      () => seen,
      (all) => all.includes(3),
    );
    await until(
      () => lines.filter((l) => l.includes('queue.recovered')).length,
      (n) => n >= 1,
    );
    // One line for the queue and one for the worker, not one for each of hundreds of tries.
    expect(lines.filter((l) => l.includes('queue.failing')).length).toBeLessThanOrEqual(4);
  } finally {
    await own.close();
    await proxy.close();
  }
});

test('a queue that is created while the store is away works once it is back', async () => {
  const target = new URL(store.redisUrl ?? store.databaseUrl);
  const proxy = await startFaultProxy({ port: Number(target.port) });
  await proxy.set({ kind: 'refuse' });
  const own = createQueueBackend({
    prefix: store.prefix,
    databaseUrl: proxy.through(store.databaseUrl),
    redisUrl: store.redisUrl === undefined ? undefined : proxy.through(store.redisUrl),
    poolMax: 2,
    log,
  });
  try {
    const name = newName();
    const queue = own.createQueue<LookPayload>(name, { jobOptions: lookQueue.jobOptions });
    let runs = 0;
    own.createWorker(name, async () => (runs += 1), fast);
    const add = () =>
      queue.add('x', { instance: 1, dispatch: 1, product: 1 }, { jobId: 'look-1-1' });
    await expect(add()).rejects.toThrow();
    await proxy.set({ kind: 'pass' });
    await until(() => add().then(() => 'added'), 'added');
    await until(() => runs, 1);
  } finally {
    await own.close();
    await proxy.close();
  }
});
