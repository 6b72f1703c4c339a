import { afterAll, beforeAll, expect, inject, test } from 'vitest';
import { createStorageCheck } from '../../db/health.ts';
import { createDatabase } from '../../db/client.ts';
import { createPartitions } from '../../db/retention.ts';
import { type FaultProxy, startFaultProxy } from '../servers/fault-proxy.ts';
import { createTestDatabase } from '../servers/database.ts';
import { until } from '../servers/until.ts';
import { type OpsServer, startOpsServer } from './ops-server.ts';

let server: OpsServer;
let proxy: FaultProxy;
beforeAll(async () => {
  proxy = await startFaultProxy({ port: Number(new URL(inject('postgresUrl')).port) });
  server = await startOpsServer({ through: (url) => proxy.through(url), withOperator: false });
});
afterAll(async () => {
  await proxy.set({ kind: 'pass' });
  await server.stop();
  await proxy.close();
});

type Ready = { status: number; ok: boolean; problems: string[]; text: string; ms: number };

async function readReady(): Promise<Ready> {
  const began = performance.now();
  const response = await fetch(`${server.url}/readyz`);
  const text = await response.text();
  const body = JSON.parse(text) as { ok: boolean; problems: string[] };
  return { status: response.status, ...body, text, ms: performance.now() - began };
}

test('a migrated database that can be written is ready', async () => {
  expect(await readReady()).toMatchObject({ status: 200, ok: true, problems: [] });
});

test('a database that hangs or is gone is not ready, says so within its second, and heals', async () => {
  for (const kind of ['black-hole', 'refuse', 'reset'] as const) {
    await proxy.set({ kind });
    const answer = await readReady();
    expect(answer).toMatchObject({ status: 503, problems: ['the database does not answer'] });
    expect(answer.ms).toBeLessThan(2_500);
    // Neither where it is nor what the driver said.
    expect(answer.text).not.toMatch(/127\.0\.0\.1|ECONN|postgres|\d{4,5}/i);
    expect((await fetch(`${server.url}/healthz`)).status).toBe(200);
    await proxy.set({ kind: 'pass' });
    await until(async () => (await readReady()).status, 200, { timeoutMs: 20_000 });
  }
});

test('askers share one reading, so that a hanging database costs one connection', async () => {
  await proxy.set({ kind: 'black-hole' });
  const answers = await Promise.all(Array.from({ length: 50 }, readReady));
  expect(answers.map((answer) => answer.status)).toEqual(Array.from({ length: 50 }, () => 503));
  expect(server.db.pool.totalCount - server.db.pool.idleCount).toBeLessThanOrEqual(1);
  await proxy.set({ kind: 'pass' });
  await until(async () => (await readReady()).status, 200, { timeoutMs: 20_000 });
});

async function withFreshDatabase(
  work: (
    check: () => Promise<string[]>,
    run: (sql: string) => Promise<{ rows: unknown[] }>,
  ) => Promise<void>,
): Promise<void> {
  const database = await createTestDatabase();
  const db = createDatabase({ url: database.url, applicationName: 'test-ops', poolMax: 1 });
  try {
    await work(createStorageCheck(db.pool), (sql) => db.pool.query(sql));
  } finally {
    await db.close();
    await database.drop();
  }
}

test('a database that refuses to write is not ready', async () => {
  await withFreshDatabase(async (check, run) => {
    await run('set default_transaction_read_only = on');
    expect(await check()).toEqual(['the database is read-only']);
  });
});

test('a database without the newest migration, or without any, is not ready', async () => {
  await withFreshDatabase(async (check, run) => {
    await run('update drizzle.__drizzle_migrations set created_at = 1');
    expect(await check()).toEqual(['migrations are missing: run latchkey migrate']);
    await run('drop schema drizzle cascade');
    expect(await check()).toEqual(['migrations are missing: run latchkey migrate']);
  });
});

test('a missing partition of today is named, one of tomorrow takes no callback away; the upkeep makes both', async () => {
  await withFreshDatabase(async (check, run) => {
    const day = (ahead: number) =>
      new Date(Date.now() + ahead * 86_400_000).toISOString().slice(0, 10).replaceAll('-', '');
    await run(`drop table callbacks_${day(0)}; drop table reads_${day(1)}`);
    expect(await check()).toEqual(['the partition of callbacks for now is missing']);
    await createPartitions({ query: run });
    expect(await check()).toEqual([]);
  });
});
