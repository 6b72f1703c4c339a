import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { type TestChild, startChild } from '../servers/child.ts';
import { until } from '../servers/until.ts';

const cli = new URL('../../cli/main.ts', import.meta.url);
const children: TestChild[] = [];
const folders: string[] = [];

afterEach(async () => {
  for (const child of children) child.kill('SIGTERM');
  await Promise.all(children.splice(0).map((child) => child.ended));
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
});

function makeFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'latchkey-start-'));
  folders.push(folder);
  return folder;
}

function start(dataDir: string, env: Record<string, string> = {}): TestChild {
  const child = startChild(cli, ['start'], {
    LATCHKEY_DATA_DIR: dataDir,
    DATABASE_URL: '',
    REDIS_URL: '',
    LATCHKEY_MASTER_KEY: '',
    HOST: '127.0.0.1',
    PORT: '0',
    ...env,
  });
  children.push(child);
  return child;
}

async function portOf(child: TestChild): Promise<number> {
  const line = await until(
    () => child.lines.find((text) => text.includes('"msg":"api.listening"')) ?? '',
    (text) => text !== '',
    { timeoutMs: 60_000, what: 'the api to listen' },
  );
  await until(() => child.lines.includes('Latchkey is ready.'), true, { timeoutMs: 60_000 });
  return (JSON.parse(line) as { port: number }).port;
}

const postgresOf = (dataDir: string) =>
  JSON.parse(readFileSync(join(dataDir, 'postgres.json'), 'utf8')) as { pid: number; port: number };

const readyStatus = async (port: number) => (await fetch(`http://127.0.0.1:${port}/readyz`)).status;

test('an embedded Postgres that was killed comes back by itself, and after a stop on the same port', async () => {
  const dataDir = makeFolder();
  const child = start(dataDir);
  const port = await portOf(child);
  expect(await readyStatus(port)).toBe(200);
  const before = postgresOf(dataDir);
  process.kill(before.pid, 'SIGKILL');
  await until(() => postgresOf(dataDir).pid !== before.pid, true, { timeoutMs: 30_000 });
  await until(() => readyStatus(port), 200, { timeoutMs: 30_000 });
  expect(postgresOf(dataDir).port).toBe(before.port);

  child.kill('SIGTERM');
  expect(await child.ended).toEqual({ code: 0, signal: null });
  await portOf(start(dataDir));
  expect(postgresOf(dataDir).port).toBe(before.port);
});

test('start ends with what to do when it has another master key than its database', async () => {
  const dataDir = makeFolder();
  const first = start(dataDir);
  await portOf(first);
  const add = startChild(
    cli,
    [
      'product',
      'add',
      'crm',
      '--name',
      'CRM',
      '--provisioner',
      'http',
      '--http-url',
      'https://crm.example.com',
    ],
    { LATCHKEY_DATA_DIR: dataDir, DATABASE_URL: '', LATCHKEY_MASTER_KEY: '' },
  );
  expect((await add.ended).code).toBe(0);
  first.kill('SIGTERM');
  await first.ended;

  const other = start(dataDir, { LATCHKEY_MASTER_KEY: randomBytes(32).toString('base64') });
  expect(await other.ended).toEqual({ code: 1, signal: null });
  const said = other.lines.join('\n');
  expect(said).toContain('were sealed with master key');
  expect(said).toContain('set LATCHKEY_MASTER_KEY');
  expect(said).not.toContain('Latchkey is ready.');
});

test('in production start ends at once without a master key, and starts no database', async () => {
  const dataDir = makeFolder();
  const child = start(dataDir, { NODE_ENV: 'production' });
  expect((await child.ended).code).not.toBe(0);
  expect(child.lines.join('\n')).toContain('LATCHKEY_MASTER_KEY');
  expect(child.lines.join('\n')).not.toContain('postgres.started');
});

test('an api whose port is taken is started again until it is free', async () => {
  const holder = createServer().listen(0, '127.0.0.1');
  await once(holder, 'listening');
  const address = holder.address();
  const port = typeof address === 'object' && address ? address.port : 0;
  const child = start(makeFolder(), { PORT: String(port) });
  await until(() => child.lines.some((line) => line.includes('EADDRINUSE')), true, {
    timeoutMs: 60_000,
  });
  holder.close();
  expect(await portOf(child)).toBe(port);
  expect(await readyStatus(port)).toBe(200);
});
