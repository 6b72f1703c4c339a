import type { InstanceState } from '../core/instance.ts';
import type { Queryable } from './client.ts';

/** A verified purchase on its way into the log. */
export type OrderRow = {
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
  orderKey: string;
  orderId: string;
  orderLineId: string | null;
  /** Becomes the instance's id if this is the first callback of its order. */
  proposedId: string;
  /** False where the purchase must be looked up at the marketplace before it can be applied. */
  isResolved: boolean;
};

export type OrderOutcome =
  | {
      kind: 'accepted' | 'duplicate';
      instanceId: number;
      publicId: string;
      state: InstanceState;
      resultCode: string | null;
    }
  | { kind: 'replay' };

/**
 * Stores the purchases of a batch in one commit.
 *
 * Most purchases are new, so a shorter statement goes first that only stores and buys (half the
 * time); what it does not return (re-sends, replays, races) rides in the whole one. While most are
 * re-sends the whole one goes alone.
 *
 * @returns an outcome a row, in the order given; 'again': another transaction was in between, a new
 *   snapshot will tell
 */
export function createOrderStore(): (
  db: Queryable,
  rows: readonly OrderRow[],
) => Promise<(OrderOutcome | 'again')[]> {
  let mostlyNew = true;
  return async (db, rows) => {
    const outcomes: (OrderOutcome | 'again')[] = rows.map(() => 'again');
    let places = rows.map((_, place) => place);
    if (mostlyNew) {
      const bought = await buy(db, rows);
      for (const { n, ...instance } of bought) {
        outcomes[n - 1] = { kind: 'accepted', state: 'pending', resultCode: null, ...instance };
      }
      const done = new Set(bought.map(({ n }) => n - 1));
      places = places.filter((place) => !done.has(place));
    }
    if (places.length > 0) {
      const rest = places.flatMap((place) => rows[place] ?? []);
      const accepted = await acceptAll(db, rest);
      accepted.forEach((outcome, index) => {
        const place = places[index];
        if (place !== undefined) outcomes[place] = outcome;
      });
    }
    const fresh = outcomes.filter((o) => o !== 'again' && o.kind === 'accepted').length;
    mostlyNew = fresh * 2 >= rows.length;
    return outcomes;
  };
}

const input = `
input as (
  select * from unnest($1::uuid[], $2::int[], $3::text[]::timestamptz[], $4::bytea[], $5::bytea[], $6::text[], $7::text[],
    $8::text[], $9::text[], $10::int[], $11::text[], $12::text[], $13::bool[])
    with ordinality as t(id, product_id, signed_at, signature, body, order_key, proposed_id,
      order_id, order_line_id, key_id, family, activity, is_resolved, n)
), fresh as (
  insert into callbacks (id, product_id, key_id, signed_at, signature, family, activity, order_key, body)
  select id, product_id, key_id, signed_at, signature, family, activity, order_key, body from input order by signed_at, signature
  on conflict (signed_at, signature) do nothing returning id
)`;

// DO NOTHING, because DO UPDATE refuses two rows of one statement that hit the same key.
// Sorted, or two processes with the same orders lock them crosswise.
const buying = (from: string) => `
bought as (
  insert into instances (product_id, order_key, public_id, order_id, order_line_id, first_callback)
  select product_id, order_key, proposed_id, order_id, order_line_id, id from input join ${from} using (id)
  order by product_id, order_key, n
  on conflict (product_id, order_key) do nothing
  returning id, product_id, order_key, public_id, state, first_callback
), created as (
  insert into events (instance_id, kind, dedup_key, order_id, order_line_id, callback_id, signed_at, resolved_at)
  select b.id, 'created', 'created', i.order_id, i.order_line_id, i.id, i.signed_at, case when i.is_resolved then now() end
  from bought b join input i on i.id = b.first_callback order by b.id
), due as (
  insert into dispatches (instance_id, product_id, queue, due_at)
  select b.id, b.product_id, case when i.is_resolved then 'provisioning' else 'order-lookup' end, now()
  from bought b join input i on i.id = b.first_callback order by b.id
)`;

const buyStatement = `with ${input}, ${buying('fresh')}
select i.n::int, b.id as "instanceId", b.public_id as "publicId" from input i join bought b on b.first_callback = i.id`;

// $14, $15 least and greatest signed_at: without bounds the planner opens every partition.
const acceptStatement = `with ${input}, seen as (
  select i.id, c.id as stored_id from (select * from input where id not in (select id from fresh)) i
  join callbacks c on c.signed_at = i.signed_at and c.signature = i.signature
    and c.signed_at between $14::timestamptz and $15::timestamptz
), mine as (
  select id from fresh union all select id from seen where stored_id = id
), ${buying('mine')}, stored as (
  select s.* from (select distinct product_id, order_key from input except select product_id, order_key from bought) i
  join instances s using (product_id, order_key)
)
select case
    when seen.stored_id <> i.id then 'replay'
    when m.id is null then 'again'
    when b.first_callback = i.id then 'accepted'
    when coalesce(b.id, s.id) is not null then case when s.first_callback = i.id then 'accepted' else 'duplicate' end
    else 'again' end as outcome,
  coalesce(b.id, s.id) as "instanceId", coalesce(b.public_id, s.public_id) as "publicId",
  coalesce(b.state, s.state) as state, s.result_code as "resultCode"
from input i left join mine m using (id) left join seen using (id)
left join bought b using (product_id, order_key) left join stored s using (product_id, order_key)
order by i.n`;

type Bought = { n: number; instanceId: number; publicId: string };

async function buy(db: Queryable, rows: readonly OrderRow[]): Promise<Bought[]> {
  const result = await db.query<Bought>({
    name: 'orders.buy',
    text: buyStatement,
    values: columnsOf(rows),
  });
  return result.rows;
}

type Accepted = {
  outcome: 'accepted' | 'duplicate' | 'replay' | 'again';
  instanceId: number;
  publicId: string;
  state: InstanceState;
  resultCode: string | null;
};

async function acceptAll(
  db: Queryable,
  rows: readonly OrderRow[],
): Promise<(OrderOutcome | 'again')[]> {
  const result = await db.query<Accepted>({
    name: 'orders.accept',
    text: acceptStatement,
    values: [...columnsOf(rows), ...timesAround(rows)],
  });
  return result.rows.map(({ outcome, ...instance }) => {
    switch (outcome) {
      case 'again':
        return 'again';
      case 'replay':
        return { kind: 'replay' };
      case 'accepted':
      case 'duplicate':
        return { kind: outcome, ...instance };
    }
  });
}

function columnsOf(rows: readonly OrderRow[]): unknown[] {
  return [
    rows.map((row) => row.id),
    rows.map((row) => row.productId),
    rows.map((row) => row.signedAt.toISOString()),
    rows.map((row) => row.signature),
    rows.map((row) => row.body),
    rows.map((row) => row.orderKey),
    rows.map((row) => row.proposedId),
    rows.map((row) => row.orderId),
    rows.map((row) => row.orderLineId),
    rows.map((row) => row.keyId),
    rows.map((row) => row.family),
    rows.map((row) => row.activity),
    rows.map((row) => row.isResolved),
  ];
}

/** The bounds of a batch's signed times, for the planner to open one partition or two. */
export function timesAround(rows: readonly { signedAt: Date }[]): [string, string] {
  const times = rows.map((row) => row.signedAt.getTime());
  return [new Date(Math.min(...times)).toISOString(), new Date(Math.max(...times)).toISOString()];
}
