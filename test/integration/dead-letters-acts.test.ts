import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { acceptEvents } from '../../db/accept-events.ts';
import { createOrderStore } from '../../db/accept-orders.ts';
import { acceptQueries } from '../../db/accept-queries.ts';
import { readAudit } from '../../db/audit.ts';
import { claimDispatch } from '../../db/claims.ts';
import type { Database } from '../../db/client.ts';
import { type Keyring, createKeyring } from '../../db/data-keys.ts';
import { countDeadLetters, listDeadLetters } from '../../db/dead-letters.ts';
import { handOver } from '../../db/hand-over.ts';
import { settleApplied, settleRefused } from '../../db/settle.ts';
import { fold } from '../../core/fold.ts';
import { stateAfter } from '../../core/instance.ts';
import type { DeadLetterScope } from '../../operations/act-on-dead-letters.ts';
import { pauseProduct, resumeProduct } from '../../operations/pause-product.ts';
import { redrive } from '../../operations/redrive.ts';
import { refuseInstance } from '../../operations/refuse-instance.ts';
import { resolveDeadLetter, resolveDelivered } from '../../operations/resolve-dead-letter.ts';
import { showDeadLetter } from '../../operations/show-dead-letter.ts';
import { skipEvent } from '../../operations/skip-event.ts';
import { type TestDatabase, createTestDatabase } from '../servers/database.ts';
import {
  type Bought,
  addTestProduct,
  buy,
  buyOne,
  eventRow,
  handOne,
  openTestDatabase,
  orderRow,
  queryRow,
  readDispatch,
  readInstance,
  readOutcomes,
  tellEvent,
} from './dispatch-seed.ts';

let database: TestDatabase;
let db: Database;
let keyring: Keyring;

beforeAll(async () => {
  database = await createTestDatabase();
  db = openTestDatabase(database.url, 8);
  keyring = createKeyring({ db, masterKey: { id: '0a1b2c3d', key: randomBytes(32) } });
});

afterAll(async () => {
  await db?.close();
  await database?.drop();
});

const ann = () => ({ db, actor: 'ann', keyring });
const causeWords = 'backend answered 503 [0123456789ab]';

/** The dispatches of these instances, as a last failed try leaves them. */
async function kill(instances: readonly Pick<Bought, 'id'>[], cause = causeWords): Promise<void> {
  await db.pool.query(
    `update dispatches set state = 'dead', due_at = null, retry_at = null, dispatched_at = null,
       lease_until = null, attempts = 8, cause = $2 where instance_id = any($1::bigint[])`,
    [instances.map(({ id }) => id), cause],
  );
}

/** Hands over, claims, and settles as made, as a worker whose backend is well. */
async function makeReal(instance: Bought): Promise<void> {
  const dispatch = await handOne(db.pool, instance);
  const claim = await claimDispatch(db.pool, { instanceId: instance.id, dispatch, leaseMs: 5_000 });
  if (claim === 'nothing to do') throw new Error('not claimed');
  const folded = fold(claim.events);
  await settleApplied(
    db,
    { ...claim, attempt: undefined },
    {
      generation: folded.generation,
      state: stateAfter(folded.desired),
      expiresAt: folded.desired.expiresAt,
      accessEnc: undefined,
      covered: folded.covered,
      moot: folded.moot,
      unresolved: folded.unresolved.length,
    },
  );
}

async function productKey(productId: number): Promise<string> {
  const { rows } = await db.pool.query<{ key: string }>('select key from products where id = $1', [
    productId,
  ]);
  return rows[0]?.key ?? '';
}

async function scopeOf(instance: Bought): Promise<DeadLetterScope> {
  return { product: await productKey(instance.productId) };
}

async function served(): Promise<Bought> {
  const instance = await buyOne(db.pool);
  await makeReal(instance);
  return instance;
}

async function lastAudit() {
  const [entry] = await readAudit(db, 1);
  return entry;
}

describe('a thousand dead letters of one cause', () => {
  test('two commands at once make exactly them due, none twice, and lose no event that comes meanwhile', async () => {
    const productId = await addTestProduct(db.pool);
    const dead = await buy(db.pool, productId, 1_000);
    const others = await buy(db.pool, productId, 20);
    await kill(dead);
    await kill(others, 'backend answered 404 [ba9876543210]');
    const { rows: before } = await db.pool.query<{ at: Date }>('select now() as at');

    // A hundred of them hear of a renewal while they are redriven.
    const told = dead.filter((_, place) => place % 10 === 0);
    const tell = async (instance: Bought): Promise<void> => {
      for (;;) {
        const [outcome] = await acceptEvents(db.pool, [
          eventRow(productId, instance.publicId, 'renewed'),
        ]);
        if (outcome !== 'again') return;
      }
    };
    const act = () =>
      redrive(ann(), { scope: { cause: '0123456789ab' }, reason: 'the backend is up again' });
    const [one, two] = await Promise.all([act(), act(), ...told.map(tell)]);

    const taken = [one, two].flatMap((outcome) =>
      outcome.kind === 'redriven' ? outcome.instances.map(({ instanceId }) => instanceId) : [],
    );
    expect(new Set(taken).size).toBe(taken.length);
    const known = new Set(dead.map(({ publicId }) => publicId));
    expect(taken.every((id) => known.has(id))).toBe(true);
    // An event makes a dead letter due by itself; what it took first is not redriven.
    const untold = dead.filter((instance) => !told.includes(instance));
    expect(untold.filter(({ publicId }) => !taken.includes(publicId))).toEqual([]);

    const { rows } = await db.pool.query(
      `select d.state, d.attempts, d.due_at is not null as due, d.cause, count(*)::int as n,
         bool_and(d.open_events = (select count(*) from events e where e.instance_id = d.instance_id and e.applied_at is null)) as counted,
         bool_and(d.due_at >= $2) as fresh
       from dispatches d where product_id = $1 group by 1, 2, 3, 4 order by n`,
      [productId, before[0]?.at],
    );
    expect(rows).toEqual([
      {
        state: 'dead',
        attempts: 8,
        due: false,
        cause: 'backend answered 404 [ba9876543210]',
        n: 20,
        counted: true,
        fresh: null,
      },
      { state: 'due', attempts: 0, due: true, cause: null, n: 1_000, counted: true, fresh: true },
    ]);
    const { rows: open } = await db.pool.query(
      `select count(*)::int as n from events where kind = 'renewed' and applied_at is null
       and instance_id = any($1::bigint[])`,
      [told.map(({ id }) => id)],
    );
    expect(open).toEqual([{ n: 100 }]);

    const entries = (await readAudit(db)).filter(
      ({ act: name }) => name === 'dead_letter.redriven',
    );
    const audited = entries.flatMap(({ detail }) =>
      (detail as { instances: { instanceId: string }[] }).instances.map((each) => each.instanceId),
    );
    expect(audited.toSorted()).toEqual(taken.toSorted());
    expect(entries.every(({ actor, reason }) => actor === 'ann' && reason !== null)).toBe(true);
    await db.pool.query(`delete from dispatches where product_id = $1`, [productId]);
  });
});

describe('causes', () => {
  test('dead letters are listed, counted and found by fingerprint, also those without one of their own', async () => {
    const productId = await addTestProduct(db.pool);
    const product = await productKey(productId);
    const [a, b, c, d] = await buy(db.pool, productId, 4);
    if (!a || !b || !c || !d) throw new Error('not bought');
    await kill([a], 'backend did not answer in 10 s [00000000000a]');
    await kill([b], 'backend did not answer in 9.9 s [00000000000a]');
    await kill([c, d], 'the worker died 5 times on this');
    const counted = await countDeadLetters(db, { product });
    expect(counted.map(({ cause, count }) => [cause, count])).toEqual([
      ['backend did not answer in 10 s', 2],
      ['the worker died 5 times on this', 2],
    ]);
    const [, bare] = counted;
    expect(bare?.fingerprint).toMatch(/^[0-9a-f]{12}$/);
    const found = await listDeadLetters(db, { cause: bare?.fingerprint });
    expect(found.map(({ instanceId }) => instanceId).toSorted()).toEqual(
      [c.publicId, d.publicId].toSorted(),
    );
    const counting = { scope: { cause: '00000000000a' }, reason: '', isDryRun: true };
    expect(await redrive(ann(), counting)).toEqual({ kind: 'counted', count: 2 });
    expect(await countDeadLetters(db, { product })).toEqual(counted);
    await db.pool.query(`delete from dispatches where product_id = $1`, [productId]);
  });
});

describe('skip', () => {
  test('a skipped FREEZE leaves the instance serving, and the next FREEZE is no duplicate', async () => {
    const instance = await served();
    await tellEvent(db.pool, instance, 'frozen');
    await kill([instance]);
    expect(await tellEvent(db.pool, instance, 'frozen')).toBe('duplicate');
    const scope = await scopeOf(instance);
    const outcome = await skipEvent(ann(), { scope, reason: 'a mistake', choice: {} });
    expect(outcome).toMatchObject({ kind: 'done', instances: [{ instanceId: instance.publicId }] });
    expect(await readInstance(db.pool, instance)).toMatchObject({ wanted: 'serving' });
    expect(await readDispatch(db.pool, instance)).toMatchObject({
      state: 'due',
      isDue: true,
      openEvents: 1,
      attempts: 0,
      cause: null,
    });
    expect(await readOutcomes(db.pool, instance)).toEqual([
      'created applied',
      'frozen skipped',
      'skipped open',
    ]);
    await makeReal(instance);
    expect(await readInstance(db.pool, instance)).toMatchObject({ state: 'active', applied: 3 });
    expect(await readDispatch(db.pool, instance)).toBeUndefined();

    expect(await tellEvent(db.pool, instance, 'frozen')).toBe('accepted');
    await makeReal(instance);
    expect(await readInstance(db.pool, instance)).toMatchObject({
      state: 'frozen',
      applied: 4,
      wanted: 'frozen',
    });
    expect(await lastAudit()).toMatchObject({
      actor: 'ann',
      act: 'dead_letter.skipped',
      reason: 'a mistake',
      detail: { count: 1, instances: [{ instanceId: instance.publicId }] },
    });
  });

  test('a skipped release lets the instance live on, until it is released again', async () => {
    const instance = await served();
    await tellEvent(db.pool, instance, 'released');
    await kill([instance]);
    await skipEvent(ann(), { scope: await scopeOf(instance), reason: 'a mistake', choice: {} });
    await makeReal(instance);
    expect(await readInstance(db.pool, instance)).toMatchObject({
      state: 'active',
      wanted: 'serving',
    });
    expect(await tellEvent(db.pool, instance, 'released')).toBe('accepted');
    await makeReal(instance);
    expect(await readInstance(db.pool, instance)).toMatchObject({ state: 'released' });
  });

  test('of several open events one is named, or all of a kind, and the others stay', async () => {
    const instance = await served();
    await tellEvent(db.pool, instance, 'renewed');
    await tellEvent(db.pool, instance, 'frozen');
    await kill([instance]);
    const scope = await scopeOf(instance);
    const skip = (choice: Parameters<typeof skipEvent>[1]['choice']) =>
      skipEvent(ann(), { scope, reason: 'why', choice });
    expect(await skip({})).toMatchObject({
      kind: 'nothing-fits',
      unfit: [{ why: expect.stringContaining('several events are open') }],
    });
    expect(await skip({ kind: 'upgraded' })).toMatchObject({
      unfit: [{ why: 'it has no such open event' }],
    });
    const [letter] = await showDeadLetter(ann(), {
      order: await orderOf(instance),
      now: new Date(),
    });
    const renewal = letter?.events.find(({ kind }) => kind === 'renewed');
    expect(await skip({ eventId: renewal?.id })).toMatchObject({ kind: 'done' });
    expect(await readOutcomes(db.pool, instance)).toEqual([
      'created applied',
      'renewed skipped',
      'frozen open',
      'skipped open',
    ]);
    await makeReal(instance);
    expect(await readInstance(db.pool, instance)).toMatchObject({
      state: 'frozen',
      expiresAt: null,
      applied: 4,
    });
  });

  test('a purchase cannot be skipped', async () => {
    const instance = await buyOne(db.pool);
    await kill([instance]);
    const outcome = await skipEvent(ann(), {
      scope: await scopeOf(instance),
      reason: 'why',
      choice: {},
    });
    expect(outcome).toMatchObject({
      kind: 'nothing-fits',
      unfit: [{ why: expect.stringContaining('a purchase cannot be skipped') }],
    });
    expect(await readDispatch(db.pool, instance)).toMatchObject({ state: 'dead' });
  });
});

async function orderOf({ id }: Bought): Promise<string> {
  const { rows } = await db.pool.query<{ order: string }>(
    'select order_id as "order" from instances where id = $1',
    [id],
  );
  return rows[0]?.order ?? '';
}

describe('resolve', () => {
  test('a renewal done by hand counts as applied: nothing is left to do, and the next state is newer', async () => {
    const instance = await served();
    await tellEvent(db.pool, instance, 'renewed');
    await tellEvent(db.pool, instance, 'frozen');
    await kill([instance]);
    const scope = await scopeOf(instance);
    const outcome = await resolveDeadLetter(ann(), { scope, reason: 'done in the back office' });
    expect(outcome).toMatchObject({ kind: 'done', unfit: [] });
    expect(await readInstance(db.pool, instance)).toMatchObject({
      state: 'frozen',
      wanted: 'frozen',
      applied: 4,
      expiresAt: new Date('2030-01-01T00:00:00.000Z'),
    });
    expect(await readDispatch(db.pool, instance)).toBeUndefined();
    expect(await readOutcomes(db.pool, instance)).toEqual([
      'created applied',
      'renewed applied',
      'frozen applied',
      'resolved applied',
    ]);
    expect(await tellEvent(db.pool, instance, 'unfrozen')).toBe('accepted');
    await makeReal(instance);
    expect(await readInstance(db.pool, instance)).toMatchObject({ state: 'active', applied: 5 });
  });

  test('a release done by hand forgets the access data', async () => {
    const instance = await served();
    await db.pool.query(`update instances set access_enc = '\\x01' where id = $1`, [instance.id]);
    await tellEvent(db.pool, instance, 'released');
    await kill([instance]);
    await resolveDeadLetter(ann(), { scope: await scopeOf(instance), reason: 'deleted by hand' });
    expect(await readInstance(db.pool, instance)).toMatchObject({
      state: 'released',
      wanted: 'released',
      access: null,
    });
  });

  test('an order delivered by hand is answered with what its buyer was given', async () => {
    const productId = await addTestProduct(db.pool);
    const row = orderRow(productId, { isResolved: false });
    const store = createOrderStore();
    const [first] = await store(db.pool, [row]);
    if (first === 'again' || first?.kind !== 'accepted') throw new Error('not bought');
    const instance = { id: first.instanceId, publicId: first.publicId, productId };
    await kill([instance]);
    const scope = { order: row.orderId };
    const reason = 'set up by Li';
    expect(await resolveDeadLetter(ann(), { scope, reason })).toMatchObject({
      kind: 'nothing-fits',
      unfit: [{ why: expect.stringContaining('never delivered') }],
    });

    const password = `secret-${randomBytes(8).toString('hex')}`;
    const access = { frontEndUrl: 'https://shop.example.com', userName: 'ann', password };
    const deliver = (accessText: string) => resolveDelivered(ann(), { scope, reason, accessText });
    expect(await deliver('{"frontEndUrl"')).toEqual({
      kind: 'bad-access',
      problem: 'it is not JSON',
    });
    const wrong = await deliver(JSON.stringify({ ...access, frontEndUrl: '', memo: 7 }));
    expect(wrong).toEqual({ kind: 'bad-access', problem: 'not as expected: frontEndUrl, memo' });
    expect(await deliver(JSON.stringify(access))).toMatchObject({ kind: 'done' });

    const [again] = await store(db.pool, [orderRow(productId, { orderId: row.orderId })]);
    expect(again).toMatchObject({ kind: 'duplicate', state: 'active', publicId: first.publicId });
    const [asked] = await acceptQueries(db.pool, [queryRow(productId, [first.publicId])]);
    if (asked === 'again' || asked?.kind !== 'answered') throw new Error('not answered');
    const [shown] = asked.instances;
    const opened = await keyring.open(
      shown?.accessEnc ?? Buffer.alloc(0),
      `instances/access_enc/${first.instanceId}`,
    );
    expect(JSON.parse(opened.toString('utf8'))).toEqual(access);
    expect(JSON.stringify(await readAudit(db))).not.toContain(password);
    expect(await lastAudit()).toMatchObject({ act: 'dead_letter.delivered', reason });
  });

  test('access data belongs to one dead letter', async () => {
    const productId = await addTestProduct(db.pool);
    const instances = await buy(db.pool, productId, 2);
    await kill(instances);
    const scope = { product: await productKey(productId) };
    const accessText = '{"frontEndUrl":"https://shop.example.com"}';
    expect(await resolveDelivered(ann(), { scope, reason: 'why', accessText })).toEqual({
      kind: 'several',
      count: 2,
    });
    await db.pool.query('delete from dispatches where product_id = $1', [productId]);
  });
});

describe('refuse', () => {
  test('re-sends are answered the code at once, and what a try left behind is taken away', async () => {
    const productId = await addTestProduct(db.pool);
    const row = orderRow(productId, { isResolved: false });
    const store = createOrderStore();
    const [first] = await store(db.pool, [row]);
    if (first === 'again' || first?.kind !== 'accepted') throw new Error('not bought');
    const instance = { id: first.instanceId, publicId: first.publicId, productId };
    await tellEvent(db.pool, instance, 'renewed');
    await kill([instance]);
    const refuse = (resultCode: string) =>
      refuseInstance(ann(), { scope: { order: row.orderId }, reason: 'sold out', resultCode });
    expect(await refuse('000005')).toEqual({ kind: 'bad-code' });
    expect(await refuse('000199')).toEqual({ kind: 'bad-code' });
    expect(await refuse('000106')).toMatchObject({ kind: 'done' });
    const [again] = await store(db.pool, [orderRow(productId, { orderId: row.orderId })]);
    expect(again).toMatchObject({ kind: 'duplicate', state: 'refused', resultCode: '000106' });
    expect(await tellEvent(db.pool, instance, 'frozen')).toBe('released');

    const dispatch = await handOne(db.pool, instance);
    const claim = await claimDispatch(db.pool, {
      instanceId: instance.id,
      dispatch,
      leaseMs: 5_000,
    });
    if (claim === 'nothing to do') throw new Error('not claimed');
    expect(fold(claim.events)).toMatchObject({ canApply: true, desired: { exists: false } });
    await db.pool.query(
      `update dispatches set lease_until = null, due_at = now() where instance_id = $1`,
      [instance.id],
    );
    await makeReal(instance);
    expect(await readInstance(db.pool, instance)).toMatchObject({
      state: 'refused',
      resultCode: '000106',
      wanted: 'released',
    });
    expect(await readOutcomes(db.pool, instance)).toEqual([
      'created moot',
      'renewed moot',
      'refused applied',
    ]);
    expect(await readDispatch(db.pool, instance)).toBeUndefined();
  });

  test('a refusal by the backend stands when a look comes late: what is out there is taken away', async () => {
    const instance = await buyOne(db.pool);
    const dispatch = await handOne(db.pool, instance);
    const claim = await claimDispatch(db.pool, {
      instanceId: instance.id,
      dispatch,
      leaseMs: 5_000,
    });
    if (claim === 'nothing to do') throw new Error('not claimed');
    const settled = { ...claim, attempt: undefined };
    expect(await settleRefused(db, settled, { resultCode: '000106' })).toBe('refused');
    // Another worker had stalled inside its apply, and finds now that its claim was lost.
    expect(await settleRefused(db, settled, { resultCode: '000106' })).toBe('lost');
    const again = await handOne(db.pool, instance);
    const late = await claimDispatch(db.pool, {
      instanceId: instance.id,
      dispatch: again,
      leaseMs: 5_000,
    });
    if (late === 'nothing to do') throw new Error('not claimed');
    expect(fold(late.events)).toMatchObject({ generation: 2, desired: { exists: false } });
    await db.pool.query(
      `update dispatches set lease_until = null, due_at = now() where instance_id = $1`,
      [instance.id],
    );
    await makeReal(instance);
    expect(await readInstance(db.pool, instance)).toMatchObject({
      state: 'refused',
      resultCode: '000106',
    });
    expect(await readDispatch(db.pool, instance)).toBeUndefined();
  });

  test('what was delivered or released cannot be refused', async () => {
    const delivered = await served();
    await tellEvent(db.pool, delivered, 'frozen');
    const released = await buyOne(db.pool, delivered.productId);
    await tellEvent(db.pool, released, 'released');
    await kill([delivered, released]);
    const scope = await scopeOf(delivered);
    const outcome = await refuseInstance(ann(), { scope, reason: 'why', resultCode: '000106' });
    expect(outcome).toMatchObject({
      kind: 'nothing-fits',
      unfit: [
        { why: expect.stringContaining('it was delivered') },
        { why: 'it was released by the marketplace' },
      ],
    });
    await db.pool.query('delete from dispatches where product_id = $1', [delivered.productId]);
  });

  test('those that fit are refused, the others are named, and a dry run says both', async () => {
    const delivered = await served();
    await tellEvent(db.pool, delivered, 'frozen');
    const fresh = await buyOne(db.pool, delivered.productId);
    await kill([delivered, fresh]);
    const scope = await scopeOf(delivered);
    const act = (isDryRun: boolean) =>
      refuseInstance(ann(), {
        scope,
        reason: isDryRun ? '' : 'why',
        resultCode: '000100',
        isDryRun,
      });
    const unfit = [expect.objectContaining({ instanceId: delivered.publicId })];
    expect(await act(true)).toEqual({ kind: 'counted', count: 1, unfit });
    expect(await readInstance(db.pool, fresh)).toMatchObject({ state: 'pending' });
    expect(await act(false)).toMatchObject({
      kind: 'done',
      instances: [{ instanceId: fresh.publicId }],
      unfit,
    });
    await db.pool.query('delete from dispatches where product_id = $1', [delivered.productId]);
  });
});

test.each<[string, (scope: DeadLetterScope, reason: string) => Promise<unknown>]>([
  ['redrive', (scope, reason) => redrive(ann(), { scope, reason })],
  ['skip', (scope, reason) => skipEvent(ann(), { scope, reason, choice: {} })],
  ['resolve', (scope, reason) => resolveDeadLetter(ann(), { scope, reason })],
  [
    'deliver',
    (scope, reason) =>
      resolveDelivered(ann(), { scope, reason, accessText: '{"frontEndUrl":"https://a.example"}' }),
  ],
  ['refuse', (scope, reason) => refuseInstance(ann(), { scope, reason, resultCode: '000106' })],
])('%s asks for a reason, a known product, and something dead', async (_, act) => {
  const audited = (await readAudit(db)).length;
  expect(await act({ all: true }, '  ')).toEqual({ kind: 'reason-missing' });
  expect(await act({ product: 'nope' }, 'why')).toMatchObject({ kind: 'unknown-product' });
  expect(await act({ order: 'nope' }, 'why')).toEqual({ kind: 'nothing-dead' });
  expect(await act({ cause: 'ffffffffffff' }, 'why')).toEqual({ kind: 'nothing-dead' });
  expect((await readAudit(db)).length).toBe(audited);
});

describe('show', () => {
  test('cause, tries, open events and the time until the refund; answers only on request, audited', async () => {
    const instance = await buyOne(db.pool);
    await tellEvent(db.pool, instance, 'renewed');
    await kill([instance]);
    const answer = `the backend said ${randomBytes(6).toString('hex')}`;
    const sealed = await keyring.seal(
      `product/${instance.productId}`,
      answer,
      'attempts/said_enc/4711',
    );
    await db.pool.query(
      `insert into attempts (began, fence, instance_id, product_id, generation, no, kind, worker, target, ended, class, http_status, said_enc)
       values (now() - interval '3 seconds', 4711, $1, $2, 1, 1, 'apply', 'w', 'https://crm.example.com', now() - interval '1 second', 'permanent', 400, $3)`,
      [instance.id, instance.productId, sealed],
    );
    const order = await orderOf(instance);
    const now = new Date(Date.now() + 3_600_000);
    const [shown] = await showDeadLetter(ann(), { order, now });
    expect(shown).toMatchObject({
      instanceId: instance.publicId,
      cause: 'backend answered 503',
      fingerprint: '0123456789ab',
      isPaused: false,
      events: [
        { kind: 'created', outlook: { stopsAt: expect.any(Date) } },
        { kind: 'renewed', scene: 'RENEWAL', outlook: { stopsAt: null, refundAt: null } },
      ],
      refund: { assumed: true },
      tries: [
        {
          no: 1,
          durationMs: 2_000,
          target: 'https://crm.example.com',
          class: 'permanent',
          httpStatus: 400,
          hasAnswer: true,
        },
      ],
    });
    expect(shown?.refund?.inMs).toBeGreaterThan(1.9 * 3_600_000);
    expect(shown?.refund?.inMs).toBeLessThanOrEqual(2 * 3_600_000);
    expect(JSON.stringify(shown)).not.toContain(answer);
    const audited = (await readAudit(db)).length;
    const [opened] = await showDeadLetter(ann(), { order, now, said: { keyring, reason: 'look' } });
    expect(opened?.tries[0]?.said).toBe(answer);
    expect((await readAudit(db)).length).toBe(audited + 1);
    expect(await lastAudit()).toMatchObject({
      actor: 'ann',
      act: 'dead_letter.answers_opened',
      subject: `order/${order}`,
      reason: 'look',
      detail: { answers: 1 },
    });
    await db.pool.query('delete from dispatches where product_id = $1', [instance.productId]);
    expect(await showDeadLetter(ann(), { order, now })).toEqual([]);
  });
});

describe('pause', () => {
  const hand = () => handOver(db.pool, { queue: 'provisioning', windowMax: 2_000, pageMax: 500 });

  test('a paused product gets no room and no claim, others do; resume makes due at once', async () => {
    const handed = await buyOne(db.pool);
    const other = await buyOne(db.pool);
    const dispatch = await handOne(db.pool, handed);
    const [waiting, failing, dead] = await buy(db.pool, handed.productId, 3);
    if (!waiting || !failing || !dead) throw new Error('not bought');
    await kill([dead]);
    await db.pool.query(
      `update dispatches set state = 'failing', due_at = null, retry_at = now() + interval '1 hour', dispatched_at = now() where instance_id = $1`,
      [failing.id],
    );
    const product = await productKey(handed.productId);
    const pause = (reason = 'moving') => pauseProduct(ann(), { product, reason });
    const resume = (reason = 'moved') => resumeProduct(ann(), { product, reason });
    expect(await pause(' ')).toEqual({ kind: 'reason-missing' });
    expect(await resume()).toEqual({ kind: 'not-paused', product });
    expect(await pauseProduct(ann(), { product: 'nope', reason: 'x' })).toMatchObject({
      kind: 'unknown-product',
    });
    expect(await pause()).toMatchObject({ kind: 'paused', product, inFlight: 0 });
    expect(await pause()).toMatchObject({ kind: 'paused-before' });
    expect(await lastAudit()).toMatchObject({ act: 'product.paused', reason: 'moving' });

    expect(await tellEvent(db.pool, waiting, 'renewed')).toBe('accepted');
    await db.pool.query(`update dispatches set due_at = now() where instance_id = $1`, [other.id]);
    expect((await hand()).map(({ productId }) => productId)).not.toContain(handed.productId);
    expect(await claimDispatch(db.pool, { instanceId: handed.id, dispatch, leaseMs: 1_000 })).toBe(
      'nothing to do',
    );

    expect(await resume()).toEqual({ kind: 'resumed', product, due: 3 });
    expect(await lastAudit()).toMatchObject({ act: 'product.resumed', detail: { due: 3 } });
    const claim = await claimDispatch(db.pool, { instanceId: handed.id, dispatch, leaseMs: 1_000 });
    expect(claim).toMatchObject({ instanceId: handed.id });
    const due = (await hand()).filter(({ productId }) => productId === handed.productId);
    expect(new Set(due.map(({ instanceId }) => instanceId))).toEqual(
      new Set([waiting.id, failing.id]),
    );
    expect(await readDispatch(db.pool, dead)).toMatchObject({ state: 'dead' });
  });
});
