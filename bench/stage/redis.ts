import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { accessSync, constants } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { createServer } from 'node:net';
import { delimiter, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Redis } from 'ioredis';

export type BenchRedis = { url: string; version: string; stop(): Promise<void> };

/** A redis-server of the bench's own, append-only file written once a second. */
export async function startRedis(dir: string): Promise<BenchRedis | undefined> {
  const program = findProgram('redis-server');
  if (program === undefined) return undefined;
  await mkdir(dir, { recursive: true });
  const port = await freePort();
  const settings = {
    port: String(port),
    bind: '127.0.0.1',
    dir,
    save: '',
    appendonly: 'yes',
    appendfsync: 'everysec',
    'maxmemory-policy': 'noeviction',
    loglevel: 'warning',
  };
  // Without it a bench that is killed would leave the server behind.
  const withUs = findProgram('setpriv') ? ['setpriv', '--pdeathsig', 'KILL', '--'] : [];
  const [command = program, ...args] = [
    ...withUs,
    program,
    ...Object.entries(settings).flatMap(([name, value]) => [`--${name}`, value]),
  ];
  // A group of its own: Ctrl-C must reach us alone, who stop it last.
  const child = spawn(command, args, { stdio: ['ignore', 'ignore', 'inherit'], detached: true });
  const stop = async (): Promise<void> => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, 'exit');
    child.kill('SIGKILL');
    await gone;
  };
  const url = `redis://127.0.0.1:${port}`;
  try {
    return { url, version: await readVersion(url), stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function readVersion(url: string): Promise<string> {
  const deadlineMs = performance.now() + 10_000;
  for (;;) {
    const client = new Redis(url, { lazyConnect: true, retryStrategy: () => null });
    client.on('error', () => undefined);
    try {
      await client.connect();
      return /redis_version:(\S+)/.exec(await client.info())?.[1] ?? 'unknown';
    } catch (error) {
      if (performance.now() > deadlineMs) throw error;
      await sleep(50);
    } finally {
      client.disconnect();
    }
  }
}

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
