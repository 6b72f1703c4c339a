import { sql } from 'drizzle-orm';
import type { InstanceEvent, OperatorEventKind } from '../core/events.ts';
import type { InstanceState, WantedState } from '../core/instance.ts';
import { type StoredEvent, toInstanceEvent } from './claims.ts';
import type { Queryable, Transaction } from './client.ts';
import {
  type DeadLetterFilter,
  deadInstances,
  fingerprintOfDispatch,
  wordsOf,
} from './dead-letters.ts';

/** A dead letter as an operator's act decides about it. */
export type HeldDeadLetter = {
  instanceNumber: number;
  productId: number;
  product: string;
  orderId: string;
  /** The id that the marketplace and the seller know. */
  instanceId: string;
  state: InstanceState;
  applied: number;
  wanted: WantedState;
  cause: string | null;
  fingerprint: string;
  /** All, in the order of acceptance; the open ones are those without `appliedAt`. */
  events: InstanceEvent[];
};

/**
 * Reads dead letters and holds them until the transaction ends: no event is accepted for them and
 * nothing redrives them meanwhile. Callbacks that come are stored right after.
 *
 * Locks instances, events, dispatches, in this order and sorted, as everything does.
 *
 * @param options.hold false only looks
 */
export async function readDeadLettersForAct(
  tx: Transaction,
  filter: DeadLetterFilter,
  options: { hold: boolean },
): Promise<HeldDeadLetter[]> {
  const found = await tx.orm.execute<{ id: number }>(sql`
    select i.id from instances i where i.id in (${deadInstances(filter)}) order by i.id
    ${options.hold ? sql`for no key update` : sql``}`);
  const ids = found.rows.map((row) => Number(row.id));
  if (ids.length === 0) return [];
  if (options.hold) {
    await tx.query(
      'select from events where instance_id = any($1::bigint[]) and applied_at is null order by id for update',
      [ids],
    );
    await tx.query(
      'select from dispatches where instance_id = any($1::bigint[]) order by instance_id for update',
      [ids],
    );
  }
  // What was dead at the first look may have been redriven before it was locked.
  const dead = await tx.orm.execute<Omit<HeldDeadLetter, 'events'>>(sql`
    select i.id as "instanceNumber", i.product_id as "productId", p.key as "product",
      i.order_id as "orderId", i.public_id as "instanceId", i.state, i.applied, i.wanted, d.cause,
      ${fingerprintOfDispatch} as "fingerprint"
    from dispatches d
    join instances i on i.id = d.instance_id
    join products p on p.id = d.product_id
    where d.instance_id = any(${sql.param(ids)}::bigint[]) and d.instance_id in (${deadInstances(filter)})
    order by i.id`);
  const events = await readEvents(tx, ids);
  return dead.rows.map((row) => {
    const instanceNumber = Number(row.instanceNumber);
    return {
      ...row,
      instanceNumber,
      cause: wordsOf(row.cause),
      events: events.get(instanceNumber) ?? [],
    };
  });
}

async function readEvents(
  tx: Queryable,
  ids: readonly number[],
): Promise<Map<number, InstanceEvent[]>> {
  const { rows } = await tx.query<{ instanceNumber: number; events: StoredEvent[] }>(
    `select e.instance_id as "instanceNumber", json_agg(json_build_object('id', e.id, 'kind', e.kind,
       'orderId', e.order_id, 'orderLineId', e.order_line_id, 'detail', e.detail, 'callbackId', e.callback_id,
       'acceptedAt', e.accepted_at, 'resolvedAt', e.resolved_at, 'appliedAt', e.applied_at,
       'outcome', e.outcome) order by e.id) as events
     from events e where e.instance_id = any($1::bigint[]) group by e.instance_id`,
    [ids],
  );
  return new Map(
    rows.map(({ instanceNumber, events }) => [instanceNumber, events.map(toInstanceEvent)]),
  );
}

export type Skip = { instanceNumber: number; events: readonly number[]; wanted: WantedState };

/**
 * Takes events out of what instances should be, and makes the instances due: what a failed try may
 * have left of them is put right by the next state.
 */
export async function writeSkips(tx: Queryable, skips: readonly Skip[]): Promise<void> {
  await setWanted(tx, skips);
  await tx.query(
    // A release that was taken back must not make the next one look like a re-send.
    `update events set applied_at = now(), outcome = 'skipped',
       dedup_key = case kind when 'released' then 'released/skipped/' || id else dedup_key end
     where id = any($1::bigint[]) and applied_at is null`,
    [skips.flatMap((skip) => skip.events)],
  );
  await insertOperatorEvents(
    tx,
    skips.map((skip) => ({
      ...skip,
      kind: 'skipped',
      dedupKey: `skipped/${skip.events.join(',')}`,
    })),
    { isApplied: false },
  );
  await makeDue(
    tx,
    skips.map(({ instanceNumber, events }) => ({ instanceNumber, openMore: 1 - events.length })),
  );
}

export type HandMade = {
  instanceNumber: number;
  /** Every open event of the instance. */
  events: readonly number[];
  /** Of these, the ones that no longer matter. */
  moot: readonly number[];
  generation: number;
  state: InstanceState;
  wanted: WantedState;
  expiresAt: Date | null;
  /** Sealed; undefined keeps what stands there. */
  accessEnc: Buffer | undefined;
};

/** Records that a person made real what was open: nothing is left to do. */
export async function writeHandMade(tx: Queryable, made: readonly HandMade[]): Promise<void> {
  for (const one of made) {
    await tx.query(
      `update instances set applied = $2, state = $3, wanted = $4, expires_at = $5,
         access_enc = case when $3 in ('released', 'refused') then null else coalesce($6, access_enc) end
       where id = $1`,
      [
        one.instanceNumber,
        one.generation,
        one.state,
        one.wanted,
        one.expiresAt,
        one.accessEnc ?? null,
      ],
    );
  }
  await tx.query(
    `update events set applied_at = now(), resolved_at = coalesce(resolved_at, now()),
       outcome = case when id = any($2::bigint[]) then 'moot' else 'applied' end
     where id = any($1::bigint[]) and applied_at is null`,
    [made.flatMap((one) => one.events), made.flatMap((one) => one.moot)],
  );
  await insertOperatorEvents(
    tx,
    made.map((one) => ({
      ...one,
      kind: 'resolved',
      dedupKey: `resolved/${one.generation}`,
    })),
    { isApplied: true },
  );
  await tx.query(`delete from dispatches where instance_id = any($1::bigint[])`, [
    made.map((one) => one.instanceNumber),
  ]);
}

/**
 * Refuses purchases that were never made. Re-sends are answered the code at once; what a try may
 * have left behind is taken away by a worker, as after a release.
 */
export async function writeRefusals(
  tx: Queryable,
  refused: { instances: readonly number[]; resultCode: string },
): Promise<void> {
  await tx.query(
    `update instances set state = 'refused', result_code = $2, wanted = 'released' where id = any($1::bigint[])`,
    [refused.instances, refused.resultCode],
  );
  await insertOperatorEvents(
    tx,
    refused.instances.map((instanceNumber) => ({
      instanceNumber,
      kind: 'refused',
      dedupKey: 'refused',
      events: [],
    })),
    { isApplied: false },
  );
  await makeDue(
    tx,
    refused.instances.map((instanceNumber) => ({ instanceNumber, openMore: 1 })),
  );
}

async function setWanted(
  tx: Queryable,
  rows: readonly { instanceNumber: number; wanted: WantedState }[],
): Promise<void> {
  await tx.query(
    `update instances i set wanted = r.wanted
     from unnest($1::bigint[], $2::text[]) as r(id, wanted) where i.id = r.id`,
    [rows.map((row) => row.instanceNumber), rows.map((row) => row.wanted)],
  );
}

async function insertOperatorEvents(
  tx: Queryable,
  rows: readonly {
    instanceNumber: number;
    kind: OperatorEventKind;
    dedupKey: string;
    events: readonly number[];
  }[],
  { isApplied }: { isApplied: boolean },
): Promise<void> {
  await tx.query(
    `insert into events (instance_id, kind, dedup_key, detail, resolved_at, applied_at, outcome)
     select id, kind, dedup_key, detail::jsonb, now(), case when $5 then now() end, case when $5 then 'applied' end
     from unnest($1::bigint[], $2::text[], $3::text[], $4::text[]) as r(id, kind, dedup_key, detail) order by id`,
    [
      rows.map((row) => row.instanceNumber),
      rows.map((row) => row.kind),
      rows.map((row) => row.dedupKey),
      rows.map((row) => JSON.stringify({ events: row.events })),
      isApplied,
    ],
  );
}

/** The schedule begins anew: it is another state that is tried now. */
async function makeDue(
  tx: Queryable,
  rows: readonly { instanceNumber: number; openMore: number }[],
): Promise<void> {
  await tx.query(
    `update dispatches d set due_at = now(), state = 'due', queue = 'provisioning', since = now(),
       attempts = 0, claims = 0, retry_at = null, dispatched_at = null, cause = null,
       open_events = d.open_events + r.more
     from unnest($1::bigint[], $2::int[]) as r(id, more) where d.instance_id = r.id`,
    [rows.map((row) => row.instanceNumber), rows.map((row) => row.openMore)],
  );
}
