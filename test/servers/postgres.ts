import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startEmbeddedPostgres } from '../../runtime/embedded-postgres.ts';
import { createLogger } from '../../runtime/logger.ts';

/** A Postgres of its own for tests that hurt it; it keeps its port and its data over restarts. */
export type TestPostgres = {
  /** Superuser's address of the database `latchkey`. */
  url: string;
  port: number;
  dataDir: string;
  pid(): number;
  /** SIGKILL to the postmaster. */
  kill(): void;
  /** SIGSTOP and SIGCONT to the postmaster alone: no new sessions meanwhile. */
  signal(name: 'SIGSTOP' | 'SIGCONT'): void;
  /** Starts it again after `kill` or `halt`, over whatever is left. */
  start(): Promise<void>;
  /** A clean stop, data kept. */
  halt(): Promise<void>;
  /** A clean stop, data removed. */
  stop(): Promise<void>;
};

export async function startTestPostgres(
  options: { settings?: Record<string, string> } = {},
): Promise<TestPostgres> {
  const dataDir = await mkdtemp(join(tmpdir(), 'latchkey-postgres-'));
  const log = createLogger({ level: 'warn', role: 'test' });
  const open = (port?: number) =>
    startEmbeddedPostgres({
      dataDir,
      log,
      settings: options.settings ?? {},
      ...(port === undefined ? {} : { port }),
    });
  let server = await open();
  const { port, url } = server;
  return {
    url,
    port,
    dataDir,
    pid: () => server.pid,
    kill: () => void process.kill(server.pid, 'SIGKILL'),
    signal: (name) => void process.kill(server.pid, name),
    async start() {
      server = await open(port);
    },
    halt: () => server.stop(),
    async stop() {
      await server.stop();
      await rm(dataDir, { recursive: true, force: true });
    },
  };
}
