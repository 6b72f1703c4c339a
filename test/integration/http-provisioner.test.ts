import { randomBytes } from 'node:crypto';
import { type IncomingMessage, type ServerResponse, createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Webhook } from 'standardwebhooks';
import { afterEach, expect, test } from 'vitest';
import type { Assignment } from '../../core/provisioner.ts';
import { createDatabase } from '../../db/client.ts';
import { createKeyring } from '../../db/data-keys.ts';
import { type Outbound, createOutbound } from '../../runtime/outbound.ts';
import { loadMasterKey } from '../../runtime/secrets.ts';
import { createSellerBackend } from '../../simulator/seller-backend.ts';
import { createHttpProvisioner } from '../../workers/provisioners/http.ts';
import { createProvisioners, fillFrontEndUrl } from '../../workers/provisioners/index.ts';
import { createTestDatabase } from '../servers/database.ts';

const secret = `whsec_${randomBytes(24).toString('base64')}`;
const acceptedAt = new Date('2026-11-24T08:00:00.000Z');
const closers: (() => Promise<unknown>)[] = [];

afterEach(async () => {
  for (const close of closers.splice(0).toReversed()) await close();
});

function local(): Outbound {
  const outbound = createOutbound({ allowedCidrs: ['127.0.0.0/8'], connectTimeoutMs: 1_000 });
  closers.push(() => outbound.close());
  return outbound;
}

function assignment(more: Partial<Assignment> = {}): Assignment {
  return {
    instanceId: 7,
    publicId: 'b-1',
    product: { id: 1, key: 'demo' },
    generation: 1,
    desired: { exists: true, frozen: false, expiresAt: null, trial: null, plan: null },
    changes: [created],
    everBegan: true,
    ...more,
  };
}

const created = {
  kind: 'created',
  scene: null,
  orderId: 'CS1',
  orderLineId: 'CS1-000001',
  acceptedAt,
} as const;
const frozen = { ...created, kind: 'frozen', orderId: null, orderLineId: null } as const;

const never = new AbortController().signal;

function provisionerFor(baseUrl: string, more: { now?: () => Date; totalTimeoutMs?: number } = {}) {
  return createHttpProvisioner({
    outbound: local(),
    baseUrl,
    secrets: [secret],
    now: () => new Date(),
    ...more,
  });
}

/** A backend that answers every call the same; what it was asked stands in `asked`. */
async function answering(
  status: number,
  body: string | object = '',
  headers: Record<string, string> = {},
) {
  const asked: { incoming: IncomingMessage; body: string }[] = [];
  const baseUrl = await serve((incoming, outgoing, text) => {
    asked.push({ incoming, body: text });
    outgoing.writeHead(status, headers);
    outgoing.end(typeof body === 'string' ? body : JSON.stringify(body));
  });
  return { baseUrl, asked };
}

async function serve(
  answer: (incoming: IncomingMessage, outgoing: ServerResponse, body: string) => void,
): Promise<string> {
  const server = createServer((incoming, outgoing) => {
    const chunks: Buffer[] = [];
    incoming.on('data', (chunk: Buffer) => chunks.push(chunk));
    incoming.on('end', () => answer(incoming, outgoing, Buffer.concat(chunks).toString()));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  closers.push(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

test('a life from purchase to release, as an independent backend sees it', async () => {
  const backend = createSellerBackend({ secrets: [secret] });
  const provisioner = provisionerFor(await backend.listen());
  closers.push(() => backend.close());
  const desired = assignment().desired;

  const made = await provisioner.apply(assignment(), never);
  expect(made).toEqual({ kind: 'applied', access: backend.instances.get('b-1')?.appInfo });
  expect(await provisioner.apply(assignment(), never)).toEqual(made);
  const freeze = assignment({
    generation: 3,
    desired: { ...desired, frozen: true },
    changes: [frozen],
  });
  expect(await provisioner.apply(freeze, never)).toMatchObject({ kind: 'applied' });
  expect(await provisioner.apply(assignment({ generation: 2 }), never)).toEqual({ kind: 'stale' });
  const release = assignment({ generation: 4, desired: { ...desired, exists: false } });
  expect(await provisioner.apply(release, never)).toEqual({ kind: 'applied' });
  expect(await provisioner.apply(release, never)).toEqual({ kind: 'applied' });
  expect(await provisioner.apply(freeze, never)).toEqual({ kind: 'stale' });

  expect(backend.problems).toEqual([]);
  expect(backend.instances.get('b-1')).toMatchObject({
    created: 1,
    deleted: 1,
    generation: 4,
    orderId: 'CS1',
  });
});

test('the whole desired state and the changes travel, signed, under one idempotency key', async () => {
  const { baseUrl, asked } = await answering(200, {
    appInfo: { frontEndUrl: 'https://a.example' },
  });
  const expiresAt = new Date('2027-01-01T00:00:00.000Z');
  const plan = { productId: 'p', skuCode: 's', quantity: 2, period: null };
  const what = assignment({
    publicId: 'a/b ?#',
    generation: 2,
    desired: { exists: true, frozen: true, expiresAt, trial: false, plan },
    changes: [created, frozen],
  });
  await provisionerFor(`${baseUrl}/v1/`).apply(what, never);
  const call = asked[0];
  expect(call?.incoming.method).toBe('PUT');
  expect(call?.incoming.url).toBe('/v1/instances/a%2Fb%20%3F%23');
  const headers = call?.incoming.headers as Record<string, string>;
  expect(headers['idempotency-key']).toBe('a%2Fb%20%3F%23:2');
  expect(headers['webhook-id']).toBe('a%2Fb%20%3F%23:2');
  expect(headers['content-type']).toBe('application/json');
  expect(new Webhook(secret).verify(call?.body ?? '', headers)).toEqual({
    instanceId: 'a/b ?#',
    product: 'demo',
    generation: 2,
    desired: {
      exists: true,
      frozen: true,
      expiresAt: '2027-01-01T00:00:00.000Z',
      trial: false,
      plan,
    },
    changes: [
      { ...created, acceptedAt: '2026-11-24T08:00:00.000Z' },
      { ...frozen, acceptedAt: '2026-11-24T08:00:00.000Z' },
    ],
  });
});

test('a release is a signed DELETE that names its generation; any of three answers will do', async () => {
  const gone = assignment({ generation: 5, desired: { ...assignment().desired, exists: false } });
  for (const status of [200, 204, 404]) {
    const { baseUrl, asked } = await answering(status);
    expect(await provisionerFor(baseUrl).apply(gone, never)).toEqual({ kind: 'applied' });
    const { incoming, body } = asked[0] ?? {};
    expect(`${incoming?.method} ${incoming?.url}`).toBe('DELETE /instances/b-1?generation=5');
    const headers = incoming?.headers as Record<string, string>;
    expect(headers['webhook-id']).toBe('b-1:5');
    expect(body).toBe('');
    new Webhook(secret).verify('', headers, { jsonParse: false });
  }
});

test('what was never begun is released without a call', async () => {
  const { baseUrl, asked } = await answering(500);
  const gone = assignment({
    desired: { ...assignment().desired, exists: false },
    everBegan: false,
  });
  expect(await provisionerFor(baseUrl).apply(gone, never)).toEqual({ kind: 'applied' });
  expect(asked).toEqual([]);
});

const url512 = `https://a.example/${'x'.repeat(512 - 18)}`;
test.each<[string, string | object, object]>([
  ['just an address', { appInfo: { frontEndUrl: url512 } }, { frontEndUrl: url512 }],
  [
    'nulls, and fields unknown here',
    { appInfo: { frontEndUrl: 'https://a.example', memo: null, adminUrl: '', x: 1 }, y: 2 },
    { frontEndUrl: 'https://a.example' },
  ],
])('access data with %s is taken', async (_name, body, access) => {
  const { baseUrl } = await answering(200, body);
  expect(await provisionerFor(baseUrl).apply(assignment(), never)).toEqual({
    kind: 'applied',
    access,
  });
});

test.each<[string, string | object]>([
  ['no JSON', '<html>It works!</html>'],
  ['nothing', ''],
  ['no access data', {}],
  ['an array', '[]'],
  ['an address that is too long', { appInfo: { frontEndUrl: `${url512}x` } }],
  ['an address of another type', { appInfo: { frontEndUrl: 7 } }],
])('200 with %s to a create breaks the contract', async (_name, body) => {
  const { baseUrl } = await answering(200, body);
  const outcome = await provisionerFor(baseUrl).apply(assignment(), never);
  expect(outcome).toMatchObject({
    kind: 'failed',
    failure: {
      class: 'contract',
      cause: 'backend answered 200 without access data as agreed',
      httpStatus: 200,
    },
  });
});

test('later changes may be answered {}, which keeps the access data', async () => {
  const { baseUrl } = await answering(200, {});
  const change = assignment({ generation: 2, changes: [frozen] });
  expect(await provisionerFor(baseUrl).apply(change, never)).toEqual({ kind: 'applied' });
});

test('422 with a code of the table refuses a create, and only a create', async () => {
  const { baseUrl } = await answering(422, { resultCode: '000106', message: '已售罄' });
  const provisioner = provisionerFor(baseUrl);
  expect(await provisioner.apply(assignment(), never)).toEqual({
    kind: 'refused',
    resultCode: '000106',
    message: '已售罄',
  });
  const change = assignment({ generation: 2, changes: [frozen] });
  expect(await provisioner.apply(change, never)).toMatchObject({
    failure: { class: 'permanent', cause: 'backend answered 422' },
  });
});

test.each<[number, string | object, string, string]>([
  [422, { resultCode: '000000' }, 'permanent', 'backend answered 422'],
  [422, { resultCode: '000199' }, 'permanent', 'backend answered 422'],
  [422, 'no', 'permanent', 'backend answered 422'],
  [400, '', 'permanent', 'backend answered 400'],
  [401, '', 'permanent', 'backend answered 401'],
  [404, '', 'permanent', 'backend answered 404'],
  [302, '', 'permanent', 'backend answered 302: redirects are not followed'],
  [408, '', 'transient', 'backend answered 408'],
  [425, '', 'transient', 'backend answered 425'],
  [429, '', 'transient', 'backend answered 429'],
  [500, '', 'transient', 'backend answered 500'],
  [503, '', 'transient', 'backend answered 503'],
  [201, '', 'contract', 'backend answered 201'],
  [204, '', 'contract', 'backend answered 204'],
])('%i %j is a %s failure', async (status, body, kind, cause) => {
  const { baseUrl } = await answering(status, body);
  expect(await provisionerFor(baseUrl).apply(assignment(), never)).toMatchObject({
    kind: 'failed',
    failure: { class: kind, cause, httpStatus: status },
  });
});

test('202 means that it was taken on, and only a PUT can be', async () => {
  const { baseUrl } = await answering(202, { appInfo: { frontEndUrl: 'https://a.example' } });
  const provisioner = provisionerFor(baseUrl);
  expect(await provisioner.apply(assignment(), never)).toEqual({ kind: 'pending' });
  const gone = assignment({ desired: { ...assignment().desired, exists: false } });
  expect(await provisioner.apply(gone, never)).toMatchObject({
    failure: { class: 'contract', cause: 'backend answered 202' },
  });
});

test('409 means that something newer is real', async () => {
  const { baseUrl } = await answering(409);
  const provisioner = provisionerFor(baseUrl);
  const gone = assignment({ desired: { ...assignment().desired, exists: false } });
  expect(await provisioner.apply(assignment(), never)).toEqual({ kind: 'stale' });
  expect(await provisioner.apply(gone, never)).toEqual({ kind: 'stale' });
});

test.each([
  ['7', 7_000],
  ['Tue, 24 Nov 2026 08:00:30 GMT', 30_000],
  ['Tue, 24 Nov 2026 07:00:00 GMT', undefined],
  ['86400000', 3_600_000],
  ['soon', undefined],
  ['-5', undefined],
])('Retry-After %j is understood', async (text, retryAfterMs) => {
  const { baseUrl } = await answering(503, '', { 'retry-after': text });
  const outcome = await provisionerFor(baseUrl, { now: () => acceptedAt }).apply(
    assignment(),
    never,
  );
  const failure = outcome.kind === 'failed' ? outcome.failure : undefined;
  expect(failure?.class).toBe('transient');
  expect(failure?.retryAfterMs).toBe(retryAfterMs);
});

test('what the backend said is kept, cut, and stays out of the cause', async () => {
  const { baseUrl } = await answering(500, `${'x'.repeat(1_990)}${'y'.repeat(500)}`);
  const outcome = await provisionerFor(baseUrl).apply(assignment(), never);
  const failure = outcome.kind === 'failed' ? outcome.failure : undefined;
  expect(failure?.said).toBe(`${'x'.repeat(1_990)}${'y'.repeat(10)}`);
  expect(failure?.cause).toBe('backend answered 500');
});

test('a backend that hangs, resets or is not there is a transient failure with its own cause', async () => {
  const hanging = await serve(() => undefined);
  const resetting = await serve((incoming) => incoming.socket.resetAndDestroy());
  const closed = await serve(() => undefined);
  await closers.pop()?.();
  const causeOf = async (baseUrl: string) => {
    const outcome = await provisionerFor(baseUrl, { totalTimeoutMs: 500 }).apply(
      assignment(),
      never,
    );
    return outcome.kind === 'failed' ? `${outcome.failure.class}: ${outcome.failure.cause}` : '';
  };
  expect(await causeOf(hanging)).toBe('transient: backend did not answer in 0.5 s');
  expect(await causeOf(resetting)).toBe('transient: backend closed the connection');
  expect(await causeOf(closed)).toBe('transient: backend cannot be connected to');
});

test('what cannot be called at all stops with the reason', async () => {
  const causeOf = async (baseUrl: string, publicId = 'b-1', secrets = [secret]) => {
    const outbound = createOutbound({ allowedCidrs: [] });
    closers.push(() => outbound.close());
    const now = () => new Date();
    const provisioner = createHttpProvisioner({ outbound, baseUrl, secrets, now });
    const outcome = await provisioner.apply(assignment({ publicId }), never);
    return outcome.kind === 'failed' ? `${outcome.failure.class}: ${outcome.failure.cause}` : '';
  };
  expect(await causeOf('http://127.0.0.1:1')).toBe(
    'permanent: address is private: set OUTBOUND_ALLOWED_CIDRS',
  );
  expect(await causeOf('https://a.example', '..')).toBe(
    'permanent: the instance id cannot stand in an address',
  );
  expect(await causeOf('https://a.example', 'b-1', [])).toBe(
    'permanent: the webhook secret is not whsec_ and base64',
  );
  for (const url of ['', 'ftp://a.example']) {
    expect(await causeOf(url)).toBe('permanent: the product has no usable address of a backend');
  }
});

test('the target names the address without credentials or query', () => {
  const { target } = provisionerFor('https://user:hunter2@a.example/v1/?token=hunter2');
  expect(target).toBe('https://a.example/v1');
});

test('a product row makes its provisioner, once, and anew when the row changes', async () => {
  const database = await createTestDatabase();
  closers.push(() => database.drop());
  const db = createDatabase({ url: database.url, applicationName: 'test', poolMax: 2 });
  closers.push(() => db.close());
  const masterKey = loadMasterKey({
    masterKey: randomBytes(32).toString('base64'),
    dataDir: '/nowhere',
    isProduction: true,
  }).masterKey;
  const keyring = createKeyring({ db, masterKey });
  const { baseUrl, asked } = await answering(200, {
    appInfo: { frontEndUrl: 'https://a.example' },
  });
  const address = { host: 'db.example', port: 5432, database: 'latchkey_tenants' };
  const provisionerOf = createProvisioners({
    keyring,
    outbound: local(),
    tenants: { address, apply: () => Promise.reject(new Error('unused')), close: async () => {} },
    publicUrl: 'https://latchkey.example',
    now: () => new Date(),
  });
  const product = {
    id: 3,
    key: 'demo',
    provisioner: 'http',
    httpUrl: baseUrl,
    httpSecretEnc: await keyring.seal('product/3', secret, 'products/http_secret_enc/3'),
    httpSecretNextEnc: null,
    frontEndUrl: null,
    modulePath: null,
    releaseGraceDays: 0,
  } as const;

  const first = provisionerOf(product);
  expect(provisionerOf({ ...product })).toBe(first);
  expect(await first.apply(assignment(), never)).toMatchObject({ kind: 'applied' });
  new Webhook(secret).verify(
    asked[0]?.body ?? '',
    asked[0]?.incoming.headers as Record<string, string>,
  );
  expect(provisionerOf({ ...product, httpUrl: 'https://b.example' })).not.toBe(first);
  expect(provisionerOf({ ...product, id: 4, provisioner: 'postgres-schema' }).target).toBe(
    'postgres://db.example:5432/latchkey_tenants',
  );
});

test('an instance id is encoded into its front-end address', () => {
  expect(fillFrontEndUrl('https://a.example/{instanceId}?i={instanceId}', 'a/$&')).toBe(
    'https://a.example/a%2F%24%26?i=a%2F%24%26',
  );
});
