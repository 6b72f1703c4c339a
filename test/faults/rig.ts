import { randomBytes } from 'node:crypto';
import { onTestFailed, onTestFinished } from 'vitest';
import { migrate } from '../../db/migrate.ts';
import { type Marketplace, type Reply, createMarketplace } from '../../simulator/marketplace.ts';
import { type SellerBackend, createSellerBackend } from '../../simulator/seller-backend.ts';
import { createTestDatabase, withDatabase } from '../servers/database.ts';
import { type TestPostgres, startTestPostgres } from '../servers/postgres.ts';
import { type TestRedis, startTestRedis } from '../servers/redis.ts';
import { type Process, type System, type TestProduct, createSystem } from '../servers/system.ts';
import { type Front, startFront } from './front.ts';
import type { QueueKind } from './queue-kinds.ts';

/** One product as the marketplace sees it. */
export type Side = { name: 'tenants' | 'backend'; product: TestProduct; market: Marketplace };

/** A whole system for one test: real processes, real stores, and the marketplace's own ledger. */
export type Rig = {
  kind: QueueKind;
  system: System;
  databaseUrl: string;
  tenantsUrl: string;
  /** Only with `ownPostgres`. */
  postgres: TestPostgres | undefined;
  /** Only where the queues are on Redis. */
  redis: TestRedis | undefined;
  front: Front;
  /** Made real as a schema in Postgres. */
  tenants: Side;
  /** Made real by calls to `sellerBackend`. */
  backend: Side;
  sellerBackend: SellerBackend;
  /** All answers that the marketplace got, of both products. */
  replies: Reply[];
  /** Starts an api process behind the front. */
  startApi(env?: Record<string, string>): Promise<Process>;
  startDispatcher(env?: Record<string, string>): Promise<Process>;
  startWorkers(env?: Record<string, string>, args?: readonly string[]): Promise<Process>;
  /** One of each. */
  startAll(): Promise<{ api: Process; dispatcher: Process; workers: Process }>;
  /** SIGKILL; returns when the process is gone. */
  crash(process: Process): Promise<void>;
};

/**
 * Opens a system without processes. It is closed when the running test ends; when that fails, what
 * the processes warned of is shown.
 */
export async function openRig(
  kind: QueueKind,
  options: {
    env?: Record<string, string>;
    /** A Postgres that the test may hurt. */
    ownPostgres?: boolean;
    /** Redis keeps what it was told, also over a SIGKILL. */
    durableRedis?: boolean;
  } = {},
): Promise<Rig> {
  const closing: (() => Promise<unknown>)[] = [];
  onTestFinished(async () => {
    for (const close of closing.toReversed()) await close();
  }, 60_000);

  const postgres = options.ownPostgres ? await startTestPostgres() : undefined;
  if (postgres) closing.push(() => postgres.stop());
  const database = postgres ? await migrated(postgres) : await createTestDatabase();
  closing.push(() => database.drop());
  const redis =
    kind === 'redis' ? await startTestRedis({ durable: options.durableRedis ?? false }) : undefined;
  if (redis) closing.push(() => redis.stop());
  const secret = `whsec_${randomBytes(24).toString('base64')}`;
  const sellerBackend = createSellerBackend({ secrets: [secret] });
  const httpUrl = await sellerBackend.listen();
  closing.push(() => sellerBackend.close());
  const front = await startFront();
  closing.push(() => front.close());

  const system = createSystem({
    databaseUrl: database.url,
    tenantsUrl: database.tenantsUrl,
    env: { REDIS_URL: redis?.url ?? '', QUEUE_PREFIX: 'faults', ...options.env },
  });
  closing.push(() => system.stop());
  onTestFailed(() => {
    const told = system.lines().filter((line) => !line.includes('"level":"info"'));
    process.stderr.write(`${told.slice(-40).join('\n')}\n`);
  });

  const replies: Reply[] = [];
  const open = (name: Side['name'], product: TestProduct): Side => {
    const market = createMarketplace({
      callbackUrl: `http://127.0.0.1:${front.port}/callbacks/${product.key}`,
      accessKey: product.accessKey,
      onReply: (reply) => replies.push(reply),
    });
    closing.push(async () => market.close());
    return { name, product, market };
  };

  async function startApi(env?: Record<string, string>): Promise<Process> {
    const api = await system.startApi(env);
    front.add(api.port);
    api.ended.then(() => front.remove(api.port)).catch(() => undefined);
    return api;
  }

  return {
    kind,
    system,
    databaseUrl: database.url,
    tenantsUrl: database.tenantsUrl,
    postgres,
    redis,
    front,
    tenants: open('tenants', await system.addProduct()),
    backend: open(
      'backend',
      await system.addProduct({ provisioner: 'http', httpUrl, httpSecret: secret }),
    ),
    sellerBackend,
    replies,
    startApi,
    startDispatcher: (env) => system.startDispatcher(env),
    startWorkers: (env, args) => system.startWorkers(env, args),
    async startAll() {
      const [api, dispatcher, workers] = await Promise.all([
        startApi(),
        system.startDispatcher(),
        system.startWorkers(),
      ]);
      return { api, dispatcher, workers };
    },
    async crash(process) {
      process.kill('SIGKILL');
      await process.ended;
    },
  };
}

async function migrated(postgres: TestPostgres) {
  await migrate(postgres.url);
  return {
    url: postgres.url,
    tenantsUrl: withDatabase(postgres.url, 'latchkey_tenants'),
    drop: () => Promise.resolve(),
  };
}
