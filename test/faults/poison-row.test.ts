import { expect, test } from 'vitest';
import { isAcknowledged } from '../../simulator/marketplace.ts';
import { until } from '../servers/until.ts';
import { proveLedger } from './prove.ts';
import { type Rig, openRig } from './rig.ts';
import { insist, nextOrder, purchase, renewalOf } from './trade.ts';

test('F21: purchases that cannot be stored are refused alone: their neighbours in the batch are acknowledged', async () => {
  const rig = await openRig('postgres');
  const { sql } = rig.system;
  await rig.startAll();
  await sql`alter table instances add constraint no_poison check (order_id not like 'POISON%')`;
  const orders = Array.from({ length: 40 }, (_, at) =>
    at % 17 === 5 ? { orderId: `POISON${at}`, orderLineId: `POISON${at}-000001` } : nextOrder(),
  );
  const replies = await togetherBehind(rig, 'instances', () =>
    orders.map((order) => rig.backend.market.newInstance(order)),
  );
  const poisoned = replies.filter((reply) =>
    String(reply.call.fields['orderId']).startsWith('POISON'),
  );
  const neighbours = replies.filter((reply) => !poisoned.includes(reply));
  expect(poisoned.map((reply) => reply.resultCode)).toEqual(['000005', '000005', '000005']);
  expect(neighbours.every(isAcknowledged)).toBe(true);
  // They did go together: far fewer commits than calls.
  const [batches] = await sql`
    select count(distinct received_at)::int as count from callbacks where activity = 'newInstance'`;
  expect(batches?.['count']).toBeLessThan(neighbours.length / 2);

  await sql`alter table instances drop constraint no_poison`;
  for (const { call } of poisoned) await insist(rig.backend, call.fields);
  await proveLedger(rig, 'F21 poison among purchases', {
    poisoned: poisoned.length,
    commits: Number(batches?.['count']),
  });
});

test('F21: events that cannot be stored are refused alone: their neighbours in the batch are acknowledged', async () => {
  const rig = await openRig('postgres');
  const { sql } = rig.system;
  await rig.startAll();
  const instances = await Promise.all(Array.from({ length: 30 }, () => purchase(rig.backend)));
  await sql`alter table events add constraint no_poison check (order_id not like 'POISON%')`;
  const replies = await togetherBehind(rig, 'events', () =>
    instances.map((instanceId, at) => {
      const orderId = at % 13 === 4 ? `POISON${at}` : nextOrder().orderId;
      return rig.backend.market.send(renewalOf(instanceId, orderId, 2032));
    }),
  );
  const poisoned = replies.filter((reply) =>
    String(reply.call.fields['orderId']).startsWith('POISON'),
  );
  expect(poisoned.map((reply) => reply.resultCode)).toEqual(['000005', '000005']);
  expect(replies.filter((reply) => !poisoned.includes(reply)).every(isAcknowledged)).toBe(true);

  await sql`alter table events drop constraint no_poison`;
  for (const { call } of poisoned) await insist(rig.backend, call.fields);
  await proveLedger(rig, 'F21 poison among events', { poisoned: poisoned.length });
});

/** Calls that all arrive while a first one waits for a table, so that they make one batch. */
async function togetherBehind<T>(
  rig: Rig,
  table: 'instances' | 'events',
  call: () => Promise<T>[],
): Promise<T[]> {
  const { sql } = rig.system;
  return sql
    .begin(async (tx) => {
      await tx`lock table ${tx(table)} in exclusive mode`;
      const blocked =
        table === 'instances' ? rig.backend.market.newInstance(nextOrder()) : undefined;
      const calls = call();
      await until(
        async () =>
          (
            await sql`select from pg_stat_activity where datname = current_database()
          and wait_event_type = 'Lock' and application_name like 'latchkey api%'`
          ).length,
        1,
      );
      // All have been read by the time one more that needs no table is answered.
      await rig.tenants.market.queryInstance('none');
      return async () => {
        await blocked;
        return Promise.all(calls);
      };
    })
    .then((answers) => answers());
}
