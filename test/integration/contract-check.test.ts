import { spawn } from 'node:child_process';
import { randomBytes, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { addProduct } from '../../operations/add-product.ts';
import {
  type BackendCheck,
  type BackendCheckName,
  checkBackend,
} from '../../operations/check-backend.ts';
import { addWebhookSecret, retireWebhookSecret } from '../../operations/rotate-webhook-secret.ts';
import { type Outbound, createOutbound } from '../../runtime/outbound.ts';
import { createSellerBackend } from '../../simulator/seller-backend.ts';
import { type Fault, startBrokenBackend } from '../fixtures/backends/broken-backend.ts';
import { type TestDatabase, createTestDatabase } from '../servers/database.ts';
import { runCli } from './cli-run.ts';
import { dumpDatabase, formsOf } from './operations-seed.ts';
import { openOperator } from './receiver-call.ts';

const createSecret = () => `whsec_${randomBytes(24).toString('base64')}`;
const masterKey = randomBytes(32).toString('base64');
const example = fileURLToPath(new URL('../../docs/examples/backend.mjs', import.meta.url));

let database: TestDatabase;
let operator: ReturnType<typeof openOperator>;
let outbound: Outbound;
const closers: (() => Promise<unknown>)[] = [];

beforeAll(async () => {
  database = await createTestDatabase();
  operator = openOperator(database.url, masterKey);
  outbound = createOutbound({ allowedCidrs: ['127.0.0.0/8'] });
});

afterEach(async () => {
  for (const close of closers.splice(0)) await close();
});

afterAll(async () => {
  await outbound?.close();
  await operator?.db.close();
  await database?.drop();
});

async function addHttpProduct(
  httpUrl: string,
  httpSecret: string,
  rules: { changeRule?: 'ask' } = {},
): Promise<string> {
  const key = `p-${randomBytes(4).toString('hex')}`;
  const wanted = { key, name: key, provisioner: 'http', httpUrl, httpSecret, ...rules } as const;
  const added = await addProduct(operator, wanted);
  expect(added.kind).toBe('added');
  return key;
}

async function check(product: string, through: Pick<Outbound, 'call'> = outbound) {
  const createId = () => `check-${randomUUID()}`;
  const tools = { ...operator, outbound: through, nowMs: Date.now, createId };
  const outcome = await checkBackend(tools, { product });
  if (outcome.kind !== 'checked') throw new Error(`not checked: ${outcome.kind}`);
  return outcome;
}

const failedOf = (checks: readonly BackendCheck[]) =>
  checks.filter(({ ok }) => !ok).map(({ name }) => name);

async function startExample(secrets: string): Promise<string> {
  const child = spawn(process.execPath, [example], {
    env: { PATH: process.env['PATH'], PORT: '0', LATCHKEY_WEBHOOK_SECRET: secrets },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  closers.push(async () => {
    const ended = once(child, 'exit');
    child.kill();
    await ended;
  });
  const [line] = await once(child.stdout, 'data');
  return `http://127.0.0.1:${/port (\d+)/.exec(String(line))?.[1] ?? ''}`;
}

async function startBroken(secret: string, fault: Fault) {
  const backend = await startBrokenBackend(secret, fault);
  closers.push(() => backend.close());
  return backend;
}

describe('the contract check', () => {
  test('the example backend passes each line, change checks too', async () => {
    const secret = createSecret();
    const key = await addHttpProduct(await startExample(secret), secret, { changeRule: 'ask' });
    const { ok, checks } = await check(key);
    expect(failedOf(checks)).toEqual([]);
    expect(ok).toBe(true);
    expect(checks).toHaveLength(12);
  });

  test('a backend written apart from ours passes, and nothing that was made stays', async () => {
    const secret = createSecret();
    const backend = createSellerBackend({ secrets: [secret] });
    const key = await addHttpProduct(await backend.listen(), secret);
    closers.push(() => backend.close());
    expect(failedOf((await check(key)).checks)).toEqual([]);
    expect(backend.problems).toEqual([]);
    const left = [...backend.instances.values()].filter(({ exists }) => exists);
    expect(left).toEqual([]);
    expect(backend.instances.size).toBeGreaterThan(5);
  });

  test('the backend that the broken ones are made from is sound', async () => {
    const secret = createSecret();
    const { url } = await startBroken(secret, 'none');
    const { checks } = await check(await addHttpProduct(url, secret));
    expect(failedOf(checks)).toEqual([]);
  });

  test.each<[Fault, BackendCheckName[]]>([
    ['makes a new tenant for each PUT', ['same-put-twice', 'newer-generation']],
    ['does not look at generations', ['older-generation', 'put-after-delete']],
    ['takes DELETE of the unknown for a mistake', ['delete-unknown']],
    ['reads the first signature alone', ['either-secret']],
    ['verifies nothing', ['bad-signature', 'stale-timestamp']],
    ['verifies no time', ['stale-timestamp']],
    ['forgets what was deleted', ['put-after-delete']],
  ])('a backend that %s fails by name', async (fault, names) => {
    const secret = createSecret();
    const { url } = await startBroken(secret, fault);
    const { ok, checks } = await check(await addHttpProduct(url, secret));
    expect(failedOf(checks)).toEqual(names);
    expect(ok).toBe(false);
  });

  test('a backend that takes its time, with 202 to each PUT, passes', async () => {
    const secret = createSecret();
    const { url } = await startBroken(secret, 'none');
    const { checks } = await check(await addHttpProduct(url, secret), {
      call: async (request) => {
        const result = await outbound.call(request);
        const isMade = result.kind === 'answered' && result.status === 200;
        return request.method === 'PUT' && isMade ? { ...result, status: 202, body: '' } : result;
      },
    });
    expect(failedOf(checks)).toEqual([]);
  });

  test('one that answers without appInfo is told so on its first line', async () => {
    const secret = createSecret();
    const { url } = await startBroken(secret, 'answers without appInfo');
    const { checks } = await check(await addHttpProduct(url, secret));
    expect(checks[0]).toEqual({
      name: 'first-put',
      ok: false,
      seen: 'PUT was answered 200 without appInfo',
    });
  });

  test('one answer that is late fails the line about time', async () => {
    const secret = createSecret();
    const { url } = await startBroken(secret, 'none');
    let calls = 0;
    const { checks } = await check(await addHttpProduct(url, secret), {
      call: async (request) => {
        calls += 1;
        return calls === 6 ? { kind: 'failed', reason: 'timeout' } : outbound.call(request);
      },
    });
    expect(checks.at(-1)).toEqual({
      name: 'in-time',
      ok: false,
      seen: '1 calls were not answered in 10 s',
    });
  });

  test('where nothing answers, one call is made and not thirty', async () => {
    const key = await addHttpProduct('http://127.0.0.1:1', createSecret());
    let calls = 0;
    const { checks } = await check(key, {
      call: (request) => {
        calls += 1;
        return outbound.call(request);
      },
    });
    expect(calls).toBe(1);
    expect(checks[0]?.seen).toBe('PUT was not answered (connect), expected 200');
    expect(new Set(checks.slice(1).map(({ seen }) => seen))).toEqual(
      new Set(['not tried, because nothing answered before']),
    );
  });

  test('the command prints each line and ends with 1 for a broken backend, 0 for a sound one', async () => {
    const env = {
      DATABASE_URL: database.url,
      LATCHKEY_MASTER_KEY: masterKey,
      OUTBOUND_ALLOWED_CIDRS: '127.0.0.0/8',
    };
    const secret = createSecret();
    const sound = await addHttpProduct((await startBroken(secret, 'none')).url, secret);
    const broken = await addHttpProduct(
      (await startBroken(secret, 'verifies no time')).url,
      secret,
    );
    const [good, bad] = await Promise.all([
      runCli(['product', 'check', sound, '--json'], { env }),
      runCli(['product', 'check', broken], { env }),
    ]);
    expect(good).toMatchObject({ code: 0, err: '' });
    expect(JSON.parse(good.out)).toMatchObject({ product: sound, ok: true });
    expect(bad).toMatchObject({ code: 1, err: '' });
    expect(bad.out).toMatch(/stale-timestamp\s*│ FAILED/);
    expect(bad.out).toMatch(/delete-twice\s*│ ok/);
  });
});

describe('changing the webhook secret', () => {
  test('while there are two both sign, then the new one alone, and no call is ever refused', async () => {
    const [old, fresh] = [createSecret(), createSecret()];
    const backend = createSellerBackend({ secrets: [old] });
    const key = await addHttpProduct(await backend.listen(), old);
    closers.push(() => backend.close());

    expect(await addWebhookSecret(operator, { product: key, secret: fresh })).toEqual({
      kind: 'added',
      product: key,
      generatedSecret: null,
    });
    // It knows one of them, which is enough for every call, but not for each secret alone.
    expect(failedOf((await check(key)).checks)).toEqual(['either-secret']);

    const both = await startExample(`${old} ${fresh}`);
    await operator.db.pool.query('update products set http_url = $2 where key = $1', [key, both]);
    expect(failedOf((await check(key)).checks)).toEqual([]);

    expect(await retireWebhookSecret(operator, { product: key, which: 'old' })).toMatchObject({
      kind: 'retired',
    });
    const last = await startExample(fresh);
    await operator.db.pool.query('update products set http_url = $2 where key = $1', [key, last]);
    expect(failedOf((await check(key)).checks)).toEqual([]);
    expect(await retireWebhookSecret(operator, { product: key, which: 'new' })).toEqual({
      kind: 'only-one',
    });
  });

  test('the new one can be taken back, a third one and the same one are refused', async () => {
    const [old, fresh] = [createSecret(), createSecret()];
    const { url } = await startBroken(old, 'none');
    const key = await addHttpProduct(url, old);
    const add = (secret?: string) => addWebhookSecret(operator, { product: key, secret });
    expect(await add(old)).toEqual({ kind: 'same-secret' });
    expect(await add('whsec_short')).toMatchObject({ kind: 'invalid' });
    expect(await add(fresh)).toMatchObject({ kind: 'added' });
    expect(await add()).toEqual({ kind: 'two-already' });
    await retireWebhookSecret(operator, { product: key, which: 'new' });
    expect(failedOf((await check(key)).checks)).toEqual([]);
  });

  test('of two who add at once one is told so, and there are two secrets', async () => {
    const old = createSecret();
    const key = await addHttpProduct((await startBroken(old, 'none')).url, old);
    const outcomes = await Promise.all(
      [1, 2].map(() => addWebhookSecret(operator, { product: key })),
    );
    expect(outcomes.filter(({ kind }) => kind === 'added')).toHaveLength(1);
  });

  test('the command makes a secret, shows it once, and leaves it nowhere in clear', async () => {
    const old = createSecret();
    const key = await addHttpProduct((await startBroken(old, 'none')).url, old);
    const env = { DATABASE_URL: database.url, LATCHKEY_MASTER_KEY: masterKey };
    const added = await runCli(['product', 'secret', 'add', key, '--json'], { env });
    expect(added).toMatchObject({ code: 0, err: '' });
    const { generatedHttpSecret } = JSON.parse(added.out) as { generatedHttpSecret: string };
    expect(generatedHttpSecret).toMatch(/^whsec_[A-Za-z0-9+/]{43}=$/);
    const retired = await runCli(['product', 'secret', 'retire', key, '--which', 'old'], { env });
    expect(retired).toMatchObject({ code: 0, err: '' });

    const dump = await dumpDatabase(operator.db);
    for (const form of formsOf(generatedHttpSecret.slice(6))) expect(dump).not.toContain(form);
    const { rows } = await operator.db.pool.query<{ act: string; detail: object }>(
      `select act, detail from audit where subject = $1 order by id desc limit 2`,
      [`product/${key}`],
    );
    expect(rows).toEqual([
      { act: 'webhook_secret.retired', detail: { which: 'old' } },
      { act: 'webhook_secret.added', detail: { generated: true } },
    ]);
    const refused = await runCli(['product', 'secret', 'retire', key, '--which', 'new'], { env });
    expect(refused.code).toBe(1);
    expect(refused.err).toContain('one secret alone');
  });
});
