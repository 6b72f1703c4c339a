import { createHash, randomBytes } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import {
  type Marketplace,
  createMarketplace,
  isAcknowledged,
} from '../../simulator/marketplace.ts';
import { type CallbackFields, canonicalBody, signRequest } from '../../simulator/signing.ts';
import { proveLedger } from './prove.ts';
import { queueKinds } from './queue-kinds.ts';
import { type Side, openRig } from './rig.ts';
import { nextOrder, purchase, renewalOf } from './trade.ts';

describe.each(queueKinds)('queues on %s', (kind) => {
  test('F22: one order sent two hundred times at once through two api processes is one instance, one tenant, one id', async () => {
    const rig = await openRig(kind);
    await Promise.all([
      rig.startApi(),
      rig.startApi(),
      rig.startDispatcher(),
      rig.startWorkers(),
      rig.startWorkers(),
    ]);
    for (const side of [rig.tenants, rig.backend]) {
      const order = nextOrder();
      // The front deals them out to both processes in turn.
      const replies = await Promise.all(
        Array.from({ length: 200 }, () => side.market.newInstance(order)),
      );
      expect(replies.filter(isAcknowledged)).toHaveLength(200);
      expect(new Set(replies.map((reply) => reply.instanceId)).size).toBe(1);
    }
    await proveLedger(rig, 'F22 200 re-sends at once', { sends: 400 });
    const rows = await rig.system.sql`select from instances`;
    expect(rows).toHaveLength(2);
    expect([...rig.sellerBackend.instances.values()]).toMatchObject([{ created: 1 }]);
  });
});

test('the same signed bytes at two processes at once are accepted once and refused once with 000001', async () => {
  const rig = await openRig('postgres');
  const [left, right] = await Promise.all([
    rig.startApi(),
    rig.startApi(),
    rig.startDispatcher(),
    rig.startWorkers(),
  ]);
  const instances = await Promise.all(Array.from({ length: 40 }, () => purchase(rig.backend)));
  const calls = instances.flatMap((instanceId): CallbackFields[] => [
    { activity: 'newInstance', businessId: hex(), ...nextOrder() },
    { activity: 'queryInstance', instanceId },
    renewalOf(instanceId, nextOrder().orderId, 2031),
  ]);
  const [first, second] = [straightTo(rig.backend, left.port), straightTo(rig.backend, right.port)];
  const results: string[][] = [];
  // A few at a time: of many at once the process that is first wins all.
  for (let from = 0; from < calls.length; from += 6) {
    const wave = calls.slice(from, from + 6).map(async (fields, at) => {
      const call = sign(rig.backend.product.accessKey, fields);
      const [early, late] = (from + at) % 4 < 2 ? [first, second] : [second, first];
      const [one, other] = await Promise.all([early.replay(call), late.replay(call)]);
      return ((from + at) % 4 < 2 ? [one, other] : [other, one]).map((reply) =>
        isAcknowledged(reply) ? 'accepted' : reply.resultCode,
      );
    });
    results.push(...(await Promise.all(wave)));
  }
  first.close();
  second.close();
  const good = ['000001,accepted', 'accepted,000001'];
  const odd = results.filter((pair) => !good.includes(pair.join()));
  expect(odd).toEqual([]);
  const wonByLeft = results.filter(([one]) => one === 'accepted').length;
  const rows = await rig.system.sql`select from instances`;
  expect(rows).toHaveLength(80);
  const events = await rig.system.sql`select from events where kind = 'renewed'`;
  expect(events).toHaveLength(40);
  process.stderr.write(
    `[faults] same bytes at two processes: pairs ${results.length}, accepted by the first ${wonByLeft}\n`,
  );
});

/** The same product at one process, past the front. */
function straightTo(side: Side, port: number): Marketplace {
  return createMarketplace({
    callbackUrl: `http://127.0.0.1:${port}/callbacks/${side.product.key}`,
    accessKey: side.product.accessKey,
  });
}

function sign(accessKey: string, fields: CallbackFields) {
  const body = canonicalBody(fields);
  const [nonce, timestamp] = [hex(), String(Date.now())];
  const signature = signRequest({ accessKey, nonce, timestamp, body });
  return { body, fields, query: new URLSearchParams({ signature, timestamp, nonce }).toString() };
}

const hex = (): string => createHash('sha256').update(randomBytes(16)).digest('hex').toUpperCase();
