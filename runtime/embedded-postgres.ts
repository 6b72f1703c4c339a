import { execFile, spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import {
  chmod,
  chown,
  lstat,
  mkdir,
  open,
  readFile,
  rename,
  rm,
  writeFile,
} from 'node:fs/promises';
import { createServer } from 'node:net';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import pg from 'pg';
import { z } from 'zod';
import { findLaunch, handOver } from './embedded-postgres-launch.ts';
import type { Launch } from './embedded-postgres-launch.ts';
import type { Logger } from './logger.ts';

// A Postgres server of our own, for a machine that has none: loopback only, a random port, a random
// password, everything in one folder.
//
//   {dataDir}/postgres/data       the cluster
//   {dataDir}/postgres/password   its superuser's password, 0600
//   {dataDir}/postgres.json       {port, password, pid} of the running server, 0600
//   {dataDir}/postgres.port       its port, also while it is stopped
//   {dataDir}/postgres.log        what the server says

const run = promisify(execFile);

const START_TIMEOUT_MS = 30_000;
const STOP_TIMEOUT_MS = 20_000;
const DATABASE = 'latchkey';
const USER = 'postgres';

export type EmbeddedPostgres = {
  /** Superuser's address of the database `latchkey`, with the password. */
  url: string;
  port: number;
  pid: number;
  /** True when the server was already running; then `stop` leaves it running. */
  reused: boolean;
  stop(): Promise<void>;
};

export type EmbeddedPostgresOptions = {
  dataDir: string;
  log: Logger;
  /** Further server settings, e.g. `{ fsync: 'off' }` for tests. */
  settings?: Record<string, string>;
  /** Port to listen on; by default the last one, if it is free, else any free one. */
  port?: number;
  /**
   * Start the server again on the same port whenever it ends without `stop`, also when it was
   * another process's (a command that started the server for itself and is done with it).
   */
  keepRunning?: boolean;
};

const runningSchema = z.object({
  port: z.number().int(),
  password: z.string(),
  pid: z.number().int(),
});
type Running = z.infer<typeof runningSchema>;

// Said here, or PGSSLMODE of the user's shell would ask this server for TLS.
const urlOf = (server: Running): string =>
  `postgres://${USER}:${server.password}@127.0.0.1:${server.port}/${DATABASE}?sslmode=disable`;

/**
 * The address of the embedded server that is running for this folder, or undefined when none
 * answers.
 */
export async function findEmbeddedPostgres(dataDir: string): Promise<string | undefined> {
  const server = await readRunning(dataDir);
  return server !== undefined && (await answers(server)) ? urlOf(server) : undefined;
}

/**
 * Starts the embedded server of a folder, making its cluster and the database `latchkey` on first
 * use; takes over a server that already runs for the folder. Two processes may do so at once.
 * @throws when the server cannot be started, with the end of its log
 */
export async function startEmbeddedPostgres(
  options: EmbeddedPostgresOptions,
): Promise<EmbeddedPostgres> {
  const dataDir = resolve(options.dataDir);
  const log = options.log;
  await mkdir(dataDir, { recursive: true, mode: 0o700 });
  await chmod(dataDir, 0o700);

  let child: ChildProcess | undefined;
  const startOrJoin = async (port: number | undefined): Promise<Running> => {
    child = undefined;
    const running = await readRunning(dataDir);
    if (running !== undefined && (await answers(running))) return running;
    const launch = await findLaunch(dataDir);
    const password = await ensureCluster(dataDir, launch, log);
    const started = await startServer({ ...options, dataDir }, launch, password, port, running);
    child = started.child;
    return started.server;
  };

  let server = await startOrJoin(options.port);
  const reused = child === undefined;
  log.info({ port: server.port, postgresPid: server.pid, reused }, 'postgres.started');

  const stopping = new AbortController();
  const watching = options.keepRunning === true ? watch() : Promise.resolve();

  async function watch(): Promise<void> {
    const signal = stopping.signal;
    while (!signal.aborted) {
      try {
        await (child === undefined ? lost(server, signal) : ended(child, signal));
        if (signal.aborted) return;
        log.warn({ postgresPid: server.pid }, 'postgres.lost');
        server = await startOrJoin(server.port);
        log.info({ port: server.port, postgresPid: server.pid }, 'postgres.restarted');
      } catch (error) {
        if (signal.aborted) return;
        log.error({ err: error }, 'postgres.restart_failed');
        await sleep(1_000, undefined, { signal }).catch(() => undefined);
      }
    }
  }

  return {
    url: urlOf(server),
    port: server.port,
    get pid() {
      return server.pid;
    },
    reused,
    async stop() {
      stopping.abort();
      await watching;
      if (child === undefined) return;
      await stopServer(child);
      await rm(join(dataDir, 'postgres.json'), { force: true });
      log.info({ postgresPid: server.pid }, 'postgres.stopped');
    },
  };
}

async function readRunning(dataDir: string): Promise<Running | undefined> {
  try {
    const text = await readFile(join(dataDir, 'postgres.json'), 'utf8');
    return runningSchema.safeParse(JSON.parse(text)).data;
  } catch {
    return undefined; // absent, or cut off by a crash
  }
}

const clientOf = (server: Running, database: string): pg.Client =>
  new pg.Client({
    host: '127.0.0.1',
    port: server.port,
    user: USER,
    password: server.password,
    database,
    ssl: false,
    connectionTimeoutMillis: 2_000,
    query_timeout: 10_000,
  });

// Only our own server knows the random password, so a login proves that it is the folder's server
// and not a stranger on a port that was used before.
async function answers(server: Running): Promise<boolean> {
  const client = clientOf(server, 'postgres');
  client.on('error', () => undefined);
  try {
    await client.connect();
    return true;
  } catch {
    return false;
  } finally {
    await client.end().catch(() => undefined);
  }
}

/** Makes the cluster unless it is there, and returns the superuser's password. */
async function ensureCluster(dataDir: string, launch: Launch, log: Logger): Promise<string> {
  const home = join(dataDir, 'postgres');
  const known = await readFile(join(home, 'password'), 'utf8').catch(() => undefined);
  if (known !== undefined) return known;

  // Made aside and renamed, so that a crash or a second process never meets half a cluster.
  const aside = join(dataDir, `postgres.new-${randomBytes(6).toString('hex')}`);
  await mkdir(aside, { mode: 0o700 });
  const password = randomBytes(24).toString('base64url');
  await writeFile(join(aside, 'password'), password, { mode: 0o600 });
  if (launch.user !== undefined) await handOver(aside, launch.user);
  try {
    const [command, args] = launch.commandOf('initdb', [
      `--pgdata=${join(aside, 'data')}`,
      `--username=${USER}`,
      `--pwfile=${join(aside, 'password')}`,
      '--auth=scram-sha-256',
      '--encoding=UTF8',
      '--locale=C',
      '--locale-provider=builtin',
      '--builtin-locale=C.UTF-8',
      '--no-instructions',
    ]);
    await run(command, args, { env: launch.env, cwd: '/', timeout: 120_000, ...launch.user });
    await rename(aside, home);
    log.info({ path: home }, 'postgres.cluster_created');
    return password;
  } catch (error) {
    await rm(aside, { recursive: true, force: true });
    const winner = await readFile(join(home, 'password'), 'utf8').catch(() => undefined);
    if (winner !== undefined) return winner; // another process was first
    throw new Error('The embedded Postgres could not make its cluster.', { cause: error });
  }
}

type StartOptions = EmbeddedPostgresOptions & { dataDir: string };

async function startServer(
  options: StartOptions,
  launch: Launch,
  password: string,
  port: number | undefined,
  last: Running | undefined,
): Promise<{ server: Running; child: ChildProcess | undefined }> {
  const { dataDir, log } = options;
  const deadline = Date.now() + START_TIMEOUT_MS;
  let kept = await readKeptPort(dataDir);
  let said = '';
  while (Date.now() < deadline) {
    const chosen = port ?? (await freePort(last?.port ?? kept));
    const { child, failure } = await spawnServer(options, launch, chosen);
    const server: Running = { port: chosen, password, pid: child?.pid ?? 0 };
    if (child !== undefined && (await becomesReady(child, server, deadline))) {
      await writeRunning(dataDir, server, launch);
      await writeFile(join(dataDir, 'postgres.port'), String(chosen), { mode: 0o600 });
      return { server, child };
    }
    if (failure !== undefined) throw failure;
    // It ended by itself. Another process may have been first; or an old server's last processes
    // still hold its memory; or its pid file names a process that is no Postgres; or the port is
    // taken. All but the first are cured by trying again.
    const rival = await readRunning(dataDir);
    if (rival !== undefined && (await answers(rival))) return { server: rival, child: undefined };
    said = await endOfLog(dataDir);
    if (await removeForeignPidFile(dataDir))
      log.warn({ path: dataDir }, 'postgres.stale_pid_removed');
    if (port === undefined) last = kept = undefined;
    await sleep(200);
  }
  throw new Error(`The embedded Postgres did not start. The end of its log:\n${said}`);
}

async function spawnServer(
  options: StartOptions,
  launch: Launch,
  port: number,
): Promise<{ child: ChildProcess | undefined; failure: Error | undefined }> {
  const settings: Record<string, string> = {
    listen_addresses: '127.0.0.1',
    unix_socket_directories: '',
    max_connections: '200',
    password_encryption: 'scram-sha-256',
    timezone: 'UTC',
    log_timezone: 'UTC',
    // Statements and details carry rows, and with them secrets and personal data.
    log_min_error_statement: 'panic',
    log_error_verbosity: 'terse',
    ...options.settings,
  };
  const output = await open(join(options.dataDir, 'postgres.log'), 'a', 0o600);
  try {
    // What root leaves in another user's folder must not lock that user out.
    if (launch.user !== undefined) await output.chown(launch.user.uid, launch.user.gid);
    const [command, args] = launch.commandOf('postgres', [
      '-D',
      join(options.dataDir, 'postgres', 'data'),
      '-p',
      String(port),
      ...Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`]),
    ]);
    const child = spawn(command, args, {
      env: launch.env,
      cwd: '/',
      stdio: ['ignore', output.fd, output.fd],
      // A group of its own: Ctrl-C must reach us alone, who stop Postgres last.
      detached: true,
      ...launch.user,
    });
    let failure: Error | undefined;
    child.on('error', (error) => (failure = error));
    if (child.pid === undefined) await once(child, 'error').catch(() => undefined);
    return { child: child.pid === undefined ? undefined : child, failure };
  } finally {
    await output.close();
  }
}

const isOver = (child: ChildProcess): boolean =>
  child.exitCode !== null || child.signalCode !== null;

async function becomesReady(
  child: ChildProcess,
  server: Running,
  deadline: number,
): Promise<boolean> {
  while (!isOver(child) && Date.now() < deadline) {
    if (await ensureDatabase(server)) return true;
    await sleep(20);
  }
  if (!isOver(child)) await stopServer(child);
  return false;
}

async function ensureDatabase(server: Running): Promise<boolean> {
  const client = clientOf(server, 'postgres');
  client.on('error', () => undefined);
  try {
    await client.connect();
    const found = await client.query('select from pg_database where datname = $1', [DATABASE]);
    if (found.rowCount === 0) await client.query(`create database ${DATABASE}`);
    return true;
  } catch {
    return false; // not up yet
  } finally {
    await client.end().catch(() => undefined);
  }
}

/** Buyers were told the port of their tenants: after a stop it should be the same again. */
async function readKeptPort(dataDir: string): Promise<number | undefined> {
  const text = await readFile(join(dataDir, 'postgres.port'), 'utf8').catch(() => '');
  const port = Number(text);
  return Number.isInteger(port) && port > 0 && port < 65_536 ? port : undefined;
}

async function writeRunning(dataDir: string, server: Running, launch: Launch): Promise<void> {
  const path = join(dataDir, 'postgres.json');
  const aside = `${path}.${process.pid}`;
  await writeFile(aside, JSON.stringify(server), { mode: 0o600 });
  if (launch.user !== undefined) await chown(aside, launch.user.uid, launch.user.gid);
  await rename(aside, path);
}

async function stopServer(child: ChildProcess): Promise<void> {
  const exited = ended(child, AbortSignal.timeout(STOP_TIMEOUT_MS));
  child.kill('SIGINT'); // "fast": ends the sessions, writes a checkpoint
  await exited;
  if (isOver(child)) return;
  const killed = ended(child, AbortSignal.timeout(5_000));
  child.kill('SIGQUIT'); // "immediate": recovered at the next start
  await killed;
}

/** Resolves when the process is over or the signal fires. */
async function ended(child: ChildProcess, signal: AbortSignal): Promise<void> {
  if (isOver(child)) return;
  await once(child, 'exit', { signal }).catch(() => undefined);
}

/** Resolves when another process's server no longer answers, or the signal fires. */
async function lost(server: Running, signal: AbortSignal): Promise<void> {
  for (let failures = 0; failures < 2 && !signal.aborted;) {
    await sleep(250, undefined, { signal }).catch(() => undefined);
    failures = (await answers(server)) ? 0 : failures + 1;
  }
}

async function freePort(wanted = 0): Promise<number> {
  const server = createServer();
  try {
    server.listen(wanted, '127.0.0.1');
    await once(server, 'listening');
    const address = server.address();
    return typeof address === 'object' && address !== null ? address.port : 0;
  } catch {
    return freePort(0);
  } finally {
    server.close();
  }
}

async function endOfLog(dataDir: string): Promise<string> {
  const text = await readFile(join(dataDir, 'postgres.log'), 'utf8').catch(() => '');
  return text.split('\n').slice(-8).join('\n');
}

// After a crash the pid file's number may belong to something else by now (always likely in a
// container, where numbers start anew); Postgres then refuses to start for ever.
async function removeForeignPidFile(dataDir: string): Promise<boolean> {
  const path = join(dataDir, 'postgres', 'data', 'postmaster.pid');
  const pid = Number((await readFile(path, 'utf8').catch(() => '')).split('\n')[0]);
  if (!Number.isInteger(pid) || pid <= 0) return false;
  const name = await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => undefined);
  const hasProc = (await lstat('/proc/self').catch(() => undefined)) !== undefined;
  if (!hasProc || name === undefined || name.trim() === 'postgres') return false;
  await rm(path, { force: true });
  return true;
}
