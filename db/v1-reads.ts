import { readCause } from '../core/cause.ts';
import { type DesiredState, fold } from '../core/fold.ts';
import type { InstanceState } from '../core/instance.ts';
import { type StoredEvent, toInstanceEvent } from './claims.ts';
import type { Queryable } from './client.ts';

// What a seller's programs read about their own product: every query names it. No buyer, and access
// data only where it is asked for by itself.

/** Work on an instance that is not done yet. */
type OpenWork = {
  state: string;
  events: number;
  /** Failed tries in a row. */
  attempts: number;
  cause: string | null;
  fingerprint: string | null;
  /** When something happens by itself; null when it happens now, or not without a person. */
  nextAt: Date | null;
};

export type InstanceView = {
  instanceId: string;
  orderId: string;
  orderLineId: string | null;
  state: InstanceState;
  /** Only of refused ones: what the marketplace is told. */
  resultCode: string | null;
  /** Generation that was last made real; 0 before the first. */
  generation: number;
  expiresAt: Date | null;
  createdAt: Date;
  /** The instance that this one is a second name of, or null. */
  aliasOf: string | null;
  /** Null when nothing is left to do. */
  open: OpenWork | null;
};

export type InstanceDetail = InstanceView & {
  /** What it should be by all that was accepted, and which generation that is. */
  desired: DesiredState;
  desiredGeneration: number;
};

export type EventView = {
  id: number;
  kind: string;
  scene: string | null;
  orderId: string | null;
  orderLineId: string | null;
  /** Of a renewal: the end of the period that it sets. */
  expiresAt: string | null;
  acceptedAt: Date;
  /** Null while the marketplace's order is looked up. */
  resolvedAt: Date | null;
  appliedAt: Date | null;
  outcome: string | null;
};

const viewColumns = `i.id as "number", i.public_id as "instanceId", i.order_id as "orderId",
  i.order_line_id as "orderLineId", i.state, i.result_code as "resultCode", i.applied as generation,
  i.expires_at as "expiresAt", i.created_at as "createdAt",
  (select o.public_id from instances o where o.id = i.alias_of) as "aliasOf",
  d.state as "openState", d.open_events as "openEvents", d.attempts, d.cause,
  case when coalesce(d.retry_at, d.due_at) > now() then coalesce(d.retry_at, d.due_at) end as "nextAt"`;

type ViewRow = Omit<InstanceView, 'open'> & {
  number: number;
  openState: string | null;
  openEvents: number;
  attempts: number;
  cause: string | null;
  nextAt: Date | null;
};

/**
 * One page of a product's instances in the order of their ids, which stays the same while it is read.
 *
 * @param page.after the last id of the page before
 */
export async function listInstances(
  db: Queryable,
  productId: number,
  page: { after: string | undefined; state: InstanceState | undefined; limit: number },
): Promise<InstanceView[]> {
  const { rows } = await db.query<ViewRow>(
    `select ${viewColumns} from instances i left join dispatches d on d.instance_id = i.id
     where i.product_id = $1 and ($2::text is null or i.public_id > $2) and ($3::text is null or i.state = $3)
     order by i.public_id limit $4`,
    [productId, page.after ?? null, page.state ?? null, page.limit],
  );
  return rows.map((row) => toView(row));
}

export async function findInstance(
  db: Queryable,
  productId: number,
  publicId: string,
): Promise<InstanceDetail | undefined> {
  const { rows } = await db.query<ViewRow & { events: StoredEvent[] | null }>(
    `select ${viewColumns},
       (select json_agg(json_build_object('id', e.id, 'kind', e.kind, 'orderId', e.order_id, 'orderLineId', e.order_line_id,
         'detail', e.detail, 'callbackId', e.callback_id, 'acceptedAt', e.accepted_at, 'resolvedAt', e.resolved_at,
         'appliedAt', e.applied_at, 'outcome', e.outcome) order by e.id)
        from events e where e.instance_id = i.id) as events
     from instances i left join dispatches d on d.instance_id = i.id
     where i.product_id = $1 and i.public_id = $2`,
    [productId, publicId],
  );
  const [row] = rows;
  if (!row) return undefined;
  const { events, ...view } = row;
  const { desired, generation } = fold((events ?? []).map(toInstanceEvent));
  return { ...toView(view), desired, desiredGeneration: generation };
}

/** The instances that an order made or changed; a renewal has an order of its own. */
export async function listInstancesOfOrder(
  db: Queryable,
  productId: number,
  orderId: string,
): Promise<InstanceView[]> {
  const { rows } = await db.query<ViewRow>(
    `select ${viewColumns} from instances i left join dispatches d on d.instance_id = i.id
     where i.product_id = $1 and i.id in (
       select o.id from instances o where o.order_id = $2 union select e.instance_id from events e where e.order_id = $2)
     order by i.id`,
    [productId, orderId],
  );
  return rows.map((row) => toView(row));
}

/**
 * One page of an instance's events in the order of acceptance.
 *
 * @param page.after the last id of the page before
 * @returns undefined when the product has no such instance
 */
export async function listEvents(
  db: Queryable,
  at: { productId: number; publicId: string },
  page: { after: number; limit: number },
): Promise<EventView[] | undefined> {
  const found = await db.query<{ number: number }>(
    'select id as number from instances where product_id = $1 and public_id = $2',
    [at.productId, at.publicId],
  );
  const [instance] = found.rows;
  if (!instance) return undefined;
  const { rows } = await db.query<EventView>(
    `select id, kind, detail->>'scene' as scene, order_id as "orderId", order_line_id as "orderLineId",
       detail->>'expiresAt' as "expiresAt", accepted_at as "acceptedAt", resolved_at as "resolvedAt",
       applied_at as "appliedAt", outcome
     from events where instance_id = $1 and id > $2 order by id limit $3`,
    [instance.number, page.after, page.limit],
  );
  return rows;
}

/** Access data as it stands sealed; an alias shows that of the instance that it stands for. */
export async function findSealedAccess(
  db: Queryable,
  at: { productId: number; publicId: string },
): Promise<{ sealedFor: number; accessEnc: Buffer | null } | undefined> {
  const { rows } = await db.query<{ sealedFor: number; accessEnc: Buffer | null }>(
    `select o.id as "sealedFor", case when i.state in ('active', 'frozen') then o.access_enc end as "accessEnc"
     from instances i join instances o on o.id = coalesce(i.alias_of, i.id)
     where i.product_id = $1 and i.public_id = $2`,
    [at.productId, at.publicId],
  );
  return rows[0];
}

function toView(row: ViewRow): InstanceView {
  const { number: _number, openState, openEvents, attempts, cause, nextAt, ...view } = row;
  if (openState === null) return { ...view, open: null };
  const said = cause === null ? { message: null, fingerprint: null } : readCause(cause);
  return {
    ...view,
    open: {
      state: openState,
      events: openEvents,
      attempts,
      cause: said.message,
      fingerprint: said.fingerprint,
      nextAt,
    },
  };
}
