import { expect, inject, test } from 'vitest';
import { startChild } from '../servers/child.ts';

const module = new URL('../fixtures/transactions-under-kills.ts', import.meta.url);

type Outcome = { done: number; failed: number; uncaught: string };

async function transactUnderKills(driver: 'pg' | 'postgres', seconds: number): Promise<Outcome> {
  const child = startChild(module, [driver, inject('postgresUrl'), String(seconds)]);
  await child.ended;
  const line = child.lines.find((text) => text.startsWith('{"driver"'));
  if (line === undefined) throw new Error(child.lines.join('\n'));
  return JSON.parse(line) as Outcome;
}

test('our transactions on pg end cleanly when their backends are ended', async () => {
  const { done, failed, uncaught } = await transactUnderKills('pg', 4);
  expect(uncaught).toBe('');
  expect(done).toBeGreaterThan(0);
  expect(failed).toBeGreaterThan(0);
});

test('postgres.js still throws past its caller when a backend ends inside begin', async () => {
  const { uncaught } = await transactUnderKills('postgres', 20);
  expect(
    uncaught,
    'postgres.js came through clean: docs/decisions/0001-two-postgres-drivers.md may be taken back',
  ).not.toBe('');
});
