import type { InstanceState, QueueName } from '../core/instance.ts';
import { type BegunAttempt, endAttempt } from './attempts.ts';
import type { EventDetail } from './accept-events.ts';
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
  /**
   * idle: nothing is left. due: newer events came. looking up: the rest is looked up at the
   * marketplace. parked: the rest waits until that can be done.
   */
  | 'idle'
  | 'due'
  | 'looking up'
  | 'parked'
  /** Nothing is left to do by now; a timer runs for the rest. */
  | 'later'
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
    /** When the same is to be made once more; undefined where all of it is made. */
    againInMs?: number | undefined;
  },
): Promise<SettleResult> {
  return fenced(db, settled, async (tx) => {
    const result = await tx.query<{ openEvents: number; dueAt: Date | null }>({
      name: 'dispatches.settle_applied',
      // Instances before events before dispatches: the one lock order.
      text: `with made as (
          update instances set applied = $3, state = case when state = 'refused' then state else $4 end,
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
      if (made.againInMs !== undefined) {
        // The age of its tries counts from then.
        await tx.query(
          `update dispatches set state = 'timed', queue = 'provisioning', due_at = now() + $3::float8 * interval '1 millisecond',
             since = now() + $3::float8 * interval '1 millisecond' where instance_id = $1 and fence = $2`,
          [settled.instanceId, settled.fence, made.againInMs],
        );
        return 'later';
      }
      await tx.query({
        name: 'dispatches.end',
        text: 'delete from dispatches where instance_id = $1 and fence = $2',
        values: [settled.instanceId, settled.fence],
      });
      return 'idle';
    }
    const waits = left.dueAt === null && left.openEvents <= made.unresolved;
    if (waits) return goOnToLookUp(tx, settled);
    await tx.query(
      `update dispatches set due_at = now(), state = 'due', queue = 'provisioning' where instance_id = $1 and fence = $2`,
      [settled.instanceId, settled.fence],
    );
    return 'due';
  });
}

/**
 * What is left waits for the marketplace's order: looked up at once where the product can ask for
 * it, else parked until it can, or until something else happens.
 */
async function goOnToLookUp(tx: Queryable, settled: Settled): Promise<'looking up' | 'parked'> {
  const result = await tx.query<{ state: string }>({
    name: 'dispatches.go_on_to_look_up',
    text: `update dispatches d set queue = 'order-lookup',
        state = case when c.can_ask then 'due' else 'timed' end, due_at = case when c.can_ask then now() end
      from (select
          exists (select from products p join product_keys k on k.product_id = p.id
            where p.id = $3 and p.open_api_url is not null and k.class = 'open-api' and k.retired_at is null)
          -- else two queues would hand it to each other for ever
          and exists (select from events e where e.instance_id = $1 and e.applied_at is null and e.resolved_at is null)
        as can_ask) c
      where d.instance_id = $1 and d.fence = $2 returning d.state`,
    values: [settled.instanceId, settled.fence, settled.productId],
  });
  return result.rows[0]?.state === 'due' ? 'looking up' : 'parked';
}

/** An event that became known, and what the marketplace's order adds to its detail. */
export type ResolvedEvent = { id: number; detail: EventDetail };

/**
 * Records what a look-up found, in one transaction. Whatever became known is applied next, and so is
 * what came meanwhile.
 */
export async function settleLookedUp(
  db: Database,
  settled: Settled,
  found: {
    resolved: readonly ResolvedEvent[];
    /**
     * For pay-per-use: the lines of the order that stand for the same product. The first of their
     * instances is the one that is made, the others are aliases of it.
     */
    siblings?: { orderId: string; orderLineIds: readonly string[] } | undefined;
    /** True where nothing more can be done until the product can ask or something else happens. */
    isParked: boolean;
    openEventsAtClaim: number;
  },
): Promise<'due' | 'parked' | 'lost'> {
  return fenced(db, settled, async (tx) => {
    if (found.siblings) {
      await tx.query(
        `update instances i set alias_of = f.id from (
           select min(id) as id from instances
           where product_id = $2 and order_id = $3 and order_line_id = any($4::text[])
             and state not in ('released', 'refused') and alias_of is null) f
         where i.id = $1 and f.id < i.id and i.alias_of is null and i.applied = 0`,
        [
          settled.instanceId,
          settled.productId,
          found.siblings.orderId,
          found.siblings.orderLineIds,
        ],
      );
    }
    await tx.query({
      name: 'events.resolve',
      text: `update events e set resolved_at = now(), detail = coalesce(e.detail, '{}') || f.detail::jsonb
        from unnest($2::bigint[], $3::text[]) as f(id, detail)
        where e.id = f.id and e.instance_id = $1 and e.resolved_at is null`,
      values: [
        settled.instanceId,
        found.resolved.map(({ id }) => id),
        found.resolved.map(({ detail }) => JSON.stringify(detail)),
      ],
    });
    const result = await tx.query<{ state: string }>({
      name: 'dispatches.settle_looked_up',
      text: `update dispatches d set lease_until = null, dispatched_at = null, retry_at = null,
          claims = 0, attempts = 0, cause = null,
          queue = case when c.is_parked then 'order-lookup' else 'provisioning' end,
          state = case when c.is_parked then 'timed' else 'due' end,
          due_at = case when c.is_parked then null else now() end
        from (select $3::bool and open_events <= $4 and due_at is null as is_parked
          from dispatches where instance_id = $1) c
        where d.instance_id = $1 and d.fence = $2 returning d.state`,
      values: [settled.instanceId, settled.fence, found.isParked, found.openEventsAtClaim],
    });
    const [row] = result.rows;
    if (!row) throw new Undo('the claim was lost');
    if (settled.attempt) {
      await endAttemptOf(tx, settled, { class: 'resolved' });
      await heal(tx, settled);
    }
    return row.state === 'due' ? 'due' : 'parked';
  });
}

/** Gives a claim back that may not be worked on yet: no try is lost. */
export async function settlePostponed(
  db: Database,
  settled: Settled,
  postponed: { delayMs: number; httpStatus?: number | undefined; openEventsAtClaim: number },
): Promise<'due' | 'lost'> {
  return fenced(db, settled, async (tx) => {
    const result = await tx.query({
      name: 'dispatches.settle_postponed',
      text: `update dispatches set lease_until = null, dispatched_at = null, retry_at = null,
          claims = greatest(0, claims - 1), state = 'due',
          queue = case when open_events > $3 then 'provisioning' else queue end,
          due_at = case when open_events > $3 or due_at is not null then now()
            else now() + $4::int * interval '1 millisecond' end
        where instance_id = $1 and fence = $2`,
      values: [
        settled.instanceId,
        settled.fence,
        postponed.openEventsAtClaim,
        Math.ceil(postponed.delayMs),
      ],
    });
    if (result.rowCount !== 1) throw new Undo('the claim was lost');
    const { httpStatus } = postponed;
    await endAttemptOf(tx, settled, { class: 'postponed', httpStatus });
    return 'due';
  });
}

/**
 * Records that an alias has nothing of its own to make: it is what the instance is that it stands
 * for, until it is released itself.
 */
export async function settleAlias(
  db: Database,
  settled: Settled,
  alias: {
    of: number;
    generation: number;
    /** All its events: none of them does anything by itself. */
    eventIds: readonly number[];
    isReleased: boolean;
    /** When to look again while the other is not there yet. */
    delayMs: number;
    openEventsAtClaim: number;
  },
): Promise<'idle' | 'due' | 'lost'> {
  const result = await db.pool.query<{ state: InstanceState }>(
    'select state from instances where id = $1',
    [alias.of],
  );
  const state = alias.isReleased ? 'released' : (result.rows[0]?.state ?? 'refused');
  if (state === 'pending') return settlePostponed(db, settled, alias);
  return fenced(db, settled, async (tx) => {
    await tx.query(
      `with made as (
         update instances set applied = $2, state = $3,
           result_code = (select o.result_code from instances o where o.id = instances.alias_of)
         where id = $1 and applied <= $2 returning id
       )
       update events e set applied_at = now(), outcome = 'moot' from made
       where e.instance_id = made.id and e.id = any($4::bigint[]) and e.applied_at is null`,
      [settled.instanceId, alias.generation, state, alias.eventIds],
    );
    const ended = await tx.query(
      `delete from dispatches where instance_id = $1 and fence = $2 and due_at is null and open_events <= $3`,
      [settled.instanceId, settled.fence, alias.openEventsAtClaim],
    );
    if (ended.rowCount === 1) return 'idle';
    const kept = await tx.query(
      `update dispatches set lease_until = null, dispatched_at = null, retry_at = null, claims = 0, attempts = 0,
         cause = null, open_events = greatest(0, open_events - $3), due_at = now(), state = 'due', queue = 'provisioning'
       where instance_id = $1 and fence = $2`,
      [settled.instanceId, settled.fence, alias.openEventsAtClaim],
    );
    if (kept.rowCount !== 1) throw new Undo('the claim was lost');
    return 'due';
  });
}

async function heal(tx: Queryable, settled: Settled): Promise<void> {
  await tx.query({
    name: 'product_queues.heal',
    text: `update product_queues set failures_running = 0 where product_id = $1 and queue = $2 and failures_running > 0`,
    values: [settled.productId, settled.queue],
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
          queue = case when newer then 'provisioning' else queue end,
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

/**
 * Records that the backend took a state on and will say by a completion call how it ended. Until then
 * the dispatch waits, and is due again after a while: the completion may have been lost.
 *
 * @returns idle or due where the completion was quicker than this
 */
export async function settlePending(
  db: Database,
  settled: Settled,
  pending: {
    generation: number;
    /** When to ask again. */
    delayMs: number;
    httpStatus: number;
    openEventsAtClaim: number;
  },
): Promise<'waiting' | 'due' | 'idle' | 'lost'> {
  return fenced(db, settled, async (tx) => {
    // Instances before dispatches: a completion holds the same row.
    const { rows } = await tx.query<{ isOver: boolean }>(
      `select applied >= $2 or state = 'refused' as "isOver" from instances where id = $1 for share`,
      [settled.instanceId, pending.generation],
    );
    const isOver = rows[0]?.isOver === true;
    const result = await tx.query<{ state: string; isLeft: boolean }>({
      name: 'dispatches.settle_pending',
      text: `update dispatches set lease_until = null, dispatched_at = null, retry_at = null,
          claims = 0, attempts = 0, cause = null,
          state = case when d.newer then 'due' else 'timed' end,
          due_at = case when d.newer then now() else now() + $4::int * interval '1 millisecond' end
        from (select instance_id as id, due_at is not null or (case when $5 then open_events > 0 else open_events > $3 end) as newer
          from dispatches where instance_id = $1 for update) d
        where instance_id = d.id and fence = $2 returning state, open_events > 0 or d.newer as "isLeft"`,
      values: [
        settled.instanceId,
        settled.fence,
        pending.openEventsAtClaim,
        Math.ceil(pending.delayMs),
        isOver,
      ],
    });
    const [row] = result.rows;
    if (!row) throw new Undo('the claim was lost');
    await heal(tx, settled);
    if (!isOver) {
      await endAttemptOf(tx, settled, { class: 'pending', httpStatus: pending.httpStatus });
      return row.state === 'due' ? 'due' : 'waiting';
    }
    // The completion has ended the call that it was for; a repeated one is ended here.
    await tx.query(
      `update attempts set ended = clock_timestamp(), class = 'applied', http_status = $3
       where began = $1 and fence = $2 and class is null`,
      [settled.attempt?.began ?? null, settled.fence, pending.httpStatus],
    );
    if (row.isLeft) return 'due';
    await tx.query('delete from dispatches where instance_id = $1 and fence = $2', [
      settled.instanceId,
      settled.fence,
    ]);
    return 'idle';
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
      `with moot as (
         update events set applied_at = now(), outcome = 'moot' where instance_id = $1 and applied_at is null
       )
       -- A look that comes late, after a lost claim, must find that nothing may exist.
       insert into events (instance_id, kind, dedup_key, resolved_at, applied_at, outcome)
       values ($1, 'refused', 'refused', now(), now(), 'applied')
       on conflict (instance_id, dedup_key) do nothing`,
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
