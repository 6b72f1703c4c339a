import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import {
  countPendingMigrations,
  findMissingPartitions,
  readClockSkew,
  readDatabaseFacts,
  readMasterKeyIds,
} from '../db/database-facts.ts';
import { listOperators } from '../db/operators.ts';
import { readActiveKeys, readProducts } from '../db/products.ts';
import type { DatabaseContent, InstallationFacts } from '../operations/diagnose.ts';
import type { Config } from '../runtime/config.ts';
import { SecretsError, loadMasterKey } from '../runtime/secrets.ts';
import { type CommandContext, withContext } from './context.ts';
import { describeFailure } from './describe-failure.ts';

/** Looks at everything and changes nothing: makes no key, no database, no migration. */
export async function examineInstallation(config: Config): Promise<InstallationFacts> {
  const path = config.LATCHKEY_DATA_DIR;
  return {
    isProduction: config.NODE_ENV === 'production',
    publicUrl: config.PUBLIC_URL,
    dataDir: { path, mode: statSync(path, { throwIfNoEntry: false })?.mode },
    masterKey: examineMasterKey(config),
    database: await examineDatabase(config),
    redis: await examineRedis(config),
  };
}

function examineMasterKey(config: Config): InstallationFacts['masterKey'] {
  const { LATCHKEY_MASTER_KEY: masterKey, LATCHKEY_MASTER_KEY_FILE: masterKeyFile } = config;
  const isGiven = masterKey !== undefined || masterKeyFile !== undefined;
  // Loading would make one.
  if (!isGiven && !existsSync(join(config.LATCHKEY_DATA_DIR, 'master.key'))) {
    return { origin: 'not made yet' };
  }
  try {
    const loaded = loadMasterKey({
      masterKey,
      masterKeyFile,
      dataDir: config.LATCHKEY_DATA_DIR,
      isProduction: config.NODE_ENV === 'production',
    });
    return { origin: loaded.origin, id: loaded.masterKey.id };
  } catch (error) {
    if (error instanceof SecretsError) return { origin: 'unusable', problem: error.message };
    return { origin: 'unusable', problem: 'it cannot be read' };
  }
}

async function examineDatabase(config: Config): Promise<InstallationFacts['database']> {
  const isMade = existsSync(join(config.LATCHKEY_DATA_DIR, 'postgres'));
  if (config.DATABASE_URL === undefined && !isMade) return { kind: 'not made yet' };
  try {
    return await withContext(
      async ({ db }) => {
        const facts = await readDatabaseFacts(db.pool, Date.now);
        const pendingMigrations = await countPendingMigrations(db.pool);
        const content = pendingMigrations === 0 ? await readContent(db) : undefined;
        return { kind: 'reached', facts, pendingMigrations, content };
      },
      { migrate: false },
    );
  } catch (error) {
    return { kind: 'unreachable', problem: describeFailure(error).message };
  }
}

async function readContent(db: CommandContext['db']): Promise<DatabaseContent> {
  const tomorrow = new Date(Date.now() + 86_400_000);
  const [missingPartitions, masterKeyIds, products, keys, operators, marketplaceClock] =
    await Promise.all([
      findMissingPartitions(db.pool, tomorrow),
      readMasterKeyIds(db.pool),
      readProducts(db),
      readActiveKeys(db),
      listOperators(db),
      readClockSkew(db.pool),
    ]);
  // Only these sign the interfaces that are received.
  const baseKeys = keys.filter((each) => each.class === 'base');
  const withKey = new Set(baseKeys.map((each) => each.productId));
  return {
    missingPartitions,
    masterKeyIds,
    productsWithoutKey: products.filter((each) => !withKey.has(each.id)).map((each) => each.key),
    productCount: products.length,
    operatorCount: operators.length,
    marketplaceClock,
  };
}

async function examineRedis(config: Config): Promise<InstallationFacts['redis']> {
  if (config.REDIS_URL === undefined) return undefined;
  const { readRedisFacts } = await import('./redis-facts.ts');
  return readRedisFacts(config.REDIS_URL);
}
