// BullMQ alone: how many jobs a second a worker ends that does nothing.
import { z } from 'zod';
import { createLogger } from '../../runtime/logger.ts';
import { createQueueBackend } from '../../runtime/queue-backend.ts';
import { type LookPayload, lookQueue } from '../../runtime/queues.ts';

const order = z.object({ jobs: z.number(), concurrency: z.number() });
const addedAtOnce = 500;
const log = createLogger({ level: 'warn', role: 'bullmq' });
const backend = createQueueBackend({
  redisUrl: process.env['REDIS_URL'] || undefined,
  databaseUrl: process.env['DATABASE_URL'] ?? '',
  prefix: process.env['QUEUE_PREFIX'] ?? 'ceiling',
  poolMax: 8,
  log,
});
await backend.prepare();
let rounds = 0;

process.on('message', (message) => {
  const { jobs, concurrency } = order.parse(message);
  run(jobs, concurrency).then(
    (result) => process.send?.({ kind: 'drained', ...result }),
    (error: unknown) => process.send?.({ kind: 'failed', problem: String(error) }),
  );
});
process.on('disconnect', () => process.exit(0));
process.on('SIGTERM', () => process.exit(0));
process.send?.({ kind: 'ready' });

/** Adds all jobs, then drains them; the ends are left out, as in what it is compared with. */
async function run(
  jobs: number,
  concurrency: number,
): Promise<{ addedPerSecond: number; perSecond: number }> {
  rounds += 1;
  const name = `ceiling-${rounds}`;
  const queue = backend.createQueue<LookPayload>(name, { jobOptions: lookQueue.jobOptions });
  const addFromMs = performance.now();
  for (let from = 0; from < jobs; from += addedAtOnce) {
    const numbers = Array.from(
      { length: Math.min(addedAtOnce, jobs - from) },
      (_, at) => from + at,
    );
    await queue.addBulk(
      numbers.map((number) => ({
        name: 'created',
        data: { instance: number + 1, dispatch: rounds, product: 1 },
        opts: { jobId: lookQueue.jobId(number + 1, rounds) },
      })),
    );
  }
  const addedPerSecond = jobs / ((performance.now() - addFromMs) / 1_000);

  const [firstCounted, lastCounted] = [Math.ceil(jobs * 0.1), Math.floor(jobs * 0.9)];
  let [done, fromMs, toMs] = [0, 0, 0];
  await new Promise<void>((resolve) => {
    const worker = backend.createWorker<LookPayload>(
      name,
      async (job) => {
        lookQueue.payload.parse(job.data);
        return 'done';
      },
      { concurrency, lockMs: 15_000, stalledMs: 5_000 },
    );
    worker.on('completed', () => {
      done += 1;
      if (done === firstCounted) fromMs = performance.now();
      if (done === lastCounted) toMs = performance.now();
      if (done === jobs) worker.close().then(resolve, () => resolve());
    });
  });
  return { addedPerSecond, perSecond: (lastCounted - firstCounted) / ((toMs - fromMs) / 1_000) };
}
