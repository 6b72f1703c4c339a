import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { isAcknowledged } from '../../simulator/marketplace.ts';
import type { CallbackFields } from '../../simulator/signing.ts';
import { until } from '../servers/until.ts';
import type { Chance } from './chance.ts';
import type { Rig, Side } from './rig.ts';

/** What may happen to an instance after it was bought, in this order. */
type Life = readonly ('renew' | 'freeze' | 'unfreeze' | 'release')[];

const lives: Record<'all' | 'renewals' | 'purchases', readonly [Life, ...Life[]]> = {
  all: [
    [],
    [],
    ['renew'],
    ['freeze'],
    ['freeze', 'unfreeze'],
    ['renew', 'freeze', 'renew'],
    ['freeze', 'unfreeze', 'freeze'],
    ['renew', 'release'],
    ['release'],
  ],
  renewals: [[], ['renew'], ['renew', 'renew']],
  purchases: [[]],
};

export type Trade = {
  /** Until so many further orders were begun. */
  more(orders: number): Promise<void>;
  /** Begins no more and waits until everything begun is acknowledged. @throws when something is not */
  finish(): Promise<number>;
};

/** What the marketplace waits before it sends again, and how long it goes on; both in ms. */
const patience = { retryEveryMs: 120, deadlineMs: 60_000 };

/**
 * Buyers come one after another, at both products in turn; each sends a call until it is
 * acknowledged before it sends the next, as the marketplace does, and now and then one too many.
 */
export function startTrade(
  rig: Rig,
  chance: Chance,
  options: { everyMs?: number; kind?: keyof typeof lives } = {},
): Trade {
  const { everyMs = 50, kind = 'all' } = options;
  const stopping = new AbortController();
  const begun: Promise<void>[] = [];

  async function run(): Promise<void> {
    while (!stopping.signal.aborted) {
      const side = begun.length % 2 === 0 ? rig.tenants : rig.backend;
      const life = live(side, nextOrder(), chance.pick(lives[kind]), chance);
      // Reported by `finish`, not as a rejection that nobody waits for.
      life.catch(() => undefined);
      begun.push(life);
      // On a slow machine a test takes longer, not more.
      const pauseMs = begun.length > 100 ? everyMs * 4 : everyMs;
      await sleep(pauseMs, undefined, { signal: stopping.signal }).catch(() => undefined);
    }
  }

  const running = run();
  return {
    async more(orders) {
      const goal = begun.length + orders;
      await until(() => begun.length >= goal, true, { everyMs: 5, timeoutMs: 60_000 });
    },
    async finish() {
      stopping.abort();
      await running;
      await Promise.all(begun);
      return begun.length;
    },
  };
}

let orders = 0;

/** An order that nobody has bought yet. */
export function nextOrder(): { orderId: string; orderLineId: string } {
  orders += 1;
  const orderId = `CS${process.pid}${String(orders).padStart(6, '0')}`;
  return { orderId, orderLineId: `${orderId}-000001` };
}

/** Sends until it is acknowledged. @throws when it is not in time */
export async function insist(side: Side, fields: CallbackFields) {
  const reply = await side.market.sendUntilAcknowledged(
    // Each purchase that is sent again has a businessId of its own.
    () => (fields['activity'] === 'newInstance' ? { businessId: randomUUID(), ...fields } : fields),
    patience,
  );
  if (!isAcknowledged(reply)) {
    const said = reply.failure ?? `${reply.httpStatus} ${reply.resultCode}`;
    throw new Error(`${String(fields['activity'])} was not acknowledged: ${said}`);
  }
  return reply;
}

/** Buys until it is acknowledged, and gives the instance's id. */
export async function purchase(side: Side, order = nextOrder()): Promise<string> {
  const { instanceId } = await insist(side, { activity: 'newInstance', ...order });
  if (instanceId === undefined) throw new Error('acknowledged without an id');
  return instanceId;
}

async function live(
  side: Side,
  order: { orderId: string; orderLineId: string },
  life: Life,
  chance: Chance,
): Promise<void> {
  const instanceId = await purchase(side, order);
  let renewals = 0;
  for (const step of life) {
    await sleep(chance.between(0, 200));
    if (chance.percent(25)) await side.market.newInstance(order);
    if (chance.percent(25)) await side.market.queryInstance(instanceId);
    switch (step) {
      case 'renew': {
        renewals += 1;
        const orderId = `${order.orderId}R${renewals}`;
        await insist(side, renewalOf(instanceId, orderId, 2030 + renewals));
        break;
      }
      case 'freeze':
      case 'unfreeze': {
        const status = step === 'freeze' ? 'FREEZE' : 'UNFREEZE';
        await insist(side, { activity: 'updateInstanceStatus', instanceId, status });
        break;
      }
      case 'release':
        await insist(side, { activity: 'releaseInstance', instanceId });
        break;
    }
  }
}

/** A renewal to the first of March of a year. */
export function renewalOf(instanceId: string, orderId: string, year: number): CallbackFields {
  return {
    activity: 'refreshInstance',
    scene: 'RENEWAL',
    orderId,
    orderLineId: `${orderId}-000001`,
    instanceId,
    expireTime: `${year}0301000000`,
  };
}
