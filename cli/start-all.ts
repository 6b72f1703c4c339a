import { join } from 'node:path';
import { migrate } from '../db/migrate.ts';
import { environmentWith, readConfig } from '../runtime/config.ts';
import { startEmbeddedPostgres } from '../runtime/embedded-postgres.ts';
import { createLogger } from '../runtime/logger.ts';
import { runUntilSignal } from '../runtime/process.ts';
import { demandMasterKey, readMasterKey } from './process-context.ts';
import { startRoles } from './start-roles.ts';

/**
 * Everything on one machine: the database (embedded without DATABASE_URL), and api, dispatcher and
 * workers as processes of their own that are started again when they end.
 */
export async function startAll(options: {
  queues: readonly string[];
  concurrency?: number | undefined;
}): Promise<void> {
  const config = readConfig();
  const log = createLogger({ level: config.LOG_LEVEL, role: 'supervisor' });
  const dataDir = config.LATCHKEY_DATA_DIR;
  const key = readMasterKey(config);
  if (key.isNew) {
    say(
      `A master key was made: ${join(dataDir, 'master.key')}`,
      'Copy it to a safe place. Without it no secret in the database can be read again.',
      '',
    );
  }
  const server =
    config.DATABASE_URL === undefined
      ? await startEmbeddedPostgres({ dataDir, log, keepRunning: true })
      : undefined;
  const databaseUrl = config.DATABASE_URL ?? server?.url ?? '';
  try {
    await migrate(databaseUrl);
    await demandMasterKey(databaseUrl, key.masterKey);
  } catch (error) {
    await server?.stop();
    throw error;
  }

  const supervisor = startRoles({
    log,
    shutdownMs: config.timings.shutdownMs,
    env: environmentWith({ DATABASE_URL: databaseUrl }),
    workerArguments: workerArguments(options),
    onReady: (port) => announce(port ?? config.PORT, config.PUBLIC_URL, dataDir),
  });

  runUntilSignal({
    log,
    async close() {
      await supervisor.stop();
      await server?.stop();
    },
    shutdownMs: config.timings.shutdownMs + 10_000,
  });
}

function announce(port: number, publicUrl: string, dataDir: string): void {
  say(
    'Latchkey is ready.',
    `  callbacks   ${publicUrl}/callbacks/{product}   (listening on port ${port})`,
    `  operators   ${publicUrl}/ops      health ${publicUrl}/readyz      metrics ${publicUrl}/metrics`,
    `  data        ${dataDir}`,
    '  next        npx latchkey product add shop --name "My shop" --provisioner postgres-schema',
    '  check       npx latchkey doctor',
  );
}

/** For people; the log goes on around it as JSON lines. */
function say(...lines: string[]): void {
  process.stderr.write(`${lines.join('\n')}\n`);
}

function workerArguments(options: { queues: readonly string[]; concurrency?: number | undefined }) {
  const concurrency =
    options.concurrency === undefined ? [] : ['--concurrency', String(options.concurrency)];
  return ['--queues', options.queues.join(','), ...concurrency];
}
