// The steps of ordinary trade, with the re-sends and the strangers that belong to it.
import { randomUUID } from 'node:crypto';
import { isAcknowledged, type Reply, type Tamper } from '../marketplace.ts';
import type { CallbackFields } from '../signing.ts';
import { untilStored } from '../waiting.ts';
import {
  buyOne,
  describe,
  reportAll,
  row,
  sendTwice,
  waitForEquality,
  type BoughtOrder,
  type Step,
  type Story,
} from './context.ts';
import type { StoryRow } from './report.ts';

export async function testCalls(
  { tenants, backend, nextOrder, input, timing }: Story,
  step: Step,
): Promise<StoryRow[]> {
  for (const { name, market } of [tenants, backend]) {
    const order = nextOrder();
    const buy = () => market.newInstance({ ...order, testFlag: '1' });
    const bought = [await untilStored(buy, timing), await untilStored(buy, timing)];
    const [first, second] = bought.map((reply) => reply.instanceId);
    const read = await untilStored(() => market.queryInstance(first ?? '', '1'), timing);
    for (const reply of [...bought, read]) {
      step.count('sent');
      // The console's debugger takes nothing but 000000.
      if (reply.resultCode === '000000') step.count('answered');
      else step.problem(`${name}: a test call was answered ${describe(reply)}`);
    }
    if (first === undefined || first !== second) step.problem(`${name}: a test order has two ids`);
    if (!read.info?.[0]?.appInfo?.frontEndUrl)
      step.problem(`${name}: a test query gave no address`);
    if (first !== undefined && input.sellerBackend.instances.has(first)) {
      step.problem(`${name}: a test call reached the seller's backend`);
    }
  }
  return [row('Test calls', step, { applied: 0, proven: 'answered 000000, nothing made' })];
}

export async function purchases(story: Story, step: Step): Promise<StoryRow[]> {
  const count = story.input.purchasesPerProduct ?? 40;
  const rows = await Promise.all(
    [story.tenants, story.backend].map(async (side) => {
      const results = await Promise.all(
        Array.from({ length: count }, async () => {
          const order = story.nextOrder();
          // The copies race the purchase itself: which of them comes first must not matter.
          const copies = [side.market.newInstance(order), side.market.newInstance(order)];
          const ready = await buyOne(story, side, order, step);
          const answers = await Promise.all(copies);
          step.count('sent', copies.length);
          step.count('acknowledged', answers.filter(isAcknowledged).length);
          return { ready, sent: 3, acknowledged: 1 + answers.filter(isAcknowledged).length };
        }),
      );
      const sum = (pick: (one: (typeof results)[number]) => number): number =>
        results.reduce((total, one) => total + pick(one), 0);
      const applied = results.filter((one) => one.ready).length;
      return {
        what: `Purchases (${side.name})`,
        sent: sum((one) => one.sent),
        acknowledged: sum((one) => one.acknowledged),
        applied,
        proven: applied === count && `${count} orders, each ready and with one id`,
      };
    }),
  );
  for (const side of [story.tenants, story.backend]) reportAll(side.market.ledger.problems(), step);
  return rows;
}

export async function resends(story: Story, step: Step): Promise<StoryRow[]> {
  for (const side of [story.tenants, story.backend]) {
    await Promise.all(
      side.orders.map(async (order) => {
        const copies = Array.from({ length: 3 }, () =>
          untilStored(() => side.market.newInstance(order), story.timing),
        );
        for (const reply of await Promise.all(copies)) {
          step.count('sent');
          if (reply.resultCode === '000000' && reply.instanceId === order.instanceId) {
            step.count('acknowledged');
          } else step.problem(`a re-send of ${order.orderId} was answered ${describe(reply)}`);
        }
      }),
    );
  }
  return [row('Re-sends, new business ids', step, { applied: 0, proven: 'each the first id' })];
}

export async function forgeries(story: Story, step: Step): Promise<StoryRow[]> {
  const { timing } = story;
  const { market } = story.tenants;
  const replay = (call: Reply['call']) => untilStored(() => market.replay(call), timing);
  const order = story.nextOrder();
  const expect = (what: string, reply: Reply, resultCode: string): void => {
    step.count('sent');
    if (reply.httpStatus === 200 && reply.resultCode === resultCode) step.count('refused');
    else step.problem(`${what} was answered ${describe(reply)}, not ${resultCode}`);
  };
  const bought = await buyOne(story, story.tenants, order, step);
  const original = await untilStored(() => market.newInstance(order), timing);
  step.count('sent');
  if (isAcknowledged(original)) step.count('acknowledged');
  const replays = await Promise.all([replay(original.call), replay(original.call)]);
  for (const reply of replays) expect('a replayed purchase', reply, '000001');
  if (bought) {
    const query = await untilStored(() => market.queryInstance(bought.instanceId), timing);
    step.count('sent');
    if (isAcknowledged(query)) step.count('acknowledged');
    expect('a replayed query', await replay(query.call), '000001');
  }
  const forged: Record<Tamper, string> = {
    signature: '000001',
    body: '000001',
    timestamp: '000001',
    nonce: '000001',
    'other key': '000001',
    unsigned: '000002',
    stale: '000002',
  };
  for (const tamper of Object.keys(forged).filter((name): name is Tamper => name in forged)) {
    const fields = { activity: 'newInstance', businessId: randomUUID(), ...story.nextOrder() };
    expect(`a call with ${tamper} changed`, await market.send(fields, { tamper }), forged[tamper]);
  }
  return [
    row('Replays and forgeries', step, {
      applied: step.counters['ready'] ?? 0,
      proven: `${step.counters['refused'] ?? 0} refused`,
    }),
  ];
}

export async function lives(story: Story, step: Step): Promise<StoryRow[]> {
  const { timing } = story;
  const expireTimes = ['20990101120000', '20991231235959000', '20980630000000'];
  for (const side of [story.tenants, story.backend]) {
    const [frozen, thawed, renewed, moved, released] = splitInto(side.orders.slice(0, 15), 5);
    const say = (fields: CallbackFields): Promise<void> => sendTwice(side, fields, timing, step);
    const setStatus = (order: BoughtOrder, status: 'FREEZE' | 'UNFREEZE'): Promise<void> =>
      say({ activity: 'updateInstanceStatus', instanceId: order.instanceId, status });
    const renew = (order: BoughtOrder, scene: string, expireTime: string): Promise<void> =>
      say({
        activity: 'refreshInstance',
        scene,
        instanceId: order.instanceId,
        expireTime,
        ...story.nextOrder(),
      });
    await Promise.all([
      ...(frozen ?? []).map((order) => setStatus(order, 'FREEZE')),
      ...(thawed ?? []).map(async (order) => {
        await setStatus(order, 'FREEZE');
        await setStatus(order, 'UNFREEZE');
      }),
      ...(renewed ?? []).map((order, at) => renew(order, 'RENEWAL', expireTimes[at % 3] ?? '')),
      ...(moved ?? []).map(async (order) => {
        await renew(order, 'RENEWAL', '20991231235959');
        // The refund of a renewal moves the end back: the last word counts, not the latest date.
        await renew(order, 'UNSUBSCRIBE_RENEWAL_PERIOD', '20970101000000');
        await setStatus(order, 'FREEZE');
      }),
      ...(released ?? []).map(async (order) => {
        await setStatus(order, 'FREEZE');
        await say({ activity: 'releaseInstance', instanceId: order.instanceId });
      }),
    ]);
  }
  const different = await waitForEquality(story);
  reportAll(different, step);
  return [
    row('Freezes, renewals, releases', step, {
      applied: step.counters['events'] ?? 0,
      proven: different.length === 0 && 'each once, the last word counts',
    }),
  ];
}

function splitInto<T>(items: readonly T[], groups: number): T[][] {
  return Array.from({ length: groups }, (_, group) =>
    items.filter((_item, at) => at % groups === group),
  );
}
