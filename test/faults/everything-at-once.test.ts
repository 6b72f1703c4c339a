import { describe, test } from 'vitest';
import { withChance } from './chance.ts';
import { proveLedger } from './prove.ts';
import { queueKinds } from './queue-kinds.ts';
import { openRig } from './rig.ts';
import { startTrade } from './trade.ts';

describe.each(queueKinds)('queues on %s', (kind) => {
  test('api, dispatcher, workers, Postgres and Redis are killed at the same moment, twice, and nothing acknowledged is lost or done twice', () =>
    withChance(async (chance) => {
      const rig = await openRig(kind, { ownPostgres: true });
      let running = await rig.startAll();
      const trade = startTrade(rig, chance);
      let rounds = 0;
      for (; rounds < 2; rounds += 1) {
        await trade.more(chance.between(10, 25));
        rig.postgres?.kill();
        await Promise.all([
          ...Object.values(running).map((process) => rig.crash(process)),
          rig.redis?.kill(),
        ]);
        await Promise.all([rig.postgres?.start(), rig.redis?.start()]);
        running = await rig.startAll();
      }
      await trade.more(5);
      await trade.finish();
      await proveLedger(rig, 'everything killed at once', { rounds });
    }));
});
