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
