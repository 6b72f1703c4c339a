import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { fold } from '../../core/fold.ts';
import { stateAfter } from '../../core/instance.ts';
import { beginAttempt } from '../../db/attempts.ts';
import { type Claim, claimDispatch, postponeDispatch, renewLease } from '../../db/claims.ts';
import type { Database } from '../../db/client.ts';
import { type Settled, settleApplied, settleFailed, settleRefused } from '../../db/settle.ts';
import { freeExpiredLeases } from '../../db/sweep.ts';
import { type TestDatabase, createTestDatabase } from '../servers/database.ts';
import {
  type Bought,
  addTestProduct,
  buy,
  buyOne,
  handOne,
  openTestDatabase,
  readDispatch,
  readInstance,
  readOutcomes,
  tellEvent,
} from './dispatch-seed.ts';

let database: TestDatabase;
let db: Database;

beforeAll(async () => {
  database = await createTestDatabase();
  db = openTestDatabase(database.url);
});

afterAll(async () => {
  await db?.close();
  await database?.drop();
});

async function claimOne(instance: Bought, leaseMs = 60_000): Promise<Claim> {
  const dispatch = await handOne(db.pool, instance);
  const claim = await claimDispatch(db.pool, { instanceId: instance.id, dispatch, leaseMs });
  if (claim === 'nothing to do') throw new Error('it was not claimed');
  return claim;
}

async function beginOne(claim: Claim, generation = 1): Promise<Settled> {
  const { instanceId, productId, queue, fence } = claim;
  const attempt = await beginAttempt(db.pool, {
    fence,
    instanceId,
    productId,
    generation,
    no: claim.attempts + 1,
    worker: 'w',
    target: 't',
  });
  return { instanceId, productId, queue, fence, attempt };
}

/** What a worker does that made it real. */
async function applyClaim(claim: Claim, accessEnc?: Buffer) {
  const folded = fold(claim.events);
  const { desired, generation, covered, moot, unresolved } = folded;
  return settleApplied(db, await beginOne(claim, generation), {
    generation,
    state: stateAfter(desired),
    expiresAt: desired.expiresAt,
    accessEnc,
    covered,
    moot,
    unresolved: unresolved.length,
  });
}

const applyOne = async (instance: Bought, accessEnc?: Buffer) =>
  applyClaim(await claimOne(instance), accessEnc);

async function failClaim(claim: Claim, change: Partial<Parameters<typeof settleFailed>[2]> = {}) {
  return settleFailed(db, await beginOne(claim), {
    class: 'transient',
    cause: 'backend answered 503',
    httpStatus: 503,
    saidEnc: undefined,
    retryInMs: 60_000,
    isTransient: true,
    openEventsAtClaim: claim.openEvents,
    ...change,
  });
}

async function readAttempts({ id }: Bought) {
  const { rows } = await db.pool.query<{ no: number; class: string | null; isOver: boolean }>(
    `select no, class, ended is not null as "isOver" from attempts where instance_id = $1 order by began, fence`,
    [id],
  );
  return rows;
}

async function failuresOf({ productId }: Bought): Promise<number> {
  const { rows } = await db.pool.query<{ n: number }>(
    'select failures_running as n from product_queues where product_id = $1',
    [productId],
  );
  return rows[0]?.n ?? 0;
}

describe('a claim', () => {
  test('is for the newest number alone, and for one at a time', async () => {
    const instance = await buyOne(db.pool);
    const dispatch = await handOne(db.pool, instance);
    const claim = (number: number) =>
      claimDispatch(db.pool, { instanceId: instance.id, dispatch: number, leaseMs: 60_000 });
    expect(await claim(dispatch - 1)).toBe('nothing to do');
    const claims = await Promise.all(Array.from({ length: 8 }, () => claim(dispatch)));
    const [mine, ...others] = claims.filter((each) => each !== 'nothing to do');
    expect(others).toEqual([]);
    expect(mine).toMatchObject({
      instanceId: instance.id,
      publicId: instance.publicId,
      state: 'pending',
      applied: 0,
      attempts: 0,
      openEvents: 1,
      everBegan: false,
    });
    expect(await readDispatch(db.pool, instance)).toMatchObject({ claims: 1, isLeased: true });
  });

  test('has a fence greater than every one before', async () => {
    const [first, second] = await buy(db.pool, await addTestProduct(db.pool), 2);
    if (!first || !second) throw new Error('nothing was bought');
    const one = await claimOne(first);
    const two = await claimOne(second).catch(async () => claimHanded(second));
    expect(two.fence).toBeGreaterThan(one.fence);
  });

  test('reads the whole story, in the order of acceptance', async () => {
    const instance = await buyOne(db.pool);
    await applyOne(instance);
    await tellEvent(db.pool, instance, 'frozen');
    await tellEvent(db.pool, instance, 'renewed');
    const claim = await claimOne(instance);
    expect(claim.events.map(({ kind }) => kind)).toEqual(['created', 'frozen', 'renewed']);
    expect(claim.events[2]).toMatchObject({
      scene: 'RENEWAL',
      expiresAt: new Date('2030-01-01T00:00:00Z'),
    });
    expect(claim.callbackIds).toHaveLength(2);
    expect(claim).toMatchObject({ applied: 1, everBegan: true, openEvents: 2 });
  });

  test('knows how long it has been tried: since acceptance, or since the newest event', async () => {
    const instance = await buyOne(db.pool);
    const age = `update dispatches set since = now() - interval '1 hour' where instance_id = $1`;
    await db.pool.query(age, [instance.id]);
    const claim = await claimOne(instance);
    expect(claim.ageMs).toBeGreaterThanOrEqual(3_600_000);
    await failClaim(claim);
    await setRetry(instance, 0);
    const again = await claimHanded(instance);
    expect(again.ageMs).toBeGreaterThanOrEqual(3_600_000);
    await tellEvent(db.pool, instance, 'frozen');
    expect(await failClaim(again)).toBe('due');
    expect((await claimOne(instance)).ageMs).toBeLessThan(60_000);
  });

  test('of a back-off that is not over is refused, one of a second or less is not', async () => {
    const instance = await buyOne(db.pool);
    const claim = await claimOne(instance);
    await failClaim(claim);
    const { dispatch } = (await readDispatch(db.pool, instance)) ?? { dispatch: 0 };
    const again = () =>
      claimDispatch(db.pool, { instanceId: instance.id, dispatch, leaseMs: 60_000 });
    expect(await again()).toBe('nothing to do');
    await setRetry(instance, 2_000);
    expect(await again()).toBe('nothing to do');
    await setRetry(instance, 900);
    expect(await again()).toMatchObject({ attempts: 1 });
    expect(await readDispatch(db.pool, instance)).toMatchObject({ retryInMs: null });
  });

  test('of a dead letter is refused', async () => {
    const instance = await buyOne(db.pool);
    const claim = await claimOne(instance);
    expect(await failClaim(claim, { retryInMs: undefined })).toBe('dead');
    const { dispatch } = (await readDispatch(db.pool, instance)) ?? { dispatch: 0 };
    expect(
      await claimDispatch(db.pool, { instanceId: instance.id, dispatch, leaseMs: 1_000 }),
    ).toBe('nothing to do');
  });

  test('while the breaker is open is for one instance of the product at a time', async () => {
    const product = await addTestProduct(db.pool);
    const [first, second] = await buy(db.pool, product, 2);
    if (!first || !second) throw new Error('nothing was bought');
    await handOne(db.pool, first);
    await db.pool.query(`insert into product_queues values ($1, 'provisioning', 5)`, [product]);
    const one = await claimHanded(first);
    await expect(claimHanded(second)).rejects.toThrow('not claimed');
    await applyClaim(one);
    expect(await failuresOf(first)).toBe(0);
    expect(await claimHanded(second)).toMatchObject({ instanceId: second.id });
  });
});

async function claimHanded(instance: Bought): Promise<Claim> {
  const row = await readDispatch(db.pool, instance);
  const at = { instanceId: instance.id, dispatch: row?.dispatch ?? 0, leaseMs: 60_000 };
  const claim = await claimDispatch(db.pool, at);
  if (claim === 'nothing to do') throw new Error('it was not claimed');
  return claim;
}

const setRetry = ({ id }: Bought, inMs: number) =>
  db.pool.query(
    `update dispatches set retry_at = now() + $2 * interval '1 millisecond' where instance_id = $1`,
    [id, inMs],
  );

describe('postpone', () => {
  test('makes it due later, for the job that is the newest', async () => {
    const instance = await buyOne(db.pool);
    const dispatch = await handOne(db.pool, instance);
    const at = { instanceId: instance.id, dispatch, delayMs: 60_000 };
    expect(await postponeDispatch(db.pool, { ...at, dispatch: dispatch - 1 })).toBe(false);
    expect(await postponeDispatch(db.pool, at)).toBe(true);
    expect(await readDispatch(db.pool, instance)).toMatchObject({
      state: 'due',
      isDue: false,
      isHanded: false,
    });
    expect(await postponeDispatch(db.pool, at)).toBe(false);
  });

  test('touches nothing that a worker holds, that backs off or that is dead', async () => {
    const [held, waiting, dead] = [
      await buyOne(db.pool),
      await buyOne(db.pool),
      await buyOne(db.pool),
    ];
    await claimOne(held);
    await failClaim(await claimOne(waiting));
    await failClaim(await claimOne(dead), { retryInMs: undefined });
    for (const instance of [held, waiting, dead]) {
      const before = await readDispatch(db.pool, instance);
      const at = { instanceId: instance.id, dispatch: before?.dispatch ?? 0, delayMs: 0 };
      expect(await postponeDispatch(db.pool, at)).toBe(false);
    }
  });
});

describe('a lease', () => {
  test('is renewed by its holder alone, and not once it was freed', async () => {
    const instance = await buyOne(db.pool);
    const claim = await claimOne(instance, 1);
    expect(await renewLease(db.pool, claim, 60_000)).toBe(true);
    expect(await readDispatch(db.pool, instance)).toMatchObject({ isLeased: true });
    expect(await renewLease(db.pool, { ...claim, fence: claim.fence - 1 }, 60_000)).toBe(false);
    await renewLease(db.pool, claim, -1);
    await freeExpiredLeases(db.pool);
    expect(await renewLease(db.pool, claim, 60_000)).toBe(false);
  });
});

describe('settled as applied', () => {
  test('with nothing left the dispatch is gone and everything is recorded', async () => {
    const instance = await buyOne(db.pool);
    expect(await applyOne(instance, Buffer.from('sealed'))).toBe('idle');
    expect(await readDispatch(db.pool, instance)).toBeUndefined();
    expect(await readInstance(db.pool, instance)).toMatchObject({
      state: 'active',
      applied: 1,
      access: Buffer.from('sealed'),
    });
    expect(await readOutcomes(db.pool, instance)).toEqual(['created applied']);
    expect(await readAttempts(instance)).toEqual([{ no: 1, class: 'applied', isOver: true }]);
  });

  test('access data stays where none is given, and goes with a release', async () => {
    const instance = await buyOne(db.pool);
    await applyOne(instance, Buffer.from('sealed'));
    await tellEvent(db.pool, instance, 'frozen');
    await applyOne(instance);
    expect(await readInstance(db.pool, instance)).toMatchObject({
      state: 'frozen',
      applied: 2,
      access: Buffer.from('sealed'),
    });
    await tellEvent(db.pool, instance, 'released');
    await applyOne(instance);
    expect(await readInstance(db.pool, instance)).toMatchObject({
      state: 'released',
      access: null,
    });
  });

  test('an event that came meanwhile stays open and makes it due', async () => {
    const instance = await buyOne(db.pool);
    const claim = await claimOne(instance);
    await tellEvent(db.pool, instance, 'frozen');
    expect(await readDispatch(db.pool, instance)).toMatchObject({ openEvents: 2, isDue: false });
    expect(await applyClaim(claim)).toBe('due');
    expect(await readDispatch(db.pool, instance)).toMatchObject({
      state: 'due',
      isDue: true,
      openEvents: 1,
      isHanded: false,
      isLeased: false,
    });
    expect(await readOutcomes(db.pool, instance)).toEqual(['created applied', 'frozen open']);
    expect(await applyOne(instance)).toBe('idle');
    expect(await readInstance(db.pool, instance)).toMatchObject({ state: 'frozen', applied: 2 });
  });

  test('a release makes what came before moot', async () => {
    const instance = await buyOne(db.pool);
    await tellEvent(db.pool, instance, 'upgraded');
    await tellEvent(db.pool, instance, 'released');
    expect(await applyOne(instance)).toBe('idle');
    expect(await readOutcomes(db.pool, instance)).toEqual([
      'created moot',
      'upgraded moot',
      'released applied',
    ]);
  });

  test('an older generation never overwrites a newer one', async () => {
    const instance = await buyOne(db.pool);
    await applyOne(instance);
    await tellEvent(db.pool, instance, 'frozen');
    const claim = await claimOne(instance);
    await db.pool.query(
      `update instances set applied = 9, state = 'released', wanted = 'released' where id = $1`,
      [instance.id],
    );
    expect(await applyClaim(claim)).toBe('due');
    expect(await readInstance(db.pool, instance)).toMatchObject({ applied: 9, state: 'released' });
    expect(await readOutcomes(db.pool, instance)).toEqual(['created applied', 'frozen open']);
  });

  test('a lost claim records nothing, and the newest state is put once more, last', async () => {
    const instance = await buyOne(db.pool);
    const stalled = await claimOne(instance, 1);
    await renewLease(db.pool, stalled, -1);
    expect((await freeExpiredLeases(db.pool)).due).toBeGreaterThanOrEqual(1);
    const successor = await claimOne(instance);
    // The stalled worker wakes while its successor is at work.
    expect(await applyClaim(stalled)).toBe('lost');
    expect(await readInstance(db.pool, instance)).toMatchObject({ state: 'pending', applied: 0 });
    expect(await readOutcomes(db.pool, instance)).toEqual(['created open']);
    expect((await readAttempts(instance)).map((each) => each.class)).toEqual(['lost']);
    expect(await applyClaim(successor)).toBe('due');
    // Once more, with nothing new: then it is over.
    expect(await applyOne(instance)).toBe('idle');
    expect(await readInstance(db.pool, instance)).toMatchObject({ state: 'active', applied: 1 });
  });

  test('a claim that was lost and whose successor is done makes it due again', async () => {
    const instance = await buyOne(db.pool);
    const stalled = await claimOne(instance, 1);
    await renewLease(db.pool, stalled, -1);
    await freeExpiredLeases(db.pool);
    expect(await applyOne(instance)).toBe('idle');
    expect(await applyClaim(stalled)).toBe('lost');
    expect(await readDispatch(db.pool, instance)).toMatchObject({ isDue: true, openEvents: 0 });
    expect(await applyOne(instance)).toBe('idle');
    expect(await readDispatch(db.pool, instance)).toBeUndefined();
  });

  test('a claim whose lease ended and that nobody has taken may still settle', async () => {
    const instance = await buyOne(db.pool);
    const slow = await claimOne(instance, 1);
    await renewLease(db.pool, slow, -1);
    await freeExpiredLeases(db.pool);
    expect(['idle', 'due']).toContain(await applyClaim(slow));
    expect(await readInstance(db.pool, instance)).toMatchObject({ state: 'active' });
  });
});

describe('what must be looked up', () => {
  test('is parked for its order, and a later FREEZE is applied while it stays open', async () => {
    const instance = await buyOne(db.pool);
    await tellEvent(db.pool, instance, 'upgraded');
    expect(await applyOne(instance)).toBe('parked');
    const parked = {
      state: 'timed',
      queue: 'order-lookup',
      isDue: false,
      isHanded: false,
      isLeased: false,
      retryInMs: null,
      openEvents: 1,
      cause: null,
    };
    expect(await readDispatch(db.pool, instance)).toMatchObject(parked);
    expect(await readInstance(db.pool, instance)).toMatchObject({ state: 'active', applied: 1 });

    await tellEvent(db.pool, instance, 'frozen');
    expect(await readDispatch(db.pool, instance)).toMatchObject({
      state: 'due',
      queue: 'provisioning',
      isDue: true,
    });
    expect(await applyOne(instance)).toBe('parked');
    expect(await readDispatch(db.pool, instance)).toMatchObject(parked);
    expect(await readInstance(db.pool, instance)).toMatchObject({ state: 'frozen', applied: 2 });
    expect(await readOutcomes(db.pool, instance)).toEqual([
      'created applied',
      'upgraded open',
      'frozen applied',
    ]);
  });
});

describe('settled as failed', () => {
  test('backs off, counts, and keeps the reason', async () => {
    const instance = await buyOne(db.pool);
    expect(await failClaim(await claimOne(instance))).toBe('failing');
    const row = await readDispatch(db.pool, instance);
    expect(row).toMatchObject({
      state: 'failing',
      isDue: false,
      isHanded: false,
      isLeased: false,
      attempts: 1,
      claims: 0,
      cause: 'backend answered 503',
    });
    expect(row?.retryInMs).toBeGreaterThan(55_000);
    expect(await readAttempts(instance)).toEqual([{ no: 1, class: 'transient', isOver: true }]);
    expect(await readOutcomes(db.pool, instance)).toEqual(['created open']);
  });

  test('without a further try it is dead, and stays so', async () => {
    const instance = await buyOne(db.pool);
    expect(await failClaim(await claimOne(instance), { retryInMs: undefined })).toBe('dead');
    expect(await readDispatch(db.pool, instance)).toMatchObject({
      state: 'dead',
      isDue: false,
      retryInMs: null,
      cause: 'backend answered 503',
    });
    expect(await readInstance(db.pool, instance)).toMatchObject({ state: 'pending' });
  });

  test.each([60_000, undefined])(
    'an event that came meanwhile makes it due at once (retry in %s)',
    async (retryInMs) => {
      const instance = await buyOne(db.pool);
      const claim = await claimOne(instance);
      await tellEvent(db.pool, instance, 'released');
      expect(await failClaim(claim, { retryInMs })).toBe('due');
      expect(await readDispatch(db.pool, instance)).toMatchObject({
        state: 'due',
        isDue: true,
        attempts: 0,
        retryInMs: null,
        cause: null,
      });
    },
  );

  test.each(['failing', 'dead'])(
    'a new event makes a %s one due at once, afresh',
    async (state) => {
      const instance = await buyOne(db.pool);
      const retryInMs = state === 'dead' ? undefined : 3_600_000;
      await failClaim(await claimOne(instance), { retryInMs });
      expect(await readDispatch(db.pool, instance)).toMatchObject({ state });
      await tellEvent(db.pool, instance, 'frozen');
      expect(await readDispatch(db.pool, instance)).toMatchObject({
        state: 'due',
        isDue: true,
        attempts: 0,
        claims: 0,
        cause: null,
        retryInMs: null,
        openEvents: 2,
      });
      expect(await applyOne(instance)).toBe('idle');
      expect(await readInstance(db.pool, instance)).toMatchObject({ state: 'frozen', applied: 2 });
    },
  );

  test('a lost claim fails nothing', async () => {
    const instance = await buyOne(db.pool);
    const stalled = await claimOne(instance, 1);
    await renewLease(db.pool, stalled, -1);
    await freeExpiredLeases(db.pool);
    const successor = await claimOne(instance);
    expect(await failClaim(stalled, { retryInMs: undefined })).toBe('lost');
    expect(await failuresOf(instance)).toBe(0);
    expect(await readDispatch(db.pool, instance)).toMatchObject({ isLeased: true, cause: null });
    expect(await applyClaim(successor)).toBe('due');
  });
});

describe('failures in a row', () => {
  test('are counted when transient, and forgotten at the first success', async () => {
    const product = await addTestProduct(db.pool);
    const instances = await buy(db.pool, product, 3);
    const [first, second, third] = instances;
    if (!first || !second || !third) throw new Error('nothing was bought');
    await handOne(db.pool, first);
    await failClaim(await claimHanded(first));
    await failClaim(await claimHanded(second));
    expect(await failuresOf(first)).toBe(2);
    await applyClaim(await claimHanded(third));
    expect(await failuresOf(first)).toBe(0);
  });

  test('a permanent failure is the instance’s, not the backend’s', async () => {
    const instance = await buyOne(db.pool);
    await failClaim(await claimOne(instance), {
      class: 'permanent',
      retryInMs: undefined,
      isTransient: false,
    });
    expect(await failuresOf(instance)).toBe(0);
  });
});

describe('settled as refused', () => {
  test('the marketplace is told the code from now on, nothing is left, a release is done', async () => {
    const instance = await buyOne(db.pool);
    const claim = await claimOne(instance);
    await tellEvent(db.pool, instance, 'frozen');
    expect(await settleRefused(db, await beginOne(claim), { resultCode: '000106' })).toBe(
      'refused',
    );
    expect(await readInstance(db.pool, instance)).toMatchObject({
      state: 'refused',
      resultCode: '000106',
      wanted: 'released',
    });
    expect(await readDispatch(db.pool, instance)).toBeUndefined();
    expect(await readOutcomes(db.pool, instance)).toEqual([
      'created moot',
      'frozen moot',
      'refused applied',
    ]);
    expect(await readAttempts(instance)).toEqual([{ no: 1, class: 'refused', isOver: true }]);
    expect(await tellEvent(db.pool, instance, 'released')).toBe('released');
  });

  test('a lost claim refuses nothing', async () => {
    const instance = await buyOne(db.pool);
    const stalled = await claimOne(instance, 1);
    await renewLease(db.pool, stalled, -1);
    await freeExpiredLeases(db.pool);
    await applyOne(instance);
    const settled = await beginOne(stalled);
    expect(await settleRefused(db, settled, { resultCode: '000106' })).toBe('lost');
    expect(await readInstance(db.pool, instance)).toMatchObject({
      state: 'active',
      resultCode: null,
    });
  });
});
