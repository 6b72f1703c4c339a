import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { withChance } from './chance.ts';
import { proveLedger } from './prove.ts';
import { queueKinds } from './queue-kinds.ts';
import { openRig } from './rig.ts';
import { startTrade } from './trade.ts';

/** After Postgres answers again: refusals that last a moment, and connections made anew. */
const recoveryMs = 1_500;

describe.each(queueKinds)('queues on %s', (kind) => {
  test('F15: a Postgres that is restarted every few seconds costs 000005 while it is down, and loses nothing', () =>
    withChance(async (chance) => {
      const rig = await openRig(kind, { ownPostgres: true });
      await rig.startAll();
      const trade = startTrade(rig, chance);
      const downs: { from: number; to: number }[] = [];
      for (let round = 0; round < 4; round += 1) {
        await sleep(chance.between(1_500, 3_000));
        await trade.more(3);
        const from = Date.now();
        if (chance.percent(50)) rig.postgres?.kill();
        else await rig.postgres?.halt();
        await sleep(chance.between(0, 1_000));
        await rig.postgres?.start();
        downs.push({ from, to: Date.now() });
      }
      await trade.finish();
      await proveLedger(rig, 'F15 Postgres restarted', {
        restarts: downs.length,
        downMs: downs.reduce((sum, down) => sum + down.to - down.from, 0),
      });
      const refusedAt = [rig.tenants, rig.backend].flatMap((side) =>
        side.market.ledger.entries().flatMap((e) => (e.resultCode === '000005' ? [e.at] : [])),
      );
      const outside = refusedAt.filter(
        (at) => !downs.some(({ from, to }) => at >= from && at <= to + recoveryMs),
      );
      expect(outside).toEqual([]);
    }));

  test('F16: database sessions that are ended at random under load are made anew, and nothing is lost', () =>
    withChance(async (chance) => {
      const rig = await openRig(kind);
      await rig.startAll();
      const trade = startTrade(rig, chance);
      let ended = 0;
      for (let round = 0; round < 25; round += 1) {
        await sleep(chance.between(20, 250));
        // Those that work are the ones that hurt.
        const rows = await rig.system.sql`
          select pg_terminate_backend(pid) from (
            select pid from pg_stat_activity
            where datname in (current_database(), current_database() || '_tenants')
              and pid <> pg_backend_pid() and application_name like 'latchkey%'
            order by state = 'active' desc, random() limit 2) victims`;
        ended += rows.length;
      }
      await trade.finish();
      await proveLedger(rig, 'F16 sessions ended', { ended });
      expect(ended).toBeGreaterThan(20);
    }));
});
