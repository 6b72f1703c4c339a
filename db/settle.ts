import type { InstanceState, QueueName } from '../core/instance.ts';
import { type BegunAttempt, endAttempt } from './attempts.ts';
import { type Database, type Queryable, Undo } from './client.ts';

/** Which claim is settled, and the attempt that was made under it, if one was. */
export type Settled = {
  instanceId: number;
  productId: number;
  queue: QueueName;
  fence: number;
  attempt: BegunAttempt | undefined;
};

export type SettleResult =
  /** idle: nothing is left. due: newer events came. parked: the rest waits for the marketplace's order. */
  | 'idle'
  | 'due'
  | 'parked'
  /** Somebody else has claimed it since; nothing was recorded, the instance is due again. */
  | 'lost';

/**
 * Records that a state was made real, in one transaction: the instance, its events, the dispatch.
 * An older generation never overwrites a newer one, and a claim that was lost records nothing.
 */
export async function settleApplied(
  db: Database,
  settled: Settled,
  made: {
    generation: number;
    state: InstanceState;
    expiresAt: Date | null;
    /** Sealed; undefined keeps what stands there. */
    accessEnc: Buffer | undefined;
    covered: readonly number[];
    moot: readonly number[];
    /** Events that stay open by themselves: their order is to be looked up. */
    unresolved: number;
  },
): Promise<SettleResult> {
  return fenced(db, settled, async (tx) => {
    const result = await tx.query<{ openEvents: number; dueAt: Date | null }>({
      name: 'dispatches.settle_applied',
      // Instances before events before dispatches: the one lock order.
      text: `with made as (
          update instances set applied = $3, state = $4,
            -- without an attempt nothing was made, so that what stands there stands
            expires_at = case when $9::timestamptz is null then expires_at else $5 end,
            access_enc = case when $4 in ('released', 'refused') then null else coalesce($6, access_enc) end
          where id = $1 and applied <= $3 returning id
        ), done as (
          update events e set applied_at = now(), outcome = case when e.id = any($8::bigint[]) then 'moot' else 'applied' end
          from made where e.instance_id = made.id and e.id = any($7::bigint[]) and e.applied_at is null returning e.id
        ), ended as (
          update attempts set ended = clock_timestamp(), class = 'applied' where began = $9::timestamptz and fence = $2
        ), healed as (
          update product_queues set failures_running = 0
          where product_id = $10 and queue = $11 and failures_running > 0 and $9::timestamptz is not null
        )
        update dispatches d set open_events = d.open_events - (select count(*)::int from done),
          lease_until = null, dispatched_at = null, retry_at = null, claims = 0, attempts = 0, cause = null,
          -- asked for while this was under way: still to be done
          put_again = d.put_again and d.due_at is not null
        where d.instance_id = $1 and d.fence = $2
        returning d.open_events as "openEvents", d.due_at as "dueAt"`,
      values: [
        settled.instanceId,
        settled.fence,
        made.generation,
        made.state,
        made.expiresAt,
        made.accessEnc ?? null,
        made.covered,
        made.moot,
        settled.attempt?.began ?? null,
        settled.productId,
        settled.queue,
      ],
    });
    const [left] = result.rows;
    if (!left) throw new Undo('the claim was lost');
    if (left.openEvents <= 0 && left.dueAt === null) {
      await tx.query({
        name: 'dispatches.end',
        text: 'delete from dispatches where instance_id = $1 and fence = $2',
        values: [settled.instanceId, settled.fence],
      });
      return 'idle';
    }
    const parked = left.dueAt === null && left.openEvents <= made.unresolved;
    await tx.query(
      parked
        ? `update dispatches set due_at = null, state = 'timed', queue = 'order-lookup' where instance_id = $1 and fence = $2`
        : `update dispatches set due_at = now(), state = 'due', queue = 'provisioning' where instance_id = $1 and fence = $2`,
      [settled.instanceId, settled.fence],
    );
    return parked ? 'parked' : 'due';
  });
}

/**
 * Records a failed attempt, and when the next one is, or that there is none. An event that came
 * meanwhile makes the instance due at once, whatever the back-off.
 */
export async function settleFailed(
  db: Database,
  settled: Settled,
  failed: {
    class: string;
    cause: string;
    httpStatus: number | undefined;
    saidEnc: Buffer | undefined;
    /** Undefined: no further try, a dead letter. */
    retryInMs: number | undefined;
    isTransient: boolean;
    openEventsAtClaim: number;
  },
): Promise<'due' | 'failing' | 'dead' | 'lost'> {
  return fenced(db, settled, async (tx) => {
    const { retryInMs } = failed;
    const result = await tx.query<{ state: 'due' | 'failing' | 'dead' }>({
      name: 'dispatches.settle_failed',
      text: `update dispatches set lease_until = null, dispatched_at = null, claims = 0,
          attempts = case when newer then 0 else attempts + 1 end,
          state = case when newer then 'due' when $4::int is null then 'dead' else 'failing' end,
          due_at = case when newer then now() end,
          retry_at = case when newer or $4::int is null then null else now() + $4::int * interval '1 millisecond' end,
          cause = case when newer then null else $5 end
        from (select instance_id as id, open_events > $3 or due_at is not null as newer
          from dispatches where instance_id = $1 for update) d
        where instance_id = d.id and fence = $2 returning state`,
      values: [
        settled.instanceId,
        settled.fence,
        failed.openEventsAtClaim,
        retryInMs ?? null,
        failed.cause,
      ],
    });
    const [row] = result.rows;
    if (!row) throw new Undo('the claim was lost');
    await endAttemptOf(tx, settled, {
      class: failed.class,
      httpStatus: failed.httpStatus,
      saidEnc: failed.saidEnc,
      retryInMs: row.state === 'failing' ? retryInMs : undefined,
    });
    if (failed.isTransient) {
      await tx.query({
        name: 'product_queues.fail',
        text: `insert into product_queues as q (product_id, queue, failures_running) values ($1, $2, 1)
          on conflict (product_id, queue) do update set failures_running = q.failures_running + 1`,
        values: [settled.productId, settled.queue],
      });
    }
    return row.state;
  });
}

/** Records that an instance will never be made, and what the marketplace is told from now on. */
export async function settleRefused(
  db: Database,
  settled: Settled,
  refused: { resultCode: string },
): Promise<'refused' | 'lost'> {
  return fenced(db, settled, async (tx) => {
    await tx.query(
      `update instances set state = 'refused', result_code = $2, wanted = 'released' where id = $1`,
      [settled.instanceId, refused.resultCode],
    );
    // A statement of its own: its snapshot shows what was accepted while the instance was waited for.
    await tx.query(
      `update events set applied_at = now(), outcome = 'moot' where instance_id = $1 and applied_at is null`,
      [settled.instanceId],
    );
    const ended = await tx.query('delete from dispatches where instance_id = $1 and fence = $2', [
      settled.instanceId,
      settled.fence,
    ]);
    if (ended.rowCount !== 1) throw new Undo('the claim was lost');
    await endAttemptOf(tx, settled, { class: 'refused' });
    return 'refused';
  });
}

async function endAttemptOf(
  tx: Queryable,
  settled: Settled,
  end: Parameters<typeof endAttempt>[2],
): Promise<void> {
  if (settled.attempt) await endAttempt(tx, settled.attempt, end);
}

async function fenced<T extends string>(
  db: Database,
  settled: Settled,
  work: (tx: Queryable) => Promise<T>,
): Promise<T | 'lost'> {
  try {
    return await db.transaction(work);
  } catch (error) {
    if (!(error instanceof Undo)) throw error;
    if (settled.attempt) await endAttempt(db.pool, settled.attempt, { class: 'lost' });
    await lookAgain(db.pool, settled);
    return 'lost';
  }
}

/**
 * The effect of a lost claim may have come after a newer one's: the newest state is put once more,
 * last. Where the instance is claimed, its settle finds due_at and makes it due; where it is dead or
 * backs off, the next try is that put.
 */
async function lookAgain(
  db: Queryable,
  { instanceId, productId }: { instanceId: number; productId: number },
): Promise<void> {
  await db.query(
    `insert into dispatches as d (instance_id, product_id, open_events, due_at, put_again) values ($1, $2, 0, now(), true)
     on conflict (instance_id) do update set
       put_again = true,
       due_at = case when d.state = 'dead' or d.retry_at is not null or (d.dispatched_at is not null and d.lease_until is null)
         then d.due_at else coalesce(d.due_at, now()) end,
       state = case when d.state = 'timed' then 'due' else d.state end,
       queue = case when d.state = 'timed' then 'provisioning' else d.queue end`,
    [instanceId, productId],
  );
}
