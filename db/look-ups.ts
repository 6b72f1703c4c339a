import type { Queryable } from './client.ts';

/**
 * Makes the instances of a product due that wait for the marketplace's order.
 *
 * @param which parked: those that waited until the product can ask. all: also those in the middle of
 *   their retries, and dead ones.
 * @returns how many
 */
export async function makeLookUpsDue(
  db: Queryable,
  productId: number,
  which: 'parked' | 'all',
): Promise<number> {
  const result = await db.query(
    `update dispatches set due_at = now(), state = 'due', retry_at = null, dispatched_at = null,
       attempts = 0, claims = 0, cause = null, since = now()
     where instance_id in (
       select instance_id from dispatches
       where product_id = $1 and queue = 'order-lookup' and lease_until is null
         and state = any($2::text[])
       order by instance_id for update)`,
    [productId, which === 'all' ? ['timed', 'failing', 'dead', 'due'] : ['timed']],
  );
  return result.rowCount ?? 0;
}
