import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';
import { readAudit } from '../../db/audit.ts';
import { type Database, createDatabase } from '../../db/client.ts';
import { createKeyring } from '../../db/data-keys.ts';
import { findOperator } from '../../db/operators.ts';
import { findProduct, readActiveKeys } from '../../db/products.ts';
import { verifyPassword } from '../../operations/password-hash.ts';
import { loadMasterKey } from '../../runtime/secrets.ts';
import { type TestDatabase, createTestDatabase, withDatabase } from '../servers/database.ts';
import { type CliResult, runCli } from './cli-run.ts';
import { dumpDatabase, formsOf, seedDeadInstance } from './operations-seed.ts';

let database: TestDatabase;
let db: Database;
let dataDir: string;
let env: Record<string, string>;
const masterKeyText = randomBytes(32).toString('base64');
const printed: string[] = [];
/** All that was put in; none of it may come out. */
const secrets = {
  key: 'demo-access-key-0001',
  otherKey: 'demo-access-key-0002',
  webhook: `whsec_${randomBytes(32).toString('base64')}`,
  password: 'an operators pass phrase',
};

async function cli(args: readonly string[], input?: string, more: Record<string, string> = {}) {
  const result = await runCli(args, {
    env: { ...env, ...more },
    ...(input === undefined ? {} : { input }),
  });
  printed.push(result.out, result.err);
  return result;
}

/** The result of a command that must work and print one JSON document and nothing else. */
async function cliJson<T>(args: readonly string[], input?: string): Promise<T> {
  const { code, out, err } = await cli([...args, '--json'], input);
  expect({ code, err }).toEqual({ code: 0, err: '' });
  return JSON.parse(out) as T;
}

const failing = (code: number, ...words: string[]) => ({
  code,
  out: '',
  err: expect.stringMatching(
    new RegExp(words.map((word) => `(?=[\\s\\S]*${escape(word)})`).join('')),
  ),
});
const escape = (text: string) => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');

beforeAll(async () => {
  database = await createTestDatabase();
  db = createDatabase({ url: database.url, applicationName: 'test', poolMax: 2 });
  dataDir = await mkdtemp(join(tmpdir(), 'latchkey-cli-'));
  env = {
    DATABASE_URL: database.url,
    LATCHKEY_DATA_DIR: dataDir,
    LATCHKEY_MASTER_KEY: masterKeyText,
    PUBLIC_URL: 'https://shop.example.com/',
  };
});

afterAll(async () => {
  await db.close();
  await database.drop();
  await rm(dataDir, { recursive: true, force: true });
});

describe('products and keys', () => {
  test('a product is added and says its address and the next command', async () => {
    const { code, out } = await cli([
      ...['product', 'add', 'shop', '--name', 'My 店', '--provisioner', 'postgres-schema'],
    ]);
    expect(code).toBe(0);
    expect(out).toContain('https://shop.example.com/callbacks/shop');
    expect(out).toContain('npx latchkey key add shop --class base --secret-stdin');
  });

  test('an http product takes its secret from standard input and does not repeat it', async () => {
    const added = await cliJson<{ callbackUrl: string }>(
      [
        ...['product', 'add', 'crm', '--name', 'CRM', '--provisioner', 'http'],
        ...['--http-url', 'https://crm.example.com', '--http-secret-stdin'],
      ],
      `${secrets.webhook}\n`,
    );
    expect(added).toEqual({
      key: 'crm',
      name: 'CRM',
      family: 'saas-v2',
      provisioner: 'http',
      httpUrl: 'https://crm.example.com',
      frontEndUrl: null,
      modulePath: null,
      changeRule: 'allow',
      checkOnFailure: 'allow',
      releaseGraceDays: 0,
      openApiUrl: null,
      pausedAt: null,
      callbackUrl: 'https://shop.example.com/callbacks/crm',
      activeKeys: 0,
      createdAt: expect.any(String),
    });
    const product = await findProduct(db, 'crm');
    const { masterKey } = loadMasterKey({
      masterKey: masterKeyText,
      dataDir,
      isProduction: true,
    });
    const opened = await createKeyring({ db, masterKey }).open(
      product?.httpSecretEnc ?? Buffer.alloc(0),
      `products/http_secret_enc/${product?.id}`,
    );
    expect(opened.toString()).toBe(secrets.webhook);
  });

  test('keys are added, listed, shown and retired, never with their secrets', async () => {
    const add = (secret: string) =>
      cliJson<{ id: number; activeKeys: number }>(
        ['key', 'add', 'shop', '--class', 'base', '--secret-stdin'],
        secret,
      );
    const first = await add(secrets.key);
    const second = await add(secrets.otherKey);
    expect([first.activeKeys, second.activeKeys]).toEqual([1, 2]);
    const at = expect.any(String);
    expect(await cliJson(['key', 'list', 'shop'])).toEqual({
      product: 'shop',
      keys: [
        { id: first.id, class: 'base', createdAt: at, retiredAt: null },
        { id: second.id, class: 'base', createdAt: at, retiredAt: null },
      ],
    });
    const retired = await cliJson<{ activeKeys: number }>([
      ...['key', 'retire', 'shop', String(first.id), '--reason', 'changed'],
    ]);
    expect(retired).toMatchObject({ id: first.id, retiredAt: at, activeKeys: 1 });
    expect(await cliJson(['product', 'show', 'shop'])).toMatchObject({
      key: 'shop',
      activeKeys: 1,
      keys: [{ retiredAt: at }, { retiredAt: null }],
    });
    expect(await cliJson(['product', 'list'])).toMatchObject({
      products: [
        { key: 'shop', activeKeys: 1 },
        { key: 'crm', activeKeys: 0 },
      ],
    });
    const product = await findProduct(db, 'shop');
    expect((await readActiveKeys(db, product?.id)).map((each) => each.id)).toEqual([second.id]);
    const [entry] = await readAudit(db, 1);
    expect(entry).toMatchObject({
      actor: expect.stringMatching(/^cli:./),
      act: 'key.retired',
      subject: 'product/shop',
      reason: 'changed',
    });
    expect(await cli(['key', 'retire', 'shop', String(second.id)])).toEqual(
      failing(1, 'last active key of shop', '--force'),
    );
  });

  test('tables hold no colour and no secret in a pipe', async () => {
    const [products, keys] = await Promise.all([
      cli(['product', 'list'], undefined, { FORCE_COLOR: '' }),
      cli(['key', 'list', 'shop']),
    ]);
    expect(products.out).toMatch(/│ shop +│ My 店 +│ postgres-schema +│ 1 +│/);
    expect(keys.out).toMatch(/│ base +│ \d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ +│/);
    // eslint-disable-next-line no-control-regex
    expect(products.out + keys.out).not.toMatch(/\u001B/);
  });
});

describe('orders and dead letters', () => {
  test('an order is shown with all that happened and without access data', async () => {
    const product = await findProduct(db, 'shop');
    await seedDeadInstance(db, {
      productId: product?.id ?? 0,
      orderId: 'CS1',
      cause: 'backend answers 503',
    });
    const history = await cliJson<{ instances: object[] }>(['order', 'show', 'CS1']);
    expect(history).toMatchObject({
      orderId: 'CS1',
      instances: [
        {
          product: 'shop',
          instanceId: 'i-CS1',
          state: 'pending',
          events: [{ kind: 'created', outcome: null }],
          dispatch: { state: 'dead', cause: 'backend answers 503', attempts: 8 },
          attempts: [{ no: 8, class: 'transient', httpStatus: 503 }],
          replies: [{ activity: 'newInstance', resultCode: '000004', times: 7 }],
          callbackIds: ['0193b5c8-0000-7000-8000-000000000001'],
        },
      ],
    });
    expect(JSON.stringify(history)).not.toMatch(/access|buyer|said/i);
    const { code, out } = await cli(['order', 'show', 'CS1']);
    expect(code).toBe(0);
    for (const word of ['i-CS1', 'created', 'dead in provisioning', '503', '000004']) {
      expect(out).toContain(word);
    }
  });

  test('dead letters are listed with their cause and redriven once by two at once', async () => {
    const product = await findProduct(db, 'crm');
    const orders = ['CS2', 'CS3', 'CS4'];
    for (const orderId of orders) {
      await seedDeadInstance(db, { productId: product?.id ?? 0, orderId, cause: 'refused (422)' });
    }
    const list = await cliJson<{ deadLetters: { orderId: string; since: string }[] }>([
      ...['dead-letter', 'list', '--product', 'crm'],
    ]);
    expect(list).toMatchObject({
      total: 3,
      causes: [{ product: 'crm', cause: 'refused (422)', count: 3 }],
    });
    expect(list.deadLetters).toContainEqual({
      product: 'crm',
      orderId: 'CS2',
      instanceId: 'i-CS2',
      cause: 'refused (422)',
      fingerprint: expect.stringMatching(/^[0-9a-f]{12}$/),
      attempts: 8,
      since: expect.stringMatching(/^\d{4}-.*Z$/),
      openEvents: 1,
      kinds: ['created'],
    });
    const redrive = () =>
      cliJson<{ redriven: number; orders: string[] }>([
        ...['dead-letter', 'redrive', '--product', 'crm', '--reason', 'quota raised'],
      ]);
    const both = await Promise.all([redrive(), redrive()]);
    expect(both.flatMap((each) => each.orders).toSorted()).toEqual(orders);
    const audited = (await readAudit(db)).filter((each) => each.act === 'dead_letter.redriven');
    expect(audited.map((each) => each.reason)).toEqual(
      both.filter((each) => each.redriven > 0).map(() => 'quota raised'),
    );
    const rest = await cliJson<{ orders: string[] }>([
      ...['dead-letter', 'redrive', '--all', '--reason', 'all is well'],
    ]);
    expect(rest.orders).toEqual(['CS1']);
    expect(await cliJson(['dead-letter', 'list'])).toEqual({
      total: 0,
      causes: [],
      deadLetters: [],
    });
  });
});

test('a password that was set lets the operator in, and stands nowhere', async () => {
  const set = await cliJson(['password', 'set', 'ann', '--password-stdin'], secrets.password);
  expect(set).toEqual({ operator: 'ann', isNew: true, sessionsEnded: 0 });
  const operator = await findOperator(db, 'ann');
  expect(await verifyPassword(operator?.passwordHash ?? '', secrets.password)).toBe(true);
});

describe('mistakes say what happened and what to do next', () => {
  const secret = ['--secret-stdin'];
  test.each<[string, string[], string | undefined, number, string[]]>([
    [
      'a bad product key',
      ['product', 'add', 'Bad_Key', '--name', 'X', '--provisioner', 'postgres-schema'],
      undefined,
      2,
      ['lower-case letters', 'product add --help'],
    ],
    [
      'a product that exists',
      ['product', 'add', 'shop', '--name', 'X', '--provisioner', 'postgres-schema'],
      undefined,
      1,
      ['exists already', 'product show shop'],
    ],
    ['an unknown product', ['product', 'show', 'shpo'], undefined, 1, ['Known: shop, crm']],
    [
      'an unknown product for a key',
      ['key', 'add', 'shpo', '--class', 'base', ...secret],
      'some-secret-key',
      1,
      ['no product "shpo"', 'Known: shop, crm'],
    ],
    [
      'no secret',
      ['key', 'add', 'shop', '--class', 'base'],
      undefined,
      2,
      ['secret of the key is missing', 'printf %s "$KEY"'],
    ],
    [
      'an empty secret',
      ['key', 'add', 'shop', '--class', 'base', ...secret],
      '\n',
      2,
      ['Standard input is empty', 'printf %s "$KEY"'],
    ],
    [
      'a short secret',
      ['key', 'add', 'shop', '--class', 'base', ...secret],
      '1234567',
      2,
      ['8 to 200 characters, not 7'],
    ],
    [
      'a secret that is active',
      ['key', 'add', 'shop', '--class', 'kit', ...secret],
      'demo-access-key-0002',
      1,
      ['active already', 'key list shop'],
    ],
    [
      'a key that is none',
      ['key', 'retire', 'shop', '99999'],
      undefined,
      1,
      ['no key 99999', 'Active: '],
    ],
    ['an unknown order', ['order', 'show', 'CS9'], undefined, 1, ['No callback has named']],
    [
      'a redrive without reason',
      ['dead-letter', 'redrive', '--all', '--reason', ' '],
      undefined,
      2,
      ['--reason is empty'],
    ],
    [
      'a short password',
      ['password', 'set', 'ann', '--password-stdin'],
      'short',
      2,
      ['10 to 200 characters'],
    ],
  ])('%s', async (_, args, input, code, words) => {
    expect(await cli(args, input)).toEqual(failing(code, ...words));
  });

  test('with --json the mistake is JSON too, and standard output stays empty', async () => {
    const { code, out, err } = await cli(['product', 'show', 'shpo', '--json']);
    expect({ code, out, err: JSON.parse(err) }).toEqual({
      code: 1,
      out: '',
      err: {
        error: {
          message: 'There is no product "shpo". Known: shop, crm.',
          next: 'npx latchkey product list',
        },
      },
    });
  });

  test('a database that cannot be used is named without its password', async () => {
    const wrong = new URL(database.url);
    wrong.password = 'wrong-password-of-the-database';
    const [refused, absent, closed, environment, masterKey] = await Promise.all([
      cli(['product', 'list'], undefined, { DATABASE_URL: wrong.toString() }),
      cli(['product', 'list'], undefined, { DATABASE_URL: withDatabase(database.url, 'nope') }),
      cli(['product', 'list'], undefined, { DATABASE_URL: 'postgres://u:hush-hush@127.0.0.1:1/x' }),
      cli(['product', 'list'], undefined, { PORT: 'eighty' }),
      cli(['key', 'add', 'shop', '--class', 'kit', '--secret-stdin'], 'a-new-secret', {
        LATCHKEY_MASTER_KEY: randomBytes(32).toString('base64'),
      }),
    ]);
    expect(refused).toEqual(failing(1, 'refuses the password', 'DATABASE_URL'));
    expect(absent).toEqual(failing(1, 'no database of this name', 'DATABASE_URL'));
    expect(closed).toEqual(failing(1, 'Nothing listens', 'DATABASE_URL'));
    expect(environment).toEqual(failing(2, 'PORT must be a whole number'));
    expect(masterKey).toEqual(failing(1, 'sealed with master key', 'npx latchkey doctor'));
    expect(refused.err + closed.err).not.toMatch(/wrong-password|hush-hush/);
  });
});

describe('migrate and doctor', () => {
  test('migrate makes an empty database usable, and a second time changes nothing', async () => {
    const url = database.tenantsUrl;
    const first = await cli(['migrate', '--json'], undefined, { DATABASE_URL: url });
    const second = await cli(['migrate', '--json'], undefined, { DATABASE_URL: url });
    expect(JSON.parse(first.out)).toEqual({ applied: expect.any(Number) });
    expect(JSON.parse(first.out)).not.toEqual({ applied: 0 });
    expect(JSON.parse(second.out)).toEqual({ applied: 0 });
  });

  type Report = { failed: number; checks: { name: string; status: string; says: string }[] };
  const statusesOf = (result: CliResult) =>
    Object.fromEntries(
      (JSON.parse(result.out) as Report).checks.map((each) => [each.name, each.status]),
    );

  test('doctor looks at everything that it can, and its exit code says whether a check failed', async () => {
    const redisUrl = inject('redisUrl');
    const sound = await cli(['doctor', '--json'], undefined, {
      ...(redisUrl === null ? {} : { REDIS_URL: redisUrl }),
    });
    expect(sound.code).toBe(0);
    expect(statusesOf(sound)).toMatchObject({
      environment: 'ok',
      'public address': 'ok',
      'data directory': 'ok',
      'master key': 'ok',
      database: 'ok',
      durability: 'ok',
      clocks: 'ok',
      schema: 'ok',
      partitions: 'ok',
      // crm has no key.
      products: 'warn',
      operators: 'ok',
      ...(redisUrl === null ? { queues: 'ok' } : { 'redis eviction': 'ok' }),
    });

    const ill = await cli(['doctor', '--json'], undefined, {
      DATABASE_URL: 'postgres://u:hush-hush@127.0.0.1:1/x',
      REDIS_URL: 'redis://:hush-hush@127.0.0.1:1',
      PUBLIC_URL: 'http://10.1.2.3',
      NODE_ENV: 'production',
    });
    expect(ill.code).toBe(1);
    expect(statusesOf(ill)).toMatchObject({
      'public address': 'fail',
      'master key': 'ok',
      database: 'fail',
      queues: 'fail',
    });
    const wrong = await cli(['doctor'], undefined, { PORT: 'eighty' });
    expect(wrong.code).toBe(1);
    expect(wrong.out).toContain('PORT must be a whole number');
  });

  test("doctor notices another installation's master key, and missing partitions", async () => {
    await db.pool.query(
      `do $$ begin execute 'drop table reads_' || to_char((now() + interval '1 day') at time zone 'UTC', 'YYYYMMDD'); end $$`,
    );
    const ill = await cli(['doctor', '--json'], undefined, {
      LATCHKEY_MASTER_KEY: randomBytes(32).toString('base64'),
    });
    expect(ill.code).toBe(1);
    expect(statusesOf(ill)).toMatchObject({ 'master key': 'fail', partitions: 'fail' });
    await cliJson(['migrate']);
    expect(statusesOf(await cli(['doctor', '--json']))).toMatchObject({ partitions: 'ok' });
  });
});

test('nothing that was put in came out again, neither on a screen nor in the database', async () => {
  const dump = await dumpDatabase(db);
  const outputs = printed.join('\n');
  expect(outputs).toContain('callbacks/shop');
  for (const form of [...Object.values(secrets), masterKeyText].flatMap(formsOf)) {
    expect(dump).not.toContain(form);
    expect(outputs).not.toContain(form);
  }
});
