import type { InstanceState, WantedState } from '../core/instance.ts';
import type { Plan } from '../core/events.ts';
import type { EventDetail } from './accept-events.ts';
import type { Queryable } from './client.ts';

export type ImportedEvent = {
  kind: 'created' | 'imported' | 'frozen' | 'released';
  dedupKey: string;
  orderId: string | null;
  orderLineId: string | null;
  detail: EventDetail & { chargingMode?: string };
};

/** An instance that was made elsewhere, with the log that makes it what it is; all of it applied. */
export type ImportedInstance = {
  publicId: string;
  orderKey: string;
  orderId: string;
  orderLineId: string;
  state: InstanceState;
  wanted: WantedState;
  statusChanges: number;
  /** The generation that the events add up to. */
  applied: number;
  expiresAt: Date | null;
  plan: Plan | null;
  events: readonly ImportedEvent[];
};

/** An instance as it stands. */
export type StandingInstance = {
  id: number;
  publicId: string;
  orderKey: string;
  state: InstanceState;
  expiresAt: Date | null;
  plan: Plan | null;
  accessEnc: Buffer | null;
  /** Keys of all facts that it knows. */
  dedupKeys: string[];
};

/** Those that have one of these public ids or order keys. */
export async function readStandingInstances(
  db: Queryable,
  productId: number,
  wanted: readonly Pick<ImportedInstance, 'publicId' | 'orderKey'>[],
): Promise<StandingInstance[]> {
  const { rows } = await db.query<StandingInstance>({
    name: 'instances.read_standing',
    // A union, because with "or" the planner gives up on both unique keys.
    text: `select i.id, i.public_id as "publicId", i.order_key as "orderKey", i.state, i.expires_at as "expiresAt", i.plan,
        i.access_enc as "accessEnc", array(select dedup_key from events e where e.instance_id = i.id) as "dedupKeys"
      from (select id from instances where product_id = $1 and public_id = any($2::text[])
        union select id from instances where product_id = $1 and order_key = any($3::text[])) f
      join instances i using (id)`,
    values: [
      productId,
      wanted.map(({ publicId }) => publicId),
      wanted.map(({ orderKey }) => orderKey),
    ],
  });
  return rows;
}

/** Drawn before the insert, because sealed access data is bound to the id of its row. */
export async function drawInstanceIds(db: Queryable, count: number): Promise<number[]> {
  const { rows } = await db.query<{ id: number }>(
    `select nextval(pg_get_serial_sequence('instances', 'id')) as id from generate_series(1, $1)`,
    [count],
  );
  return rows.map(({ id }) => id);
}

/**
 * Writes instances with their logs; whose order or public id is there already is left as it is.
 * Call it in a transaction.
 *
 * @returns the ids of those that were written
 */
export async function insertImportedInstances(
  tx: Queryable,
  productId: number,
  rows: readonly (ImportedInstance & { id: number; accessEnc: Buffer | null })[],
): Promise<Set<number>> {
  // Sorted, or a batch of purchases that come meanwhile would lock the same orders crosswise.
  const sorted = rows.toSorted((a, b) => (a.orderKey < b.orderKey ? -1 : 1));
  const made = await tx.query<{ id: number }>({
    name: 'instances.import',
    text: `insert into instances (id, product_id, order_key, public_id, order_id, order_line_id, state, wanted,
        status_changes, applied, expires_at, plan, access_enc)
      select id, $1, order_key, public_id, order_id, order_line_id, state, wanted, status_changes, applied,
        expires_at, plan, access_enc
      from unnest($2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::int[],
        $10::int[], $11::text[]::timestamptz[], $12::text[]::jsonb[], $13::bytea[])
        with ordinality as t(id, order_key, public_id, order_id, order_line_id, state, wanted, status_changes,
          applied, expires_at, plan, access_enc, n)
      order by n on conflict do nothing returning id`,
    values: [
      productId,
      sorted.map((row) => row.id),
      sorted.map((row) => row.orderKey),
      sorted.map((row) => row.publicId),
      sorted.map((row) => row.orderId),
      sorted.map((row) => row.orderLineId),
      sorted.map((row) => row.state),
      sorted.map((row) => row.wanted),
      sorted.map((row) => row.statusChanges),
      sorted.map((row) => row.applied),
      sorted.map((row) => row.expiresAt?.toISOString() ?? null),
      sorted.map((row) => (row.plan === null ? null : JSON.stringify(row.plan))),
      sorted.map((row) => row.accessEnc),
    ],
  });
  const written = new Set(made.rows.map(({ id }) => id));
  const events = sorted
    .filter(({ id }) => written.has(id))
    .flatMap((row) => row.events.map((event) => ({ instanceId: row.id, ...event })));
  await tx.query({
    name: 'events.import',
    text: `insert into events (instance_id, kind, dedup_key, order_id, order_line_id, detail, resolved_at, applied_at, outcome)
      select instance_id, kind, dedup_key, order_id, order_line_id, detail, now(), now(), 'applied'
      from unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[]::jsonb[])
        with ordinality as t(instance_id, kind, dedup_key, order_id, order_line_id, detail, n)
      order by n`,
    values: [
      events.map((event) => event.instanceId),
      events.map((event) => event.kind),
      events.map((event) => event.dedupKey),
      events.map((event) => event.orderId),
      events.map((event) => event.orderLineId),
      events.map((event) => JSON.stringify(event.detail)),
    ],
  });
  return written;
}
