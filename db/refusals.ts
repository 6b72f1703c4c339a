import type { Queryable } from './client.ts';

export type CountedRefusal = {
  productId: number;
  resultCode: string;
  reason: string;
  times: number;
};

/** Equal refusals of a product, all told. */
export type RefusalSummary = {
  resultCode: string;
  reason: string;
  times: number;
  firstAt: Date;
  lastAt: Date;
};

/** The kinds of refusals of a product that are remembered, the one that came last first. */
export async function readRefusals(
  db: Queryable,
  productId: number,
  limit: number,
): Promise<RefusalSummary[]> {
  const { rows } = await db.query<RefusalSummary>(
    `select result_code as "resultCode", reason, sum(times)::int as times, min(at) as "firstAt", max(at) as "lastAt"
     from refusals where product_id = $1 group by 1, 2 order by max(at) desc, 1, 2 limit $2`,
    [productId, limit],
  );
  return rows;
}

const refusalsKeptDays = 7;
const deletedAtOnce = 10_000;

/**
 * Forgets refusals that are older than a week, a part at a time: somebody who only tries may have
 * filled the table.
 */
export async function deleteExpiredRefusals(db: Queryable): Promise<number> {
  for (let deleted = 0; ;) {
    const result = await db.query(
      `delete from refusals where id in (
         select id from refusals where at < now() - $1 * interval '1 day' limit $2)`,
      [refusalsKeptDays, deletedAtOnce],
    );
    deleted += result.rowCount ?? 0;
    if ((result.rowCount ?? 0) < deletedAtOnce) return deleted;
  }
}

export async function writeRefusals(db: Queryable, rows: readonly CountedRefusal[]): Promise<void> {
  await db.query(
    `insert into refusals (product_id, result_code, reason, times)
     select * from unnest($1::int[], $2::text[], $3::text[], $4::int[])`,
    [
      rows.map((row) => row.productId),
      rows.map((row) => row.resultCode),
      rows.map((row) => row.reason),
      rows.map((row) => row.times),
    ],
  );
}
