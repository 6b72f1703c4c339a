import type { Queryable } from './client.ts';

export type BegunAttempt = { began: Date; fence: number };

/** Written before the effect: a later release must know that something may be out there. */
export async function beginAttempt(
  db: Queryable,
  attempt: {
    fence: number;
    instanceId: number;
    productId: number;
    generation: number;
    no: number;
    kind?: 'apply' | 'look-up';
    worker: string;
    target: string;
  },
): Promise<BegunAttempt> {
  const result = await db.query<{ began: Date }>({
    name: 'attempts.begin',
    text: `insert into attempts (began, fence, instance_id, product_id, generation, no, kind, worker, target)
      values (date_trunc('milliseconds', now()), $1, $2, $3, $4, $5, $8, $6, $7) returning began`,
    values: [
      attempt.fence,
      attempt.instanceId,
      attempt.productId,
      attempt.generation,
      attempt.no,
      attempt.worker,
      attempt.target,
      attempt.kind ?? 'apply',
    ],
  });
  const [row] = result.rows;
  if (!row) throw new Error('the insert of an attempt returned nothing');
  return { began: row.began, fence: attempt.fence };
}

/** How an attempt ended; `class` is the failure's, or applied, stale, refused; lost when the claim was. */
export async function endAttempt(
  db: Queryable,
  attempt: BegunAttempt,
  end: {
    class: string;
    httpStatus?: number | undefined;
    saidEnc?: Buffer | undefined;
    retryInMs?: number | undefined;
  },
): Promise<void> {
  await db.query({
    name: 'attempts.end',
    text: `update attempts set ended = clock_timestamp(), class = $3, http_status = $4, said_enc = $5,
        retry_at = now() + $6 * interval '1 millisecond'
      where began = $1 and fence = $2`,
    values: [
      attempt.began,
      attempt.fence,
      end.class,
      end.httpStatus ?? null,
      end.saidEnc ?? null,
      end.retryInMs ?? null,
    ],
  });
}
