import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { accessSync, constants } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { Redis } from 'ioredis';
import { until } from './until.ts';

/** Where a program is on this machine, or undefined. */
function findProgram(name: string): string | undefined {
  return (process.env['PATH'] ?? '')
    .split(delimiter)
    .map((folder) => join(folder, name))
    .find((path) => {
      try {
        accessSync(path, constants.X_OK);
        return true;
      } catch {
        return false;
      }
    });
}

export const findRedisServer = (): string | undefined => findProgram('redis-server');

/** A Redis of its own; it keeps its port and, with `durable`, its data over `kill` and `start`. */
export type TestRedis = {
  url: string;
  port: number;
  pid(): number;
  /** SIGKILL. */
  kill(): Promise<void>;
  /** Starts it again after `kill`. */
  start(): Promise<void>;
  flushAll(): Promise<void>;
  /** Ends it and removes its data. */
  stop(): Promise<void>;
};

/** @throws when redis-server is not installed */
export async function startTestRedis(options: { durable?: boolean } = {}): Promise<TestRedis> {
  const program = findRedisServer();
  if (program === undefined) throw new Error('redis-server is not installed');
  const dir = await mkdtemp(join(tmpdir(), 'latchkey-redis-'));
  const port = await freePort();
  const url = `redis://127.0.0.1:${port}`;
  const withUs =
    findProgram('setpriv') === undefined ? [] : ['setpriv', '--pdeathsig', 'KILL', '--'];
  let child: ChildProcess | undefined;

  const call = async <T>(work: (client: Redis) => Promise<T>): Promise<T> => {
    const client = new Redis(url, { lazyConnect: true, retryStrategy: () => null });
    client.on('error', () => undefined);
    try {
      await client.connect();
      return await work(client);
    } finally {
      client.disconnect();
    }
  };

  const start = async (): Promise<void> => {
    const settings = {
      port: String(port),
      bind: '127.0.0.1',
      dir,
      save: '',
      appendonly: options.durable === true ? 'yes' : 'no',
      appendfsync: 'always',
      'maxmemory-policy': 'noeviction',
      loglevel: 'warning',
    };
    const [command = program, ...args] = [
      ...withUs,
      program,
      ...Object.entries(settings).flatMap(([name, value]) => [`--${name}`, value]),
    ];
    child = spawn(command, args, { stdio: ['ignore', 'ignore', 'inherit'], detached: true });
    await until(() => call((client) => client.ping()), 'PONG', { what: 'redis-server' });
  };

  const kill = async (): Promise<void> => {
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, 'exit');
    child.kill('SIGKILL');
    await gone;
  };

  await start();
  return {
    url,
    port,
    pid: () => child?.pid ?? 0,
    kill,
    start,
    async flushAll() {
      await call((client) => client.flushall());
    },
    async stop() {
      await kill();
      await rm(dir, { recursive: true, force: true });
    },
  };
}

async function freePort(): Promise<number> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  if (typeof address !== 'object' || address === null) throw new Error('no port');
  return address.port;
}
