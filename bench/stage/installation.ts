import { randomBytes } from 'node:crypto';
import pg from 'pg';
import { createDatabase } from '../../db/client.ts';
import { createKeyring } from '../../db/data-keys.ts';
import { migrate } from '../../db/migrate.ts';
import { addKey } from '../../operations/add-key.ts';
import { addProduct } from '../../operations/add-product.ts';
import { loadMasterKey } from '../../runtime/secrets.ts';
import type { Target, TargetProduct } from '../load/plan.ts';
import type { Child } from './child.ts';
import type { Stage } from './stage.ts';

const cli = new URL('../../cli/main.ts', import.meta.url);
/** Several, as a seller has them: a queue's window is shared between products. */
const productsMax = 8;

/** A Latchkey of its own: a fresh database, its products, and its processes as in production. */
export type Installation = {
  databaseUrl: string;
  env: Record<string, string>;
  products: readonly TargetProduct[];
  startApi(options?: { execArgv?: readonly string[] }): Promise<Child>;
  startDispatcher(env?: Record<string, string>): Promise<Child>;
  startNoOpWorkers(): Promise<Child>;
  target(api: Child): Target;
  /** The bench's own eye on the database. */
  countActive(): Promise<number>;
  close(): Promise<void>;
};

export async function createInstallation(stage: Stage, name: string): Promise<Installation> {
  const databaseUrl = await createBenchDatabase(stage, `bench_${name}`);
  await migrate(databaseUrl);
  const key = randomBytes(32).toString('base64');
  const products = await addProducts(databaseUrl, key);
  const env: Record<string, string> = {
    DATABASE_URL: databaseUrl,
    REDIS_URL: stage.redis?.url ?? '',
    QUEUE_PREFIX: `bench-${name}`,
    LATCHKEY_MASTER_KEY: key,
    LATCHKEY_DATA_DIR: stage.dir,
    HOST: '127.0.0.1',
    PORT: '0',
  };
  const eye = new pg.Pool({ connectionString: databaseUrl, max: 1 });
  eye.on('error', () => undefined);
  const children: Child[] = [];
  const start = async (
    module: URL,
    options: Parameters<Stage['startChild']>[1],
  ): Promise<Child> => {
    const child = await stage.startChild(module, options);
    children.push(child);
    return child;
  };

  return {
    databaseUrl,
    env,
    products,
    startApi: ({ execArgv = [] } = {}) => start(cli, { args: ['start', 'api'], env, execArgv }),
    startDispatcher: (extra = {}) =>
      start(cli, { args: ['start', 'dispatcher'], env: { ...env, ...extra } }),
    startNoOpWorkers: () => start(new URL('../no-op-workers.ts', import.meta.url), { env }),
    target: (api) => ({ port: api.port, products }),
    async countActive() {
      const counted = await eye.query<{ n: number }>(
        `select count(*)::int as n from instances where state = 'active'`,
      );
      return counted.rows[0]?.n ?? 0;
    },
    async close() {
      for (const child of children.toReversed()) await child.stop();
      await eye.end();
    },
  };
}

/** An empty database on the run's server. */
export async function createBenchDatabase(stage: Stage, name: string): Promise<string> {
  const client = new pg.Client({ connectionString: stage.postgresUrl });
  await client.connect();
  try {
    await client.query(`create database ${name}`);
  } finally {
    await client.end();
  }
  const url = new URL(stage.postgresUrl);
  url.pathname = `/${name}`;
  return url.toString();
}

async function addProducts(databaseUrl: string, masterKey: string): Promise<TargetProduct[]> {
  const db = createDatabase({ url: databaseUrl, applicationName: 'bench', poolMax: 2 });
  try {
    const loaded = loadMasterKey({ masterKey, dataDir: '/nonexistent', isProduction: true });
    const keyring = createKeyring({ db, masterKey: loaded.masterKey });
    const context = { db, keyring, actor: 'bench' };
    const products: TargetProduct[] = [];
    for (let number = 1; number <= productsMax; number += 1) {
      const key = `product-${number}`;
      const accessKey = randomBytes(24).toString('base64url');
      const added = await addProduct(context, { key, name: key, provisioner: 'postgres-schema' });
      const keyed = await addKey(context, { product: key, class: 'base', secret: accessKey });
      if (added.kind !== 'added' || keyed.kind !== 'added') throw new Error('no product was added');
      products.push({ key, accessKey });
    }
    return products;
  } finally {
    await db.close();
  }
}
