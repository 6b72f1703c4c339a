import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import type { Reply } from '../../simulator/marketplace.ts';
import { type FaultProxy, startFaultProxy } from '../servers/fault-proxy.ts';
import { until } from '../servers/until.ts';
import { type Chance, withChance } from './chance.ts';
import { proveLedger, tell } from './prove.ts';
import { queueKinds } from './queue-kinds.ts';
import { type Rig, openRig } from './rig.ts';
import { nextOrder, purchase, renewalOf, startTrade } from './trade.ts';

const budgetMs = 2_000;
/** What the client, the front and a busy machine add to what the receiver measures. */
const marginMs = 700;

async function withProxy(
  kind: (typeof queueKinds)[number],
  body: (rig: Rig, proxy: FaultProxy, chance: Chance) => Promise<void>,
) {
  await withChance(async (chance) => {
    const rig = await openRig(kind, { env: { ACK_BUDGET_MS: String(budgetMs) } });
    const proxy = await startFaultProxy({ port: Number(new URL(rig.databaseUrl).port) });
    try {
      await body(rig, proxy, chance);
    } finally {
      // Else what the api still waits for would delay its end.
      await proxy.set({ kind: 'pass' });
      await proxy.close();
    }
  });
}

/** Calls of every kind, a few each moment, each of them sent once; `all` are everybody's. */
async function callFor(rig: Rig, known: readonly string[], durationMs: number) {
  const from = rig.replies.length;
  const endMs = performance.now() + durationMs;
  const calls: Promise<Reply>[] = [];
  while (performance.now() < endMs) {
    const side = rig.backend;
    const [instanceId = ''] = known.slice(calls.length % known.length);
    calls.push(
      side.market.newInstance(nextOrder()),
      side.market.queryInstance(instanceId),
      side.market.send(renewalOf(instanceId, nextOrder().orderId, 2031)),
      rig.tenants.market.newInstance(nextOrder()),
    );
    await sleep(60);
  }
  const own = await Promise.all(calls);
  return { own, all: rig.replies.slice(from) };
}

describe.each(queueKinds)('queues on %s', (kind) => {
  test('F17: with Postgres a black hole each call is answered 000005 inside the budget, and soon after it heals each is stored', () =>
    withProxy(kind, async (rig, proxy, chance) => {
      await Promise.all([
        rig.startApi({ DATABASE_URL: proxy.through(rig.databaseUrl) }),
        rig.startDispatcher(),
        rig.startWorkers(),
      ]);
      const known = await Promise.all(Array.from({ length: 5 }, () => purchase(rig.backend)));
      const trade = startTrade(rig, chance, { kind: 'renewals', everyMs: 150 });
      await trade.more(5);

      await proxy.set({ kind: 'black-hole' });
      // What was on its way may still have been answered well.
      await sleep(budgetMs);
      const { own, all: during } = await callFor(rig, known, 5_000);
      await proxy.set({ kind: 'pass' });
      const recoveredMs = await untilStored(rig);

      const slowestMs = Math.round(Math.max(...during.map((reply) => reply.durationMs)));
      const answers = new Set(during.map((reply) => `${reply.httpStatus} ${reply.resultCode}`));
      expect([...answers]).toEqual(['200 000005']);
      expect(slowestMs).toBeLessThan(budgetMs + marginMs);
      await trade.finish();
      // Calls of the dark time that were not sent again: the marketplace does so in the end.
      await sendAgain(rig, own);
      await proveLedger(rig, 'F17 Postgres a black hole', {
        answered: during.length,
        slowestMs,
        recoveredMs,
      });
    }));
});

test('F17: an api process that starts while Postgres is a black hole listens, answers 000005 inside the budget, and stores once it heals', () =>
  withProxy('postgres', async (rig, proxy) => {
    await proxy.set({ kind: 'black-hole' });
    await rig.startApi({ DATABASE_URL: proxy.through(rig.databaseUrl) });
    const { all: during } = await callFor(rig, ['no-such-instance'], 2_500);
    const answers = new Set(during.map((reply) => `${reply.httpStatus} ${reply.resultCode}`));
    expect([...answers]).toEqual(['200 000005']);
    const slowestMs = Math.round(Math.max(...during.map((reply) => reply.durationMs)));
    expect(slowestMs).toBeLessThan(budgetMs + marginMs);

    await proxy.set({ kind: 'pass' });
    const recoveredMs = await untilStored(rig);
    tell(rig, 'F17 black hole at the start', { answered: during.length, slowestMs, recoveredMs });
  }));

/** @returns how long it took until a call was stored again */
async function untilStored(rig: Rig): Promise<number> {
  const beganMs = performance.now();
  const order = nextOrder();
  await until(async () => (await rig.backend.market.newInstance(order)).resultCode, '000004', {
    everyMs: 100,
    timeoutMs: 5_000,
    what: 'the first call that is stored again',
  });
  return Math.round(performance.now() - beganMs);
}

/** Each call anew, signed afresh, until it is acknowledged. */
async function sendAgain(rig: Rig, replies: readonly Reply[]): Promise<void> {
  const unstored = replies.filter((reply) => reply.call.fields['activity'] !== 'queryInstance');
  for (const { call } of unstored) {
    const isTenant = rig.tenants.market.ledger
      .entries()
      .some((entry) => entry.orderId === call.fields['orderId']);
    const side = isTenant ? rig.tenants : rig.backend;
    await until(
      () => side.market.send(call.fields),
      ({ resultCode }) => /^00000[04]$/.test(resultCode),
    );
  }
}
