import { randomBytes, randomUUID } from 'node:crypto';
import { type EventRow, acceptEvents } from '../../db/accept-events.ts';
import { type OrderRow, createOrderStore } from '../../db/accept-orders.ts';
import type { QueryRow } from '../../db/accept-queries.ts';
import { type Database, type Queryable, createDatabase } from '../../db/client.ts';
import { handOver } from '../../db/hand-over.ts';

export function openTestDatabase(url: string, poolMax = 4): Database {
  return createDatabase({ url, applicationName: 'test', poolMax, onIdleError: () => undefined });
}

/** @returns its number */
export async function addTestProduct(db: Queryable): Promise<number> {
  const { rows } = await db.query<{ id: number }>(
    `insert into products (key, name, provisioner) values ($1, $1, 'http') returning id`,
    [`p-${randomBytes(4).toString('hex')}`],
  );
  return Number(rows[0]?.id);
}

/** What each call has, whatever it says. */
const callOf = (productId: number) => ({
  id: randomUUID(),
  productId,
  keyId: 1,
  family: 'saas-v2',
  signedAt: new Date(),
  signature: randomBytes(32),
  body: Buffer.from('sealed'),
});

export function orderRow(productId: number, change: Partial<OrderRow> = {}): OrderRow {
  const orderId = change.orderId ?? `CS${randomBytes(5).toString('hex')}`;
  return {
    ...callOf(productId),
    activity: 'newInstance',
    orderKey: `${orderId}/1`,
    orderId,
    orderLineId: '1',
    proposedId: randomUUID(),
    isResolved: true,
    ...change,
  };
}

export function eventRow(
  productId: number,
  publicId: string,
  kind: EventRow['kind'],
  change: Partial<EventRow> = {},
): EventRow {
  const orderId = `R${randomBytes(5).toString('hex')}`;
  const keys: Partial<Record<EventRow['kind'], string>> = {
    renewed: `renew/RENEWAL/${orderId}/1`,
    upgraded: `upgrade/${orderId}/1`,
    released: 'released',
  };
  return {
    ...callOf(productId),
    activity: kind,
    publicId,
    kind,
    dedupKey: keys[kind] ?? null,
    orderId,
    orderLineId: '1',
    detail: kind === 'renewed' ? { scene: 'RENEWAL', expiresAt: '2030-01-01T00:00:00.000Z' } : {},
    isResolved: kind !== 'upgraded',
    ...change,
  };
}

export function queryRow(
  productId: number,
  publicIds: string[],
  change: Partial<QueryRow> = {},
): QueryRow {
  const { id, signedAt, signature } = callOf(productId);
  return { id, productId, signedAt, signature, activity: 'queryInstance', publicIds, ...change };
}

export type Bought = { id: number; publicId: string; productId: number };

/** Buys so many instances of a product, as the receiver would. */
export async function buy(db: Queryable, productId: number, count = 1): Promise<Bought[]> {
  const rows = Array.from({ length: count }, () => orderRow(productId));
  const outcomes = await createOrderStore()(db, rows);
  return outcomes.map((outcome) => {
    if (outcome === 'again' || outcome.kind !== 'accepted') throw new Error('not bought');
    return { id: outcome.instanceId, publicId: outcome.publicId, productId };
  });
}

export async function buyOne(db: Queryable, productId?: number): Promise<Bought> {
  const [bought] = await buy(db, productId ?? (await addTestProduct(db)));
  if (!bought) throw new Error('nothing was bought');
  return bought;
}

/** One event, as the receiver would store it. */
export async function tellEvent(
  db: Queryable,
  { productId, publicId }: Bought,
  kind: EventRow['kind'],
): Promise<string> {
  const [outcome] = await acceptEvents(db, [eventRow(productId, publicId, kind)]);
  return outcome === 'again' || outcome === undefined ? 'again' : outcome.kind;
}

/** Hands over whatever is due, and gives the number of one instance's hand-over. */
export async function handOne(db: Queryable, instance: Bought): Promise<number> {
  await handOver(db, { queue: 'provisioning', windowMax: 2_000, pageMax: 500 });
  const row = await readDispatch(db, instance);
  if (!row?.isHanded || row.isLeased) throw new Error('it was not handed over');
  return row.dispatch;
}

export type DispatchRow = {
  queue: string;
  state: string;
  openEvents: number;
  isDue: boolean;
  dispatch: number;
  isHanded: boolean;
  isLeased: boolean;
  retryInMs: number | null;
  claims: number;
  attempts: number;
  cause: string | null;
};

export async function readDispatch(
  db: Queryable,
  { id }: Pick<Bought, 'id'>,
): Promise<DispatchRow | undefined> {
  const { rows } = await db.query<DispatchRow>(
    `select queue, state, open_events as "openEvents", due_at <= now() is true as "isDue", dispatch,
       dispatched_at is not null as "isHanded", lease_until > now() is true as "isLeased",
       (extract(epoch from retry_at - now()) * 1000)::float8 as "retryInMs", claims, attempts, cause
     from dispatches where instance_id = $1`,
    [id],
  );
  return rows[0];
}

export async function readInstance(db: Queryable, { id }: Pick<Bought, 'id'>) {
  const { rows } = await db.query<{
    state: string;
    applied: number;
    wanted: string;
    resultCode: string | null;
    expiresAt: Date | null;
    access: Buffer | null;
  }>(
    `select state, applied, wanted, result_code as "resultCode", expires_at as "expiresAt",
       access_enc as access from instances where id = $1`,
    [id],
  );
  return rows[0];
}

export async function readOutcomes(db: Queryable, { id }: Pick<Bought, 'id'>): Promise<string[]> {
  const { rows } = await db.query<{ said: string }>(
    `select kind || ' ' || coalesce(outcome, 'open') as said from events where instance_id = $1 order by id`,
    [id],
  );
  return rows.map(({ said }) => said);
}
