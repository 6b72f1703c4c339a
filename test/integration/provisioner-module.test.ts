import { randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { Assignment } from '../../core/provisioner.ts';
import { addKey } from '../../operations/add-key.ts';
import { addProduct } from '../../operations/add-product.ts';
import { createModuleProvisioner } from '../../workers/provisioners/module.ts';
import { type TestDatabase, createTestDatabase } from '../servers/database.ts';
import { queueStore } from '../servers/queue-store.ts';
import { type Process, type System, createSystem } from '../servers/system.ts';
import { until } from '../servers/until.ts';
import { openOperator } from './receiver-call.ts';

const example = fileURLToPath(new URL('../../docs/examples/module.mjs', import.meta.url));
const acceptedAt = new Date('2026-11-24T08:00:00.000Z');
const never = new AbortController().signal;
let folder: string;
let database: TestDatabase;
let system: System;
let api: Process;
let operator: ReturnType<typeof openOperator>;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'latchkey-module-'));
  database = await createTestDatabase();
  const { env } = queueStore(database.url);
  system = createSystem({ databaseUrl: database.url, tenantsUrl: database.tenantsUrl, env });
  [api] = await Promise.all([system.startApi(), system.startDispatcher(), system.startWorkers()]);
  operator = openOperator(database.url, system.masterKey);
});

afterAll(async () => {
  await system?.stop();
  await operator?.db.close();
  await database?.drop();
  await rm(folder, { recursive: true, force: true });
});

function assignment(more: Partial<Assignment> = {}): Assignment {
  return {
    instanceId: 7,
    publicId: 'b-1',
    product: { id: 1, key: 'demo' },
    generation: 1,
    desired: { exists: true, frozen: false, expiresAt: null, trial: null, plan: null },
    changes: [{ kind: 'created', scene: null, orderId: 'CS1', orderLineId: 'CS1-1', acceptedAt }],
    everBegan: true,
    ...more,
  };
}

const gone = (generation: number) =>
  assignment({ generation, desired: { ...assignment().desired, exists: false }, changes: [] });

async function write(source: string): Promise<string> {
  const path = join(folder, `${randomBytes(6).toString('hex')}.mjs`);
  await writeFile(path, source);
  return path;
}

async function provisionerOf(apply: string, more: { totalTimeoutMs?: number } = {}) {
  const path = await write(`export async function apply(wish, call) { ${apply} }
    export async function release(wish, call) { ${apply} }`);
  return createModuleProvisioner({ path, ...more });
}

test('the example keeps the contract: same answer again, nothing for what is older, gone for good', async () => {
  const provisioner = createModuleProvisioner({ path: example });
  expect(provisioner.target).toBe(`module ${example}`);
  const made = await provisioner.apply(assignment(), never);
  expect(made).toMatchObject({
    kind: 'applied',
    access: { frontEndUrl: 'https://app.example.com/b-1', userName: 'admin' },
  });
  expect(await provisioner.apply(assignment(), never)).toEqual(made);
  expect(await provisioner.apply(assignment({ generation: 3 }), never)).toEqual(made);
  expect(await provisioner.apply(assignment({ generation: 2 }), never)).toEqual({ kind: 'stale' });
  expect(await provisioner.apply(gone(4), never)).toEqual({ kind: 'applied' });
  expect(await provisioner.apply(gone(4), never)).toEqual({ kind: 'applied' });
  expect(await provisioner.apply(assignment({ generation: 3 }), never)).toEqual({ kind: 'stale' });
  expect(await provisioner.apply(assignment({ generation: 5 }), never)).toMatchObject({
    kind: 'failed',
    failure: { class: 'permanent', cause: 'the module threw DROPPED' },
  });
});

test('a module is given the whole wish as JSON would carry it, and cannot change ours', async () => {
  const provisioner = await provisionerOf(
    `const said = JSON.stringify(wish); wish.desired.frozen = true;
     return { appInfo: { frontEndUrl: 'https://a.example', memo: said } };`,
  );
  const expiresAt = new Date('2027-01-01T00:00:00.000Z');
  const what = assignment({ buyer: { customerName: 'Ann' } });
  what.desired.expiresAt = expiresAt;
  const outcome = await provisioner.apply(what, never);
  const memo = outcome.kind === 'applied' ? (outcome.access?.memo ?? '') : '';
  expect(JSON.parse(memo)).toEqual({
    instanceId: 'b-1',
    product: 'demo',
    generation: 1,
    desired: { ...what.desired, expiresAt: expiresAt.toISOString() },
    changes: [{ ...what.changes[0], acceptedAt: acceptedAt.toISOString() }],
    buyer: { customerName: 'Ann' },
  });
  expect(what.desired.frozen).toBe(false);
});

test.each<[string, string, object]>([
  [
    'without a class',
    `throw new Error('x')`,
    { class: 'transient', cause: 'the module threw Error' },
  ],
  [
    'with a class and a wait',
    `throw Object.assign(new Error('x'), { class: 'transient', code: 'E_BUSY', retryAfterMs: 5000 })`,
    { class: 'transient', cause: 'the module threw E_BUSY', retryAfterMs: 5_000 },
  ],
  ['of class contract', `throw { class: 'contract' }`, { class: 'contract' }],
  ['that is no error', `throw null`, { class: 'transient', cause: 'the module threw an error' }],
])('an error %s is a failure of that class', async (_name, source, failure) => {
  const provisioner = await provisionerOf(source);
  expect(await provisioner.apply(assignment(), never)).toMatchObject({ kind: 'failed', failure });
});

test('what an error says is kept apart from the cause, because it may quote anything', async () => {
  const provisioner = await provisionerOf(`throw new Error('password hunter2 of Ann')`);
  const outcome = await provisioner.apply(assignment(), never);
  expect(outcome).toMatchObject({ failure: { said: 'password hunter2 of Ann' } });
  expect(JSON.stringify({ ...(outcome as { failure: object }).failure, said: '' })).not.toContain(
    'hunter2',
  );
});

test('a purchase can be refused with a code, a later state cannot', async () => {
  const provisioner = await provisionerOf(
    `throw Object.assign(new Error('sold out'), { class: 'permanent', resultCode: '000106' })`,
  );
  expect(await provisioner.apply(assignment(), never)).toEqual({
    kind: 'refused',
    resultCode: '000106',
    message: 'sold out',
  });
  expect(await provisioner.apply(assignment({ changes: [] }), never)).toMatchObject({
    kind: 'failed',
    failure: { class: 'permanent' },
  });
});

test('a new instance needs access data, an old one keeps it, nonsense is a breach', async () => {
  const silent = await provisionerOf('');
  expect(await silent.apply(assignment(), never)).toMatchObject({ failure: { class: 'contract' } });
  expect(await silent.apply(assignment({ changes: [] }), never)).toEqual({ kind: 'applied' });
  const nonsense = await provisionerOf(`return { appInfo: { frontEndUrl: '' } };`);
  expect(await nonsense.apply(assignment(), never)).toMatchObject({
    failure: { class: 'contract' },
  });
});

test('one that hangs is told to stop and does not hold the worker', async () => {
  const provisioner = await provisionerOf(
    `globalThis.moduleWasTold = new Promise((resolve) =>
       call.signal.addEventListener('abort', () => resolve(true)));
     await new Promise(() => undefined);`,
    { totalTimeoutMs: 100 },
  );
  expect(await provisioner.apply(assignment(), never)).toEqual({
    kind: 'failed',
    failure: { class: 'transient', cause: 'the module did not answer in 0.1 s' },
  });
  expect(await (globalThis as unknown as { moduleWasTold: Promise<boolean> }).moduleWasTold).toBe(
    true,
  );
  const cancelled = await provisioner.apply(assignment(), AbortSignal.abort());
  expect(cancelled).toMatchObject({ failure: { cause: 'the call was cancelled here' } });
});

test('what was never begun is released without the module, which is loaded once and late', async () => {
  let loads = 0;
  const provisioner = createModuleProvisioner({
    path: '/x.mjs',
    load: async () => {
      loads += 1;
      return loads === 1
        ? { kind: 'invalid', problem: 'is not there, or no file' }
        : { kind: 'loaded', module: { apply: () => ({}), release: () => undefined } };
    },
  });
  expect(await provisioner.apply({ ...gone(1), everBegan: false }, never)).toEqual({
    kind: 'applied',
  });
  expect(loads).toBe(0);
  expect(await provisioner.apply(gone(1), never)).toMatchObject({
    failure: { class: 'transient', cause: 'the module is not there, or no file' },
  });
  for (const generation of [1, 2]) {
    expect(await provisioner.apply(gone(generation), never)).toEqual({ kind: 'applied' });
  }
  expect(loads).toBe(2);
});

test('a module that is not there, or exports the wrong things, makes no product', async () => {
  const base = { key: 'mod-bad', name: 'x', provisioner: 'module' } as const;
  for (const [modulePath, problem] of [
    [undefined, /is required/],
    ['module.mjs', /absolute/],
    [join(folder, 'nothing.mjs'), /is not there/],
    [folder, /no file/],
    [await write('export function apply() {}'), /apply and release/],
    [await write('export function apply( {'), /cannot be loaded/],
  ] as const) {
    expect(await addProduct(operator, { ...base, modulePath })).toMatchObject({
      kind: 'invalid',
      field: 'modulePath',
      problem: expect.stringMatching(problem),
    });
  }
});

test('a purchase is made real and released by the seller’s module in the workers', async () => {
  const key = 'with-module';
  const accessKey = 'key-of-the-marketplace';
  const added = await addProduct(operator, {
    key,
    name: key,
    provisioner: 'module',
    modulePath: example,
  });
  expect(added).toMatchObject({ kind: 'added', generatedSecret: null });
  await addKey(operator, { product: key, class: 'base', secret: accessKey });
  const callbackUrl = () => `http://127.0.0.1:${api.port}/callbacks/${key}`;
  const market = system.marketplace({ key, accessKey, callbackUrl }, api);
  const bought = await market.buy(
    { orderId: 'CS1', orderLineId: 'CS1-1' },
    { retryEveryMs: 50, deadlineMs: 20_000 },
  );
  if (bought.outcome !== 'ready') throw new Error(`not ready: ${JSON.stringify(bought)}`);
  expect(bought.info.appInfo).toMatchObject({
    frontEndUrl: `https://app.example.com/${bought.instanceId}`,
    userName: 'admin',
  });
  await market.releaseInstance(bought.instanceId);
  await until(
    () => system.sql`select state from instances where public_id = ${bought.instanceId}`,
    ([row]) => row?.['state'] === 'released',
    { timeoutMs: 20_000, what: 'the release' },
  );
});
