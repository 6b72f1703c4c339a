import { breakerThreshold } from '../core/failure.ts';
import type { InstanceEvent } from '../core/events.ts';
import type { InstanceState, QueueName } from '../core/instance.ts';
import type { EventDetail } from './accept-events.ts';
import type { Queryable } from './client.ts';

/** A claimed instance: whoever holds the newest fence may settle, until the lease ends. */
export type Claim = {
  instanceId: number;
  productId: number;
  queue: QueueName;
  fence: number;
  attempts: number;
  openEvents: number;
  /** The newest state is to be put once more, though nothing is new. */
  putAgain: boolean;
  publicId: string;
  state: InstanceState;
  /** Generation that was last made real. */
  applied: number;
  /** The instance that this one is a second name of, or null. */
  aliasOf: number | null;
  /** Since the present run of tries began, by the database's clock. */
  ageMs: number;
  /** Whether any attempt ever began: then something may be out there. */
  everBegan: boolean;
  events: InstanceEvent[];
  /** The callbacks of the open events, to find an effect's cause in the log. */
  callbackIds: string[];
};

// $1 instance, $2 dispatch, $3 lease in ms, $4 breaker's threshold
//
// The breaker also counts here: jobs that were handed before it opened must not fill the slots. A
// pause too: what was handed before it waits like the rest.
const claimStatement = `with claimed as (
  update dispatches d set fence = nextval('fences'), retry_at = null, claims = claims + 1,
    lease_until = now() + $3 * interval '1 millisecond'
  where instance_id = $1 and dispatch = $2 and due_at is null and lease_until is null and state not in ('dead', 'timed')
    and (retry_at is null or retry_at <= now() + interval '1 second')
    and not exists (select from products p where p.id = d.product_id and p.paused_at is not null)
    and not exists (
      select from product_queues q where q.product_id = d.product_id and q.queue = d.queue and q.failures_running >= $4
        and exists (select from dispatches o where o.product_id = d.product_id and o.lease_until > now() and o.queue = d.queue))
  returning *
)
select c.instance_id as "instanceId", c.product_id as "productId", c.queue, c.fence, c.attempts, c.open_events as "openEvents", c.put_again as "putAgain",
  (extract(epoch from now() - c.since) * 1000)::int8 as "ageMs",
  i.public_id as "publicId", i.state, i.applied, i.alias_of as "aliasOf",
  i.applied > 0 or exists (select from attempts a where a.instance_id = c.instance_id and a.kind = 'apply') as "everBegan",
  (select json_agg(json_build_object('id', e.id, 'kind', e.kind, 'orderId', e.order_id, 'orderLineId', e.order_line_id,
      'detail', e.detail, 'callbackId', e.callback_id, 'acceptedAt', e.accepted_at, 'resolvedAt', e.resolved_at,
      'appliedAt', e.applied_at, 'outcome', e.outcome) order by e.id)
    from events e where e.instance_id = c.instance_id) as events
from claimed c join instances i on i.id = c.instance_id`;

/** An event as the log's columns say it, in JSON. */
export type StoredEvent = {
  id: number;
  kind: InstanceEvent['kind'];
  orderId: string | null;
  orderLineId: string | null;
  detail: (EventDetail & { events?: number[] }) | null;
  callbackId: string | null;
  acceptedAt: string;
  resolvedAt: string | null;
  appliedAt: string | null;
  outcome: string | null;
};

type ClaimedRow = Omit<Claim, 'events' | 'callbackIds'> & {
  events: StoredEvent[] | null;
};

/**
 * Claims an instance for the job that carries the newest dispatch number, with everything that a
 * decision is made from. An event that is committed at this very moment may be missing; the settle,
 * which counts what is left, then makes the instance due again.
 */
export async function claimDispatch(
  db: Queryable,
  job: { instanceId: number; dispatch: number; leaseMs: number },
): Promise<Claim | 'nothing to do'> {
  const result = await db.query<ClaimedRow>({
    name: 'dispatches.claim',
    text: claimStatement,
    values: [job.instanceId, job.dispatch, job.leaseMs, breakerThreshold],
  });
  const [row] = result.rows;
  if (!row) return 'nothing to do';
  const stored = row.events ?? [];
  const open = stored.filter((event) => event.appliedAt === null);
  return {
    ...row,
    // What this claim saw: the row, read after waiting for its lock, may count an event that this
    // statement's snapshot does not show yet.
    openEvents: open.length,
    events: stored.map(toInstanceEvent),
    callbackIds: open.flatMap((event) => event.callbackId ?? []),
  };
}

/**
 * For a job that may not run now though it is the newest: its product is at its limit. The job
 * ends, and the instance comes due again later.
 *
 * @returns whether it was so
 */
export async function postponeDispatch(
  db: Queryable,
  job: { instanceId: number; dispatch: number; delayMs: number },
): Promise<boolean> {
  const result = await db.query(
    `update dispatches set due_at = now() + $3 * interval '1 millisecond', retry_at = null, dispatched_at = null, state = 'due'
     where instance_id = $1 and dispatch = $2 and due_at is null and lease_until is null and state not in ('dead', 'timed')
       and (retry_at is null or retry_at <= now() + interval '1 second')`,
    [job.instanceId, job.dispatch, job.delayMs],
  );
  return result.rowCount === 1;
}

/** @returns false when the claim was lost: somebody else may be at the instance */
export async function renewLease(
  db: Queryable,
  claim: { instanceId: number; fence: number },
  leaseMs: number,
): Promise<boolean> {
  const result = await db.query(
    `update dispatches set lease_until = now() + $3 * interval '1 millisecond'
     where instance_id = $1 and fence = $2 and lease_until is not null`,
    [claim.instanceId, claim.fence, leaseMs],
  );
  return result.rowCount === 1;
}

export function toInstanceEvent(stored: StoredEvent): InstanceEvent {
  const { id, orderId, orderLineId, detail } = stored;
  const base = {
    id,
    orderId,
    orderLineId,
    acceptedAt: new Date(stored.acceptedAt),
    resolvedAt: dateOrNull(stored.resolvedAt),
    appliedAt: dateOrNull(stored.appliedAt),
  };
  switch (stored.kind) {
    case 'created':
      return {
        ...base,
        kind: 'created',
        plan: detail?.plan ?? null,
        trial: detail?.trial ?? null,
        expiresAt: dateOrNull(detail?.expiresAt ?? null),
      };
    case 'renewed':
      return {
        ...base,
        kind: 'renewed',
        scene: sceneOf(detail),
        expiresAt: new Date(detail?.expiresAt ?? stored.acceptedAt),
        plan: detail?.plan ?? null,
      };
    case 'upgraded':
      return { ...base, kind: 'upgraded', plan: detail?.plan ?? null };
    case 'frozen':
    case 'expired':
    case 'unfrozen':
    case 'released':
    case 'refused':
    case 'imported':
      return { ...base, kind: stored.kind };
    case 'skipped':
    case 'resolved':
      return { ...base, kind: stored.kind, events: detail?.events ?? [] };
  }
}

type Scene = Extract<InstanceEvent, { kind: 'renewed' }>['scene'];

function sceneOf(detail: EventDetail | null): Scene {
  return (detail?.scene ?? null) as Scene;
}

function dateOrNull(text: string | null): Date | null {
  return text === null ? null : new Date(text);
}
