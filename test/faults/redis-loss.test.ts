import { Redis } from 'ioredis';
import { describe, expect, test } from 'vitest';
import { until } from '../servers/until.ts';
import { withChance } from './chance.ts';
import { proveLedger } from './prove.ts';
import { queueKinds } from './queue-kinds.ts';
import { type Rig, openRig } from './rig.ts';
import { purchase, startTrade } from './trade.ts';

const kind = 'redis';

// Says so in a loud line where it skips.
describe.skipIf(!queueKinds.includes(kind))('queues on redis', () => {
  test('F10: a Redis that is killed under load and comes back with its data delays work and loses none', () =>
    withChance(async (chance) => {
      const rig = await openRig(kind, { durableRedis: true });
      await rig.startAll();
      const trade = startTrade(rig, chance);
      let kills = 0;
      for (; kills < 4; kills += 1) {
        await trade.more(chance.between(3, 12));
        await rig.redis?.kill();
        // The receiver does not know Redis.
        await Promise.all([purchase(rig.tenants), purchase(rig.backend)]);
        await trade.more(chance.between(0, 10));
        await rig.redis?.start();
      }
      await trade.finish();
      await proveLedger(rig, 'F10 Redis killed, data kept', { kills });
    }));

  test('F11: a Redis that forgets everything under load, by FLUSHALL and by an empty restart, loses nothing', () =>
    withChance(async (chance) => {
      const rig = await openRig(kind);
      await rig.startAll();
      const trade = startTrade(rig, chance);
      let flushes = 0;
      for (; flushes < 4; flushes += 1) {
        await trade.more(chance.between(2, 10));
        await rig.redis?.flushAll();
        await trade.more(chance.between(0, 3));
        // Once more, when the sweep has just mended it.
        await rig.redis?.flushAll();
      }
      await rig.redis?.kill();
      await rig.redis?.start();
      await trade.finish();
      await proveLedger(rig, 'F11 Redis flushed', { flushes: flushes * 2, emptyRestarts: 1 });
    }));

  test('F11: a backlog that was handed over and then flushed is handed over again, with no worker to notice', async () => {
    const rig = await openRig(kind);
    await Promise.all([rig.startApi(), rig.startDispatcher()]);
    await Promise.all(
      Array.from({ length: 30 }, (_, at) => purchase(at % 2 === 0 ? rig.tenants : rig.backend)),
    );
    await until(() => countHanded(rig), 30);
    await rig.redis?.flushAll();
    await rig.startWorkers();
    await proveLedger(rig, 'F11 backlog flushed', { handed: 30 });
  });

  test.each([
    ['is out of memory', 'maxmemory'],
    ['is read-only, as after a failover', 'replicaof'],
  ])(
    'F5: while Redis %s nothing is acknowledged less, and later everything is handed over',
    async (_, how) => {
      const rig = await openRig(kind);
      const [, dispatcher] = await Promise.all([rig.startApi(), rig.startDispatcher()]);
      const redis = new Redis(rig.redis?.url ?? '', { lazyConnect: true });
      redis.on('error', () => undefined);
      await redis.connect();
      const buy = (orders: number) =>
        Promise.all(
          Array.from({ length: orders }, (__, at) =>
            purchase(at % 2 === 0 ? rig.tenants : rig.backend),
          ),
        );
      try {
        // One large page, for which there is no room, though there is for a few jobs.
        dispatcher.kill('SIGSTOP');
        await buy(60);
        if (how === 'maxmemory') {
          const used = Number(/used_memory:(\d+)/.exec(await redis.info('memory'))?.[1]);
          await redis.config('SET', 'maxmemory', String(used + 130_000));
        } else {
          await redis.replicaof('127.0.0.1', 1);
        }
        dispatcher.kill('SIGCONT');
        await until(
          () => dispatcher.lines.some((line) => line.includes('dispatcher.failed')),
          true,
          { timeoutMs: 20_000, what: 'a failed hand-over' },
        );
        const added = (await redis.keys('faults:provisioning:look-*')).length;
        await buy(6);

        if (how === 'maxmemory') await redis.config('SET', 'maxmemory', '0');
        else await redis.call('REPLICAOF', 'NO', 'ONE');
        await rig.startWorkers();
        await proveLedger(rig, `F5 Redis ${how}`, { page: 60, added });
      } finally {
        redis.disconnect();
      }
    },
  );

  test('F13: without Redis at their start all processes start, calls are acknowledged, and the backlog drains when it comes', async () => {
    const rig = await openRig(kind);
    await rig.redis?.kill();
    await rig.startAll();
    await Promise.all(
      Array.from({ length: 30 }, (_, at) => purchase(at % 2 === 0 ? rig.tenants : rig.backend)),
    );
    expect(await countApplied(rig)).toBe(0);
    await rig.redis?.start();
    await proveLedger(rig, 'F13 Redis absent at start', {});
  });
});

async function countHanded(rig: Rig): Promise<number> {
  const rows = await rig.system.sql`select from dispatches where state = 'handed'`;
  return rows.length;
}

async function countApplied(rig: Rig): Promise<number> {
  const rows = await rig.system.sql`select from instances where applied > 0`;
  return rows.length;
}
