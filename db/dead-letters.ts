import { type SQL, sql } from 'drizzle-orm';
import { readCause } from '../core/cause.ts';
import type { EventKind } from '../core/events.ts';
import type { Orm } from './client.ts';

type Reader = { orm: Orm };

/** Which dead letters are meant: all that fit every part that is given; without any part, all. */
export type DeadLetterFilter = {
  product?: string | undefined;
  /** The order that made the instance, or one that changed it. */
  order?: string | undefined;
  /** A cause's fingerprint. */
  cause?: string | undefined;
};

export type DeadLetter = {
  product: string;
  orderId: string;
  /** The id that the marketplace and the seller know. */
  instanceId: string;
  cause: string | null;
  /** Names the cause: equal for all that died of the same. */
  fingerprint: string;
  attempts: number;
  /** When the last attempt ended; null when no attempt was recorded. */
  since: Date | null;
  openEvents: number;
  /** What the open events ask for, oldest first. */
  kinds: string[];
};

export type DeadLetterCount = {
  product: string;
  cause: string | null;
  fingerprint: string;
  count: number;
};

export type RedrivenInstance = {
  product: string;
  orderId: string;
  instanceId: string;
  /** Why it was dead. */
  cause: string | null;
  fingerprint: string;
};

/** A dead letter with what helps to decide about it. No access data, no buyer. */
export type DeadLetterStory = Omit<DeadLetter, 'kinds'> & {
  /** Internal number; never shown. */
  instanceNumber: number;
  productId: number;
  family: string;
  state: string;
  isPaused: boolean;
  events: OpenEvent[];
  tries: DeadLetterAttempt[];
};

export type OpenEvent = {
  /** For `skip --event`. */
  id: number;
  kind: EventKind;
  scene: string | null;
  orderId: string | null;
  orderLineId: string | null;
  acceptedAt: Date;
  /** Null while the marketplace's order was not looked up. */
  resolvedAt: Date | null;
};

export type DeadLetterAttempt = {
  no: number;
  kind: string;
  generation: number;
  began: Date;
  /** Null when it never said how it ended: the worker died, or it runs. */
  durationMs: number | null;
  target: string;
  class: string | null;
  httpStatus: number | null;
  fence: number;
  /** What was answered, sealed; null when nothing was. */
  saidEnc: Buffer | null;
};

/**
 * The fingerprint behind a cause; a cause that was written without one (by the sweep) gets one made
 * of the product and its words. Needs `d`, the dispatch.
 */
export const fingerprintOfDispatch = sql`coalesce(substring(d.cause from '\\[([0-9a-f]{12})\\]$'),
  left(encode(sha256(convert_to(d.product_id || '/' || coalesce(d.cause, ''), 'UTF8')), 'hex'), 12))`;

/** Dead letters, the longest dead first. */
export async function listDeadLetters(
  db: Reader,
  filter: DeadLetterFilter = {},
  limit = 1_000,
): Promise<DeadLetter[]> {
  const { rows } = await db.orm.execute<DeadLetter & { since: Date | null }>(sql`
    select p.key as "product", i.order_id as "orderId", i.public_id as "instanceId", d.cause,
      ${fingerprintOfDispatch} as "fingerprint", d.attempts, a.ended as "since", d.open_events as "openEvents",
      array(
        select e.kind from events e
        where e.instance_id = d.instance_id and e.applied_at is null order by e.id
      ) as "kinds"
    from dispatches d
    join instances i on i.id = d.instance_id
    join products p on p.id = d.product_id
    left join lateral (
      select max(ended) as ended from attempts where instance_id = d.instance_id
    ) a on true
    where d.state = 'dead' and ${matches(filter)}
    order by a.ended nulls first, d.instance_id
    limit ${limit}`);
  return rows.map((row) => ({
    ...row,
    cause: wordsOf(row.cause),
    since: row.since === null ? null : new Date(row.since),
  }));
}

/** How many are dead of what, the most frequent first. */
export async function countDeadLetters(
  db: Reader,
  filter: DeadLetterFilter = {},
): Promise<DeadLetterCount[]> {
  const { rows } = await db.orm.execute<DeadLetterCount>(sql`
    select p.key as "product", min(d.cause) as "cause", ${fingerprintOfDispatch} as "fingerprint",
      count(*)::int as "count"
    from dispatches d
    join instances i on i.id = d.instance_id
    join products p on p.id = d.product_id
    where d.state = 'dead' and ${matches(filter)}
    group by 1, 3
    order by count(*) desc, 1, 2`);
  return rows.map((row) => ({ ...row, cause: wordsOf(row.cause) }));
}

/** The dead letters of one order, with all their attempts. */
export async function readDeadLetterStories(
  db: Reader,
  filter: DeadLetterFilter & { order: string },
): Promise<DeadLetterStory[]> {
  type Row = Omit<DeadLetterStory, 'events' | 'tries'> & {
    events: (Omit<OpenEvent, 'acceptedAt' | 'resolvedAt'> & {
      acceptedAt: string;
      resolvedAt: string | null;
    })[];
  };
  const { rows } = await db.orm.execute<Row>(sql`
    select p.key as "product", p.family, p.paused_at is not null as "isPaused", i.order_id as "orderId",
      i.public_id as "instanceId", i.id as "instanceNumber", i.product_id as "productId", i.state, d.cause,
      ${fingerprintOfDispatch} as "fingerprint", d.attempts, d.open_events as "openEvents",
      (select max(ended) from attempts where instance_id = d.instance_id) as "since",
      coalesce((
        select json_agg(json_build_object('id', e.id, 'kind', e.kind, 'scene', e.detail->>'scene',
          'orderId', e.order_id, 'orderLineId', e.order_line_id, 'acceptedAt', e.accepted_at,
          'resolvedAt', e.resolved_at) order by e.id)
        from events e where e.instance_id = d.instance_id and e.applied_at is null
      ), '[]') as "events"
    from dispatches d
    join instances i on i.id = d.instance_id
    join products p on p.id = d.product_id
    where d.state = 'dead' and ${matches(filter)}
    order by d.instance_id`);
  const stories: DeadLetterStory[] = [];
  for (const row of rows) {
    const instanceNumber = Number(row.instanceNumber);
    stories.push({
      ...row,
      instanceNumber,
      cause: wordsOf(row.cause),
      since: row.since === null ? null : new Date(row.since),
      events: row.events.map((event) => ({
        ...event,
        acceptedAt: new Date(event.acceptedAt),
        resolvedAt: event.resolvedAt === null ? null : new Date(event.resolvedAt),
      })),
      tries: await readAttempts(db, instanceNumber),
    });
  }
  return stories;
}

async function readAttempts(db: Reader, instanceNumber: number): Promise<DeadLetterAttempt[]> {
  const { rows } = await db.orm.execute<DeadLetterAttempt>(sql`
    select no, kind, generation, began, (extract(epoch from ended - began) * 1000)::int as "durationMs",
      target, class, http_status as "httpStatus", fence, said_enc as "saidEnc"
    from attempts where instance_id = ${instanceNumber} order by began, fence`);
  return rows.map((row) => ({
    ...row,
    began: new Date(row.began),
    fence: Number(row.fence),
  }));
}

/**
 * Makes dead letters due again, with their attempts counted afresh.
 *
 * Two that run at once never redrive one twice: the second waits for the row, sees that it is no
 * longer dead, and leaves it out. Rows are locked in the order of their ids, as everywhere.
 */
export async function redriveDeadLetters(
  tx: Reader,
  filter: DeadLetterFilter,
): Promise<RedrivenInstance[]> {
  const { rows } = await tx.orm.execute<RedrivenInstance>(sql`
    with dead as (
      select d.instance_id, d.cause, ${fingerprintOfDispatch} as fingerprint
      from dispatches d
      where d.state = 'dead' and d.instance_id in (${deadInstances(filter)})
      order by d.instance_id
      for update
    ), redriven as (
      update dispatches d
      set due_at = now(), state = 'due', since = now(), attempts = 0, claims = 0, retry_at = null,
        dispatched_at = null, cause = null
      from dead
      where d.instance_id = dead.instance_id
      returning d.instance_id, d.product_id, dead.cause, dead.fingerprint
    )
    select p.key as "product", i.order_id as "orderId", i.public_id as "instanceId", r.cause,
      r.fingerprint
    from redriven r
    join instances i on i.id = r.instance_id
    join products p on p.id = r.product_id
    order by r.instance_id`);
  return rows.map((row) => ({ ...row, cause: wordsOf(row.cause) }));
}

/** A query for the internal numbers of the dead instances that are meant. */
export function deadInstances(filter: DeadLetterFilter): SQL {
  return sql`
    select d.instance_id
    from dispatches d
    join instances i on i.id = d.instance_id
    join products p on p.id = d.product_id
    where d.state = 'dead' and ${matches(filter)}`;
}

/** A cause in words, without its fingerprint. */
export function wordsOf(cause: string | null): string | null {
  return cause === null ? null : readCause(cause).message;
}

/** A renewal has an order of its own; its dead letter is found by it too. */
function matches({ product, order, cause }: DeadLetterFilter): SQL {
  const ofProduct = product === undefined ? sql`true` : sql`p.key = ${product}`;
  const ofCause = cause === undefined ? sql`true` : sql`${fingerprintOfDispatch} = ${cause}`;
  const ofOrder =
    order === undefined
      ? sql`true`
      : sql`(i.order_id = ${order} or exists (
          select from events e where e.instance_id = i.id and e.order_id = ${order}
        ))`;
  return sql`${ofProduct} and ${ofCause} and ${ofOrder}`;
}
