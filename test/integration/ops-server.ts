import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { serve } from '@hono/node-server';
import { Hono } from 'hono';
import { createCanStore, createHealthRoutes } from '../../api/health.ts';
import { createMetrics, createMetricsRoutes } from '../../api/metrics.ts';
import type { Metrics } from '../../api/metrics.ts';
import type { LoginLimits } from '../../api/ops/login-limit.ts';
import { createOps } from '../../api/ops/ops.tsx';
import { createTenantPage } from '../../api/tenant-page.tsx';
import { createDatabase } from '../../db/client.ts';
import type { Database } from '../../db/client.ts';
import { createStorageCheck } from '../../db/health.ts';
import { setPassword } from '../../operations/set-password.ts';
import { createLogger } from '../../runtime/logger.ts';
import { createQueueBackend } from '../../runtime/queue-backend.ts';
import type { JobQueue } from '../../runtime/queue-backend.ts';
import { lookQueue } from '../../runtime/queues.ts';
import { createTestDatabase } from '../servers/database.ts';
import { queueStore } from '../servers/queue-store.ts';

export const operator = { name: 'anna', password: 'correct horse battery' };

export type OpsServer = {
  /** Without a slash at the end. */
  url: string;
  app: Hono;
  db: Database;
  queues: JobQueue[];
  metrics: Metrics;
  stop(): Promise<void>;
};

/** The operators' part of the api on a port of its own, with one operator unless told otherwise. */
export async function startOpsServer(
  options: {
    publicUrl?: string;
    limits?: LoginLimits;
    withOperator?: boolean;
    metricsToken?: string;
    /** Of our database; the queues keep the real one. */
    through?: (databaseUrl: string) => string;
    /** Of the queues' store, Redis or Postgres. */
    queuesThrough?: (url: string) => string;
  } = {},
): Promise<OpsServer> {
  const database = await createTestDatabase();
  const log = createLogger({ level: 'silent', role: 'test' });
  const db = createDatabase({
    url: options.through?.(database.url) ?? database.url,
    applicationName: 'test-ops',
    poolMax: 4,
  });
  const store = queueStore(database.url);
  const throughOf = options.queuesThrough ?? ((url: string) => url);
  const backend = createQueueBackend({
    ...store,
    ...(store.redisUrl === undefined
      ? { databaseUrl: throughOf(store.databaseUrl) }
      : { redisUrl: throughOf(store.redisUrl) }),
    poolMax: 2,
    log,
  });
  await backend.prepare();
  const queues: JobQueue[] = lookQueue.names.map((name) => backend.createQueue(name));
  if (options.withOperator !== false) await setPassword({ db, actor: 'test' }, operator);

  const onError = () => undefined;
  const metrics = createMetrics({ db: db.pool, queues, onError });
  const publicUrl = options.publicUrl ?? 'http://localhost:8080';
  const app = new Hono();
  const canStore = createCanStore({ read: createStorageCheck(db.pool), onError, cacheMs: 0 });
  app.route('/', createHealthRoutes({ canStore }));
  app.route('/', createMetricsRoutes({ metrics, token: options.metricsToken }));
  app.route(
    '/',
    createTenantPage({
      server: { host: 'db.seller.example', port: 5432, database: 'tenants' },
      isHttps: false,
    }),
  );
  const ops = createOps({
    db,
    queues,
    publicUrl,
    log,
    ...(options.limits ? { limits: options.limits } : {}),
  });
  app.route('/', ops);

  const server = serve({ fetch: app.fetch, port: 0, hostname: '127.0.0.1' });
  if (!server.listening) await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    app,
    db,
    queues,
    metrics,
    async stop() {
      server.close();
      await Promise.allSettled([backend.close(), db.close()]);
      await database.drop();
    },
  };
}

/** Posts the login form as a browser on the same site does. */
export async function postLogin(
  url: string,
  form: { name: string; password: string },
  headers: Record<string, string> = {},
): Promise<Response> {
  return fetch(`${url}/ops/login`, {
    method: 'POST',
    body: new URLSearchParams(form),
    headers: { origin: url, ...headers },
    redirect: 'manual',
  });
}

/** @returns the Cookie header of a session */
export async function logIn(url: string): Promise<string> {
  const response = await postLogin(url, operator);
  const [cookie] = response.headers.getSetCookie();
  if (response.status !== 303 || cookie === undefined) {
    throw new Error(`the login was answered ${response.status}`);
  }
  return cookie.split(';')[0] ?? '';
}
