import { randomBytes } from 'node:crypto';
import { type IncomingMessage, createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { addKey } from '../../operations/add-key.ts';
import { type NewProduct, addProduct } from '../../operations/add-product.ts';
import { setProductRules } from '../../operations/set-product-rules.ts';
import { isWebhookSigned } from '../../simulator/signing.ts';
import { type TestDatabase, createTestDatabase } from '../servers/database.ts';
import { queueStore } from '../servers/queue-store.ts';
import { type Process, type System, createSystem } from '../servers/system.ts';
import { until } from '../servers/until.ts';
import { runCli } from './cli-run.ts';
import { openOperator } from './receiver-call.ts';

const secret = `whsec_${randomBytes(24).toString('base64')}`;

type Question = { method: string; path: string; signed: boolean; body: Record<string, unknown> };

let database: TestDatabase;
let system: System;
let api: Process;
let operator: ReturnType<typeof openOperator>;
let baseUrl: string;
/** What the seller's backend answers next; undefined: nothing at all. */
let answer: { status: number; body: string } | undefined;
let asked: Question[] = [];

const backend = createServer((incoming, outgoing) => {
  readText(incoming).then(
    (body) => {
      const { method = '', url = '' } = incoming;
      const header = (name: string) => String(incoming.headers[name] ?? '');
      const signed = isWebhookSigned([secret], {
        id: header('webhook-id'),
        timestamp: header('webhook-timestamp'),
        signatures: header('webhook-signature'),
        body,
        nowMs: Date.now(),
      });
      asked.push({ method, path: url, signed, body: JSON.parse(body) });
      if (answer) outgoing.writeHead(answer.status).end(answer.body);
    },
    () => outgoing.destroy(),
  );
});

beforeAll(async () => {
  database = await createTestDatabase();
  const { env } = queueStore(database.url);
  await new Promise<void>((resolve) => backend.listen(0, '127.0.0.1', resolve));
  baseUrl = `http://127.0.0.1:${(backend.address() as AddressInfo).port}/seller/`;
  system = createSystem({ databaseUrl: database.url, tenantsUrl: database.tenantsUrl, env });
  api = await system.startApi();
  operator = openOperator(database.url, system.masterKey);
});

afterAll(async () => {
  backend.closeAllConnections();
  backend.close();
  await system?.stop();
  await operator?.db.close();
  await database?.drop();
});

beforeEach(() => {
  asked = [];
  answer = undefined;
});

/** A product with these rules, and an instance of it as a worker would leave it: none runs here. */
async function bring(rules: Pick<NewProduct, 'changeRule' | 'checkOnFailure' | 'httpUrl'>) {
  const key = `p-${randomBytes(4).toString('hex')}`;
  const accessKey = `key-${randomBytes(8).toString('hex')}`;
  const wanted = {
    key,
    name: key,
    provisioner: 'http',
    httpUrl: baseUrl,
    httpSecret: secret,
  } as const;
  expect(await addProduct(operator, { ...wanted, ...rules })).toMatchObject({ kind: 'added' });
  await addKey(operator, { product: key, class: 'base', secret: accessKey });
  const callbackUrl = () => `http://127.0.0.1:${api.port}/callbacks/${key}`;
  const market = system.marketplace({ key, accessKey, callbackUrl }, api);
  const { instanceId = '' } = await market.newInstance({ orderId: 'CS1', orderLineId: 'CS1-1' });
  const { sql } = system;
  const plan = { productId: 'P1', skuCode: 'S1', quantity: 3, period: null };
  const [row] = await sql<{ id: number }[]>`
    update instances set state = 'active', applied = 1 where public_id = ${instanceId} returning id::int`;
  await sql`update events set applied_at = now(), outcome = 'applied', detail = ${sql.json({ plan, trial: false })}
    where instance_id = ${row?.id ?? 0}`;
  await sql`delete from dispatches where instance_id = ${row?.id ?? 0}`;
  const check = (productInfo: unknown = target) =>
    market.changeInstanceCheck(instanceId, productInfo);
  return { key, market, instanceId, check };
}

const target = { productId: 'P1', skuCode: 'S2', linearValue: 5 };

test('the rules allow and refuse answer by themselves; a refusal is 000005 with words', async () => {
  const open = await bring({});
  expect(await open.check()).toMatchObject({ resultCode: '000000', bodySignOk: true });
  const closed = await bring({ changeRule: 'refuse' });
  const refused = await closed.check();
  expect(refused).toMatchObject({ httpStatus: 200, resultCode: '000005', bodySignOk: true });
  expect(refused.resultMsg).toContain('不支持变更');
  expect(asked).toEqual([]);
});

test('the rule ask puts the question to the backend, signed, with what is and what is to be', async () => {
  const { check, instanceId } = await bring({ changeRule: 'ask' });
  answer = { status: 200, body: '{"allow":true}' };
  for (const productInfo of [target, JSON.stringify(target)]) {
    expect(await check(productInfo)).toMatchObject({ resultCode: '000000', bodySignOk: true });
  }
  const question: Question = {
    method: 'POST',
    path: `/seller/instances/${instanceId}/check`,
    signed: true,
    body: {
      instanceId,
      target: { productId: 'P1', skuCode: 'S2', quantity: 5 },
      current: {
        exists: true,
        frozen: false,
        expiresAt: null,
        trial: false,
        plan: { productId: 'P1', skuCode: 'S1', quantity: 3, period: null },
      },
    },
  };
  expect(asked).toEqual([question, question]);
});

test('the backend’s own words reach the buyer, cut to what is taken', async () => {
  const { check } = await bring({ changeRule: 'ask' });
  answer = {
    status: 200,
    body: JSON.stringify({ allow: false, message: '用户数过多'.repeat(100) }),
  };
  const refused = await check();
  expect(refused).toMatchObject({ resultCode: '000005', bodySignOk: true });
  expect(refused.resultMsg).toBe('用户数过多'.repeat(51));
});

test.each<[string, { status: number; body: string } | undefined]>([
  ['a 5xx', { status: 503, body: '{"allow":false}' }],
  ['a 4xx', { status: 404, body: '' }],
  ['no JSON', { status: 200, body: '<html>It works!</html>' }],
  ['a verdict of another kind', { status: 200, body: '{"allow":"yes"}' }],
  ['nothing within two seconds', undefined],
])('%s from the backend is answered as the product says, in time', async (_name, said) => {
  for (const [onFailure, resultCode] of [
    ['allow', '000000'],
    ['refuse', '000005'],
  ] as const) {
    const { check } = await bring({ changeRule: 'ask', checkOnFailure: onFailure });
    answer = said;
    const beganMs = Date.now();
    expect(await check()).toMatchObject({ resultCode, bodySignOk: true });
    expect(Date.now() - beganMs).toBeLessThan(2_900);
  }
  expect(asked).toHaveLength(2);
});

test('a refused change was stored: it counts as no loss, and the log says why it was refused', async () => {
  const { check } = await bring({
    changeRule: 'ask',
    checkOnFailure: 'refuse',
    httpUrl: 'http://10.255.255.1/x',
  });
  expect(await check()).toMatchObject({ resultCode: '000005' });
  const line = await until(
    () => api.lines.find((text) => text.includes('OUTBOUND_ALLOWED_CIDRS')) ?? '',
    (text) => text !== '',
    { timeoutMs: 5_000, what: 'the line of the call' },
  );
  expect(JSON.parse(line)).toMatchObject({
    msg: 'callback.answered',
    activity: 'changeInstanceCheck',
    outcome: 'change refused',
    resultCode: '000005',
  });
  const metrics = await (await fetch(`http://127.0.0.1:${api.port}/metrics`)).text();
  expect(metrics).not.toMatch(/latchkey_refused_unstored_total\{[^}]*\} [1-9]/);
});

test('an instance that nobody knows, or that is no more, is 000003 and nobody is asked', async () => {
  const { check, market, instanceId } = await bring({ changeRule: 'ask' });
  answer = { status: 200, body: '{"allow":true}' };
  expect(await market.changeInstanceCheck('nobody', target)).toMatchObject({
    resultCode: '000003',
  });
  await system.sql`update instances set state = 'released' where public_id = ${instanceId}`;
  expect(await check()).toMatchObject({ resultCode: '000003' });
  expect(asked).toEqual([]);
});

test('a rule that is changed counts without a restart, and who changed it is on record', async () => {
  const { check, key } = await bring({});
  const { env } = system;
  const set = await runCli(['product', 'set', key, '--change-rule', 'refuse', '--json'], { env });
  expect(set).toMatchObject({ code: 0, err: '' });
  expect(JSON.parse(set.out)).toMatchObject({ product: key, changeRule: 'refuse' });
  await until(
    () => check().then(({ resultCode }) => resultCode),
    (resultCode) => resultCode === '000005',
    { timeoutMs: 5_000, what: 'the rule to count' },
  );
  const { rows } = await operator.db.pool.query(
    `select detail from audit where subject = $1 and act = 'product.set'`,
    [`product/${key}`],
  );
  expect(rows).toEqual([
    {
      detail: {
        changeRule: 'refuse',
        before: { changeRule: 'allow', checkOnFailure: 'allow', releaseGraceDays: 0 },
      },
    },
  ]);
});

test('rules that mean nothing to a product are refused', async () => {
  const base = { key: 'x', name: 'x', provisioner: 'postgres-schema' } as const;
  for (const [wanted, field] of [
    [{ ...base, changeRule: 'ask' }, 'changeRule'],
    [{ ...base, checkOnFailure: 'allow' }, 'checkOnFailure'],
    [{ ...base, releaseGraceDays: -1 }, 'releaseGraceDays'],
    [{ ...base, releaseGraceDays: 1.5 }, 'releaseGraceDays'],
    [{ ...base, provisioner: 'manual', releaseGraceDays: 1 }, 'releaseGraceDays'],
    [{ ...base, modulePath: '/x.mjs' }, 'modulePath'],
  ] as const) {
    expect(await addProduct(operator, wanted)).toMatchObject({ kind: 'invalid', field });
  }
  const { key } = await bring({});
  expect(
    await setProductRules(operator, { product: key, rules: { releaseGraceDays: 1 } }),
  ).toMatchObject({ kind: 'invalid', field: 'releaseGraceDays' });
  expect(await setProductRules(operator, { product: 'nobody', rules: {} })).toMatchObject({
    kind: 'unknown-product',
  });
});

async function readText(incoming: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of incoming) chunks.push(Buffer.from(chunk));
  return Buffer.concat(chunks).toString('utf8');
}
