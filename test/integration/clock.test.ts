import { afterAll, beforeAll, expect, test } from 'vitest';
import { createMarketplace } from '../../simulator/marketplace.ts';
import { type TestDatabase, createTestDatabase } from '../servers/database.ts';
import { queueStore } from '../servers/queue-store.ts';
import { type Process, type System, type TestProduct, createSystem } from '../servers/system.ts';
import { runCli } from './cli-run.ts';

let database: TestDatabase;
let system: System;
let api: Process;
let product: TestProduct;

beforeAll(async () => {
  database = await createTestDatabase();
  const { env } = queueStore(database.url);
  system = createSystem({ databaseUrl: database.url, tenantsUrl: database.tenantsUrl, env });
  product = await system.addProduct();
  api = await system.startApi();
});

afterAll(async () => {
  await system?.stop();
  await database?.drop();
});

/** Signs as a marketplace does whose clock is behind by so much. */
async function callBehind(behindMs: number, times: number): Promise<string[]> {
  const market = createMarketplace({
    callbackUrl: product.callbackUrl(api),
    accessKey: product.accessKey,
    clock: () => Date.now() - behindMs,
  });
  const codes: string[] = [];
  for (let i = 0; i < times; i++) codes.push((await market.queryInstance('unknown')).resultCode);
  market.close();
  return codes;
}

async function clockOfDoctor() {
  const { out } = await runCli(['doctor', '--json'], { env: system.env });
  const { checks } = JSON.parse(out) as {
    checks: { name: string; status: string; says: string; next: string | null }[];
  };
  return checks.find(({ name }) => name === 'marketplace clock');
}

async function clockOfMetrics(): Promise<Record<string, number>> {
  const text = await (await fetch(`http://127.0.0.1:${api.port}/metrics`)).text();
  const found = text.matchAll(/^latchkey_clock_skew_seconds\{of="(\w+)"\} (\S+)$/gm);
  return Object.fromEntries([...found].map(([, of = '', value]) => [of, Number(value)]));
}

test('a clock that drifts is seen before calls are refused: in metrics, and by doctor', async () => {
  expect(await clockOfMetrics()).toEqual({});
  expect(await clockOfDoctor()).toMatchObject({ status: 'ok' });

  expect(await callBehind(0, 2)).toEqual(['000003', '000003']);
  expect(await clockOfDoctor()).toMatchObject({ status: 'ok' });

  await callBehind(25_000, 5);
  const drifted = await clockOfMetrics();
  expect(drifted['median']).toBeGreaterThanOrEqual(25);
  expect(drifted['median']).toBeLessThan(30);
  expect(drifted['min']).toBeLessThan(5);
  expect(await clockOfDoctor()).toMatchObject({
    status: 'warn',
    says: expect.stringContaining('at 60 s they are refused') as string,
    next: expect.stringContaining('NTP') as string,
  });

  await callBehind(50_000, 12);
  expect(await clockOfDoctor()).toMatchObject({ status: 'fail' });
  // Calls that come from ahead of our time count the other way.
  await callBehind(-50_000, 60);
  expect((await clockOfMetrics())['median']).toBeLessThan(-45);
  expect(await clockOfDoctor()).toMatchObject({
    status: 'fail',
    says: expect.stringContaining('younger than now') as string,
  });
});

test('a call that was not verified, and a replay, say nothing about the clock', async () => {
  const before = await clockOfMetrics();
  const market = createMarketplace({
    callbackUrl: product.callbackUrl(api),
    accessKey: 'a-key-of-nobody',
    clock: () => Date.now() + 59_000,
  });
  const refused = await market.queryInstance('unknown');
  expect(refused.resultCode).toBe('000001');
  expect((await market.replay(refused.call)).resultCode).toBe('000001');
  market.close();
  expect(await clockOfMetrics()).toEqual(before);
});
