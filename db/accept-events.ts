import type { EventKind, Plan } from '../core/events.ts';
import { timesAround } from './accept-orders.ts';
import type { Queryable } from './client.ts';

/** A verified fact about an instance that should exist, on its way into the log. */
export type EventRow = {
  /** UUID of the callback, made once a call. */
  id: string;
  productId: number;
  keyId: number;
  family: string;
  activity: string;
  signedAt: Date;
  signature: Buffer;
  /** Sealed evidence. */
  body: Buffer;
  /** The instance id as the marketplace names it. */
  publicId: string;
  kind: EventKind;
  /** What makes it the same fact; null for status changes, which carry no key and are numbered. */
  dedupKey: string | null;
  orderId: string | null;
  orderLineId: string | null;
  detail: EventDetail;
  /** False where the marketplace's order must be looked up before all of it can be applied. */
  isResolved: boolean;
};

/** What an event knows beside its kind, as it stands in the log. */
export type EventDetail = {
  scene?: string;
  /** ISO 8601. */
  expiresAt?: string;
  productId?: string;
  /** From the marketplace's order, once it was looked up. */
  plan?: Plan | null;
  trial?: boolean;
};

export type EventOutcome =
  | { kind: 'accepted' | 'duplicate' | 'released'; instanceId: number }
  | { kind: 'unknown' | 'replay' };

// $14, $15 least and greatest signed_at.
// Two rows of one instance never come in one batch (21000); the caller sees to it.
const statement = `with input as (
  select * from unnest($1::uuid[], $2::int[], $3::text[]::timestamptz[], $4::bytea[], $5::bytea[], $6::text[],
    $7::text[], $8::text[], $9::text[], $10::text[], $11::text[], $12::text[]::jsonb[], $13::bool[], $16::int[], $17::text[])
    with ordinality as t(id, product_id, signed_at, signature, body, activity, public_id, kind, dedup_key,
      order_id, order_line_id, detail, is_resolved, key_id, family, n)
), fresh as (                 -- evidence, and the memory for replays
  insert into callbacks (id, product_id, key_id, signed_at, signature, family, activity, body)
  select id, product_id, key_id, signed_at, signature, family, activity, body from input order by signed_at, signature
  on conflict (signed_at, signature) do nothing returning id
), seen as (                  -- the same signed bytes were here before: whose?
  select i.id, c.id as stored_id from (select * from input where id not in (select id from fresh)) i
  join callbacks c on c.signed_at = i.signed_at and c.signature = i.signature
    and c.signed_at between $14::timestamptz and $15::timestamptz
), mine as (select id from fresh union all select id from seen where stored_id = id
), known as (                 -- what the snapshot says, locked by nobody
  select i.n, s.id, s.wanted from input i join instances s using (product_id, public_id)
), target as (                -- what is true now; an instance that somebody holds is left out and rides again
  select s.id, s.wanted, s.status_changes from instances s
  where s.id in (select known.id from known join input using (n) join mine on mine.id = input.id)
  order by s.id for no key update skip locked
), told as (                  -- its fact is in the log already: by key, or by the very callback, sent again after a lost reply
  select i.n from input i join known using (n) join events e on e.instance_id = known.id and e.dedup_key = i.dedup_key
  where i.dedup_key is not null
  union
  select i.n from input i join seen on seen.stored_id = i.id and seen.id = i.id join known using (n)
  join events e on e.instance_id = known.id and e.callback_id = i.id
), logged as (
  insert into events (instance_id, kind, dedup_key, order_id, order_line_id, detail, callback_id, signed_at, resolved_at)
  select t.id, i.kind, coalesce(i.dedup_key, 'status/' || t.status_changes + 1), i.order_id, i.order_line_id, i.detail, i.id, i.signed_at,
    case when i.is_resolved then now() end
  from input i join known using (n) join target t on t.id = known.id join mine on mine.id = i.id
  where t.wanted <> 'released' and i.n not in (select n from told)
    and case i.kind when 'frozen' then t.wanted <> 'frozen' when 'expired' then t.wanted = 'serving'
      when 'unfrozen' then t.wanted <> 'serving' else true end
  order by t.id on conflict (instance_id, dedup_key) do nothing returning instance_id, kind, callback_id, detail
), wanted as (                -- what later callbacks are judged by; s.* is the row as locked, never the snapshot's
  update instances s set
    wanted = case l.kind when 'frozen' then 'frozen' when 'expired' then 'expired' when 'released' then 'released' else 'serving' end,
    status_changes = s.status_changes + (l.kind in ('frozen', 'expired', 'unfrozen'))::int
  from logged l where s.id = l.instance_id and (l.kind in ('frozen', 'expired', 'unfrozen', 'released')
    or l.kind = 'renewed' and l.detail ? 'lifts' and s.wanted = 'expired')
), due as (
  insert into dispatches as d (instance_id, product_id, due_at)
  select l.instance_id, i.product_id, now() from logged l join input i on i.id = l.callback_id order by l.instance_id
  on conflict (instance_id) do update set
    open_events = d.open_events + excluded.open_events,
    since = now(), attempts = 0, claims = case when d.lease_until is null then 0 else d.claims end,
    cause = null,
    -- what is known is applied first; the settle sends on what is not
    queue = case when d.lease_until is not null or (d.dispatched_at is not null and d.retry_at is null and d.state <> 'dead')
      then d.queue else 'provisioning' end,
    state = case when d.lease_until is not null or (d.dispatched_at is not null and d.retry_at is null and d.state <> 'dead')
      then d.state else 'due' end,
    due_at = case
      when d.lease_until is not null then d.due_at                                 -- a worker is at it; its settle counts what is left
      when d.dispatched_at is not null and d.retry_at is null and d.state <> 'dead' then d.due_at  -- a job is on its way
      else least(d.due_at, now()) end,                                             -- parked, dead or backing off: now; already due: keeps its place
    dispatched_at = case when d.lease_until is null and (d.retry_at is not null or d.state = 'dead') then null else d.dispatched_at end,
    retry_at = case when d.lease_until is null then null else d.retry_at end       -- or the claim of the next number would wait out the old back-off
)
select known.id as "instanceId", case
  when seen.stored_id <> i.id then 'replay'
  when m.id is null then 'again'                                                   -- another process is storing the same bytes at this moment
  when l.callback_id is not null then 'accepted'
  when known.id is null then 'unknown'
  when told.n is not null then 'duplicate'
  when t.id is null then 'again'                                                   -- held: a settle, another process's batch
  when t.wanted is distinct from known.wanted then 'again'                         -- moved after the snapshot: only a new one can tell duplicate from released
  when t.wanted = 'released' then 'released'
  when i.kind in ('frozen', 'expired', 'unfrozen') then 'duplicate'                -- it is so already
  else 'again' end as outcome                                                      -- the key was taken after the snapshot
from input i left join mine m using (id) left join seen using (id) left join known using (n) left join told using (n)
left join target t on t.id = known.id left join logged l on l.callback_id = i.id
order by i.n`;

type Accepted = {
  outcome: 'accepted' | 'duplicate' | 'released' | 'unknown' | 'replay' | 'again';
  instanceId: number;
};

/**
 * Stores a batch of facts in one commit and makes their instances due at once, also when they are
 * parked, dead or in the middle of a back-off.
 *
 * @returns an outcome a row, in the order given; 'again': somebody holds the instance, or the row
 *   moved after the snapshot
 */
export async function acceptEvents(
  db: Queryable,
  rows: readonly EventRow[],
): Promise<(EventOutcome | 'again')[]> {
  const result = await db.query<Accepted>({
    name: 'events.accept',
    text: statement,
    values: [
      rows.map((row) => row.id),
      rows.map((row) => row.productId),
      rows.map((row) => row.signedAt.toISOString()),
      rows.map((row) => row.signature),
      rows.map((row) => row.body),
      rows.map((row) => row.activity),
      rows.map((row) => row.publicId),
      rows.map((row) => row.kind),
      rows.map((row) => row.dedupKey),
      rows.map((row) => row.orderId),
      rows.map((row) => row.orderLineId),
      rows.map((row) => JSON.stringify(row.detail)),
      rows.map((row) => row.isResolved),
      ...timesAround(rows),
      rows.map((row) => row.keyId),
      rows.map((row) => row.family),
    ],
  });
  return result.rows.map(({ outcome, instanceId }) => {
    switch (outcome) {
      case 'again':
        return 'again';
      case 'unknown':
      case 'replay':
        return { kind: outcome };
      case 'accepted':
      case 'duplicate':
      case 'released':
        return { kind: outcome, instanceId };
    }
  });
}
