import type { Queryable } from './client.ts';

export type RepeatedReply = {
  instanceId: number;
  activity: string;
  resultCode: string;
  bodyHash: Buffer;
  firstAt: Date;
  lastAt: Date;
  times: number;
};

/** Adds to the newest row of an instance and activity where that one says the same, else a row. */
export async function writeReplies(db: Queryable, rows: readonly RepeatedReply[]): Promise<void> {
  await db.query(
    `with input as (
       select * from unnest($1::bigint[], $2::text[], $3::text[], $4::bytea[], $5::timestamptz[], $6::timestamptz[], $7::int[])
         as t(instance_id, activity, result_code, body_hash, first_at, last_at, times)
     ), newest as (
       select i.*, r.ctid as row_at from input i left join lateral (
         select ctid, result_code, body_hash from replies r
         where r.instance_id = i.instance_id and r.activity = i.activity order by first_at desc limit 1
       ) r on r.result_code = i.result_code and r.body_hash = i.body_hash
     ), repeated as (
       update replies r set times = r.times + n.times, last_at = greatest(r.last_at, n.last_at)
       from newest n where r.ctid = n.row_at
     )
     insert into replies (instance_id, activity, result_code, body_hash, first_at, last_at, times)
     select instance_id, activity, result_code, body_hash, first_at, last_at, times from newest where row_at is null`,
    [
      rows.map((row) => row.instanceId),
      rows.map((row) => row.activity),
      rows.map((row) => row.resultCode),
      rows.map((row) => row.bodyHash),
      rows.map((row) => row.firstAt.toISOString()),
      rows.map((row) => row.lastAt.toISOString()),
      rows.map((row) => row.times),
    ],
  );
}
