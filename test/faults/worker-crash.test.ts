import { describe, expect, test } from 'vitest';
import { readFile } from 'node:fs/promises';
import postgres from 'postgres';
import { createDatabase } from '../../db/client.ts';
import { redrive } from '../../operations/redrive.ts';
import { until } from '../servers/until.ts';
import { withChance } from './chance.ts';
import { canLogIn, proveLedger } from './prove.ts';
import { queueKinds } from './queue-kinds.ts';
import { type Rig, openRig } from './rig.ts';
import { insist, nextOrder, purchase, startTrade } from './trade.ts';

describe.each(queueKinds)('queues on %s', (kind) => {
  test('F6: workers that are killed before the effect, after it, and at random leave nothing undone and nothing done twice', () =>
    withChance(async (chance) => {
      const rig = await openRig(kind);
      const [, , before, after, plain] = await Promise.all([
        rig.startApi(),
        rig.startDispatcher(),
        rig.startWorkers({ LATCHKEY_FAILPOINTS: 'worker.before-effect=kill:4' }),
        rig.startWorkers({ LATCHKEY_FAILPOINTS: 'worker.after-effect=kill:4' }),
        rig.startWorkers(),
      ]);
      const trade = startTrade(rig, chance);
      expect(await before.ended).toMatchObject({ signal: 'SIGKILL' });
      expect(await after.ended).toMatchObject({ signal: 'SIGKILL' });
      const running = [plain, await rig.startWorkers()];
      let kills = 2;
      for (; kills < 6; kills += 1) {
        // Something was applied since the last kill, so that no instance is hit five times.
        const goal = (await countApplied(rig)) + chance.between(1, 6);
        await until(
          () => countApplied(rig),
          (count) => count >= goal,
          { timeoutMs: 30_000 },
        );
        const [victim] = running.splice(chance.between(0, 1), 1);
        if (victim) await rig.crash(victim);
        running.push(await rig.startWorkers());
      }
      await trade.finish();
      await proveLedger(rig, 'F6 workers killed', { kills });
    }));

  test('F7: an instance on which five workers died is a dead letter with its cause, and a redrive heals it', async () => {
    const rig = await openRig(kind);
    await Promise.all([
      rig.startApi(),
      rig.startDispatcher(),
      ...Array.from({ length: 5 }, () =>
        rig.startWorkers({ LATCHKEY_FAILPOINTS: 'worker.before-effect=kill' }),
      ),
    ]);
    const order = nextOrder();
    const instanceId = await purchase(rig.backend, order);
    await until(
      () => rig.system.sql`select state, claims, cause from dispatches`.then((rows) => [...rows]),
      [{ state: 'dead', claims: 5, cause: 'the worker died 5 times on this' }],
      { timeoutMs: 60_000 },
    );
    const said = await until(
      () => rig.system.lines().filter((line) => line.includes('dispatch.died_with_workers')),
      (lines) => lines.length > 0,
      { what: 'a line in the log' },
    );
    expect(said).toHaveLength(1);
    expect(said[0]).toContain('"level":"error"');
    // The marketplace is told the same as before: it is being worked on.
    const again = await rig.backend.market.newInstance(order);
    expect(again).toMatchObject({ resultCode: '000004', instanceId });

    await rig.startWorkers();
    const db = createDatabase({ url: rig.databaseUrl, applicationName: 'test', poolMax: 1 });
    const redriven = await redrive(
      { db, actor: 'test' },
      { scope: { all: true }, reason: 'the workers are mended' },
    );
    await db.close();
    expect(redriven).toMatchObject({
      kind: 'redriven',
      instances: [{ instanceId, cause: 'the worker died 5 times on this' }],
    });
    await proveLedger(rig, 'F7 five workers died on one instance', { kills: 5 });
  });

  test.each(['worker.before-effect', 'worker.after-effect'])(
    'F8: a worker that stands still at %s and wakes after others applied a freeze changes nothing, and its record is refused',
    async (point) => {
      const rig = await openRig(kind);
      const stop = { LATCHKEY_FAILPOINTS: `${point}=stop` };
      const [, , first] = await Promise.all([
        rig.startApi(),
        rig.startDispatcher(),
        rig.startWorkers(stop),
      ]);
      const tenant = await purchase(rig.tenants);
      await untilStopped(first.pid);
      const second = await rig.startWorkers(stop);
      const instance = await purchase(rig.backend);
      await untilStopped(second.pid);

      await rig.startWorkers();
      for (const [side, instanceId] of [
        [rig.tenants, tenant],
        [rig.backend, instance],
      ] as const) {
        await insist(side, { activity: 'updateInstanceStatus', instanceId, status: 'FREEZE' });
      }
      await until(
        () => rig.system.sql`select state, applied from instances`.then((rows) => [...rows]),
        [
          { state: 'frozen', applied: 2 },
          { state: 'frozen', applied: 2 },
        ],
        { timeoutMs: 30_000 },
      );
      for (const sleeper of [first, second]) {
        sleeper.kill('SIGCONT');
        await until(
          () => sleeper.lines.filter((line) => line.includes('apply.attempted')).length,
          1,
          { timeoutMs: 20_000 },
        );
        const line = sleeper.lines.find((text) => text.includes('apply.attempted')) ?? '';
        expect(JSON.parse(line)).toMatchObject({ generation: 1, result: 'lost' });
      }
      await proveLedger(rig, `F8 woken after its lease at ${point}`, { stalls: 2 });
    },
  );

  test('F9: after an effect whose record died with the worker, the next worker gives the same tenant with the same access data', async () => {
    const rig = await openRig(kind);
    const [, , doomed] = await Promise.all([
      rig.startApi(),
      rig.startDispatcher(),
      rig.startWorkers({ LATCHKEY_FAILPOINTS: 'worker.after-effect=kill' }, ['--concurrency', '1']),
    ]);
    const tenant = await purchase(rig.tenants);
    expect(await doomed.ended).toMatchObject({ signal: 'SIGKILL' });
    const made = await readTenants(rig);
    expect(made).toHaveLength(1);
    const second = await rig.startWorkers({ LATCHKEY_FAILPOINTS: 'worker.after-effect=kill:2' });
    const instance = await purchase(rig.backend);
    expect(await second.ended).toMatchObject({ signal: 'SIGKILL' });
    const { appInfo } = rig.sellerBackend.instances.get(instance) ?? {};
    expect(appInfo).toBeDefined();

    await rig.startWorkers();
    await proveLedger(rig, 'F9 effect done, record lost', { kills: 2 });
    expect(await readTenants(rig)).toEqual(made);
    const told = await rig.tenants.market.queryInstance(tenant);
    const { userName, password } = told.info?.[0]?.appInfo ?? {};
    expect(userName).toBe(made[0]?.['role']);
    expect(await canLogIn(rig.tenantsUrl, userName, password)).toBe(true);
    const other = await rig.backend.market.queryInstance(instance);
    expect(other.info?.[0]?.appInfo).toEqual(appInfo);
    expect(rig.sellerBackend.instances.get(instance)).toMatchObject({ created: 1 });
  });
});

async function countApplied(rig: Rig): Promise<number> {
  const rows = await rig.system.sql`select from events where applied_at is not null`;
  return rows.length;
}

async function readTenants(rig: Rig) {
  const sql = postgres(rig.tenantsUrl, { max: 1 });
  try {
    return [...(await sql`select instance_id, generation, role, secret from latchkey.tenants`)];
  } finally {
    await sql.end();
  }
}

/** Until the process stands still, as the kernel sees it. */
async function untilStopped(pid: number): Promise<void> {
  await until(
    async () =>
      / (\w) /.exec((await readFile(`/proc/${pid}/stat`, 'utf8')).replace(/^.*\)/, ')'))?.[1],
    'T',
    { timeoutMs: 20_000, what: 'a stopped process' },
  );
}
