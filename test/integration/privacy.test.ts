import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { type Server, createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createDatabase } from '../../db/client.ts';
import { setPassword } from '../../operations/set-password.ts';
import { type TestDatabase, createTestDatabase } from '../servers/database.ts';
import { dumpDatabase, dumpRedis } from '../servers/dump.ts';
import { queueStore } from '../servers/queue-store.ts';
import { type Process, type System, createSystem } from '../servers/system.ts';
import { until } from '../servers/until.ts';

// Each is put in where a careless system would keep it, and is looked for everywhere afterwards.
const planted = {
  phone: '13912345678',
  mail: 'zhang.san@buyer.example',
  buyerName: 'Zhang San of 7 Long Road',
  accessUser: 'admin.of.buyer@seller.example',
  accessPassword: `pw-${randomBytes(9).toString('hex')}`,
  memo: 'call +49 151 2345678 for help',
  errorBody: 'no quota for li.si@buyer.example',
  operatorPassword: `op-${randomBytes(9).toString('hex')}`,
  webhookSecret: `whsec_${randomBytes(32).toString('base64')}`,
};

let database: TestDatabase;
let system: System;
let api: Process;
let backend: Server;
let redisUrl: string | undefined;
let failures = 2;

beforeAll(async () => {
  backend = createServer((request, response) => {
    request.resume().on('end', () => {
      const fails = failures-- > 0;
      response.writeHead(fails ? 500 : 200, { 'content-type': 'application/json' });
      response.end(
        fails
          ? JSON.stringify({ error: planted.errorBody, password: planted.accessPassword })
          : JSON.stringify({
              appInfo: {
                frontEndUrl: 'https://seller.example/',
                userName: planted.accessUser,
                password: planted.accessPassword,
                memo: planted.memo,
              },
            }),
      );
    });
  });
  backend.listen(0, '127.0.0.1');
  await once(backend, 'listening');
  database = await createTestDatabase();
  const store = queueStore(database.url);
  redisUrl = store.redisUrl;
  system = createSystem({
    databaseUrl: database.url,
    tenantsUrl: database.tenantsUrl,
    env: { ...store.env, LOG_LEVEL: 'trace' },
  });
  [api] = await Promise.all([system.startApi(), system.startDispatcher(), system.startWorkers()]);
});

afterAll(async () => {
  await system?.stop();
  backend?.close();
  await database?.drop();
});

test('no secret, password, phone or mail address that was put in stands in database, queue, log, metrics or pages', async () => {
  const { port } = backend.address() as AddressInfo;
  const product = await system.addProduct({
    provisioner: 'http',
    httpUrl: `http://127.0.0.1:${port}`,
    httpSecret: planted.webhookSecret,
  });
  const tenants = await system.addProduct();
  const market = system.marketplace(product, api);
  const base = `http://127.0.0.1:${api.port}`;

  const order = { orderId: 'CS7', orderLineId: 'CS7-000001' };
  const bought = {
    activity: 'newInstance',
    businessId: 'b-7',
    ...order,
    mobilePhone: planted.phone,
    email: planted.mail,
    customerName: planted.buyerName,
  };
  expect(await market.send(bought)).toMatchObject({ resultCode: '000004' });
  // Refused ones too: wrongly signed, and well signed but malformed.
  await market.send(bought, { tamper: 'signature' });
  await market.send({ ...bought, orderId: planted.mail.repeat(9) });
  await market.send({ ...bought, activity: planted.phone });
  const shown = await until(
    () => market.queryInstance('b-7'),
    (reply) => reply.resultCode === '000000',
    { timeoutMs: 30_000 },
  );
  // What the buyer must get, he gets.
  expect(shown.info?.[0]?.appInfo).toMatchObject({ password: planted.accessPassword });
  const tenantBuyer = await system
    .marketplace(tenants, api)
    .buy({ orderId: 'CS8', orderLineId: 'CS8-1' }, { retryEveryMs: 50, deadlineMs: 30_000 });
  if (tenantBuyer.outcome !== 'ready') throw new Error('the tenant is not ready');
  const tenantPassword = tenantBuyer.info.appInfo?.password ?? '';
  expect(tenantPassword.length).toBeGreaterThan(20);

  const db = createDatabase({ url: database.url, applicationName: 'test', poolMax: 1 });
  await setPassword({ db, actor: 'test' }, { name: 'anna', password: planted.operatorPassword });
  await db.close();
  const pages = await readPages(base);

  const places: Record<string, string> = {
    database: await dumpDatabase(system.sql),
    queue: redisUrl === undefined ? 'in the database' : await dumpRedis(redisUrl),
    log: system.lines().join('\n'),
    metrics: await (await fetch(`${base}/metrics`)).text(),
    pages,
  };
  // The net must be fine enough to catch what is there.
  expect(places['database']).toContain('CS7-000001');
  expect(places['log']).toContain('callback.answered');
  expect(places['log']).toContain('apply.attempted');
  expect(places['metrics']).toContain('latchkey_callbacks_total');
  expect(pages).toContain('provisioning');

  const secrets = {
    ...planted,
    accessKey: product.accessKey,
    tenantsAccessKey: tenants.accessKey,
    masterKey: system.masterKey,
    tenantPassword,
  };
  const found = Object.entries(places).flatMap(([place, text]) =>
    Object.entries(secrets)
      .filter(([, secret]) => text.includes(secret))
      .map(([name]) => `${name} in ${place}`),
  );
  expect(found).toEqual([]);
});

async function readPages(base: string): Promise<string> {
  const login = await fetch(`${base}/ops/login`, {
    method: 'POST',
    redirect: 'manual',
    headers: { 'content-type': 'application/x-www-form-urlencoded', origin: base },
    body: new URLSearchParams({ name: 'anna', password: planted.operatorPassword }).toString(),
  });
  const cookie = (login.headers.get('set-cookie') ?? '').split(';')[0] ?? '';
  expect(cookie).toContain('latchkey');
  const paths = [
    '/ops/queues',
    '/ops/controls',
    '/ops/queues/api/queues?activeQueue=provisioning&status=latest&page=1',
    '/ops/queues/api/queues?activeQueue=provisioning&status=failed&page=1',
    '/ops/queues/api/queues?activeQueue=provisioning&status=completed&page=1',
    '/ops/queues/api/queues?activeQueue=provisioning&status=delayed&page=1',
  ];
  const pages = await Promise.all(
    paths.map(async (path) => {
      const response = await fetch(base + path, { headers: { cookie } });
      expect(response.status, path).toBe(200);
      return response.text();
    }),
  );
  return pages.join('\n');
}
