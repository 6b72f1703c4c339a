import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import pg from 'pg';
import { afterAll, beforeAll, expect, inject, test, vi } from 'vitest';
import { demoEnvironment } from '../../cli/demo/demo-environment.ts';
import { createDemoFolder } from '../../cli/demo/demo-folder.ts';
import { tryTenantLogin } from '../../db/tenant-login.ts';
import { readConfig } from '../../runtime/config.ts';
import { isRunning } from '../servers/child.ts';
import { type TestDatabase, createTestDatabase } from '../servers/database.ts';
import { until } from '../servers/until.ts';

const main = fileURLToPath(new URL('../../cli/main.ts', import.meta.url));

let database: TestDatabase;
let parent: string;

beforeAll(async () => {
  database = await createTestDatabase();
  parent = await mkdtemp(join(tmpdir(), 'latchkey-demo-test-'));
});

afterAll(async () => {
  await database?.drop();
  await rm(parent, { recursive: true, force: true });
});

/** Runs it in a folder of its own, with an environment that names other installations. */
function startDemo(args: readonly string[]) {
  const child = spawn(process.execPath, ['--import', 'tsx', main, 'demo', ...args], {
    env: {
      PATH: process.env['PATH'] ?? '',
      TMPDIR: parent,
      DATABASE_URL: 'postgres://nobody@127.0.0.1:1/nothing',
      REDIS_URL: 'redis://127.0.0.1:1',
      LATCHKEY_MASTER_KEY: 'no key at all',
      LATCHKEY_FAILPOINTS: 'nonsense',
      NODE_ENV: 'production',
      ACK_BUDGET_MS: 'soon',
      PORT: '1',
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let out = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      out += text;
    });
  }
  return { child, output: () => out, ended: once(child, 'exit') };
}

test('a demo that is ended in the middle leaves no process and no folder, whatever the environment says', async () => {
  const demo = startDemo(['--once']);
  await until(demo.output, (text) => /✔ The console debugs both/.test(text), {
    timeoutMs: 50_000,
    what: 'the story to begin',
  });
  const [folder = ''] = await demoFolders();
  expect((await stat(join(parent, folder))).mode & 0o777).toBe(0o700);
  const log = await readLog(join(parent, folder, 'latchkey.log'));
  const pids = log.filter((line) => line.msg === 'child.started').map((line) => line.childPid);
  pids.push(...log.filter((line) => line.msg === 'postgres.started').map((l) => l.postgresPid));
  expect(pids).toHaveLength(4);

  demo.child.kill('SIGTERM');
  await demo.ended;
  expect(demo.child.exitCode).toBe(130);
  expect(await demoFolders()).toEqual([]);
  await until(
    () => pids.filter((pid) => pid === undefined || isRunning(pid)),
    (left) => left.length === 0,
    { timeoutMs: 10_000, what: 'all processes to be gone' },
  );
});

/** Others use the folder for temporary files too. */
async function demoFolders(): Promise<string[]> {
  return (await readdir(parent)).filter((name) => name.startsWith('latchkey-demo-'));
}

type LogLine = { msg: string; childPid?: number; postgresPid?: number };

async function readLog(path: string): Promise<LogLine[]> {
  const text = await readFile(path, 'utf8');
  return text
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line) as LogLine);
}

test('the processes of the demo see none of the settings of the environment', () => {
  const demo = {
    dataDir: '/demo',
    databaseUrl: 'postgres://demo@127.0.0.1:9/demo',
    port: 9_999,
    publicUrl: 'http://127.0.0.1:9999',
  };
  const theirs = {
    REDIS_URL: 'redis://127.0.0.1:1',
    TENANTS_DATABASE_URL: 'postgres://x@127.0.0.1:1/x',
    LATCHKEY_MASTER_KEY: 'x',
    LATCHKEY_MASTER_KEY_FILE: '/x',
    METRICS_TOKEN: 'a token that is long enough',
  };
  for (const [name, value] of Object.entries(theirs)) vi.stubEnv(name, value);
  try {
    expect(readConfig(demoEnvironment(demo))).toMatchObject({
      PORT: 9_999,
      HOST: '127.0.0.1',
      DATABASE_URL: demo.databaseUrl,
      LATCHKEY_DATA_DIR: '/demo',
      REDIS_URL: undefined,
      TENANTS_DATABASE_URL: undefined,
      LATCHKEY_MASTER_KEY: undefined,
      LATCHKEY_MASTER_KEY_FILE: undefined,
      METRICS_TOKEN: undefined,
      NODE_ENV: 'development',
    });
  } finally {
    vi.unstubAllEnvs();
  }
});

test('after a failure the logs stay and the secrets go', async () => {
  const folder = await createDemoFolder(parent);
  folder.writeLog('a line\n');
  await writeFile(join(folder.path, 'master.key'), 'secret');
  await writeFile(join(folder.path, 'postgres.log'), '');
  await folder.removeAllButLogs();
  expect((await readdir(folder.path)).toSorted()).toEqual(['latchkey.log', 'postgres.log']);
  await rm(folder.path, { recursive: true });
});

test('a login is true, or refused, or an error: an unreachable server is no refusal', async () => {
  const admin = new pg.Client({ connectionString: database.tenantsUrl });
  await admin.connect();
  const role = `demo_${process.pid}_${Date.now()}`;
  const buyer = { user: role, password: 'right' };
  try {
    await admin.query(`create role ${role} login password 'right'`);
    await admin.query(`create schema ${role} authorization ${role}`);
    expect(await tryTenantLogin(database.tenantsUrl, buyer)).toBe(true);
    expect(await tryTenantLogin(database.tenantsUrl, { ...buyer, password: 'wrong' })).toBe(false);
    await admin.query(`alter role ${role} nologin`);
    expect(await tryTenantLogin(database.tenantsUrl, buyer)).toBe(false);
    const nowhere = new URL(inject('postgresUrl'));
    nowhere.port = '1';
    await expect(tryTenantLogin(nowhere.href, buyer)).rejects.toThrow('ECONNREFUSED');
  } finally {
    await admin.query(`drop owned by ${role}; drop role ${role}`);
    await admin.end();
  }
});
