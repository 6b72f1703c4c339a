import { existsSync } from 'node:fs';
import { userInfo } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Database, createDatabase } from '../db/client.ts';
import { createKeyring, type Keyring } from '../db/data-keys.ts';
import {
  countPendingMigrations,
  countSiblingSessions,
  readMasterKeyIds,
} from '../db/database-facts.ts';
import { type Config, readConfig } from '../runtime/config.ts';
import { findEmbeddedPostgres, startEmbeddedPostgres } from '../runtime/embedded-postgres.ts';
import { type MasterKey, SecretsError, loadMasterKey } from '../runtime/secrets.ts';

/** What a command works with; closed when it ends. */
export type CommandContext = {
  config: Config;
  db: Database;
  databaseUrl: string;
  /** For the audit: `cli:` and the user of the system. */
  actor: string;
  /** Reads the master key, and makes it on first use. */
  keyring: () => Promise<Keyring>;
};

/**
 * Runs a command against the database of the environment: DATABASE_URL, else the embedded server of
 * the data directory, which is started for the command when it does not run.
 *
 * @param options.migrate false leaves the schema as it is
 */
export async function withContext<T>(
  work: (context: CommandContext) => Promise<T>,
  options: { migrate?: boolean } = {},
): Promise<T> {
  const config = readConfig();
  const { db, server } = await openDatabase(config);
  try {
    if (options.migrate !== false && (await countPendingMigrations(db.pool)) > 0) {
      const { migrate } = await import('../db/migrate.ts');
      await migrate(server.url);
    }
    return await work({
      config,
      db,
      databaseUrl: server.url,
      actor: `cli:${systemUser()}`,
      keyring: async () => createKeyring({ db, masterKey: await readMasterKey(config, db) }),
    });
  } finally {
    if (server.isOurs) await waitForSiblings(db);
    await Promise.allSettled([db.close()]);
    await server.stop();
  }
}

/** Each command has its own number after it, so that they can tell one another apart. */
const applicationPrefix = 'latchkey cli ';

type Server = { url: string; isOurs: boolean; stop(): Promise<void> };

async function openDatabase(config: Config): Promise<{ db: Database; server: Server }> {
  for (let triesLeft = 3; ; triesLeft--) {
    const server = await findServer(config);
    // Two: what runs inside a transaction may have to ask for a data key beside it.
    const db = createDatabase({
      url: server.url,
      applicationName: `${applicationPrefix}${process.pid}`,
      poolMax: 2,
    });
    try {
      await db.pool.query('select 1');
      return { db, server };
    } catch (error) {
      await Promise.allSettled([db.close()]);
      await server.stop();
      // Another command may have stopped the server that it had started for itself: start it again.
      if (config.DATABASE_URL !== undefined || triesLeft <= 1) throw error;
    }
  }
}

async function findServer(config: Config): Promise<Server> {
  const running = config.DATABASE_URL ?? (await findEmbeddedPostgres(config.LATCHKEY_DATA_DIR));
  if (running !== undefined) return { url: running, isOurs: false, stop: async () => undefined };
  const { createLogger } = await import('../runtime/logger.ts');
  const server = await startEmbeddedPostgres({
    dataDir: config.LATCHKEY_DATA_DIR,
    log: createLogger({ level: 'silent', role: 'cli' }),
  });
  return { url: server.url, isOurs: !server.reused, stop: () => server.stop() };
}

/** Another command may have joined the server that ours started; it gets the time to finish. */
async function waitForSiblings(db: Database): Promise<void> {
  const deadlineAt = Date.now() + 5_000;
  try {
    while (
      (await countSiblingSessions(db.pool, applicationPrefix)) > 0 &&
      Date.now() < deadlineAt
    ) {
      await sleep(50);
    }
  } catch {
    // The server is gone already; then there is nobody to wait for.
  }
}

/** A second master key would seal a part of the secrets that the processes cannot open. */
async function readMasterKey(config: Config, db: Database): Promise<MasterKey> {
  const usedHere = await readMasterKeyIds(db.pool);
  const kept = join(config.LATCHKEY_DATA_DIR, 'master.key');
  const isGiven =
    config.LATCHKEY_MASTER_KEY !== undefined || config.LATCHKEY_MASTER_KEY_FILE !== undefined;
  if (usedHere.length > 0 && !isGiven && !existsSync(kept)) {
    throw new SecretsError(
      `this database was sealed with master key ${usedHere.join(', ')}, and here is none`,
    );
  }
  const { masterKey, isNew } = loadMasterKey({
    masterKey: config.LATCHKEY_MASTER_KEY,
    masterKeyFile: config.LATCHKEY_MASTER_KEY_FILE,
    dataDir: config.LATCHKEY_DATA_DIR,
    isProduction: config.NODE_ENV === 'production',
  });
  if (usedHere.length > 0 && !usedHere.includes(masterKey.id)) {
    throw new SecretsError(
      `this database was sealed with master key ${usedHere.join(', ')}, but the one given is ${masterKey.id}`,
    );
  }
  if (isNew) {
    process.stderr.write(
      `A master key was made: ${kept}\nCopy it to a safe place. Without it no secret can be read again.\n`,
    );
  }
  return masterKey;
}

/** In a container the number may have no name. */
function systemUser(): string {
  try {
    return userInfo().username;
  } catch {
    return `uid ${process.getuid?.() ?? 'unknown'}`;
  }
}
