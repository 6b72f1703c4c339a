// The workers as in production but for the effect: whatever is to be made is made at once. It is
// what the promises around an effect cost (claim, fence, attempt, settle).
import { createApplyDurations } from '../db/apply-durations.ts';
import { createDatabase } from '../db/client.ts';
import { createKeyring } from '../db/data-keys.ts';
import { readProducts } from '../db/products.ts';
import type { Provisioner } from '../core/provisioner.ts';
import { queueNames } from '../core/instance.ts';
import { readProcess } from '../cli/process-context.ts';
import { runUntilSignal, tellSupervisor } from '../runtime/process.ts';
import { createQueueBackend } from '../runtime/queue-backend.ts';
import type { LookPayload } from '../runtime/queues.ts';
import { createFairShare } from '../workers/fair-share.ts';
import { createProcessor } from '../workers/processor.ts';

const { config, databaseUrl, masterKey, log, failpoint } = await readProcess('no-op workers');
const { timings, WORKER_CONCURRENCY: concurrency } = config;
const db = createDatabase({
  url: databaseUrl,
  applicationName: 'latchkey worker',
  poolMax: Math.min(16, concurrency + 2),
  idleInTransactionTimeoutMs: timings.leaseMs,
  onIdleError: (error) => log.warn({ err: error }, 'database.connection_lost'),
});
const keyring = createKeyring({ db, masterKey });
const backend = createQueueBackend({
  redisUrl: config.REDIS_URL,
  databaseUrl,
  prefix: config.QUEUE_PREFIX,
  poolMax: 8,
  log,
});
await backend.prepare();

const provisioner: Provisioner = {
  target: 'no-op',
  apply: async ({ publicId }) => ({
    kind: 'applied',
    access: {
      frontEndUrl: `https://shop.example/${publicId}`,
      userName: 'admin',
      password: 'none',
    },
  }),
};
const products = new Map((await readProducts(db)).map((product) => [product.id, product]));
const durations = createApplyDurations(db.pool);
const flushTimer = setInterval(() => {
  durations.flush().catch((error: unknown) => {
    log.warn({ err: error }, 'durations.not_written');
  });
}, 1_000);
const processor = createProcessor({
  findBuyer: async () => null,
  db,
  keyring,
  findProduct: async (productId) => products.get(productId),
  provisionerFor: () => provisioner,
  fairShare: createFairShare(concurrency, Date.now),
  durations,
  worker: `no-op/${process.pid}`,
  log,
  nowMs: Date.now,
  random: Math.random,
  timings,
  failpoint,
});
const workers = queueNames.map((name) =>
  backend.createWorker<LookPayload>(name, processor, {
    concurrency,
    lockMs: timings.lockMs,
    stalledMs: timings.stalledMs,
  }),
);

runUntilSignal({
  log,
  async close() {
    await Promise.allSettled(workers.map((worker) => worker.close()));
    clearInterval(flushTimer);
    await backend.close();
    await db.close();
  },
  shutdownMs: timings.shutdownMs,
});
tellSupervisor({ kind: 'ready' });
