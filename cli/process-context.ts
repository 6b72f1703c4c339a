import { createDatabase } from '../db/client.ts';
import { readMasterKeyIds } from '../db/database-facts.ts';
import { tenantsUrlBeside } from '../db/tenants.ts';
import { type Config, readConfig } from '../runtime/config.ts';
import { findEmbeddedPostgres } from '../runtime/embedded-postgres.ts';
import { type Failpoints, createFailpoints } from '../runtime/failpoints.ts';
import { type Logger, createLogger } from '../runtime/logger.ts';
import { type MasterKey, loadMasterKey } from '../runtime/secrets.ts';
import { CommandFailure } from './failure.ts';

/** What every long-lived process is made from. */
export type ProcessContext = {
  config: Config;
  log: Logger;
  databaseUrl: string;
  tenantsUrl: string;
  masterKey: MasterKey;
  failpoint: Failpoints;
};

/** @throws when there is no database or no master key, with what to do next */
export async function readProcess(role: string): Promise<ProcessContext> {
  const config = readConfig();
  const dataDir = config.LATCHKEY_DATA_DIR;
  const databaseUrl = config.DATABASE_URL ?? (await findEmbeddedPostgres(dataDir));
  if (databaseUrl === undefined) {
    throw new CommandFailure(
      `There is no database: DATABASE_URL is not set, and no embedded Postgres runs in ${dataDir}.`,
      { next: 'set DATABASE_URL, or run npx latchkey start without a role' },
    );
  }
  const { masterKey } = readMasterKey(config);
  return {
    config,
    log: createLogger({ level: config.LOG_LEVEL, role }),
    databaseUrl,
    tenantsUrl: config.TENANTS_DATABASE_URL ?? tenantsUrlBeside(databaseUrl),
    masterKey,
    failpoint: createFailpoints(config.LATCHKEY_FAILPOINTS),
  };
}

/** The master key as the environment names it; made in the data directory on first use. */
export function readMasterKey(config: Config): ReturnType<typeof loadMasterKey> {
  return loadMasterKey({
    masterKey: config.LATCHKEY_MASTER_KEY,
    masterKeyFile: config.LATCHKEY_MASTER_KEY_FILE,
    dataDir: config.LATCHKEY_DATA_DIR,
    isProduction: config.NODE_ENV === 'production',
  });
}

/** @throws when the database's secrets were sealed under another master key: nothing could be verified */
export async function demandMasterKey(databaseUrl: string, masterKey: MasterKey): Promise<void> {
  const db = createDatabase({ url: databaseUrl, applicationName: 'latchkey start', poolMax: 1 });
  try {
    const usedHere = await readMasterKeyIds(db.pool);
    if (usedHere.length === 0 || usedHere.includes(masterKey.id)) return;
    throw new CommandFailure(
      `The secrets of this database were sealed with master key ${usedHere.join(', ')}, and the one at hand is ${masterKey.id}.`,
      { next: 'set LATCHKEY_MASTER_KEY (or LATCHKEY_MASTER_KEY_FILE) to the right one' },
    );
  } finally {
    await db.close();
  }
}
