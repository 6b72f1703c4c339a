import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { readAudit } from '../../db/audit.ts';
import { type Database, createDatabase } from '../../db/client.ts';
import { type Keyring, createKeyring } from '../../db/data-keys.ts';
import { countDeadLetters, listDeadLetters } from '../../db/dead-letters.ts';
import { findOperator } from '../../db/operators.ts';
import { readOrderHistory } from '../../db/order-history.ts';
import { findProduct, listKeys, readActiveKeys } from '../../db/products.ts';
import { addKey } from '../../operations/add-key.ts';
import { type NewProduct, addProduct } from '../../operations/add-product.ts';
import { verifyPassword } from '../../operations/password-hash.ts';
import { redrive } from '../../operations/redrive.ts';
import { retireProductKey } from '../../operations/retire-key.ts';
import { setPassword } from '../../operations/set-password.ts';
import { type TestDatabase, createTestDatabase } from '../servers/database.ts';
import { dumpDatabase, formsOf, seedDeadInstance } from './operations-seed.ts';

let database: TestDatabase;
let db: Database;
let keyring: Keyring;
const masterKey = { id: '0a1b2c3d', key: randomBytes(32) };

const open = () => createDatabase({ url: database.url, applicationName: 'test', poolMax: 4 });
const ann = () => ({ db, keyring, actor: 'ann' });
/** What stays of a product in these tests. */
async function haveProduct(key: string): Promise<number> {
  const outcome = await addProduct(ann(), { key, name: key, provisioner: 'postgres-schema' });
  if (outcome.kind !== 'added') throw new Error(outcome.kind);
  return outcome.product.id;
}
const haveKey = async (product: string, secret: string): Promise<number> => {
  const outcome = await addKey(ann(), { product, class: 'base', secret });
  if (outcome.kind !== 'added') throw new Error(outcome.kind);
  return outcome.key.id;
};

beforeAll(async () => {
  database = await createTestDatabase();
  db = open();
  keyring = createKeyring({ db, masterKey });
});

afterAll(async () => {
  await db.close();
  await database.drop();
});

describe('add-product', () => {
  const http: NewProduct = {
    key: 'crm',
    name: 'CRM',
    provisioner: 'http',
    httpUrl: 'https://crm.example.com/latchkey/',
  };

  test('a webhook secret is made, told once, and sealed for the place where it stands', async () => {
    const outcome = await addProduct(ann(), http);
    if (outcome.kind !== 'added') throw new Error(outcome.kind);
    const { product, generatedSecret } = outcome;
    expect(generatedSecret).toMatch(/^whsec_[A-Za-z0-9+/]{43}=$/);
    expect(product).toMatchObject({ key: 'crm', httpUrl: 'https://crm.example.com/latchkey' });
    const stored = await findProduct(db, 'crm');
    const sealed = stored?.httpSecretEnc ?? Buffer.alloc(0);
    const opened = await keyring.open(sealed, `products/http_secret_enc/${product.id}`);
    expect(opened.toString()).toBe(generatedSecret);
    await expect(
      keyring.open(sealed, `products/http_secret_enc/${product.id + 1}`),
    ).rejects.toThrow();
  });

  test('a given webhook secret is kept and not told again', async () => {
    const httpSecret = `whsec_${randomBytes(24).toString('base64')}`;
    const outcome = await addProduct(ann(), { ...http, key: 'crm-2', httpSecret });
    expect(outcome).toMatchObject({ kind: 'added', generatedSecret: null });
  });

  test('a key that exists is refused, also when two add it at once, and only one is audited', async () => {
    const wanted = { key: 'twice', name: 'Twice', provisioner: 'postgres-schema' } as const;
    const outcomes = await Promise.all([addProduct(ann(), wanted), addProduct(ann(), wanted)]);
    expect(outcomes.map((each) => each.kind).toSorted()).toEqual(['added', 'exists']);
    expect((await addProduct(ann(), wanted)).kind).toBe('exists');
    const entries = await readAudit(db);
    expect(entries.filter((each) => each.subject === 'product/twice')).toHaveLength(1);
  });

  test.each<[string, Partial<NewProduct>, string]>([
    ['a capital', { key: 'Crm' }, 'key'],
    ['a leading hyphen', { key: '-crm' }, 'key'],
    ['64 characters', { key: 'a'.repeat(64) }, 'key'],
    ['an empty name', { name: ' ' }, 'name'],
    ['a line break in the name', { name: 'a\nb' }, 'name'],
    ['no address', { httpUrl: undefined }, 'httpUrl'],
    ['another scheme', { httpUrl: 'ftp://crm.example.com' }, 'httpUrl'],
    ['a password in the address', { httpUrl: 'https://u:p@crm.example.com' }, 'httpUrl'],
    ['a query in the address', { httpUrl: 'https://crm.example.com/?a=1' }, 'httpUrl'],
    ['a secret without prefix', { httpSecret: randomBytes(32).toString('base64') }, 'httpSecret'],
    [
      'a secret of 23 bytes',
      { httpSecret: `whsec_${randomBytes(23).toString('base64')}` },
      'httpSecret',
    ],
    ['a front end with http', { frontEndUrl: 'https://x.example/{instanceId}' }, 'frontEndUrl'],
    [
      'a front end without the id',
      {
        provisioner: 'postgres-schema',
        httpUrl: undefined,
        frontEndUrl: 'https://x.example/',
      },
      'frontEndUrl',
    ],
    ['an address without http', { provisioner: 'postgres-schema' }, 'httpUrl'],
  ])('%s is refused by name', async (_, change, field) => {
    const outcome = await addProduct(ann(), { ...http, key: 'never', ...change });
    expect(outcome).toMatchObject({ kind: 'invalid', field });
    expect(await findProduct(db, 'never')).toBeUndefined();
  });
});

describe('keys', () => {
  test('a key is sealed, opens to what was given without its line break, and is active', async () => {
    const productId = await haveProduct('keys-1');
    const id = await haveKey('keys-1', 'demo-access-key-0001\n');
    const [active] = await readActiveKeys(db, productId);
    expect(active).toMatchObject({ id, productId, class: 'base' });
    const opened = await keyring.open(
      active?.secretEnc ?? Buffer.alloc(0),
      `product_keys/secret_enc/${id}`,
    );
    expect(opened.toString()).toBe('demo-access-key-0001');
  });

  test.each([
    ['1234567', '8 to 200'],
    ['x'.repeat(201), '8 to 200'],
    ['12345678\n9', 'control'],
    [' 12345678', 'space'],
  ])('the secret %j is refused', async (secret, problem) => {
    const outcome = await addKey(ann(), { product: 'keys-1', class: 'base', secret });
    expect(outcome).toEqual({ kind: 'invalid', problem: expect.stringContaining(problem) });
  });

  test('the same secret twice on a product is refused, also when both come at once', async () => {
    await haveProduct('keys-2');
    const wanted = { product: 'keys-2', class: 'base', secret: 'the-same-secret' } as const;
    const outcomes = await Promise.all([addKey(ann(), wanted), addKey(ann(), wanted)]);
    expect(outcomes.map((each) => each.kind).toSorted()).toEqual(['added', 'known-secret']);
    const again = await addKey(ann(), { ...wanted, class: 'kit', secret: 'the-same-secret\r\n' });
    expect(again.kind).toBe('known-secret');
  });

  test('a product has at most five active keys, also when six come at once', async () => {
    const productId = await haveProduct('keys-3');
    const outcomes = await Promise.all(
      [1, 2, 3, 4, 5, 6].map((n) =>
        addKey(ann(), { product: 'keys-3', class: 'base', secret: `secret-number-${n}` }),
      ),
    );
    expect(outcomes.filter((each) => each.kind === 'added')).toHaveLength(5);
    expect(outcomes.filter((each) => each.kind === 'too-many')).toHaveLength(1);
    expect(await readActiveKeys(db, productId)).toHaveLength(5);
  });

  test('the last active key is retired by force only, and stays as evidence', async () => {
    const productId = await haveProduct('keys-4');
    const first = await haveKey('keys-4', 'first-secret');
    const second = await haveKey('keys-4', 'second-secret');
    const retire = (keyId: number, force = false) =>
      retireProductKey({ db, actor: 'ann' }, { product: 'keys-4', keyId, force, reason: 'old' });

    expect(await retire(first)).toMatchObject({ kind: 'retired', activeKeys: 1 });
    expect(await retire(first)).toMatchObject({ kind: 'already-retired' });
    expect(await retire(second)).toMatchObject({ kind: 'last-key' });
    expect(await retire(999_999)).toEqual({ kind: 'unknown-key', active: [second] });
    expect(await retire(second, true)).toMatchObject({ kind: 'retired', activeKeys: 0 });
    expect((await listKeys(db, productId)).map((each) => each.id)).toEqual([first, second]);
    const acts = (await readAudit(db)).filter((each) => each.subject === 'product/keys-4');
    expect(acts.map(({ act, reason }) => [act, reason])).toEqual([
      ['key.retired', 'old'],
      ['key.retired', 'old'],
      ['key.added', null],
      ['key.added', null],
      ['product.added', null],
    ]);
  });

  test('two that retire the last two keys at once leave one', async () => {
    const productId = await haveProduct('keys-5');
    const ids = [await haveKey('keys-5', 'secret-one'), await haveKey('keys-5', 'secret-two')];
    const outcomes = await Promise.all(
      ids.map((keyId) =>
        retireProductKey({ db, actor: 'ann' }, { product: 'keys-5', keyId, force: false }),
      ),
    );
    expect(outcomes.map((each) => each.kind).toSorted()).toEqual(['last-key', 'retired']);
    expect(await readActiveKeys(db, productId)).toHaveLength(1);
  });

  test('an unknown product is answered with the known ones', async () => {
    const wanted = { product: 'nope', class: 'base', secret: 'some-secret' } as const;
    const outcome = await addKey(ann(), wanted);
    expect(outcome).toEqual({
      kind: 'unknown-product',
      known: expect.arrayContaining(['keys-1', 'keys-2']),
    });
  });
});

describe('redrive', () => {
  test('two at once make each dead letter due once, and each says which ones it took', async () => {
    const productId = await haveProduct('dead-1');
    const orders = Array.from({ length: 20 }, (_, n) => `D1-${n}`);
    for (const orderId of orders) {
      await seedDeadInstance(db, { productId, orderId, cause: 'backend answers 503' });
    }
    const other = open();
    const run = (on: Database, actor: string) =>
      redrive({ db: on, actor }, { scope: { product: 'dead-1' }, reason: 'backend is up' });
    const outcomes = await Promise.all([run(db, 'ann'), run(other, 'bob'), run(db, 'cid')]);
    await other.close();

    const taken = outcomes.flatMap((each) =>
      each.kind === 'redriven' ? each.instances.map((instance) => instance.orderId) : [],
    );
    expect(taken.toSorted()).toEqual(orders.toSorted());
    const { rows } = await db.pool.query(
      `select distinct state, attempts, claims, cause, retry_at, dispatched_at, lease_until,
         due_at <= now() as due from dispatches where product_id = $1`,
      [productId],
    );
    expect(rows).toEqual([
      {
        state: 'due',
        attempts: 0,
        claims: 0,
        cause: null,
        retry_at: null,
        dispatched_at: null,
        lease_until: null,
        due: true,
      },
    ]);
    const entries = (await readAudit(db)).filter((each) => each.act === 'dead_letter.redriven');
    const audited = entries.flatMap((each) =>
      (each.detail as { instances: { orderId: string }[] }).instances.map((i) => i.orderId),
    );
    expect(audited.toSorted()).toEqual(orders.toSorted());
    expect(entries.every((each) => each.reason === 'backend is up')).toBe(true);
  });

  test('only what is dead is touched, by product and by order', async () => {
    const productId = await haveProduct('dead-2');
    const otherId = await haveProduct('dead-3');
    await seedDeadInstance(db, { productId, orderId: 'D2-a', cause: 'x' });
    await seedDeadInstance(db, { productId, orderId: 'D2-b', cause: 'y' });
    await seedDeadInstance(db, { productId, orderId: 'D2-c', cause: 'z', state: 'failing' });
    await seedDeadInstance(db, { productId: otherId, orderId: 'D3-a', cause: 'x' });
    const act = (scope: Parameters<typeof redrive>[1]['scope'], reason = 'why') =>
      redrive({ db, actor: 'ann' }, { scope, reason });

    expect(await act({ product: 'dead-2', order: 'D3-a' })).toEqual({ kind: 'nothing-dead' });
    expect(await act({ order: 'D2-c' })).toEqual({ kind: 'nothing-dead' });
    expect(await act({ all: true }, '  ')).toEqual({ kind: 'reason-missing' });
    expect(await act({ product: 'nope' })).toMatchObject({ kind: 'unknown-product' });
    expect(await act({ order: 'D2-a' })).toMatchObject({
      kind: 'redriven',
      instances: [{ product: 'dead-2', orderId: 'D2-a', instanceId: 'i-D2-a', cause: 'x' }],
    });
    expect(await countDeadLetters(db, { product: 'dead-2' })).toEqual([
      { product: 'dead-2', cause: 'y', fingerprint: expect.any(String), count: 1 },
    ]);
    const rest = await act({ all: true });
    expect(rest.kind === 'redriven' && rest.instances.map((each) => each.orderId)).toEqual([
      'D2-b',
      'D3-a',
    ]);
    expect(await listDeadLetters(db)).toEqual([]);
    const { rows } = await db.pool.query(
      `select d.state, attempts from dispatches d join instances i on i.id = d.instance_id where order_id = 'D2-c'`,
    );
    expect(rows).toEqual([{ state: 'failing', attempts: 8 }]);
  });
});

describe('what is known of an order', () => {
  test('everything but access data, found also by the order of a renewal', async () => {
    const productId = await haveProduct('order-1');
    const seeded = await seedDeadInstance(db, { productId, orderId: 'O-1', cause: 'said 503' });
    await db.pool.query(
      `insert into events (instance_id, kind, dedup_key, order_id, order_line_id, detail, callback_id, resolved_at, applied_at, outcome)
       values ($1, 'renewed', 'renew/RENEWAL/O-2/L9', 'O-2', 'L9', '{"scene": "RENEWAL"}',
         '0193b5c8-0000-7000-8000-000000000002', now(), now(), 'applied')`,
      [seeded.id],
    );
    const history = await readOrderHistory(db, 'O-1');
    expect(await readOrderHistory(db, 'O-2')).toEqual({ ...history, orderId: 'O-2' });
    expect(await readOrderHistory(db, 'O-3')).toEqual({ orderId: 'O-3', instances: [] });
    const at = expect.any(Date);
    expect(history.instances).toEqual([
      {
        product: 'order-1',
        instanceId: 'i-O-1',
        orderId: 'O-1',
        orderLineId: 'L1',
        state: 'pending',
        wanted: 'serving',
        resultCode: null,
        generationApplied: 0,
        expiresAt: null,
        createdAt: at,
        events: [
          {
            kind: 'created',
            scene: null,
            orderId: 'O-1',
            orderLineId: 'L1',
            acceptedAt: at,
            resolvedAt: at,
            appliedAt: null,
            outcome: null,
          },
          {
            kind: 'renewed',
            scene: 'RENEWAL',
            orderId: 'O-2',
            orderLineId: 'L9',
            acceptedAt: at,
            resolvedAt: at,
            appliedAt: at,
            outcome: 'applied',
          },
        ],
        dispatch: {
          state: 'dead',
          queue: 'provisioning',
          openEvents: 1,
          dueAt: null,
          retryAt: null,
          attempts: 8,
          cause: 'said 503',
        },
        attempts: [
          {
            no: 8,
            kind: 'apply',
            generation: 1,
            began: at,
            ended: at,
            class: 'transient',
            httpStatus: 503,
            target: 'https://backend.example.com',
            worker: 'w-1',
            retryAt: null,
          },
        ],
        replies: [
          { activity: 'newInstance', resultCode: '000004', firstAt: at, lastAt: at, times: 7 },
        ],
        callbackIds: [
          '0193b5c8-0000-7000-8000-000000000001',
          '0193b5c8-0000-7000-8000-000000000002',
        ],
      },
    ]);
    const ageMs = Date.now() - Number(history.instances[0]?.events[0]?.acceptedAt);
    expect(Math.abs(ageMs)).toBeLessThan(60_000);
  });
});

describe('set-password', () => {
  test('a new password makes the operator, is known by its hash alone, and ends sessions', async () => {
    const act = (password: string, name = 'ann') =>
      setPassword({ db, actor: 'cli:root' }, { name, password });
    expect(await act('first-password')).toMatchObject({ kind: 'set', isNew: true });
    const operator = await findOperator(db, 'ann');
    expect(await verifyPassword(operator?.passwordHash ?? '', 'first-password')).toBe(true);
    await db.pool.query(
      `insert into sessions (token_hash, operator_id, expires_at) values ('\\x01', $1, now() + interval '1 hour'), ('\\x02', $1, now() + interval '1 hour')`,
      [operator?.id],
    );
    expect(await act('second-password')).toEqual({
      kind: 'set',
      operator: 'ann',
      isNew: false,
      sessionsEnded: 2,
    });
    const changed = await findOperator(db, 'ann');
    expect(changed?.id).toBe(operator?.id);
    expect(await verifyPassword(changed?.passwordHash ?? '', 'first-password')).toBe(false);
    expect(await verifyPassword(changed?.passwordHash ?? '', 'second-password')).toBe(true);
    expect((await db.pool.query('select from sessions')).rowCount).toBe(0);
  });

  test('a short password and an odd name are refused', async () => {
    const act = (name: string, password: string) =>
      setPassword({ db, actor: 'x' }, { name, password });
    expect(await act('bob', '123456789')).toMatchObject({ kind: 'invalid', field: 'password' });
    expect(await act('Bob Smith', '1234567890')).toMatchObject({ kind: 'invalid', field: 'name' });
    expect(await findOperator(db, 'bob')).toBeUndefined();
  });
});

test('the database holds no secret in clear, in no form, and neither does the audit', async () => {
  const secrets = ['clear-secret-of-a-key', 'clear-password-of-an-operator'];
  const httpSecret = `whsec_${randomBytes(32).toString('base64')}`;
  await addProduct(ann(), {
    key: 'secretive',
    name: 'S',
    provisioner: 'http',
    httpUrl: 'https://s.example.com',
    httpSecret,
  });
  await haveKey('secretive', 'clear-secret-of-a-key');
  await setPassword(ann(), { name: 'eve', password: 'clear-password-of-an-operator' });
  const dump = await dumpDatabase(db);
  expect(dump).toContain('secretive');
  expect(dump).toContain('operator/eve');
  for (const form of [...secrets, httpSecret, httpSecret.slice(6)].flatMap(formsOf)) {
    expect(dump).not.toContain(form);
  }
});
