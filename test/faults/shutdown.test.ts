import { describe, expect, test } from 'vitest';
import { isAcknowledged } from '../../simulator/marketplace.ts';
import { type Process } from '../servers/system.ts';
import { until } from '../servers/until.ts';
import { proveLedger } from './prove.ts';
import { queueKinds } from './queue-kinds.ts';
import { type Rig, openRig } from './rig.ts';
import { nextOrder, purchase } from './trade.ts';

test('F26: on SIGTERM an api process answers every call that it has read, stores what it acknowledges, and ends with 0', async () => {
  const rig = await openRig('postgres');
  const { sql } = rig.system;
  const api = await rig.startApi();
  await purchase(rig.backend);
  // Held up at the database, so that they are under way when the signal comes.
  const replies = await sql.begin(async (tx) => {
    await tx`lock table instances in exclusive mode`;
    const calls = Array.from({ length: 60 }, () => rig.backend.market.newInstance(nextOrder()));
    await until(() => countBlocked(rig), 1);
    await rig.tenants.market.queryInstance('none');
    for (let times = 0; times < 3; times += 1) api.kill('SIGTERM');
    await until(() => api.lines.some((line) => line.includes('process.closing')), true);
    return () => Promise.all(calls);
  });
  const answered = await replies();
  const beganMs = performance.now();
  expect(await api.ended).toEqual({ code: 0, signal: null });
  expect(performance.now() - beganMs).toBeLessThan(5_000);
  expect(answered.map((reply) => reply.failure ?? reply.resultCode)).toEqual(
    answered.map(() => '000004'),
  );
  const rows = await sql`select from instances`;
  expect(rows).toHaveLength(61);

  await rig.startAll();
  await proveLedger(rig, 'F26 api SIGTERM', { inFlight: answered.filter(isAcknowledged).length });
});

describe.each(queueKinds)('queues on %s', (kind) => {
  test('F26: on SIGTERM a worker finishes what it runs, takes no more, and ends with 0; the rest waits for others', async () => {
    const rig = await openRig(kind);
    rig.sellerBackend.setMode({ kind: 'late', delayMs: 700 });
    const [, dispatcher, workers] = await Promise.all([
      rig.startApi(),
      rig.startDispatcher(),
      rig.startWorkers({}, ['--concurrency', '2']),
    ]);
    await Promise.all(Array.from({ length: 8 }, () => purchase(rig.backend)));
    await until(
      () => rig.sellerBackend.requests.length,
      (count) => count >= 1,
    );
    const beganMs = performance.now();
    for (let times = 0; times < 5; times += 1) workers.kill('SIGTERM');
    expect(await workers.ended).toEqual({ code: 0, signal: null });
    const tookMs = Math.round(performance.now() - beganMs);
    expect(tookMs).toBeLessThan(8_000);
    const attempts = await rig.system.sql`
      select count(*)::int as begun, count(*) filter (where class = 'applied')::int as applied from attempts`;
    const [row] = attempts;
    // Whatever was begun was recorded, and not all was begun.
    expect(row?.['applied']).toBe(row?.['begun']);
    expect(row?.['begun']).toBeLessThan(8);
    const leases = await rig.system.sql`select from dispatches where lease_until is not null`;
    expect(leases).toHaveLength(0);

    await endWithZero(dispatcher);
    rig.sellerBackend.setMode({ kind: 'ok' });
    await Promise.all([rig.startDispatcher(), rig.startWorkers()]);
    await proveLedger(rig, 'F26 workers SIGTERM', { finished: Number(row?.['begun']), tookMs });
  });

  test('F26: a worker whose job outlasts the deadline ends in time with 1, and another makes the job real', async () => {
    const rig = await openRig(kind);
    rig.sellerBackend.setMode({ kind: 'hang', times: 1 });
    const [, , workers] = await Promise.all([
      rig.startApi(),
      rig.startDispatcher(),
      rig.startWorkers({ TIMING_SHUTDOWN_MS: '500' }),
    ]);
    await purchase(rig.backend);
    await until(() => rig.sellerBackend.requests.length, 1);
    const beganMs = performance.now();
    workers.kill('SIGTERM');
    expect(await workers.ended).toEqual({ code: 1, signal: null });
    const tookMs = Math.round(performance.now() - beganMs);
    expect(tookMs).toBeLessThan(3_000);
    await rig.startWorkers();
    await proveLedger(rig, 'F26 SIGTERM past the deadline', { tookMs });
  });
});

async function endWithZero(process: Process): Promise<void> {
  process.kill('SIGTERM');
  expect(await process.ended).toEqual({ code: 0, signal: null });
}

async function countBlocked(rig: Rig): Promise<number> {
  const rows = await rig.system.sql`
    select from pg_stat_activity where datname = current_database()
      and wait_event_type = 'Lock' and application_name like 'latchkey api%'`;
  return rows.length;
}
