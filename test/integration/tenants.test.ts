import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import pg from 'pg';
import { afterEach, beforeAll, afterAll, expect, test } from 'vitest';
import type { ApplyOutcome, Assignment } from '../../core/provisioner.ts';
import { type Database, createDatabase } from '../../db/client.ts';
import { type Keyring, createKeyring } from '../../db/data-keys.ts';
import {
  type Tenant,
  type TenantSecret,
  type TenantsDatabase,
  type TenantsDatabaseOptions,
  classifyTenantsError,
  createScramVerifier,
  defaultTenantQuota,
  openTenantsDatabase,
  prepareTenants,
  tenantsUrlBeside,
} from '../../db/tenants.ts';
import { loadMasterKey } from '../../runtime/secrets.ts';
import { createPostgresSchemaProvisioner } from '../../workers/provisioners/postgres-schema.ts';
import { type TestDatabase, createTestDatabase, withDatabase } from '../servers/database.ts';
import { until } from '../servers/until.ts';

let database: TestDatabase;
let db: Database;
let admin: Database;
let keyring: Keyring;
let tenants: TenantsDatabase;
const opened: { close(): Promise<void> }[] = [];

beforeAll(async () => {
  database = await createTestDatabase();
  expect(await prepareTenants({ homeUrl: database.url, tenantsUrl: database.tenantsUrl })).toEqual({
    isHomeOpen: false,
  });
  db = createDatabase({ url: database.url, applicationName: 'test', poolMax: 4 });
  admin = createDatabase({ url: database.tenantsUrl, applicationName: 'test', poolMax: 4 });
  const masterKey = randomBytes(32).toString('base64');
  keyring = createKeyring({
    db,
    masterKey: loadMasterKey({ masterKey, dataDir: '/nowhere', isProduction: true }).masterKey,
  });
  tenants = open({});
});

afterEach(async () => {
  await Promise.all(buyers.splice(0).map((buyer) => buyer.end().catch(() => undefined)));
});

afterAll(async () => {
  await Promise.all([...opened, db, admin].map((each) => each.close()));
  await database.drop();
});

function open(options: Partial<TenantsDatabaseOptions>): TenantsDatabase {
  const made = openTenantsDatabase({
    url: database.tenantsUrl,
    applicationName: 'test-workers',
    poolMax: 4,
    leaseMs: 5_000,
    quota: { connectionsMax: 3, statementTimeoutMs: 2_000 },
    ...options,
  });
  opened.push(made);
  return made;
}

let lastInstanceId = 0;
/** An instance that nobody used before. */
function newInstance(): Pick<Assignment, 'instanceId' | 'publicId' | 'product'> {
  lastInstanceId += 1;
  return {
    instanceId: lastInstanceId,
    publicId: `b-${lastInstanceId}`,
    product: { id: 1, key: 'demo' },
  };
}

type Wanted = 'serving' | 'frozen' | 'gone';

async function apply(
  instance: Pick<Assignment, 'instanceId' | 'publicId' | 'product'>,
  generation: number,
  wanted: Wanted,
  options: { tenants?: TenantsDatabase; everBegan?: boolean } = {},
): Promise<ApplyOutcome> {
  const provisioner = createPostgresSchemaProvisioner({
    tenants: options.tenants ?? tenants,
    keyring,
    frontEndUrlFor: (product, publicId) => `https://app.example/${product.key}/${publicId}`,
  });
  const assignment: Assignment = {
    ...instance,
    generation,
    desired: {
      exists: wanted !== 'gone',
      frozen: wanted === 'frozen',
      expiresAt: null,
      trial: null,
      plan: null,
    },
    changes: [],
    everBegan: options.everBegan ?? true,
  };
  return provisioner.apply(assignment, new AbortController().signal);
}

type Login = { userName: string; password: string };

function loginOf(outcome: ApplyOutcome): Login {
  const access = outcome.kind === 'applied' ? outcome.access : undefined;
  if (!access?.userName || !access.password) throw new Error(`no login in ${outcome.kind}`);
  return { userName: access.userName, password: access.password };
}

const buyers: pg.Client[] = [];
/** Connects as a buyer would, with nothing but the access data. */
async function logIn(login: Login, url = database.tenantsUrl): Promise<pg.Client> {
  const address = new URL(url);
  const client = new pg.Client({
    host: address.hostname,
    port: Number(address.port),
    database: address.pathname.slice(1),
    user: login.userName,
    password: login.password,
  });
  client.on('error', () => undefined);
  await client.connect();
  buyers.push(client);
  return client;
}

const schemaIsThere = async (role: string): Promise<boolean> => {
  const { rows } = await admin.pool.query('select 1 from pg_namespace where nspname = $1', [role]);
  return rows.length === 1;
};

test('access data lets the buyer in, to make tables in a schema of the own', async () => {
  const outcome = await apply(newInstance(), 1, 'serving');
  const login = loginOf(outcome);
  expect(login.userName).toMatch(/^t_[0-9a-f]{20}$/);
  const { hostname, port, pathname } = new URL(database.tenantsUrl);
  const memo = outcome.kind === 'applied' ? (outcome.access?.memo ?? '') : '';
  for (const part of [hostname, port, pathname.slice(1), login.userName, '数据库']) {
    expect(memo).toContain(part);
  }
  expect(memo.length).toBeLessThanOrEqual(1_024);
  expect(outcome).toMatchObject({
    access: { frontEndUrl: `https://app.example/demo/b-${lastInstanceId}` },
  });

  const buyer = await logIn(login);
  await buyer.query('create table notes (text text)');
  await buyer.query(`insert into notes values ('hello')`);
  const { rows } = await buyer.query(`select schemaname, tablename from pg_tables
                                      where tableowner = current_user`);
  expect(rows).toEqual([{ schemaname: login.userName, tablename: 'notes' }]);
  await expect(logIn({ ...login, password: `${login.password}x` })).rejects.toThrow(
    'password authentication failed',
  );
});

test('a buyer reaches nothing but the own schema', async () => {
  const [one, other] = [
    loginOf(await apply(newInstance(), 1, 'serving')),
    loginOf(await apply(newInstance(), 1, 'serving')),
  ];
  const theirs = await logIn(other);
  await theirs.query('create table notes (text text)');
  const buyer = await logIn(one);
  const denied = [
    `select * from ${other.userName}.notes`,
    `create table ${other.userName}.mine ()`,
    `drop schema ${other.userName} cascade`,
    `alter role ${other.userName} password 'x'`,
    `set role ${other.userName}`,
    'select * from latchkey.tenants',
    'create table public.mine ()',
    'create schema mine',
    'create temporary table mine ()',
    'create role mine',
    'create database mine',
    'select * from pg_authid',
    `copy (select 1) to program 'true'`,
  ];
  for (const statement of denied) {
    await expect(buyer.query(statement), statement).rejects.toThrow(
      /permission denied|must be owner|must be able/,
    );
  }
  await expect(logIn(one, database.url)).rejects.toThrow('permission denied for database');
});

test('a tenant has no more connections and no longer statements than its quota', async () => {
  const login = loginOf(await apply(newInstance(), 1, 'serving'));
  const [buyer] = await Promise.all([logIn(login), logIn(login), logIn(login)]);
  await expect(logIn(login)).rejects.toThrow('too many connections for role');
  await expect(buyer?.query('select pg_sleep(10)')).rejects.toThrow('statement timeout');
});

test('the same generation by many workers at once makes one schema with one password', async () => {
  const instance = newInstance();
  const other = open({});
  const outcomes = await Promise.all(
    Array.from({ length: 8 }, (_, i) =>
      apply(instance, 1, 'serving', { tenants: i % 2 ? tenants : other }),
    ),
  );
  expect(new Set(outcomes.map((outcome) => JSON.stringify(outcome))).size).toBe(1);
  await logIn(loginOf(outcomes[0] ?? { kind: 'stale' }));
  const { rows } = await admin.pool.query(
    'select count(*) as n from latchkey.tenants where instance_id = $1',
    [instance.instanceId],
  );
  expect(rows).toEqual([{ n: 1 }]);
});

test('many tenants at once do not get into each other’s way', async () => {
  const outcomes = await Promise.all(
    Array.from({ length: 24 }, () => apply(newInstance(), 1, 'serving')),
  );
  expect(outcomes.map(({ kind }) => kind)).toEqual(Array(24).fill('applied'));
});

test('a late older generation changes nothing', async () => {
  const instance = newInstance();
  const login = loginOf(await apply(instance, 1, 'serving'));
  expect(await apply(instance, 3, 'frozen')).toMatchObject({ kind: 'applied' });
  expect(await apply(instance, 2, 'serving')).toEqual({ kind: 'stale' });
  await expect(logIn(login)).rejects.toThrow('not permitted to log in');
});

test('a freeze that comes first of all makes a tenant that nobody can enter', async () => {
  const instance = newInstance();
  const login = loginOf(await apply(instance, 2, 'frozen'));
  await expect(logIn(login)).rejects.toThrow('not permitted to log in');
  expect(loginOf(await apply(instance, 3, 'serving'))).toEqual(login);
  await logIn(login);
});

test('a freeze ends what runs, an unfreeze gives all back as it was', async () => {
  const instance = newInstance();
  const login = loginOf(await apply(instance, 1, 'serving'));
  const buyer = await logIn(login);
  await buyer.query('create table notes as select 1 as n');
  await buyer.query('begin; lock table notes');
  await apply(instance, 2, 'frozen');
  await expect(buyer.query('select 1')).rejects.toThrow();
  await expect(logIn(login)).rejects.toThrow('not permitted to log in');
  expect(loginOf(await apply(instance, 3, 'serving'))).toEqual(login);
  const { rows } = await (await logIn(login)).query('select n from notes');
  expect(rows).toEqual([{ n: 1 }]);
});

test('a buyer who comes back at once is out all the same', async () => {
  const instance = newInstance();
  const login = loginOf(await apply(instance, 1, 'serving'));
  let isOver = false;
  const persistent = async () => {
    while (!isOver) {
      const client = await logIn(login).catch(() => undefined);
      await client?.query('select pg_sleep(1)').catch(() => undefined);
    }
  };
  const knocking = [persistent(), persistent()];
  await until(async () => (await sessionsOf(login.userName)) > 0, true);
  await apply(instance, 2, 'frozen');
  expect(await sessionsOf(login.userName)).toBe(0);
  await apply(instance, 3, 'gone');
  isOver = true;
  await Promise.all(knocking);
  expect(await schemaIsThere(login.userName)).toBe(false);
});

test('a release takes schema, role, sessions and secret away, and can be repeated', async () => {
  const instance = newInstance();
  const login = loginOf(await apply(instance, 1, 'serving'));
  const buyer = await logIn(login);
  await buyer.query('create table notes (n int); create view v as select * from notes');
  await buyer.query('begin; lock table notes');
  expect(await apply(instance, 2, 'gone')).toEqual({ kind: 'applied' });
  expect(await apply(instance, 2, 'gone')).toEqual({ kind: 'applied' });
  await expect(buyer.query('select 1')).rejects.toThrow();
  // Not "role does not exist": who is outside is not told which roles there are.
  await expect(logIn(login)).rejects.toThrow('password authentication failed');
  expect(await schemaIsThere(login.userName)).toBe(false);
  const { rows } = await admin.pool.query(
    `select generation, secret, to_regrole(role) as role from latchkey.tenants
     where instance_id = $1`,
    [instance.instanceId],
  );
  expect(rows).toEqual([{ generation: 2, secret: null, role: null }]);
});

test('a tenant that was released does not come back, early or late', async () => {
  const instance = newInstance();
  await apply(instance, 3, 'gone');
  expect(await apply(instance, 1, 'serving')).toEqual({ kind: 'stale' });
  expect(await apply(instance, 4, 'serving')).toMatchObject({
    kind: 'failed',
    failure: { class: 'contract', cause: 'tenant was released before' },
  });
  const { rows } = await admin.pool.query(
    `select to_regrole(role) as role from latchkey.tenants where instance_id = $1`,
    [instance.instanceId],
  );
  expect(rows).toEqual([{ role: null }]);
});

test('what was never begun is released without touching the database', async () => {
  const instance = newInstance();
  expect(await apply(instance, 2, 'gone', { everBegan: false })).toEqual({ kind: 'applied' });
  const { rows } = await admin.pool.query('select 1 from latchkey.tenants where instance_id = $1', [
    instance.instanceId,
  ]);
  expect(rows).toEqual([]);
});

test('a buyer who left something in another database cannot stop the release', async () => {
  const instance = newInstance();
  const login = loginOf(await apply(instance, 1, 'serving'));
  const elsewhere = await logIn(login, withDatabase(database.url, 'postgres'));
  await elsewhere.query('select lo_create(0)');
  expect(await apply(instance, 2, 'gone')).toEqual({ kind: 'applied' });
  await expect(elsewhere.query('select 1')).rejects.toThrow();
  await expect(logIn(login)).rejects.toThrow(/authentication failed|not permitted/);
  expect(await schemaIsThere(login.userName)).toBe(false);
  const server = createDatabase({
    url: withDatabase(database.url, 'postgres'),
    applicationName: 'test',
    poolMax: 1,
  });
  opened.push(server);
  await server.pool.query(`drop owned by ${login.userName}; drop role ${login.userName}`);
});

test('a worker killed inside leaves nothing, and its successor finishes', async () => {
  const { tenant, secretThat } = byHand();
  const killed = tenants.apply(
    tenant,
    secretThat(async () => {
      await admin.pool.query(
        `select pg_terminate_backend(pid) from pg_stat_activity
         where application_name = 'test-workers' and xact_start is not null
           and datname = current_database()`,
      );
    }),
  );
  const error: unknown = await killed.catch((reason: unknown) => reason);
  expect(classifyTenantsError(error)).toMatchObject({ class: 'transient' });
  const { rows } = await admin.pool.query('select 1 from latchkey.tenants where instance_id = $1', [
    tenant.instanceId,
  ]);
  expect(rows).toEqual([]);
  const second = await tenants.apply(tenant, secretThat());
  if (second.kind !== 'ready') throw new Error(second.kind);
  await logIn({ userName: second.role, password: second.password });
});

test('a worker that stalls inside is put out after the lease, and finds so when it wakes', async () => {
  const { tenant, secretThat } = byHand();
  let wake = (): void => undefined;
  let isInside = false;
  const stalled = open({ leaseMs: 400 }).apply(
    tenant,
    secretThat(() => {
      isInside = true;
      return new Promise<void>((resolve) => {
        wake = resolve;
      });
    }),
  );
  const outcome = stalled.then(
    () => 'it worked',
    (error: unknown) => classifyTenantsError(error)?.class,
  );
  await until(() => isInside, true);
  const began = performance.now();
  const next = await tenants.apply({ ...tenant, generation: 2 }, secretThat());
  expect(next.kind).toBe('ready');
  expect(performance.now() - began).toBeLessThan(3_000);
  wake();
  expect(await outcome).toBe('transient');
});

test('no statement, view or log of the server holds a password', async () => {
  await admin.pool.query(
    `alter database ${new URL(database.tenantsUrl).pathname.slice(1)} set log_statement = 'all'`,
  );
  const watched = open({});
  const seen: string[] = [];
  const { tenant, secretThat } = byHand();
  const outcome = await watched.apply(
    tenant,
    secretThat(async () => seen.push(await statementsNow())),
  );
  if (outcome.kind !== 'ready') throw new Error(outcome.kind);
  seen.push(await statementsNow());
  const { rows } = await admin.pool.query<{ path: string }>(
    `select current_setting('data_directory') as path`,
  );
  const log = await readFile(join(rows[0]?.path ?? '', '..', '..', 'postgres.log'), 'utf8');
  expect(log).toContain(`alter role "${outcome.role}"`);
  expect(seen.join()).toContain('latchkey.tenants');
  for (const place of [log, seen.join()]) expect(place).not.toContain(outcome.password);
});

test('the verifier is the one of RFC 7677’s example', async () => {
  const salt = Buffer.from('W22ZaJ0SNY7soEsUEjb6gQ==', 'base64');
  expect(await createScramVerifier('pencil', salt)).toBe(
    'SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==' +
      '$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=',
  );
});

test('a database that does not answer is a transient failure, a refusal of it a permanent one', async () => {
  const closed = createServer();
  await new Promise<void>((resolve) => closed.listen(0, '127.0.0.1', resolve));
  const address = closed.address();
  const port = typeof address === 'object' ? address?.port : 0;
  await new Promise((resolve) => closed.close(resolve));
  const nobody = open({ url: `postgres://127.0.0.1:${port}/latchkey_tenants` });
  expect(await apply(newInstance(), 1, 'serving', { tenants: nobody })).toEqual({
    kind: 'failed',
    failure: { class: 'transient', cause: 'tenants database cannot be reached' },
  });
  const elsewhere = open({ url: withDatabase(database.tenantsUrl, 'postgres') });
  expect(await apply(newInstance(), 1, 'serving', { tenants: elsewhere })).toEqual({
    kind: 'failed',
    failure: { class: 'permanent', cause: 'tenants database refused (42P01)' },
  });
  expect(classifyTenantsError(new TypeError('a fault of ours'))).toBe(undefined);
});

test('processes that start together make the missing database once and close ours to tenants', async () => {
  const fresh = await createTestDatabase();
  const name = `${new URL(fresh.url).pathname.slice(1)}_made`;
  const tenantsUrl = tenantsUrlBeside(fresh.url, name);
  const prepare = () => prepareTenants({ homeUrl: fresh.url, tenantsUrl });
  const results = await Promise.all([prepare(), prepare(), prepare(), prepare()]);
  expect(results).toEqual(Array(4).fill({ isHomeOpen: false }));
  const { rows } = await admin.pool.query(
    `select has_database_privilege('public', $1, 'connect') as home,
            has_database_privilege('public', $2, 'connect') as tenants`,
    [new URL(fresh.url).pathname.slice(1), name],
  );
  expect(rows).toEqual([{ home: false, tenants: true }]);
  await admin.pool.query(`drop database ${name} with (force)`);
  await fresh.drop();
});

test('tenants never go into our own database', async () => {
  const both = { homeUrl: database.url, tenantsUrl: database.url };
  await expect(prepareTenants(both)).rejects.toThrow('a database of their own');
});

test('an owner that is no superuser can do all of it', async () => {
  const owner = `owner_${randomBytes(4).toString('hex')}`;
  const home = `${owner}_home`;
  await admin.pool.query(`create role ${owner} login createdb createrole password 'hunter2'`);
  await admin.pool.query(`create database ${home} owner ${owner}`);
  const homeUrl = new URL(withDatabase(database.url, home));
  homeUrl.username = owner;
  homeUrl.password = 'hunter2';
  const tenantsUrl = tenantsUrlBeside(homeUrl.href, `${owner}_tenants`);
  expect(await prepareTenants({ homeUrl: homeUrl.href, tenantsUrl })).toEqual({
    isHomeOpen: false,
  });
  const plain = open({ url: tenantsUrl, quota: defaultTenantQuota });
  const instance = newInstance();
  const login = loginOf(await apply(instance, 1, 'serving', { tenants: plain }));
  const buyer = await logIn(login, tenantsUrl);
  await buyer.query('create table notes ()');
  expect(await apply(instance, 2, 'frozen', { tenants: plain })).toMatchObject({ kind: 'applied' });
  await expect(buyer.query('select 1')).rejects.toThrow();
  expect(await apply(instance, 3, 'serving', { tenants: plain })).toMatchObject({
    kind: 'applied',
  });
  await logIn(login, tenantsUrl);
  expect(await apply(instance, 4, 'gone', { tenants: plain })).toEqual({ kind: 'applied' });
  await expect(logIn(login, tenantsUrl)).rejects.toThrow('password authentication failed');
  await admin.pool.query(`drop database ${owner}_tenants with (force)`);
  await admin.pool.query(`drop database ${home} with (force)`);
  await admin.pool.query(`drop role ${owner}`);
});

/** A tenant and its secret without a provisioner around, to interfere in the midst of a transaction. */
function byHand(): { tenant: Tenant; secretThat: (act?: () => Promise<unknown>) => TenantSecret } {
  const { instanceId, publicId } = newInstance();
  return {
    tenant: { instanceId, productKey: 'demo', publicId, generation: 1, desired: 'serving' },
    secretThat: (act) => ({
      // In the clear, so that what is looked for is known.
      sealed: Buffer.from(`pw-${randomBytes(8).toString('hex')}`),
      open: async (sealed) => {
        await act?.();
        return sealed.toString();
      },
    }),
  };
}

async function sessionsOf(role: string): Promise<number> {
  const { rows } = await admin.pool.query<{ n: number }>(
    'select count(*) as n from pg_stat_activity where usename = $1',
    [role],
  );
  return rows[0]?.n ?? 0;
}

async function statementsNow(): Promise<string> {
  const { rows } = await admin.pool.query<{ query: string }>('select query from pg_stat_activity');
  return rows.map(({ query }) => query).join('\n');
}
