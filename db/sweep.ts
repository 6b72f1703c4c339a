import { claimsMax } from '../core/failure.ts';
import type { QueueName } from '../core/instance.ts';
import type { Queryable } from './client.ts';

/** What the queue should know of; the sweep asks it. */
export type OldHandOver = { instanceId: number; dispatch: number; queue: QueueName };

/** Hand-overs that no worker has claimed for a while, the oldest first. */
export async function readOldHandOvers(
  db: Queryable,
  queue: QueueName,
  olderThanMs: number,
): Promise<OldHandOver[]> {
  const result = await db.query<OldHandOver>(
    `select instance_id as "instanceId", dispatch, queue from dispatches
     where queue = $1 and dispatched_at < now() - $2 * interval '1 millisecond'
       and state = 'handed' and lease_until is null and retry_at is null and due_at is null
     order by dispatched_at`,
    [queue, olderThanMs],
  );
  return result.rows;
}

/** Back-offs that ended a while ago and that no job came for: due, whatever the queue says. */
export async function makeOverdueRetriesDue(db: Queryable, olderThanMs: number): Promise<number> {
  const result = await db.query(
    `update dispatches set due_at = now(), retry_at = null, dispatched_at = null, state = 'due'
     where instance_id in (
       select instance_id from dispatches
       where retry_at < now() - $1 * interval '1 millisecond' and lease_until is null and due_at is null
       order by instance_id limit 1000 for update skip locked)`,
    [olderThanMs],
  );
  return result.rowCount ?? 0;
}

/**
 * Frees the claims of workers that died or stalled. What killed five workers is not given to a
 * sixth.
 *
 * @returns instances made due, and those that became dead letters
 */
export async function freeExpiredLeases(
  db: Queryable,
): Promise<{ due: number; dead: { instanceId: number; productId: number }[] }> {
  const result = await db.query<{ instanceId: number; productId: number; state: string }>(
    `with freed as (
       update dispatches set lease_until = null, dispatched_at = null, retry_at = null,
         due_at = case when claims >= $1 then null else now() end,
         state = case when claims >= $1 then 'dead' else 'due' end,
         cause = case when claims >= $1 then 'the worker died ' || claims || ' times on this' else cause end
       where instance_id in (
         select instance_id from dispatches where lease_until < now()
         order by instance_id limit 1000 for update skip locked)
       returning instance_id, product_id, state, fence
     ), ended as (
       update attempts a set ended = clock_timestamp(), class = 'lost' from freed
       where a.instance_id = freed.instance_id and a.fence = freed.fence and a.ended is null
     )
     select instance_id as "instanceId", product_id as "productId", state from freed`,
    [claimsMax],
  );
  const dead = result.rows.filter((row) => row.state === 'dead');
  return { due: result.rows.length - dead.length, dead };
}
