import postgres from 'postgres';
import { expect } from 'vitest';
import type { ExpectedState, LedgerEntry } from '../../simulator/ledger.ts';
import { compareAccessData, compareWithBackend } from '../../simulator/story/compare.ts';
import type { InstanceInfo } from '../../simulator/marketplace.ts';
import { until } from '../servers/until.ts';
import type { Rig, Side } from './rig.ts';

/**
 * Waits until nothing is left to do, then compares what the marketplace's ledger says with all that
 * there is: everything acknowledged is applied, nothing is there twice, every instance is the fold of
 * its events. Prints the figures.
 *
 * @param figures what was done to the system, e.g. `{ kills: 4 }`
 */
export async function proveLedger(
  rig: Rig,
  title: string,
  figures: Record<string, number> = {},
  timeoutMs = 60_000,
): Promise<void> {
  const beganMs = performance.now();
  await untilSettled(rig, timeoutMs);
  const settledMs = performance.now() - beganMs;
  const problems: string[] = [...rig.sellerBackend.problems, ...judgeReplies(rig)];
  for (const side of [rig.tenants, rig.backend]) {
    problems.push(...side.market.ledger.problems());
    problems.push(...(await compareDatabase(rig, side)));
    const firstSeen = seenFirst(rig);
    const info = await readInfo(side);
    problems.push(...compareAccessData(side.market.ledger, info, firstSeen));
    if (side === rig.tenants) problems.push(...(await compareTenants(rig, info)));
  }
  problems.push(...compareWithBackend(rig.backend.market.ledger, rig.sellerBackend.instances));
  expect(problems).toEqual([]);
  tell(rig, title, { ...figures, settledMs: Math.round(settledMs) });
}

/** Until no instance has work left, and none is dead. */
async function untilSettled(rig: Rig, timeoutMs = 60_000): Promise<void> {
  await until(
    () =>
      rig.system.sql`select instance_id, state, queue, open_events, claims, attempts, cause, due_at,
        retry_at, dispatched_at, lease_until from dispatches order by instance_id limit 5`.then(
        (rows) => [...rows],
      ),
    [],
    { timeoutMs, what: 'the end of all work' },
  );
}

/** Lines on standard error, one a test: what was done, and what came of it. */
export function tell(rig: Rig, title: string, figures: Record<string, number | string>): void {
  const ledgers = [rig.tenants, rig.backend].map((side) => side.market.ledger);
  const count = (outcome: LedgerEntry['outcome']): number =>
    ledgers.reduce((sum, ledger) => sum + ledger.count(outcome), 0);
  const all = {
    orders: ledgers.reduce((sum, ledger) => sum + ledger.instanceIds().length, 0),
    acknowledged: count('acknowledged'),
    refused: count('refused'),
    unanswered: count('unanswered'),
    ...figures,
  };
  const text = Object.entries(all).map(([name, value]) => `${name} ${value}`);
  process.stderr.write(`[faults] ${title} (${rig.kind}): ${text.join(', ')}\n`);
}

type InstanceRow = {
  id: number;
  publicId: string;
  orderId: string;
  state: string;
  applied: number;
  expiresAt: Date | null;
  kinds: string[] | null;
  openEvents: number;
};

/** The product's rows against the ledger: the same instances, the same facts, each of them once. */
async function compareDatabase(rig: Rig, side: Side): Promise<string[]> {
  const { ledger } = side.market;
  const rows = await rig.system.sql<InstanceRow[]>`
    select i.id::int, i.public_id as "publicId", i.order_id as "orderId", i.state, i.applied,
      i.expires_at as "expiresAt",
      (select array_agg(e.kind order by e.id) from events e where e.instance_id = i.id) as kinds,
      (select count(*)::int from events e where e.instance_id = i.id and e.applied_at is null) as "openEvents"
    from instances i join products p on p.id = i.product_id where p.key = ${side.product.key}`;
  const problems: string[] = [];
  const known = new Set(ledger.instanceIds());
  for (const id of known) {
    if (!rows.some((row) => row.publicId === id)) problems.push(`${id} was acknowledged and lost`);
  }
  for (const row of rows) {
    const id = row.publicId;
    if (!known.has(id)) {
      problems.push(`${id} of order ${row.orderId} was never acknowledged`);
      continue;
    }
    const kinds = row.kinds ?? [];
    const acknowledged = kindsOf(ledger.entries(), id);
    if (kinds.join() !== acknowledged.join()) {
      problems.push(`${id} holds ${kinds.join()}, acknowledged were ${acknowledged.join()}`);
    }
    if (row.openEvents > 0)
      problems.push(`${id} has ${row.openEvents} events that never were applied`);
    // Without look-ups each fact is one step.
    if (row.applied !== kinds.length) {
      problems.push(`${id} stands at ${row.applied} of ${kinds.length} facts`);
    }
    const expected = ledger.expectedState(id);
    if (row.state !== stateOf(expected)) {
      problems.push(`${id} is ${row.state}, the ledger says ${stateOf(expected)}`);
    }
    // Of what is released nothing else counts, so its end may never have been written down.
    const expiresAt = row.expiresAt?.toISOString() ?? null;
    if (expected.exists && expiresAt !== expected.expiresAt) {
      problems.push(`${id} ends ${expiresAt}, the ledger says ${expected.expiresAt}`);
    }
  }
  return problems;
}

function stateOf({ exists, frozen }: ExpectedState): string {
  if (!exists) return 'released';
  return frozen ? 'frozen' : 'active';
}

/** The facts that the acknowledged calls about an instance stand for, without those told twice. */
function kindsOf(entries: readonly LedgerEntry[], instanceId: string): string[] {
  const kinds: string[] = [];
  const told = new Set<string>();
  let status = 'UNFREEZE';
  const once = (key: string, kind: string): void => {
    if (!told.has(key)) kinds.push(kind);
    told.add(key);
  };
  for (const entry of entries) {
    if (entry.outcome !== 'acknowledged' || entry.instanceId !== instanceId) continue;
    if (entry.activity === 'newInstance') once('created', 'created');
    if (entry.activity === 'refreshInstance') once(`renew/${entry.orderId ?? ''}`, 'renewed');
    if (entry.activity === 'releaseInstance') once('released', 'released');
    if (entry.activity === 'updateInstanceStatus' && entry.status !== status) {
      status = entry.status ?? '';
      kinds.push(status === 'FREEZE' ? 'frozen' : 'unfrozen');
    }
  }
  return kinds;
}

type TenantRow = {
  instanceId: number;
  generation: number;
  role: string;
  canLogIn: boolean | null;
  hasSchema: boolean;
};

/** Schemas, roles and logins against the ledger. */
async function compareTenants(
  rig: Rig,
  info: ReadonlyMap<string, InstanceInfo>,
): Promise<string[]> {
  const { ledger } = rig.tenants.market;
  if (ledger.instanceIds().length === 0) return [];
  const sql = postgres(rig.tenantsUrl, { max: 1, onnotice: () => undefined });
  try {
    const rows = await sql<TenantRow[]>`
      select t.instance_id::int as "instanceId", t.generation, t.role, r.rolcanlogin as "canLogIn",
        n.oid is not null as "hasSchema"
      from latchkey.tenants t left join pg_roles r on r.rolname = t.role
      left join pg_namespace n on n.nspname = t.role`;
    const [schemas] = await sql<{ count: number }[]>`
      select count(*)::int as count from pg_namespace where nspname like 't\\_%'`;
    const instances = await rig.system.sql<{ id: number; publicId: string; applied: number }[]>`
      select i.id::int, i.public_id as "publicId", i.applied from instances i
      join products p on p.id = i.product_id where p.key = ${rig.tenants.product.key}`;
    const problems: string[] = [];
    let expectedSchemas = 0;
    for (const { id, publicId, applied } of instances) {
      const { exists, frozen } = ledger.expectedState(publicId);
      if (exists) expectedSchemas += 1;
      const tenant = rows.find((row) => row.instanceId === id);
      // Released before anything was begun: there never was a tenant.
      if (!tenant && !exists) continue;
      if (!tenant) problems.push(`${publicId} has no tenant`);
      else if (tenant.generation !== applied) {
        problems.push(`tenant of ${publicId} stands at ${tenant.generation} of ${applied}`);
      } else if (
        tenant.hasSchema !== exists ||
        (tenant.canLogIn ?? false) !== (exists && !frozen)
      ) {
        problems.push(
          `tenant of ${publicId} is not what the ledger says: ${JSON.stringify(tenant)}`,
        );
      }
    }
    if (schemas?.count !== expectedSchemas) {
      problems.push(`${schemas?.count ?? 0} schemas for ${expectedSchemas} tenants`);
    }
    for (const [publicId, { appInfo }] of [...info].slice(0, 8)) {
      const { exists, frozen } = ledger.expectedState(publicId);
      const got = await canLogIn(rig.tenantsUrl, appInfo?.userName, appInfo?.password);
      if (got !== (exists && !frozen)) {
        problems.push(`buyer of ${publicId} ${got ? 'gets in' : 'is kept out'}`);
      }
    }
    return problems;
  } finally {
    await sql.end();
  }
}

/** Whether a buyer gets in with this access data. */
export async function canLogIn(
  tenantsUrl: string,
  userName: string | undefined,
  password: string | undefined,
): Promise<boolean> {
  const url = new URL(tenantsUrl);
  url.username = userName ?? '';
  url.password = password ?? '';
  const buyer = postgres(url.href, { max: 1, onnotice: () => undefined, connect_timeout: 5 });
  try {
    await buyer`select 1`;
    return true;
  } catch {
    return false;
  } finally {
    await buyer.end();
  }
}

/** What the marketplace is told of all instances of a product now, by their ids. */
async function readInfo({ market }: Side): Promise<Map<string, InstanceInfo>> {
  const ids = market.ledger.instanceIds();
  const found = new Map<string, InstanceInfo>();
  for (let from = 0; from < ids.length; from += 100) {
    const reply = await until(
      () => market.queryInstance(ids.slice(from, from + 100)),
      ({ resultCode }) => ['000000', '000003', '000004'].includes(resultCode),
      { everyMs: 100, what: 'the access data' },
    );
    for (const info of reply.info ?? []) found.set(info.instanceId, info);
  }
  return found;
}

/** Access data as each buyer first saw it. */
function seenFirst(rig: Rig): Map<string, InstanceInfo> {
  const seen = new Map<string, InstanceInfo>();
  for (const reply of rig.replies) {
    for (const info of reply.info ?? []) {
      if (!seen.has(info.instanceId)) seen.set(info.instanceId, info);
    }
  }
  return seen;
}

/** Whoever was answered was answered in the protocol's own words, and signed where it said yes. */
function judgeReplies(rig: Rig): string[] {
  const answered = rig.replies.filter((reply) => reply.httpStatus !== 0);
  const odd = answered.filter((reply) => {
    const isYes = reply.resultCode === '000000' || reply.resultCode === '000004';
    const isQuery = reply.call.fields['activity'] === 'queryInstance';
    const isExpected =
      isYes || reply.resultCode === '000005' || (isQuery && reply.resultCode === '000003');
    return reply.httpStatus !== 200 || !isExpected || (isYes && !reply.bodySignOk);
  });
  return odd.map(
    ({ httpStatus, resultCode, resultMsg, call }) =>
      `${String(call.fields['activity'])} was answered ${httpStatus} ${resultCode} ${resultMsg}`,
  );
}
