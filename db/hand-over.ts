import { breakerThreshold } from '../core/failure.ts';
import type { QueueName } from '../core/instance.ts';
import type { Queryable } from './client.ts';

/** An instance marked as handed to its queue; the job that says so is still to be added. */
export type HandedDispatch = {
  instanceId: number;
  productId: number;
  dispatch: number;
  /** What its open events ask for, for people who look at the queue. */
  kinds: string;
};

// $1 queue, $2 window, $3 page, $4 breaker's threshold
//
// The backlog stays here; a queue holds a bounded window. Each product has at most a quarter of it,
// less where more than four are busy, and a single place while its backend fails. Rank by rank, so
// that a product with a long backlog is not served before one with a single order.
// retry_at is cleared: else the claim of the new number would wait out the old back-off.
const statement = `with handed as (
  select product_id, count(*)::int as n from dispatches
  where queue = $1 and dispatched_at is not null and retry_at is null group by product_id
), busy as (
  select p.id as product_id, coalesce(h.n, 0) as handed, coalesce(q.failures_running, 0) >= $4 as is_broken
  from products p
  left join handed h on h.product_id = p.id
  left join product_queues q on q.product_id = p.id and q.queue = $1
  where p.paused_at is null
    and exists (select from dispatches d where d.queue = $1 and d.product_id = p.id and d.due_at <= now())
), room as (
  select product_id, least($3::int, greatest(0,
    case when is_broken then 1 else $2::int / greatest(4, (select count(*)::int from busy)) end - handed)) as free
  from busy
), pick as (
  select picked.instance_id from room cross join lateral (
    select d.instance_id, row_number() over (order by d.due_at) as rank from (
      select instance_id, due_at from dispatches
      where queue = $1 and product_id = room.product_id and due_at <= now() and lease_until is null
      order by due_at limit room.free for update skip locked
    ) d
  ) picked
  order by picked.rank
  limit least($3::int, greatest(0, $2::int - (select coalesce(sum(n), 0)::int from handed)))
)
update dispatches d set due_at = null, retry_at = null, dispatch = nextval('fences'), dispatched_at = now(), state = 'handed'
from pick where d.instance_id = pick.instance_id
returning d.instance_id as "instanceId", d.product_id as "productId", d.dispatch,
  coalesce((select string_agg(e.kind, '+' order by e.id) from events e
    where e.instance_id = d.instance_id and e.applied_at is null), 'again') as kinds`;

/**
 * Marks what is due as handed to its queue, under a new dispatch number each.
 *
 * @param windowMax jobs that are handed to the queue at a time, those under way included
 */
export async function handOver(
  db: Queryable,
  at: { queue: QueueName; windowMax: number; pageMax: number },
): Promise<HandedDispatch[]> {
  const result = await db.query<HandedDispatch>({
    name: 'dispatches.hand_over',
    text: statement,
    values: [at.queue, at.windowMax, at.pageMax, breakerThreshold],
  });
  return result.rows;
}

/** Takes a hand-over back that did not reach its queue; one that was claimed meanwhile stays. */
export async function takeBack(
  db: Queryable,
  rows: readonly { instanceId: number; dispatch: number }[],
): Promise<number> {
  const result = await db.query(
    `update dispatches set due_at = now(), dispatched_at = null, state = 'due'
     where instance_id in (
       select d.instance_id from dispatches d
       join unnest($1::bigint[], $2::bigint[]) as lost(instance_id, dispatch) using (instance_id)
       where d.dispatch = lost.dispatch and d.due_at is null and d.lease_until is null
         and d.retry_at is null and d.state = 'handed'
       order by d.instance_id for update of d skip locked)`,
    [rows.map((row) => row.instanceId), rows.map((row) => row.dispatch)],
  );
  return result.rowCount ?? 0;
}
