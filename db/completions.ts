import { type Fold, fold } from '../core/fold.ts';
import type { InstanceEvent } from '../core/events.ts';
import { type InstanceState, stateAfter } from '../core/instance.ts';
import { type StoredEvent, toInstanceEvent } from './claims.ts';
import type { Queryable } from './client.ts';

/** An instance as a completion call decides about it. */
export type HeldCompletion = {
  instanceId: number;
  productId: number;
  state: InstanceState;
  resultCode: string | null;
  /** The generation that was last made real. */
  applied: number;
  hasAccess: boolean;
  events: InstanceEvent[];
  /** The call that was last made to the backend; null when none ever was. */
  lastCall: LastCall | null;
  dispatch: { state: string; openEvents: number } | null;
};

export type LastCall = {
  generation: number;
  /** For the one who ends it. */
  began: Date;
  fence: number;
  /** How it ended; null while it is under way. */
  class: string | null;
};

type HeldRow = Omit<HeldCompletion, 'events' | 'lastCall' | 'dispatch'>;

/**
 * @returns the internal number, undefined for an id that the product does not have, and for a product
 *   that asks no backend
 */
export async function findInstanceNumber(
  db: Queryable,
  at: { productId: number; publicId: string },
): Promise<number | undefined> {
  const { rows } = await db.query<{ id: number }>(
    `select i.id from instances i join products p on p.id = i.product_id
     where i.product_id = $1 and i.public_id = $2 and p.provisioner = 'http'`,
    [at.productId, at.publicId],
  );
  return rows[0]?.id;
}

/**
 * Reads an instance and holds it until the transaction ends, in the order that everything locks in:
 * instances, events, dispatches. A worker that is at it settles right after.
 */
export async function holdForCompletion(
  tx: Queryable,
  instanceId: number,
): Promise<HeldCompletion | undefined> {
  const found = await tx.query<HeldRow>(
    `select id as "instanceId", product_id as "productId", state, result_code as "resultCode", applied,
       access_enc is not null as "hasAccess"
     from instances where id = $1 for no key update`,
    [instanceId],
  );
  const [row] = found.rows;
  if (!row) return undefined;
  await tx.query(
    'select from events where instance_id = $1 and applied_at is null order by id for update',
    [instanceId],
  );
  const dispatches = await tx.query<{ state: string; openEvents: number }>(
    'select state, open_events as "openEvents" from dispatches where instance_id = $1 for update',
    [instanceId],
  );
  const stored = await tx.query<{ event: StoredEvent }>(
    `select json_build_object('id', e.id, 'kind', e.kind, 'orderId', e.order_id, 'orderLineId', e.order_line_id,
       'detail', e.detail, 'callbackId', e.callback_id, 'acceptedAt', e.accepted_at, 'resolvedAt', e.resolved_at,
       'appliedAt', e.applied_at, 'outcome', e.outcome) as event
     from events e where e.instance_id = $1 order by e.id`,
    [instanceId],
  );
  const calls = await tx.query<LastCall>(
    `select generation, began, fence, class from attempts
     where instance_id = $1 and kind = 'apply' order by began desc, fence desc limit 1`,
    [instanceId],
  );
  return {
    ...row,
    events: stored.rows.map(({ event }) => toInstanceEvent(event)),
    lastCall: calls.rows[0] ?? null,
    dispatch: dispatches.rows[0] ?? null,
  };
}

/**
 * The state that a call was made with: events are told in order, so it is the first so many of them
 * that make its generation. What became known only after the call began counts as not known.
 *
 * @returns undefined when no such state can be told any more; the backend is asked anew then
 */
export function foldAt(
  events: readonly InstanceEvent[],
  call: Pick<LastCall, 'generation' | 'began'>,
): Fold | undefined {
  const whole = fold(events);
  if (whole.generation === call.generation) return whole;
  const known = events.map((event) => ({
    ...event,
    resolvedAt:
      event.resolvedAt !== null && event.resolvedAt > call.began ? null : event.resolvedAt,
  }));
  for (let count = known.length; count > 0; count -= 1) {
    const before = fold(known.slice(0, count));
    if (before.generation === call.generation) return before;
  }
  return undefined;
}

/** Records that the state of the last call was made real. */
export async function writeCompleted(
  tx: Queryable,
  held: HeldCompletion & { lastCall: LastCall },
  made: {
    folded: Fold;
    /** Sealed; undefined keeps what stands there. */
    accessEnc: Buffer | undefined;
  },
): Promise<'idle' | 'due'> {
  const { folded } = made;
  const state = stateAfter(folded.desired);
  await tx.query(
    `update instances set applied = $2, state = $3, expires_at = $4,
       access_enc = case when $3 = 'released' then null else coalesce($5, access_enc) end
     where id = $1 and applied <= $2`,
    [
      held.instanceId,
      held.lastCall.generation,
      state,
      folded.desired.expiresAt,
      made.accessEnc ?? null,
    ],
  );
  const done = await tx.query(
    `update events set applied_at = now(), outcome = case when id = any($3::bigint[]) then 'moot' else 'applied' end
     where instance_id = $1 and id = any($2::bigint[]) and applied_at is null`,
    [held.instanceId, folded.covered, folded.moot],
  );
  await endCall(tx, held.lastCall, 'applied');
  return leave(tx, held.instanceId, done.rowCount ?? 0);
}

/** Records that the backend will never make it, and what the marketplace is told from now on. */
export async function writeCompletedRefusal(
  tx: Queryable,
  held: HeldCompletion & { lastCall: LastCall },
  refused: { resultCode: string },
): Promise<'idle' | 'due'> {
  await tx.query(
    `update instances set state = 'refused', result_code = $2, wanted = 'released' where id = $1`,
    [held.instanceId, refused.resultCode],
  );
  const done = await tx.query(
    `update events set applied_at = now(), outcome = 'moot' where instance_id = $1 and applied_at is null`,
    [held.instanceId],
  );
  // A look that comes late must find that nothing may exist.
  await tx.query(
    `insert into events (instance_id, kind, dedup_key, resolved_at, applied_at, outcome)
     values ($1, 'refused', 'refused', now(), now(), 'applied') on conflict (instance_id, dedup_key) do nothing`,
    [held.instanceId],
  );
  await endCall(tx, held.lastCall, 'refused');
  return leave(tx, held.instanceId, done.rowCount ?? 0);
}

/** Records that the backend gave up on it: a dead letter, unless something newer is to be made. */
export async function writeCompletedFailure(
  tx: Queryable,
  held: HeldCompletion & { lastCall: LastCall },
  failed: { cause: string; saidEnc: Buffer | undefined; isNewer: boolean },
): Promise<'dead' | 'due'> {
  await endCall(tx, held.lastCall, 'permanent', failed.saidEnc);
  await tx.query(
    `update dispatches set fence = nextval('fences'), dispatch = nextval('fences'), lease_until = null,
       dispatched_at = null, retry_at = null, claims = 0,
       attempts = case when $2 then 0 else attempts + 1 end, state = case when $2 then 'due' else 'dead' end,
       due_at = case when $2 then now() end, cause = case when $2 then null else $3 end
     where instance_id = $1`,
    [held.instanceId, failed.isNewer, failed.cause],
  );
  return failed.isNewer ? 'due' : 'dead';
}

async function endCall(
  tx: Queryable,
  call: LastCall,
  outcome: string,
  saidEnc?: Buffer,
): Promise<void> {
  await tx.query(
    `update attempts set ended = clock_timestamp(), class = $3, retry_at = null, said_enc = coalesce($4, said_enc)
     where began = $1 and fence = $2`,
    [call.began, call.fence, outcome, saidEnc ?? null],
  );
}

/**
 * What is left is made due; without anything the dispatch ends. A worker that is still waiting for
 * the answer to the call keeps its claim, and finds when it settles that it is done.
 */
async function leave(
  tx: Queryable,
  instanceId: number,
  doneEvents: number,
): Promise<'idle' | 'due'> {
  const { rows } = await tx.query<{ state: string; openEvents: number; isClaimed: boolean }>(
    `update dispatches set open_events = greatest(0, open_events - $2)
     where instance_id = $1
     returning state, open_events as "openEvents", lease_until is not null as "isClaimed"`,
    [instanceId, doneEvents],
  );
  const [left] = rows;
  if (!left) return 'idle';
  if (left.isClaimed) return left.openEvents > 0 ? 'due' : 'idle';
  if (left.openEvents <= 0) {
    await tx.query('delete from dispatches where instance_id = $1', [instanceId]);
    return 'idle';
  }
  await tx.query(
    `update dispatches set state = 'due', queue = 'provisioning', due_at = now(), since = now(), dispatched_at = null,
       retry_at = null, claims = 0, attempts = 0, cause = null where instance_id = $1`,
    [instanceId],
  );
  return 'due';
}
