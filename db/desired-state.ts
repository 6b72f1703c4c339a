import { type DesiredState, fold } from '../core/fold.ts';
import { type StoredEvent, toInstanceEvent } from './claims.ts';
import type { Queryable } from './client.ts';

/** What an instance should be by now, applied or not; all that was accepted adds up to it. */
export async function readDesiredState(db: Queryable, instanceId: number): Promise<DesiredState> {
  const { rows } = await db.query<{ event: StoredEvent }>(
    `select json_build_object('id', e.id, 'kind', e.kind, 'orderId', e.order_id, 'orderLineId', e.order_line_id,
       'detail', e.detail, 'callbackId', e.callback_id, 'acceptedAt', e.accepted_at, 'resolvedAt', e.resolved_at,
       'appliedAt', e.applied_at, 'outcome', e.outcome) as event
     from events e where e.instance_id = $1 order by e.id`,
    [instanceId],
  );
  return fold(rows.map(({ event }) => toInstanceEvent(event))).desired;
}
