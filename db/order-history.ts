import { sql } from 'drizzle-orm';
import type { Orm } from './client.ts';

type Reader = { orm: Orm };

/** All that is known of one order, for people who ask what happened to it. No access data, no buyer. */
export type OrderHistory = { orderId: string; instances: InstanceHistory[] };

export type InstanceHistory = {
  product: string;
  /** The id that the marketplace and the seller know. */
  instanceId: string;
  orderId: string;
  orderLineId: string | null;
  state: string;
  wanted: string;
  resultCode: string | null;
  /** The generation that was last made real; 0 before the first. */
  generationApplied: number;
  expiresAt: Date | null;
  createdAt: Date;
  events: EventHistory[];
  /** Null when nothing is open. */
  dispatch: DispatchHistory | null;
  attempts: AttemptHistory[];
  replies: ReplyHistory[];
  /** The signed requests that asked for something, oldest first. */
  callbackIds: string[];
};

type EventHistory = {
  kind: string;
  scene: string | null;
  orderId: string | null;
  orderLineId: string | null;
  acceptedAt: Date;
  resolvedAt: Date | null;
  appliedAt: Date | null;
  outcome: string | null;
};

type DispatchHistory = {
  state: string;
  queue: string;
  openEvents: number;
  dueAt: Date | null;
  retryAt: Date | null;
  attempts: number;
  cause: string | null;
};

type AttemptHistory = {
  no: number;
  kind: string;
  generation: number;
  began: Date;
  ended: Date | null;
  class: string | null;
  httpStatus: number | null;
  target: string;
  worker: string;
  retryAt: Date | null;
};

type ReplyHistory = {
  activity: string;
  resultCode: string;
  firstAt: Date;
  lastAt: Date;
  times: number;
};

// drizzle's execute leaves bigint and times as text.
type Row<T> = Record<string, unknown> & { id: string } & T;

/**
 * Reads the instances that an order made or changed (a renewal has an order of its own), oldest
 * first. An order that nobody knows has none.
 */
export async function readOrderHistory(db: Reader, orderId: string): Promise<OrderHistory> {
  const { rows: found } = await db.orm.execute<
    Row<Omit<InstanceHistory, 'events' | 'dispatch' | 'attempts' | 'replies' | 'callbackIds'>> & {
      firstCallback: string | null;
    }
  >(sql`
    select i.id, p.key as "product", i.public_id as "instanceId", i.order_id as "orderId",
      i.order_line_id as "orderLineId", i.state, i.wanted, i.result_code as "resultCode",
      i.applied as "generationApplied", i.expires_at as "expiresAt", i.created_at as "createdAt",
      i.first_callback as "firstCallback"
    from instances i
    join products p on p.id = i.product_id
    where i.order_id = ${orderId}
      or i.id in (select instance_id from events where order_id = ${orderId})
    order by i.id`);
  if (found.length === 0) return { orderId, instances: [] };

  const ids = sql`(${sql.join(
    found.map((row) => sql`${row.id}`),
    sql`, `,
  )})`;
  const [events, dispatches, attempts, replies] = await Promise.all([
    db.orm.execute<Row<EventHistory> & { callbackId: string | null }>(sql`
      select instance_id as id, kind, detail->>'scene' as "scene", order_id as "orderId",
        order_line_id as "orderLineId", accepted_at as "acceptedAt", resolved_at as "resolvedAt",
        applied_at as "appliedAt", outcome, callback_id as "callbackId"
      from events where instance_id in ${ids} order by events.id`),
    db.orm.execute<Row<DispatchHistory>>(sql`
      select instance_id as id, state, queue, open_events as "openEvents", due_at as "dueAt",
        retry_at as "retryAt", attempts, cause
      from dispatches where instance_id in ${ids}`),
    db.orm.execute<Row<AttemptHistory>>(sql`
      select instance_id as id, no, kind, generation, began, ended, class,
        http_status as "httpStatus", target, worker, retry_at as "retryAt"
      from attempts where instance_id in ${ids} order by began, fence`),
    db.orm.execute<Row<ReplyHistory>>(sql`
      select instance_id as id, activity, result_code as "resultCode", first_at as "firstAt",
        last_at as "lastAt", times
      from replies where instance_id in ${ids} order by first_at`),
  ]);

  return {
    orderId,
    instances: found.map(({ id, firstCallback, ...instance }) => {
      const own = events.rows.filter((row) => row.id === id);
      const callbackIds = [firstCallback, ...own.map((row) => row.callbackId)];
      return {
        ...instance,
        expiresAt: asDate(instance.expiresAt),
        createdAt: new Date(instance.createdAt),
        events: own.map(asEvent),
        dispatch: dispatches.rows.filter((row) => row.id === id).map(asDispatch)[0] ?? null,
        attempts: attempts.rows.filter((row) => row.id === id).map(asAttempt),
        replies: replies.rows.filter((row) => row.id === id).map(asReply),
        callbackIds: [...new Set(callbackIds.filter((each) => each !== null))],
      };
    }),
  };
}

function asDate(value: Date | string | null): Date | null {
  return value === null ? null : new Date(value);
}

function asEvent(row: Row<EventHistory>): EventHistory {
  return {
    kind: row.kind,
    scene: row.scene,
    orderId: row.orderId,
    orderLineId: row.orderLineId,
    acceptedAt: new Date(row.acceptedAt),
    resolvedAt: asDate(row.resolvedAt),
    appliedAt: asDate(row.appliedAt),
    outcome: row.outcome,
  };
}

function asDispatch(row: Row<DispatchHistory>): DispatchHistory {
  const { id: _id, ...dispatch } = row;
  return { ...dispatch, dueAt: asDate(dispatch.dueAt), retryAt: asDate(dispatch.retryAt) };
}

function asAttempt(row: Row<AttemptHistory>): AttemptHistory {
  const { id: _id, ...attempt } = row;
  return {
    ...attempt,
    began: new Date(attempt.began),
    ended: asDate(attempt.ended),
    retryAt: asDate(attempt.retryAt),
  };
}

function asReply(row: Row<ReplyHistory>): ReplyHistory {
  const { id: _id, ...reply } = row;
  return { ...reply, firstAt: new Date(reply.firstAt), lastAt: new Date(reply.lastAt) };
}
