import type { Queryable } from './client.ts';

/** Upper bounds in seconds; what took longer is counted under Infinity. */
const applyBucketsSeconds = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60] as const;

/** One measured apply; `outcome` is `applied`, `stale` or the class of the failure. */
type ApplyDuration = { productId: number; outcome: string; durationMs: number };

export type ApplyDurations = {
  /** Counts in memory; costs nothing. */
  observe(duration: ApplyDuration): void;
  /**
   * Adds what was counted since to the table, in one statement. Call it about once a second and at
   * the end. When it fails, the counts are kept for the next time; should only the answer have been
   * lost, they are counted twice, which a histogram can bear.
   *
   * @throws what the driver throws
   */
  flush(): Promise<void>;
};

type Bucket = {
  productId: number;
  outcome: string;
  le: number;
  count: number;
  sumSeconds: number;
};

// Sorted, or two workers that add to the same rows could wait for each other.
const flushSql = `
insert into apply_durations as d (product_id, outcome, bucket_le, count, sum_seconds)
select * from unnest($1::int[], $2::text[], $3::float8[], $4::bigint[], $5::float8[])
  as n (product_id, outcome, bucket_le, count, sum_seconds)
order by product_id, outcome, bucket_le
on conflict (product_id, outcome, bucket_le) do update
set count = d.count + excluded.count, sum_seconds = d.sum_seconds + excluded.sum_seconds`;

/** Carries the durations that worker processes measure to the api, which shows them. */
export function createApplyDurations(db: Queryable): ApplyDurations {
  let counted = new Map<string, Bucket>();

  const add = (bucket: Bucket): void => {
    const key = `${bucket.productId} ${bucket.le} ${bucket.outcome}`;
    const known = counted.get(key);
    if (!known) {
      counted.set(key, bucket);
      return;
    }
    known.count += bucket.count;
    known.sumSeconds += bucket.sumSeconds;
  };

  return {
    observe({ productId, outcome, durationMs }) {
      const seconds = durationMs / 1_000;
      const le = applyBucketsSeconds.find((bound) => seconds <= bound) ?? Infinity;
      add({ productId, outcome, le, count: 1, sumSeconds: seconds });
    },
    async flush() {
      if (counted.size === 0) return;
      const rows = [...counted.values()];
      counted = new Map();
      try {
        await db.query(flushSql, [
          rows.map((row) => row.productId),
          rows.map((row) => row.outcome),
          rows.map((row) => row.le),
          rows.map((row) => row.count),
          rows.map((row) => row.sumSeconds),
        ]);
      } catch (error) {
        rows.forEach(add);
        throw error;
      }
    },
  };
}

/** One line of the histogram: `buckets` are cumulative, the last is under Infinity. */
export type ApplyHistogram = {
  product: string;
  outcome: string;
  buckets: { le: number; count: number }[];
  sumSeconds: number;
};

const readSql = `
select p.key as product, d.outcome, sum(d.sum_seconds)::float8 as sum,
       array_agg(d.bucket_le order by d.bucket_le) as les,
       array_agg(d.count::float8 order by d.bucket_le) as counts
from apply_durations d join products p on p.id = d.product_id
group by p.key, d.outcome
order by p.key, d.outcome`;

type HistogramRow = {
  product: string;
  outcome: string;
  sum: number;
  les: number[];
  counts: number[];
};

export async function readApplyHistograms(db: Queryable): Promise<ApplyHistogram[]> {
  const { rows } = await db.query<HistogramRow>(readSql);
  return rows.map(({ product, outcome, sum, les, counts }) => {
    const own = new Map(les.map((le, i) => [le, counts[i] ?? 0]));
    let total = 0;
    const buckets = [...applyBucketsSeconds, Infinity].map((le) => {
      total += own.get(le) ?? 0;
      return { le, count: total };
    });
    return { product, outcome, buckets, sumSeconds: sum };
  });
}
