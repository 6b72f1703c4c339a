import type { Queryable } from './client.ts';

export type CountedRefusal = {
  productId: number;
  resultCode: string;
  reason: string;
  times: number;
};

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
