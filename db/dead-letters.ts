import { sql } from 'drizzle-orm';
import type { Orm } from './client.ts';

type Reader = { orm: Orm };

/** Which dead letters are meant: of a product, of an order, of both together, or all of them. */
export type DeadLetterFilter = { product?: string | undefined; order?: string | undefined };

export type DeadLetter = {
  product: string;
  orderId: string;
  /** The id that the marketplace and the seller know. */
  instanceId: string;
  cause: string | null;
  attempts: number;
  /** When the last attempt ended; null when no attempt was recorded. */
  since: Date | null;
  openEvents: number;
  /** What the open events ask for, oldest first. */
  kinds: string[];
};

export type DeadLetterCount = { product: string; cause: string | null; count: number };

export type RedrivenInstance = {
  product: string;
  orderId: string;
  instanceId: string;
  /** Why it was dead. */
  cause: string | null;
};

/** Dead letters, the longest dead first. */
export async function listDeadLetters(
  db: Reader,
  filter: DeadLetterFilter = {},
  limit = 1_000,
): Promise<DeadLetter[]> {
  const { rows } = await db.orm.execute<DeadLetter & { since: Date | null }>(sql`
    select p.key as "product", i.order_id as "orderId", i.public_id as "instanceId", d.cause,
      d.attempts, a.ended as "since", d.open_events as "openEvents",
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
  return rows.map((row) => ({ ...row, since: row.since === null ? null : new Date(row.since) }));
}

/** How many are dead of what, the most frequent first. */
export async function countDeadLetters(
  db: Reader,
  filter: DeadLetterFilter = {},
): Promise<DeadLetterCount[]> {
  const { rows } = await db.orm.execute<DeadLetterCount>(sql`
    select p.key as "product", d.cause, count(*)::int as "count"
    from dispatches d
    join instances i on i.id = d.instance_id
    join products p on p.id = d.product_id
    where d.state = 'dead' and ${matches(filter)}
    group by p.key, d.cause
    order by count(*) desc, p.key, d.cause`);
  return rows;
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
      select d.instance_id, d.cause
      from dispatches d
      where d.state = 'dead' and d.instance_id in (
        select d.instance_id
        from dispatches d
        join instances i on i.id = d.instance_id
        join products p on p.id = d.product_id
        where d.state = 'dead' and ${matches(filter)}
      )
      order by d.instance_id
      for update
    ), redriven as (
      update dispatches d
      set due_at = now(), state = 'due', since = now(), attempts = 0, claims = 0, retry_at = null,
        dispatched_at = null, cause = null
      from dead
      where d.instance_id = dead.instance_id
      returning d.instance_id, d.product_id, dead.cause
    )
    select p.key as "product", i.order_id as "orderId", i.public_id as "instanceId", r.cause
    from redriven r
    join instances i on i.id = r.instance_id
    join products p on p.id = r.product_id
    order by r.instance_id`);
  return rows;
}

/** A renewal has an order of its own; its dead letter is found by it too. */
function matches({ product, order }: DeadLetterFilter) {
  const ofProduct = product === undefined ? sql`true` : sql`p.key = ${product}`;
  const ofOrder =
    order === undefined
      ? sql`true`
      : sql`(i.order_id = ${order} or exists (
          select from events e where e.instance_id = i.id and e.order_id = ${order}
        ))`;
  return sql`${ofProduct} and ${ofOrder}`;
}
