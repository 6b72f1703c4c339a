import { describe, expect, test } from 'vitest';
import { withChance } from './chance.ts';
import { proveLedger } from './prove.ts';
import { queueKinds } from './queue-kinds.ts';
import { type Rig, openRig } from './rig.ts';
import { purchase, startTrade } from './trade.ts';

// Leases that no busy machine outruns: what is counted here are jobs, not second claims.
const env = { TIMING_LEASE_MS: '20000', TIMING_LEASE_RENEW_MS: '1000', TIMING_LOCK_MS: '20000' };

describe.each(queueKinds)('queues on %s', (kind) => {
  test.each(['dispatcher.after-mark', 'dispatcher.after-add'])(
    'F3, F4: what a dispatcher had marked when it died at %s is handed over, and applied once',
    async (point) => {
      const rig = await openRig(kind, { env });
      const [, doomed] = await Promise.all([
        rig.startApi(),
        rig.startDispatcher({ LATCHKEY_FAILPOINTS: `${point}=kill` }),
      ]);
      await Promise.all(
        Array.from({ length: 24 }, (_, at) => purchase(at % 2 === 0 ? rig.tenants : rig.backend)),
      );
      expect(await doomed.ended).toMatchObject({ signal: 'SIGKILL' });
      const marked = await countMarked(rig);
      expect(marked).toBeGreaterThan(0);

      await Promise.all([rig.startDispatcher(), rig.startDispatcher(), rig.startWorkers()]);
      await proveLedger(rig, `F3/F4 killed at ${point}`, { kills: 1, marked });
      expect(await countAppliesBegun(rig)).toEqual({ begun: 24, instances: 24 });
    },
  );

  test('F4: two dispatchers that race hand each instance over once, also while one is killed again and again', () =>
    withChance(async (chance) => {
      const rig = await openRig(kind, { env });
      const [, , second] = await Promise.all([
        rig.startApi(),
        rig.startDispatcher(),
        rig.startDispatcher(),
        rig.startWorkers(),
      ]);
      let raced = second;
      const trade = startTrade(rig, chance, { kind: 'purchases' });
      let kills = 0;
      for (; kills < 3; kills += 1) {
        await trade.more(chance.between(1, 8));
        await rig.crash(raced);
        raced = await rig.startDispatcher();
      }
      const orders = await trade.finish();
      await proveLedger(rig, 'F4 two dispatchers race', { kills });
      expect(await countAppliesBegun(rig)).toEqual({ begun: orders, instances: orders });
    }));
});

async function countMarked(rig: Rig): Promise<number> {
  const rows = await rig.system.sql`select from dispatches where dispatched_at is not null`;
  return rows.length;
}

async function countAppliesBegun(rig: Rig) {
  const [row] = await rig.system.sql`
    select count(*)::int as begun, count(distinct instance_id)::int as instances from attempts`;
  return row;
}
