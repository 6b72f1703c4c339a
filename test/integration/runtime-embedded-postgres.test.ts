import { mkdtemp, readFile, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { findEmbeddedPostgres, startEmbeddedPostgres } from '../../runtime/embedded-postgres.ts';
import type { EmbeddedPostgres } from '../../runtime/embedded-postgres.ts';
import { createLogger } from '../../runtime/logger.ts';
import { isRunning, startChild } from '../servers/child.ts';
import { until } from '../servers/until.ts';

const log = createLogger({ level: 'fatal', role: 'test' });
let dataDir: string;
const opened: EmbeddedPostgres[] = [];

const start = async (options: Partial<Parameters<typeof startEmbeddedPostgres>[0]> = {}) => {
  const server = await startEmbeddedPostgres({ dataDir, log, ...options });
  opened.push(server);
  return server;
};

async function query(url: string, text: string): Promise<unknown[]> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 2_000 });
  client.on('error', () => undefined);
  try {
    await client.connect();
    return (await client.query<Record<string, unknown>>(text)).rows;
  } finally {
    await client.end();
  }
}

beforeAll(async () => {
  dataDir = await mkdtemp(join(tmpdir(), 'latchkey-embedded-'));
});

afterAll(async () => {
  await Promise.all(opened.map((server) => server.stop()));
  await rm(dataDir, { recursive: true, force: true });
});

test('the first start makes a durable server that only this machine and the password can reach', async () => {
  const server = await start();
  expect(server.reused).toBe(false);
  expect(
    await query(
      server.url,
      `select current_setting('fsync') as fsync, current_setting('synchronous_commit') as sync,
        current_setting('listen_addresses') as listen, current_setting('unix_socket_directories') as sockets,
        current_database() as database, pg_encoding_to_char(encoding) as encoding
        from pg_database where datname = current_database()`,
    ),
  ).toEqual([
    {
      fsync: 'on',
      sync: 'on',
      listen: '127.0.0.1',
      sockets: '',
      database: 'latchkey',
      encoding: 'UTF8',
    },
  ]);
  const stranger = new URL(server.url);
  stranger.password = 'postgres';
  await expect(query(stranger.toString(), 'select 1')).rejects.toThrow('password authentication');
  await server.stop();
  expect(isRunning(server.pid)).toBe(false);
  expect(await findEmbeddedPostgres(dataDir)).toBeUndefined();
});

test('folder and files are closed to other users', async () => {
  const server = await start();
  const modeOf = async (path: string) => ((await stat(path)).mode & 0o777).toString(8);
  expect(await modeOf(dataDir)).toBe('700');
  expect(await modeOf(join(dataDir, 'postgres.json'))).toBe('600');
  expect(await modeOf(join(dataDir, 'postgres', 'password'))).toBe('600');
  expect(await modeOf(join(dataDir, 'postgres', 'data'))).toBe('700');
  await server.stop();
});

test('after a SIGKILL of the server and a start over its stale pid file every row is there', async () => {
  const first = await start();
  await query(first.url, 'create table kept as select generate_series(1, 1000) as n');
  await query(first.url, 'insert into kept values (1001)');
  process.kill(first.pid, 'SIGKILL');
  await until(() => findEmbeddedPostgres(dataDir), undefined);
  expect(await readdir(join(dataDir, 'postgres', 'data'))).toContain('postmaster.pid');
  const second = await start();
  expect(second.reused).toBe(false);
  expect(await query(second.url, 'select count(*)::int from kept')).toEqual([{ count: 1001 }]);
  await second.stop();
});

test('a pid file that names a process which is no Postgres does not keep the server from starting', async () => {
  const path = join(dataDir, 'postgres', 'data', 'postmaster.pid');
  await writeFile(path, `${process.ppid}\n${join(dataDir, 'postgres', 'data')}\n`, { mode: 0o600 });
  const server = await start();
  expect(await query(server.url, 'select 1 as one')).toEqual([{ one: 1 }]);
  await server.stop();
});

test('a second start joins the running server and leaves it running', async () => {
  const first = await start();
  const second = await start();
  expect(second.reused).toBe(true);
  expect(second.url).toBe(first.url);
  expect(await findEmbeddedPostgres(dataDir)).toBe(first.url);
  await second.stop();
  expect(await query(first.url, 'select 1 as one')).toEqual([{ one: 1 }]);
  await first.stop();
});

test('four starts at once in a new folder end with one server', async () => {
  const fresh = await mkdtemp(join(tmpdir(), 'latchkey-embedded-'));
  try {
    const servers = await Promise.all([1, 2, 3, 4].map(() => start({ dataDir: fresh })));
    expect(new Set(servers.map((server) => server.url)).size).toBe(1);
    expect(servers.filter((server) => !server.reused)).toHaveLength(1);
    expect(await readdir(fresh)).not.toContainEqual(expect.stringMatching(/^postgres\.new/));
    await Promise.all(servers.map((server) => server.stop()));
  } finally {
    await rm(fresh, { recursive: true, force: true });
  }
});

test('a kept server comes back by itself on the same address when it is killed', async () => {
  const server = await start({ keepRunning: true });
  const killed = server.pid;
  process.kill(killed, 'SIGKILL');
  await until(
    () => server.pid,
    (pid) => pid !== killed,
  );
  expect(await query(server.url, 'select 1 as one')).toEqual([{ one: 1 }]);
  await server.stop();
  expect(await findEmbeddedPostgres(dataDir)).toBeUndefined();
});

test('who keeps a server running takes it over when the process that started it ends', async () => {
  const short = await start();
  const long = await start({ keepRunning: true });
  expect(long.reused).toBe(true);
  await short.stop();
  await until(() => query(long.url, 'select 1 as one'), [{ one: 1 }]);
  await long.stop();
  expect(await findEmbeddedPostgres(dataDir)).toBeUndefined();
});

test('the server ends when the process that started it is killed with SIGKILL', async () => {
  const module = new URL('../runtime/fixtures/postgres-owner.ts', import.meta.url);
  const owner = startChild(module, [dataDir]);
  await until(
    () => owner.lines,
    (lines) => lines.some((line) => line.startsWith('up ')),
  );
  expect(await findEmbeddedPostgres(dataDir)).toBeDefined();
  owner.kill('SIGKILL');
  await until(() => findEmbeddedPostgres(dataDir), undefined);
});

test('neither statements nor rows of a failed call get into the log of the server', async () => {
  const server = await start();
  await query(server.url, 'create table people (mail text unique)');
  await query(server.url, `insert into people values ('tell-nobody@example.com')`);
  await expect(
    query(server.url, `insert into people values ('tell-nobody@example.com')`),
  ).rejects.toThrow('duplicate key');
  await server.stop();
  const said = await readFile(join(dataDir, 'postgres.log'), 'utf8');
  expect(said).toContain('duplicate key');
  expect(said).not.toContain('tell-nobody');
});
