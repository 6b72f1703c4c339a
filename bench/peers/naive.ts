// The design that one writes first: a transaction for each request, then a job for it. It verifies
// and answers as the receiver does; a crash between commit and job loses the order.
import { randomUUID } from 'node:crypto';
import { Hono } from 'hono';
import pg from 'pg';
import { z } from 'zod';
import { bodySignHeader } from '../../protocol/body-sign.ts';
import { refusal, replyToOrder, serializeReply } from '../../protocol/saas-v2/reply.ts';
import type { Reply } from '../../protocol/saas-v2/reply.ts';
import { createLogger } from '../../runtime/logger.ts';
import { createQueueBackend } from '../../runtime/queue-backend.ts';
import { checkCall } from './check-call.ts';
import { readPeerProducts, servePeer } from './serve.ts';

const products = readPeerProducts();
const databaseUrl = process.env['DATABASE_URL'] ?? '';
const log = createLogger({ level: 'warn', role: 'naive' });
const pool = new pg.Pool({ connectionString: databaseUrl, max: 20 });
pool.on('error', (error) => log.warn({ err: error }, 'database.connection_lost'));
const backend = createQueueBackend({
  redisUrl: process.env['REDIS_URL'] || undefined,
  databaseUrl,
  prefix: process.env['QUEUE_PREFIX'] ?? 'naive',
  poolMax: 20,
  log,
});

const purchase = z.object({
  activity: z.literal('newInstance'),
  orderId: z.string().min(1).max(64),
  orderLineId: z.string().min(1).max(64),
  businessId: z.string().min(1).max(64),
});

await pool.query(`
  create table if not exists callbacks (
    id uuid primary key, product text not null, signed_at timestamptz not null, signature bytea not null,
    body jsonb not null, received_at timestamptz not null default now(), unique (signed_at, signature));
  create table if not exists instances (
    id bigint generated always as identity primary key, product text not null, order_key text not null,
    public_id text not null, state text not null default 'pending', created_at timestamptz not null default now(),
    unique (product, order_key))`);
await backend.prepare();
const queue = backend.createQueue<{ instance: string }>('naive', {
  jobOptions: { attempts: 10, removeOnComplete: true },
});

const app = new Hono();

app.post('/callbacks/:productKey', async (c) => {
  const product = c.req.param('productKey');
  const accessKey = products.get(product);
  if (accessKey === undefined) return c.notFound();
  const body = Buffer.from(await c.req.arrayBuffer());
  const text = serializeReply(await answer(c.req.url, body, product, accessKey));
  return c.body(text, 200, {
    'Content-Type': 'application/json',
    'Body-Sign': bodySignHeader(accessKey, text),
  });
});

servePeer(app);

async function answer(
  address: string,
  body: Buffer,
  product: string,
  accessKey: string,
): Promise<Reply> {
  const checked = checkCall(address, body, accessKey);
  if (!checked.ok) return checked.reply;
  const bodyText = body.toString('utf8');
  const parsed = purchase.safeParse(JSON.parse(bodyText));
  if (!parsed.success) return refusal('000002');
  const { orderId, orderLineId, businessId } = parsed.data;
  const orderKey = `${orderId}/${orderLineId}`;

  const client = await pool.connect();
  let instance: { id: string; public_id: string } | undefined;
  try {
    await client.query('begin');
    const found = await client.query<{ id: string; public_id: string }>(
      'select id, public_id from instances where product = $1 and order_key = $2',
      [product, orderKey],
    );
    await client.query(
      'insert into callbacks (id, product, signed_at, signature, body) values ($1, $2, $3, $4, $5)',
      [randomUUID(), product, checked.signedAt, checked.signature, bodyText],
    );
    instance = found.rows[0];
    if (!instance) {
      const inserted = await client.query<{ id: string; public_id: string }>(
        'insert into instances (product, order_key, public_id) values ($1, $2, $3) returning id, public_id',
        [product, orderKey, businessId],
      );
      instance = inserted.rows[0];
    }
    await client.query('commit');
  } catch (error) {
    await client.query('rollback');
    log.warn({ err: error }, 'order.not_stored');
  } finally {
    client.release();
  }
  if (!instance) return refusal('000005');
  await queue.add('provision', { instance: instance.id });
  return replyToOrder({ state: 'pending' }, instance.public_id);
}
