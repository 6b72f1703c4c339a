import { hostname } from 'node:os';
import { createApplyDurations } from '../db/apply-durations.ts';
import { createDatabase } from '../db/client.ts';
import { createKeyring } from '../db/data-keys.ts';
import { type ProductRow, readProducts } from '../db/products.ts';
import {
  type TenantsDatabase,
  openTenantsDatabase,
  defaultTenantQuota,
  prepareTenants,
} from '../db/tenants.ts';
import type { QueueName } from '../core/instance.ts';
import type { Config } from '../runtime/config.ts';
import type { Failpoints } from '../runtime/failpoints.ts';
import type { Logger } from '../runtime/logger.ts';
import { startHeartbeat } from '../runtime/heartbeat.ts';
import { createOutbound } from '../runtime/outbound.ts';
import { createQueueBackend } from '../runtime/queue-backend.ts';
import type { LookPayload } from '../runtime/queues.ts';
import type { MasterKey } from '../runtime/secrets.ts';
import { createFairShare } from './fair-share.ts';
import { createMarketplaceClient, createOrderQueryLimit } from './marketplace-client.ts';
import { createOrderAccess } from './order-access.ts';
import { createOrderLookup } from './order-lookup.ts';
import { createProcessor } from './processor.ts';
import { createProvisioners } from './provisioners/index.ts';

const productsKeptMs = 1_000;
const flushEveryMs = 1_000;

/** Starts one worker process for the queues named. */
export async function startWorkers(options: {
  config: Config;
  databaseUrl: string;
  tenantsUrl: string;
  masterKey: MasterKey;
  queues: readonly QueueName[];
  concurrency: number;
  log: Logger;
  failpoint: Failpoints;
}): Promise<{ close(): Promise<void> }> {
  const { config, databaseUrl, masterKey, queues, concurrency, log, failpoint } = options;
  const { timings } = config;
  const nowMs = Date.now;
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
  const tenants = openTenantsDatabase({
    url: options.tenantsUrl,
    applicationName: 'latchkey worker tenants',
    poolMax: Math.min(16, concurrency),
    leaseMs: timings.leaseMs,
    quota: defaultTenantQuota,
    onIdleError: (error) => log.warn({ err: error }, 'tenants.connection_lost'),
  });
  const outbound = createOutbound({ allowedCidrs: [...config.OUTBOUND_ALLOWED_CIDRS] });
  const provisionerFor = createProvisioners({
    keyring,
    outbound,
    tenants: {
      ...prepareOnFirstUse(tenants, { homeUrl: databaseUrl, tenantsUrl: options.tenantsUrl }),
      address: { ...tenants.address, ...config.TENANTS_PUBLIC_ADDRESS },
    },
    publicUrl: config.PUBLIC_URL,
    now: () => new Date(),
  });
  const durations = createApplyDurations(db.pool);
  const flush = () =>
    durations.flush().catch((error: unknown) => {
      log.warn({ err: error }, 'durations.not_written');
    });
  const flushTimer = setInterval(() => {
    flush().catch(() => undefined);
  }, flushEveryMs);
  const common = {
    db,
    keyring,
    findProduct: createProductFinder(() => readProducts(db), nowMs),
    worker: `${hostname()}/${process.pid}`,
    log,
    random: Math.random,
    timings,
  };
  const orders = createOrderAccess({ db, keyring });
  const processors: Record<QueueName, (job: { data: unknown }) => Promise<string>> = {
    provisioning: createProcessor({
      ...common,
      provisionerFor,
      findBuyer: orders.findBuyer,
      fairShare: createFairShare(concurrency, nowMs),
      durations,
      nowMs,
      failpoint,
    }),
    'order-lookup': createOrderLookup({
      ...common,
      findAccess: orders.findAccess,
      client: createMarketplaceClient({ outbound, now: () => new Date() }),
      limit: createOrderQueryLimit({ db, perSecond: config.ORDER_QUERY_PER_SECOND, nowMs }),
      fairShare: createFairShare(concurrency, nowMs),
    }),
  };
  const workers = queues.map((name) =>
    backend.createWorker<LookPayload>(name, processors[name], {
      concurrency,
      lockMs: timings.lockMs,
      stalledMs: timings.stalledMs,
    }),
  );
  const heartbeat = startHeartbeat('workers', () => workers.every((worker) => worker.isRunning()));
  log.info({ queues, concurrency, queueBackend: backend.kind }, 'workers.started');

  return {
    async close() {
      heartbeat.stop();
      // Finishes what runs and takes no more; whoever waits for this has a deadline.
      await Promise.allSettled(workers.map((worker) => worker.close()));
      clearInterval(flushTimer);
      await flush();
      await Promise.allSettled([backend.close(), tenants.close(), outbound.close()]);
      await db.close();
    },
  };
}

/** Products as they were at most a second ago: a change counts without a restart. */
function createProductFinder(
  read: () => Promise<ProductRow[]>,
  nowMs: () => number,
): (productId: number) => Promise<ProductRow | undefined> {
  let known: Promise<Map<number, ProductRow>> | undefined;
  let readAtMs = 0;
  return async (productId) => {
    if (!known || nowMs() - readAtMs > productsKeptMs) {
      readAtMs = nowMs();
      known = read().then((rows) => new Map(rows.map((row) => [row.id, row])));
      // A failed read is not kept.
      known.catch(() => {
        known = undefined;
      });
    }
    return (await known).get(productId);
  };
}

/** A seller without such a product need not give us the right to make databases and roles. */
function prepareOnFirstUse(
  tenants: TenantsDatabase,
  urls: { homeUrl: string; tenantsUrl: string },
): TenantsDatabase {
  let prepared: Promise<unknown> | undefined;
  return {
    ...tenants,
    async apply(...call) {
      prepared ??= prepareTenants(urls);
      // A failure is not kept: the next call tries again.
      await prepared.catch((error: unknown) => {
        prepared = undefined;
        throw error;
      });
      return tenants.apply(...call);
    },
  };
}
