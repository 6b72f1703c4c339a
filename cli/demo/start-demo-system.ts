import { once } from 'node:events';
import { createServer } from 'node:net';
import { migrate } from '../../db/migrate.ts';
import { startEmbeddedPostgres } from '../../runtime/embedded-postgres.ts';
import { createLogger } from '../../runtime/logger.ts';
import { startRoles } from '../start-roles.ts';
import { demoEnvironment } from './demo-environment.ts';
import type { DemoFolder } from './demo-folder.ts';
import { type Interruption, within } from './interruption.ts';

export type DemoSystem = {
  databaseUrl: string;
  publicUrl: string;
  /** Kills the worker processes; they are started again. @returns how many it killed */
  killWorkers: () => Promise<number>;
};

const readyTimeoutMs = 60_000;
const shutdownMs = 10_000;

/**
 * Starts the same processes as `latchkey start`, on a database and ports of their own.
 *
 * @param onClose is given what stops each part, as soon as the part runs
 * @throws when a part does not start, or Interrupted
 */
export async function startDemoSystem(
  folder: DemoFolder,
  interruption: Interruption,
  onClose: (close: () => Promise<void>) => void,
): Promise<DemoSystem> {
  const log = createLogger({
    level: 'info',
    role: 'demo',
    destination: { write: folder.writeLog },
  });
  const server = await startEmbeddedPostgres({ dataDir: folder.path, log, keepRunning: true });
  onClose(() => server.stop());
  await migrate(server.url);

  const port = await findFreePort();
  const publicUrl = `http://127.0.0.1:${port}`;
  let tellReady: () => void = () => undefined;
  const ready = new Promise<void>((resolve) => {
    tellReady = resolve;
  });
  const supervisor = startRoles({
    log,
    shutdownMs,
    env: demoEnvironment({ dataDir: folder.path, databaseUrl: server.url, port, publicUrl }),
    outputFd: folder.logFd,
    onReady: () => tellReady(),
  });
  onClose(() => supervisor.stop());
  const seconds = readyTimeoutMs / 1_000;
  const message = `Not all of api, dispatcher and workers were ready within ${seconds} s.`;
  await interruption.unlessRequested(within(readyTimeoutMs, message, ready));

  return {
    databaseUrl: server.url,
    publicUrl,
    async killWorkers() {
      const { workers } = supervisor.pids();
      if (workers === undefined) return 0;
      process.kill(workers, 'SIGKILL');
      return 1;
    },
  };
}

async function findFreePort(): Promise<number> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  return typeof address === 'object' && address !== null ? address.port : 0;
}
