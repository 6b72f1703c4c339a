import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdtemp, rename, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { findEmbeddedPostgres, startEmbeddedPostgres } from '../../runtime/embedded-postgres.ts';
import { createLogger } from '../../runtime/logger.ts';
import { runCli } from './cli-run.ts';

let dataDir: string;
let parent: string;

const cli = (args: string[], input?: string) =>
  runCli(args, {
    env: { LATCHKEY_DATA_DIR: dataDir },
    ...(input === undefined ? {} : { input }),
  });

beforeAll(async () => {
  parent = await mkdtemp(join(tmpdir(), 'latchkey-cli-'));
  dataDir = join(parent, 'data');
});

afterAll(async () => {
  await rm(parent, { recursive: true, force: true });
});

test('doctor on a fresh machine makes nothing and fails nothing', async () => {
  const { code, out } = await cli(['doctor', '--json']);
  expect(code).toBe(0);
  expect(JSON.parse(out)).toMatchObject({ ok: true, failed: 0 });
  expect(existsSync(dataDir)).toBe(false);
});

test('without a server the commands start one, share it when two run at once, and leave none behind', async () => {
  const add = (key: string) =>
    cli(['product', 'add', key, '--name', key, '--provisioner', 'postgres-schema', '--json']);
  const first = await add('one');
  expect(first.code).toBe(0);
  expect(JSON.parse(first.out)).toMatchObject({ key: 'one' });
  expect(first.err).toContain('A master key was made');
  expect((await stat(dataDir)).mode & 0o777).toBe(0o700);
  expect((await stat(join(dataDir, 'master.key'))).mode & 0o777).toBe(0o600);

  const both = await Promise.all([
    add('two'),
    cli(['key', 'add', 'one', '--class', 'base', '--secret-stdin', '--json'], 'a-secret-key'),
  ]);
  expect(both.map(({ code, err }) => ({ code, err }))).toEqual([
    { code: 0, err: '' },
    { code: 0, err: '' },
  ]);
  expect(await findEmbeddedPostgres(dataDir)).toBeUndefined();
});

test('a server that runs is used and left running', async () => {
  const log = createLogger({ level: 'silent', role: 'test' });
  const server = await startEmbeddedPostgres({ dataDir, log });
  try {
    const { code, out } = await cli(['product', 'list', '--json']);
    expect(code).toBe(0);
    expect(JSON.parse(out)).toMatchObject({
      products: [
        { key: 'one', activeKeys: 1 },
        { key: 'two', activeKeys: 0 },
      ],
    });
    expect(await findEmbeddedPostgres(dataDir)).toBe(server.url);
  } finally {
    await server.stop();
  }
});

test('another master key, or none, is refused before anything is sealed with it', async () => {
  const add = (env: Record<string, string>) =>
    runCli(['key', 'add', 'two', '--class', 'base', '--secret-stdin'], {
      env: { LATCHKEY_DATA_DIR: dataDir, ...env },
      input: 'another-secret-key',
    });
  const other = await add({ LATCHKEY_MASTER_KEY: randomBytes(32).toString('base64') });
  expect({ code: other.code, err: other.err }).toEqual({
    code: 1,
    err: expect.stringMatching(/sealed with master key [0-9a-f]{8}, but the one given is/),
  });
  const kept = join(dataDir, 'master.key');
  await rename(kept, join(parent, 'master.key'));
  const none = await add({});
  expect({ code: none.code, err: none.err }).toEqual({
    code: 1,
    err: expect.stringContaining('and here is none'),
  });
  expect(existsSync(kept)).toBe(false);
});
