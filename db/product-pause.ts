import type { Queryable } from './client.ts';

/** @returns since when it is paused now; undefined when it was paused before, or is not there */
export async function setPaused(tx: Queryable, productId: number): Promise<Date | undefined> {
  const { rows } = await tx.query<{ pausedAt: Date }>(
    `update products set paused_at = now() where id = $1 and paused_at is null
     returning paused_at as "pausedAt"`,
    [productId],
  );
  return rows[0]?.pausedAt;
}

/** Applies that had begun before the pause and were not called off. */
export async function countInFlight(tx: Queryable, productId: number): Promise<number> {
  const { rows } = await tx.query<{ count: number }>(
    'select count(*)::int as count from dispatches where product_id = $1 and lease_until > now()',
    [productId],
  );
  return rows[0]?.count ?? 0;
}

/** Instances with open work that only the pause holds up. */
export async function countHeldUp(tx: Queryable, productId: number): Promise<number> {
  const { rows } = await tx.query<{ count: number }>(
    `select count(*)::int as count from dispatches
     where product_id = $1 and state in ('due', 'handed', 'failing') and lease_until is null`,
    [productId],
  );
  return rows[0]?.count ?? 0;
}

/**
 * Ends a pause. What is due is handed over at the next poll, and back-offs that ran meanwhile are cut
 * short. Graces and look-ups that wait for their time are left alone, and so are dead letters.
 *
 * @returns false when it was not paused
 */
export async function endPause(tx: Queryable, productId: number): Promise<boolean> {
  const ended = await tx.query(
    'update products set paused_at = null where id = $1 and paused_at is not null',
    [productId],
  );
  if (ended.rowCount !== 1) return false;
  await tx.query(
    `update dispatches set due_at = now(), state = 'due', retry_at = null, dispatched_at = null
     where instance_id in (
       select instance_id from dispatches
       where product_id = $1 and state = 'failing' and lease_until is null
       order by instance_id for update)`,
    [productId],
  );
  return true;
}
