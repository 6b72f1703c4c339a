import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { randomUUID } from 'node:crypto';
import { createAdaptorServer } from '@hono/node-server';
import { createDatabase } from '../db/client.ts';
import { createKeyring } from '../db/data-keys.ts';
import { readDesiredState } from '../db/desired-state.ts';
import { createStorageCheck } from '../db/health.ts';
import { openWebhookSecrets } from '../db/webhook-secrets.ts';
import type { Config } from '../runtime/config.ts';
import type { Failpoints } from '../runtime/failpoints.ts';
import type { Logger } from '../runtime/logger.ts';
import { createOutbound } from '../runtime/outbound.ts';
import { createQueueBackend } from '../runtime/queue-backend.ts';
import { lookQueue } from '../runtime/queues.ts';
import type { MasterKey } from '../runtime/secrets.ts';
import { createApp } from './app.ts';
import { createCanStore, createHealthRoutes } from './health.ts';
import { createMetrics, createMetricsRoutes } from './metrics.ts';
import { createOps } from './ops/ops.tsx';
import { createAccept } from './receiver/accept.ts';
import { createCheckChange } from './receiver/check-change.ts';
import { createOpenAccess } from './receiver/open-access.ts';
import { createLanes } from './receiver/lanes.ts';
import { createProductKeys } from './receiver/product-keys.ts';
import { createReceiver } from './receiver/receive.ts';
import { createRefusals } from './receiver/refusals.ts';
import { createReplyLog } from './receiver/reply-log.ts';
import { createV1 } from './v1/v1.ts';
import { type TenantServer, createTenantPage } from './tenant-page.tsx';

export type ApiServer = {
  port: number;
  /** Answers what was read, takes nothing new, and closes everything. */
  close(): Promise<void>;
};

/** Starts one api process; returns when it listens. It starts without a database too, and answers 000005. */
export async function startApi(options: {
  config: Config;
  databaseUrl: string;
  masterKey: MasterKey;
  tenantServer: TenantServer;
  log: Logger;
  failpoint: Failpoints;
}): Promise<ApiServer> {
  const { config, databaseUrl, masterKey, log, failpoint } = options;
  const nowMs = Date.now;
  const db = createDatabase({
    url: databaseUrl,
    applicationName: 'latchkey api',
    poolMax: 6,
    connectTimeoutMs: 1_000,
    statementTimeoutMs: 3_000,
    queryTimeoutMs: 4_000,
    onIdleError: (error) => log.warn({ err: error }, 'database.connection_lost'),
  });
  // Apart, so that a burst of sellers' calls holds up neither the receiver's keys nor operators.
  const v1Db = createDatabase({
    url: databaseUrl,
    applicationName: 'latchkey api v1',
    poolMax: 4,
    connectTimeoutMs: 8_000,
    statementTimeoutMs: 5_000,
    queryTimeoutMs: 6_000,
    onIdleError: (error) => log.warn({ err: error }, 'database.connection_lost'),
  });
  const backend = createQueueBackend({
    redisUrl: config.REDIS_URL,
    databaseUrl,
    prefix: config.QUEUE_PREFIX,
    poolMax: 2,
    log,
  });
  const queues = lookQueue.names.map((name) => backend.createQueue(name));
  const onError = (error: unknown) => log.warn({ err: error }, 'store.not_read');

  const keyring = createKeyring({ db, masterKey });
  const products = createProductKeys({ db, keyring, log, nowMs });
  const metrics = createMetrics({ db: db.pool, queues, onError });
  const refusals = createRefusals(db, log);
  const replyLog = createReplyLog(db, log);
  const lanes = createLanes({
    databaseUrl,
    log,
    nowMs,
    createPublicId: randomUUID,
    afterCommit: () => failpoint('api.after-commit'),
  });
  const outbound = createOutbound({ allowedCidrs: [...config.OUTBOUND_ALLOWED_CIDRS] });
  const checkChange = createCheckChange({
    outbound,
    readCurrent: (instanceId) => readDesiredState(db.pool, instanceId),
    secretsOf: (rule) => openWebhookSecrets(keyring, rule),
    nowMs,
  });
  const accept = createAccept(
    lanes,
    createOpenAccess({ keyring, log, nowMs }),
    randomUUID,
    checkChange,
  );
  const receive = createReceiver({
    products,
    accept,
    replyLog,
    refusals,
    metrics,
    log,
    nowMs,
    ackBudgetMs: config.ACK_BUDGET_MS,
  });
  const checkStorage = createStorageCheck(db.pool);
  const readProblems = async () =>
    products.canVerify() ? checkStorage() : ['no secret of a product can be opened' as const];
  const app = createApp({
    receive,
    others: [
      createHealthRoutes({
        canStore: createCanStore({ read: readProblems, onError }),
      }),
      createMetricsRoutes({ metrics, token: config.METRICS_TOKEN }),
      createV1({ db: v1Db, keyring, log, nowMs }),
      createOps({ db, queues, publicUrl: config.PUBLIC_URL, log }),
      createTenantPage({
        server: options.tenantServer,
        isHttps: config.PUBLIC_URL.startsWith('https:'),
      }),
    ],
    log,
  });

  await products.refresh();
  const server = createAdaptorServer({
    fetch: app.fetch,
    // Slow clients hold a socket, never a worker; longer than a proxy's idle time.
    serverOptions: {
      headersTimeout: 10_000,
      requestTimeout: 15_000,
      keepAliveTimeout: 65_000,
      connectionsCheckingInterval: 5_000,
    },
  });
  server.listen(config.PORT, config.HOST);
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  log.info({ host: config.HOST, port, queueBackend: backend.kind }, 'api.listening');

  return {
    port,
    async close() {
      const closed = new Promise<void>((resolve) => {
        server.close(() => resolve());
      });
      if ('closeIdleConnections' in server) server.closeIdleConnections();
      // What was read is answered before its sockets go.
      await lanes.close();
      await Promise.race([closed, new Promise((resolve) => setTimeout(resolve, 500))]);
      if ('closeAllConnections' in server) server.closeAllConnections();
      await closed;
      products.stop();
      await Promise.allSettled([replyLog.stop(), refusals.stop()]);
      // Each may fail alone (closing a queue rejects while Redis is down); the rest must still close.
      await Promise.allSettled([backend.close(), db.close(), v1Db.close(), outbound.close()]);
    },
  };
}
