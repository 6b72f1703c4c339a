import { describe, expect, test } from 'vitest';
import { isAcknowledged } from '../../simulator/marketplace.ts';
import { withChance } from './chance.ts';
import { proveLedger } from './prove.ts';
import { queueKinds } from './queue-kinds.ts';
import { openRig } from './rig.ts';
import { insist, nextOrder, renewalOf, startTrade } from './trade.ts';

describe.each(queueKinds)('queues on %s', (kind) => {
  test('F1: an api process that is killed at random under load loses nothing that it acknowledged', () =>
    withChance(async (chance) => {
      const rig = await openRig(kind);
      const [first, second] = await Promise.all([
        rig.startApi(),
        rig.startApi(),
        rig.startDispatcher(),
        rig.startWorkers(),
      ]);
      const trade = startTrade(rig, chance);
      const running = [Promise.resolve(first), Promise.resolve(second)];
      let kills = 0;
      for (; kills < 5; kills += 1) {
        await trade.more(chance.between(1, 12));
        const [victim] = running.splice(chance.between(0, 1), 1);
        if (victim) await rig.crash(await victim);
        // The next kill may come before it is there, and leave none.
        running.push(rig.startApi());
      }
      await Promise.all(running);
      await trade.finish();
      await proveLedger(rig, 'F1 api killed at random', { kills });
    }));
});

test('F2: killed after the commit and before the reply, the re-send gets the id that was stored, and there is one row', async () => {
  const rig = await openRig('postgres');
  const { sql } = rig.system;
  const [doomed] = await Promise.all([
    rig.startApi({ LATCHKEY_FAILPOINTS: 'api.after-commit=kill:2' }),
    rig.startDispatcher(),
    rig.startWorkers(),
  ]);
  // The second batch holds what came during the first commit.
  const orders = Array.from({ length: 20 }, () => nextOrder());
  const buy = (at: number) => (at % 2 === 0 ? rig.tenants : rig.backend).market;
  const first = await Promise.all(orders.map((order, at) => buy(at).newInstance(order)));
  expect(await doomed.ended).toMatchObject({ signal: 'SIGKILL' });
  const unanswered = first.filter((reply) => reply.httpStatus === 0);
  expect(unanswered.length).toBeGreaterThan(0);
  const stored = await sql<{ orderId: string; publicId: string }[]>`
    select order_id as "orderId", public_id as "publicId" from instances`;
  const storedUnanswered = stored.filter(({ orderId }) =>
    unanswered.some((reply) => reply.call.fields['orderId'] === orderId),
  );
  expect(storedUnanswered.length).toBeGreaterThan(0);

  await rig.startApi();
  const again = await Promise.all(orders.map((order, at) => buy(at).newInstance(order)));
  expect(again.every(isAcknowledged)).toBe(true);
  for (const { orderId, publicId } of stored) {
    const told = again.find((reply) => reply.call.fields['orderId'] === orderId);
    expect(told?.instanceId).toBe(publicId);
  }
  await proveLedger(rig, 'F2 api killed between commit and reply', {
    kills: 1,
    committedUnanswered: storedUnanswered.length,
  });
});

test('F2: a renewal and a freeze whose replies died with the process count once when they are sent again', async () => {
  const rig = await openRig('postgres');
  const { sql } = rig.system;
  await Promise.all([rig.startApi(), rig.startDispatcher(), rig.startWorkers()]);
  const order = nextOrder();
  const { instanceId = '' } = await insist(rig.backend, { activity: 'newInstance', ...order });
  const facts = [
    renewalOf(instanceId, `${order.orderId}R`, 2031),
    { activity: 'updateInstanceStatus', instanceId, status: 'FREEZE' },
  ];
  for (const [at, fact] of facts.entries()) {
    const doomed = await rig.startApi({ LATCHKEY_FAILPOINTS: 'api.after-commit=kill' });
    // The front gives every second call to the doomed one.
    const replies = [await rig.backend.market.send(fact), await rig.backend.market.send(fact)];
    expect(await doomed.ended).toMatchObject({ signal: 'SIGKILL' });
    expect(replies.filter((reply) => reply.httpStatus === 0)).toHaveLength(1);
    expect(replies.filter(isAcknowledged)).toHaveLength(1);
    const events = await sql`select id from events where kind <> 'created'`;
    expect(events).toHaveLength(at + 1);
  }
  await proveLedger(rig, 'F2 events killed between commit and reply', { kills: 2 });
});
