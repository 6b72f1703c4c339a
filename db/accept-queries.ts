import type { InstanceState } from '../core/instance.ts';
import { timesAround } from './accept-orders.ts';
import type { Queryable } from './client.ts';

/** A verified question: nothing but its signed bytes is remembered. */
export type QueryRow = {
  id: string;
  productId: number;
  signedAt: Date;
  signature: Buffer;
  activity: string;
  /** The instance ids asked for, as the marketplace names them; none for a test call. */
  publicIds: readonly string[];
};

export type AskedInstance = {
  publicId: string;
  state: InstanceState | 'unknown';
  /** Internal number; null when unknown. */
  instanceId: number | null;
  /** Sealed; an alias shows the access data of the instance that it stands for. */
  accessEnc: Buffer | null;
  /** The instance that the sealing names. */
  sealedFor: number | null;
};

export type QueryOutcome =
  | { kind: 'answered'; instances: readonly AskedInstance[] }
  | { kind: 'replay' };

// $9, $10 least and greatest signed_at.
const statement = `with input as (
  select * from unnest($1::uuid[], $2::int[], $3::text[]::timestamptz[], $4::bytea[], $5::text[])
    with ordinality as t(id, product_id, signed_at, signature, activity, n)
), asked as (                 -- the ids of all calls, flat: call number, place in the call, id
  select * from unnest($6::int[], $7::int[], $8::text[]) as t(n, place, public_id)
), fresh as (
  insert into reads (id, product_id, signed_at, signature, activity)
  select id, product_id, signed_at, signature, activity from input order by signed_at, signature
  on conflict (signed_at, signature) do nothing returning id
), seen as (
  select i.id, r.id as stored_id from (select * from input where id not in (select id from fresh)) i
  join reads r on r.signed_at = i.signed_at and r.signature = i.signature and r.signed_at between $9::timestamptz and $10::timestamptz
), mine as (select id from fresh union all select id from seen where stored_id = id
)
select i.n::int, case when seen.stored_id <> i.id then 'replay' when m.id is null then 'again' else 'answered' end as outcome,
  a.public_id as "publicId", coalesce(s.state, 'unknown') as state, s.id as "instanceId",
  coalesce(o.access_enc, s.access_enc) as "accessEnc", coalesce(o.id, s.id) as "sealedFor"
from input i left join mine m using (id) left join seen using (id)
left join asked a on a.n = i.n and m.id is not null            -- a replay learns nothing
left join instances s on s.product_id = i.product_id and s.public_id = a.public_id
left join instances o on o.id = s.alias_of
order by i.n, a.place`;

type Answered = AskedInstance & { n: number; outcome: 'answered' | 'replay' | 'again' };

/**
 * Remembers a batch of questions in one commit and reads what they ask for.
 *
 * @returns an outcome a row, in the order given, the instances in the order asked
 */
export async function acceptQueries(
  db: Queryable,
  rows: readonly QueryRow[],
): Promise<(QueryOutcome | 'again')[]> {
  const asked = rows.flatMap((row, call) =>
    row.publicIds.map((publicId, place) => ({ call: call + 1, place, publicId })),
  );
  const result = await db.query<Answered>({
    name: 'queries.accept',
    text: statement,
    values: [
      rows.map((row) => row.id),
      rows.map((row) => row.productId),
      rows.map((row) => row.signedAt.toISOString()),
      rows.map((row) => row.signature),
      rows.map((row) => row.activity),
      asked.map(({ call }) => call),
      asked.map(({ place }) => place),
      asked.map(({ publicId }) => publicId),
      ...timesAround(rows),
    ],
  });
  const outcomes: (QueryOutcome | 'again')[] = [];
  const found: AskedInstance[][] = rows.map(() => []);
  for (const { n, outcome, ...instance } of result.rows) {
    const instances = found[n - 1] ?? [];
    if (outcome === 'answered') {
      if (instance.publicId !== null) instances.push(instance);
      outcomes[n - 1] = { kind: 'answered', instances };
    } else {
      outcomes[n - 1] = outcome === 'again' ? 'again' : { kind: 'replay' };
    }
  }
  return outcomes;
}
