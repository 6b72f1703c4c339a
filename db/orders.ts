import type { Keyring } from './data-keys.ts';
import type { Queryable } from './client.ts';

// The marketplace's answers to order queries. They name the buyer, so they stand sealed; what an
// instance needs of them (plan, trial, period) is copied to its events.

/** @returns the answer as it came, or undefined when this order was never looked up */
export async function findOrderReply(
  { db, keyring }: { db: Queryable; keyring: Keyring },
  at: { productId: number; orderId: string },
): Promise<string | undefined> {
  const { rows } = await db.query<{ replyEnc: Buffer }>({
    name: 'orders.find',
    text: 'select reply_enc as "replyEnc" from orders where product_id = $1 and order_id = $2',
    values: [at.productId, at.orderId],
  });
  const [row] = rows;
  if (!row) return undefined;
  return (await keyring.open(row.replyEnc, aadOf(at.orderId))).toString('utf8');
}

/** Keeps an answer in place of an older one about the same order. */
export async function saveOrderReply(
  { db, keyring }: { db: Queryable; keyring: Keyring },
  at: { productId: number; orderId: string; reply: string },
): Promise<void> {
  const replyEnc = await keyring.seal(`product/${at.productId}`, at.reply, aadOf(at.orderId));
  await db.query({
    name: 'orders.save',
    text: `insert into orders (product_id, order_id, reply_enc) values ($1, $2, $3)
      on conflict (product_id, order_id) do update set reply_enc = excluded.reply_enc, fetched_at = now()`,
    values: [at.productId, at.orderId, replyEnc],
  });
}

function aadOf(orderId: string): string {
  return `orders/reply_enc/${orderId}`;
}
