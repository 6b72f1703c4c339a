import type { Database } from '../../db/client.ts';

/** An instance with one open event whose dispatch is dead, and one recorded attempt. */
export type SeededInstance = { id: number; publicId: string };

/** Writes what a create leaves behind that was tried and given up. */
export async function seedDeadInstance(
  db: Database,
  at: { productId: number; orderId: string; cause: string; state?: string },
): Promise<SeededInstance> {
  const publicId = `i-${at.orderId}`;
  const callbackId = '0193b5c8-0000-7000-8000-000000000001';
  const { rows } = await db.pool.query<{ id: number }>(
    `insert into instances (product_id, order_key, public_id, order_id, order_line_id, first_callback, access_enc)
     values ($1, $2 || '/L1', $3, $2, 'L1', $4, '\\x01020304') returning id`,
    [at.productId, at.orderId, publicId, callbackId],
  );
  const id = Number(rows[0]?.id);
  await db.pool.query(
    `insert into events (instance_id, kind, dedup_key, order_id, order_line_id, callback_id, resolved_at)
     values ($1, 'created', 'created', $2, 'L1', $3, now())`,
    [id, at.orderId, callbackId],
  );
  await db.pool.query(
    `insert into dispatches (instance_id, product_id, state, cause, attempts, claims, dispatch, fence)
     values ($1, $2, $3, $4, 8, 8, 41, 42)`,
    [id, at.productId, at.state ?? 'dead', at.cause],
  );
  await db.pool.query(
    `insert into attempts (began, fence, instance_id, product_id, generation, no, kind, worker, target, ended, class, http_status, said_enc)
     values (now() - interval '2 seconds', $1, $1, $2, 1, 8, 'apply', 'w-1', 'https://backend.example.com',
       now() - interval '1 second', 'transient', 503, '\\x0a0b')`,
    [id, at.productId],
  );
  await db.pool.query(
    `insert into replies (instance_id, activity, result_code, body_hash, first_at, last_at, times)
     values ($1, 'newInstance', '000004', '\\x00', now(), now(), 7)`,
    [id],
  );
  return { id, publicId };
}

/** Everything that the database holds, as text, row by row. */
export async function dumpDatabase(db: Database): Promise<string> {
  const { rows: tables } = await db.pool.query<{ name: string }>(
    `select format('%I.%I', schemaname, tablename) as name from pg_tables
     where schemaname not in ('pg_catalog', 'information_schema')`,
  );
  const parts: string[] = [];
  for (const { name } of tables) {
    const { rows } = await db.pool.query<{ row: string }>(`select t::text as row from ${name} t`);
    parts.push(`${name}\n${rows.map((each) => each.row).join('\n')}`);
  }
  return parts.join('\n');
}

/** The forms in which a secret could stand somewhere in clear. */
export function formsOf(secret: string): string[] {
  const bytes = Buffer.from(secret);
  return [secret, bytes.toString('hex'), bytes.toString('base64').replace(/=+$/, '').slice(0, -1)];
}
