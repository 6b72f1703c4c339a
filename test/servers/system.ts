import { randomBytes, randomUUID } from 'node:crypto';
import postgres from 'postgres';
import { createDatabase } from '../../db/client.ts';
import { createKeyring } from '../../db/data-keys.ts';
import { addKey } from '../../operations/add-key.ts';
import { addProduct } from '../../operations/add-product.ts';
import { loadMasterKey } from '../../runtime/secrets.ts';
import { type Marketplace, createMarketplace } from '../../simulator/marketplace.ts';
import { type TestChild, startChild } from './child.ts';
import { until } from './until.ts';

const cli = new URL('../../cli/main.ts', import.meta.url);

/** Short enough for tests; the proportions are those of production. */
const testTimings: Record<string, string> = {
  TIMING_LEASE_MS: '1500',
  TIMING_LEASE_RENEW_MS: '400',
  TIMING_SWEEP_MS: '250',
  TIMING_HANDED_GRACE_MS: '500',
  TIMING_DUE_AGAIN_MS: '100',
  TIMING_RETRY_SCALE_PERCENT: '2',
  TIMING_STALLED_MS: '500',
  TIMING_LOCK_MS: '1500',
  TIMING_SHUTDOWN_MS: '8000',
};

export type Process = TestChild & { port: number };

export type TestProduct = { key: string; accessKey: string; callbackUrl(api?: Process): string };

/**
 * The real processes, each started as in production, on a database and queue store given.
 */
export type System = {
  env: Record<string, string>;
  masterKey: string;
  /** The tests' own eye on the database, through another driver than ours. */
  sql: postgres.Sql;
  startApi(env?: Record<string, string>): Promise<Process>;
  startDispatcher(env?: Record<string, string>): Promise<Process>;
  startWorkers(env?: Record<string, string>, args?: readonly string[]): Promise<Process>;
  addProduct(product?: {
    provisioner?: 'postgres-schema' | 'http';
    httpUrl?: string;
    httpSecret?: string;
  }): Promise<TestProduct>;
  marketplace(product: TestProduct, api: Process): Marketplace;
  /** What all processes wrote. */
  lines(): string[];
  stop(): Promise<void>;
};

export function createSystem(options: {
  databaseUrl: string;
  tenantsUrl: string;
  env: Record<string, string>;
}): System {
  const masterKey = randomBytes(32).toString('base64');
  const env: Record<string, string> = {
    ...testTimings,
    DATABASE_URL: options.databaseUrl,
    TENANTS_DATABASE_URL: options.tenantsUrl,
    LATCHKEY_MASTER_KEY: masterKey,
    LATCHKEY_DATA_DIR: '/nonexistent',
    OUTBOUND_ALLOWED_CIDRS: '127.0.0.0/8',
    HOST: '127.0.0.1',
    PORT: '0',
    NODE_ENV: 'test',
    ...options.env,
  };
  const sql = postgres(options.databaseUrl, { max: 2, onnotice: () => undefined });
  const processes: Process[] = [];
  const markets: Marketplace[] = [];

  async function start(
    role: string,
    ready: string,
    extra: Record<string, string> = {},
    args: readonly string[] = [],
  ): Promise<Process> {
    const child = startChild(cli, ['start', role, ...args], { ...env, ...extra });
    const line = await Promise.race([
      until(
        () => child.lines.find((text) => text.includes(`"msg":"${ready}"`)) ?? '',
        (text) => text !== '',
        { timeoutMs: 45_000, what: `${role} to be ready` },
      ),
      child.ended.then((end) => {
        throw new Error(
          `${role} ended at its start (${JSON.stringify(end)}): ${child.lines.join('\n')}`,
        );
      }),
    ]);
    const { port = 0 } = JSON.parse(line) as { port?: number };
    const started = Object.assign(child, { port });
    processes.push(started);
    return started;
  }

  return {
    env,
    masterKey,
    sql,
    startApi: (extra) => start('api', 'api.listening', extra),
    startDispatcher: (extra) => start('dispatcher', 'dispatcher.started', extra),
    startWorkers: (extra, args) => start('workers', 'workers.started', extra, args),
    async addProduct(product = {}) {
      const db = createDatabase({ url: options.databaseUrl, applicationName: 'test', poolMax: 2 });
      const loaded = loadMasterKey({ masterKey, dataDir: '/nonexistent', isProduction: false });
      const keyring = createKeyring({ db, masterKey: loaded.masterKey });
      const key = `p-${randomBytes(4).toString('hex')}`;
      const accessKey = `key-${randomUUID()}`;
      const context = { db, keyring, actor: 'test' };
      const added = await addProduct(context, {
        key,
        name: key,
        provisioner: product.provisioner ?? 'postgres-schema',
        ...(product.httpUrl === undefined ? {} : { httpUrl: product.httpUrl }),
        ...(product.httpSecret === undefined ? {} : { httpSecret: product.httpSecret }),
      });
      if (added.kind !== 'added') throw new Error(`product not added: ${added.kind}`);
      const keyAdded = await addKey(context, { product: key, class: 'base', secret: accessKey });
      if (keyAdded.kind !== 'added') throw new Error(`key not added: ${keyAdded.kind}`);
      await db.close();
      const [first] = processes.filter((one) => one.port > 0);
      return {
        key,
        accessKey,
        callbackUrl: (api = first) => `http://127.0.0.1:${api?.port ?? 0}/callbacks/${key}`,
      };
    },
    marketplace(product, api) {
      const market = createMarketplace({
        callbackUrl: product.callbackUrl(api),
        accessKey: product.accessKey,
      });
      markets.push(market);
      return market;
    },
    lines: () => processes.flatMap((one) => one.lines),
    async stop() {
      for (const market of markets) market.close();
      for (const one of processes) one.kill('SIGCONT');
      for (const one of processes) one.kill('SIGTERM');
      await Promise.all(processes.map((one) => one.ended));
      await sql.end({ timeout: 2 });
    },
  };
}
