import { createHash, createHmac, pbkdf2, randomBytes } from 'node:crypto';
import { promisify } from 'node:util';
import pg from 'pg';
import { type Database, type Queryable, createDatabase, isServerError } from './client.ts';

// Tenants live in a database of their own: a schema and a role each. Which generation of an instance
// is real stands beside them, so that the check and the effect are one transaction: a worker that
// wakes late changes nothing, whoever else has been there.

export type TenantQuota = {
  connectionsMax: number;
  /** A default of the role: a buyer who must may raise it within a session. */
  statementTimeoutMs: number;
};

/** What one tenant is to be. A generation with `gone` is the last one of an instance. */
export type Tenant = {
  instanceId: number;
  /** Both together name the tenant; they are not stored. */
  productKey: string;
  publicId: string;
  generation: number;
  desired: 'serving' | 'frozen' | 'gone';
  /** How long what it holds outlives its release, from when that is made first; 0 when absent. */
  graceMs?: number;
};

/** A fresh secret to store, sealed, if the tenant has none yet; and the way to read the one it has. */
export type TenantSecret = {
  sealed: Buffer;
  open(sealed: Buffer): Promise<string>;
};

/**
 * - stale: a newer generation is real already, nothing was done.
 * - ready: the role can log in (or not, if frozen) with this password; its schema has its name.
 * - leaving: nobody can log in any more, and in `leftMs` the same call takes what it holds.
 * - gone: there is no tenant; `before` when it is asked to be though it was released once.
 */
type TenantOutcome =
  | { kind: 'stale' }
  | { kind: 'ready'; role: string; password: string }
  | { kind: 'leaving'; leftMs: number }
  | { kind: 'gone' }
  | { kind: 'gone before' };

export type TenantsDatabase = {
  /** Where buyers connect to. */
  address: { host: string; port: number; database: string };
  /**
   * Makes a tenant so, in one transaction; sessions of one that may not log in are ended.
   *
   * @throws errors of the database, after which nothing was done or (once committed) only sessions
   *   were left, which the same call made again ends
   */
  apply(tenant: Tenant, secret: TenantSecret): Promise<TenantOutcome>;
  close(): Promise<void>;
};

export type TenantsDatabaseOptions = {
  /** The database of tenants itself. */
  url: string;
  applicationName: string;
  poolMax: number;
  /** A worker that is silent for so long has lost its claim; no session may hold locks longer. */
  leaseMs: number;
  quota: TenantQuota;
  onIdleError?: (error: Error) => void;
};

export const defaultTenantQuota: TenantQuota = { connectionsMax: 10, statementTimeoutMs: 30_000 };

const defaultTenantsDatabase = 'latchkey_tenants';

/** The address of the tenants' database beside our own, on the same server. */
export function tenantsUrlBeside(homeUrl: string, database = defaultTenantsDatabase): string {
  const url = new URL(homeUrl);
  url.pathname = `/${encodeURIComponent(database)}`;
  return url.href;
}

/**
 * Makes the tenants' database ready: the database where it is missing, its table of generations, and
 * no way from there to our own database. Does nothing where all is done; processes wait for each
 * other.
 *
 * @param options.homeUrl our own database, also where the missing one is made from
 * @returns isHomeOpen: tenants could connect to our own database (to no table of it), because its
 *   owner, who is somebody else, did not revoke that
 * @throws when a server cannot be reached or its user may not do this
 */
export async function prepareTenants(options: {
  homeUrl: string;
  tenantsUrl: string;
}): Promise<{ isHomeOpen: boolean }> {
  const { homeUrl, tenantsUrl } = options;
  const isBeside = serverOf(homeUrl) === serverOf(tenantsUrl);
  if (isBeside && databaseOf(homeUrl) === databaseOf(tenantsUrl)) {
    throw new Error('tenants need a database of their own: it must not be that of Latchkey');
  }
  if (isBeside) {
    await withClient(homeUrl, (home) => createMissingDatabase(home, databaseOf(tenantsUrl)));
  }
  const startedAt = await withClient(tenantsUrl, async (tenants) => {
    await prepareDatabase(tenants);
    return readServerStart(tenants);
  });
  const isHomeOpen = await withClient(homeUrl, async (home) => {
    // One server may go by two addresses; when it started, to the microsecond, tells.
    const isSameServer = (await readServerStart(home)) === startedAt;
    return isSameServer && (await closeToTenants(home));
  });
  return { isHomeOpen };
}

async function readServerStart(client: pg.Client): Promise<string> {
  const { rows } = await client.query<{ at: string }>(
    'select extract(epoch from pg_postmaster_start_time())::text as at',
  );
  return rows[0]?.at ?? '';
}

async function createMissingDatabase(home: pg.Client, database: string): Promise<void> {
  const { rows } = await home.query(`select 1 from pg_database where datname = $1`, [database]);
  if (rows.length > 0) return;
  await home
    .query(`create database ${pg.escapeIdentifier(database)} template template0`)
    // Another process was faster.
    .catch(ignoreCode('42P04', '23505'));
}

/** Roles belong to the whole server, and every role may connect everywhere unless told otherwise. */
async function closeToTenants(home: pg.Client): Promise<boolean> {
  const isOpen = async () => {
    const { rows } = await home.query<{ isOpen: boolean }>(
      `select has_database_privilege('public', current_database(), 'connect') as "isOpen"`,
    );
    return rows[0]?.isOpen ?? true;
  };
  if (!(await isOpen())) return false;
  const own = pg.escapeIdentifier(home.database ?? '');
  await home
    .query(`revoke connect on database ${own} from public`)
    // Processes that start together do the same.
    .catch(ignoreCode('XX000'));
  return isOpen();
}

async function prepareDatabase(tenants: pg.Client): Promise<void> {
  const name = pg.escapeIdentifier(tenants.database ?? '');
  await tenants.query('begin');
  await tenants.query(`select pg_advisory_xact_lock(hashtext('latchkey.tenants'))`);
  const { rows } = await tenants.query(`select to_regclass('latchkey.tenants') as is_there`);
  if ((rows[0] as { is_there: unknown }).is_there === null) {
    await tenants.query(`
      revoke temporary on database ${name} from public;
      revoke all on schema public from public;
      create schema if not exists latchkey;
      create table latchkey.tenants (
        instance_id bigint primary key,
        -- The newest generation that was made real; the row outlives its tenant, so that an older
        -- one that comes late still finds it.
        generation int not null,
        -- Name of the role and of its schema, given once.
        role text not null constraint tenants_role unique,
        -- The first one stays; sealed, AAD tenants/secret/{instance_id}; null once released.
        secret bytea,
        -- When its schema goes; null until it is released.
        drop_at timestamptz
      );`);
  } else if (!(await hasDropAt(tenants))) {
    await tenants.query(`alter table latchkey.tenants add column drop_at timestamptz`);
  }
  await tenants.query('commit');
}

/** Asked first, because to alter a table waits for all who use it, also when there is nothing to do. */
async function hasDropAt(tenants: pg.Client): Promise<boolean> {
  const { rowCount } = await tenants.query(
    `select 1 from pg_attribute where attrelid = 'latchkey.tenants'::regclass and attname = 'drop_at' and not attisdropped`,
  );
  return rowCount === 1;
}

/** Connects only when first used. */
export function openTenantsDatabase(options: TenantsDatabaseOptions): TenantsDatabase {
  const db = createDatabase({
    url: options.url,
    applicationName: options.applicationName,
    poolMax: options.poolMax,
    statementTimeoutMs: options.leaseMs,
    idleInTransactionTimeoutMs: options.leaseMs,
    ...(options.onIdleError ? { onIdleError: options.onIdleError } : {}),
  });
  const url = new URL(options.url);
  const database = databaseOf(options.url);
  return {
    address: { host: url.hostname, port: Number(url.port || 5432), database },
    apply: (tenant, secret) => applyTenant(db, database, options, tenant, secret),
    close: () => db.close(),
  };
}

async function applyTenant(
  db: Database,
  database: string,
  options: Pick<TenantsDatabaseOptions, 'leaseMs' | 'quota'>,
  tenant: Tenant,
  secret: TenantSecret,
): Promise<TenantOutcome> {
  const mustEndSessions = tenant.desired !== 'serving';
  const { role, outcome } = await db.transaction(async (tx) => {
    await tx.query(`select set_config('lock_timeout', $1, true)`, [`${options.leaseMs}ms`]);
    const row = await moveOn(tx, tenant, nameTenant(database, tenant), secret.sealed);
    if (!row) return { role: undefined, outcome: { kind: 'stale' } as const };
    // What its sessions hold would be waited for.
    if (mustEndSessions) await endSessions(tx, row.role);
    if (tenant.desired === 'gone') {
      const leftMs = await release(tx, tenant, row.role);
      if (leftMs > 0) {
        await revokeLogin(tx, row.role);
        return { role: row.role, outcome: { kind: 'leaving', leftMs } as const };
      }
      await dropTenant(tx, row.role);
      return { role: row.role, outcome: { kind: 'gone' } as const };
    }
    if (!row.secret) return { role: row.role, outcome: { kind: 'gone before' } as const };
    const password = await secret.open(row.secret);
    const canLogIn = tenant.desired === 'serving';
    await makeTenant(tx, row.role, { password, database, canLogIn, quota: options.quota });
    return { role: row.role, outcome: { kind: 'ready', role: row.role, password } as const };
  });
  // Only from the commit on can nobody log in. Should we die before this, the next try does it.
  if (mustEndSessions && role !== undefined) await endAllSessions(db.pool, role);
  return outcome;
}

/** The fence. A row comes back only for this generation or an older one; it is locked from then on. */
async function moveOn(
  tx: Queryable,
  tenant: Tenant,
  role: string,
  sealed: Buffer,
): Promise<{ role: string; secret: Buffer | null } | undefined> {
  const { rows } = await tx.query<{ role: string; secret: Buffer | null }>(
    `insert into latchkey.tenants as tenants (instance_id, generation, role, secret)
     values ($1, $2, $3, $4)
     on conflict (instance_id) do update set generation = excluded.generation
     where tenants.generation <= excluded.generation
     returning role, secret`,
    [tenant.instanceId, tenant.generation, role, sealed],
  );
  return rows[0];
}

/** @returns how long what it holds is still kept; 0 where there is nothing to keep */
async function release(tx: Queryable, tenant: Tenant, role: string): Promise<number> {
  const { rows } = await tx.query<{ leftMs: number }>(
    `update latchkey.tenants set secret = null,
       drop_at = coalesce(drop_at, now() + $2::float8 * interval '1 millisecond')
     where instance_id = $1
     returning case when to_regnamespace($3) is null then 0
       else greatest(0, extract(epoch from drop_at - now()) * 1000) end::float8 as "leftMs"`,
    [tenant.instanceId, tenant.graceMs ?? 0, role],
  );
  return rows[0]?.leftMs ?? 0;
}

async function revokeLogin(tx: Queryable, role: string): Promise<void> {
  const { rows } = await tx.query<{ isThere: boolean }>(
    `select to_regrole($1) is not null as "isThere"`,
    [role],
  );
  if (rows[0]?.isThere) {
    await tx.query(`alter role ${pg.escapeIdentifier(role)} nologin password null`);
  }
}

/**
 * `t_` and 20 hex digits, for the role and its schema. Roles belong to the whole server, so a
 * database of tenants under another name than the usual one gives other names.
 */
function nameTenant(database: string, tenant: Pick<Tenant, 'productKey' | 'publicId'>): string {
  const of = `${tenant.productKey}/${tenant.publicId}`;
  const whole = database === defaultTenantsDatabase ? of : `${database}/${of}`;
  return `t_${createHash('sha256').update(whole).digest('hex').slice(0, 20)}`;
}

async function makeTenant(
  tx: Queryable,
  role: string,
  be: { password: string; database: string; canLogIn: boolean; quota: TenantQuota },
): Promise<void> {
  const name = pg.escapeIdentifier(role);
  const { rows } = await tx.query<{ roleIsThere: boolean; weAreSuperuser: boolean }>(
    `select to_regrole($1) is not null as "roleIsThere",
            (select rolsuper from pg_roles where rolname = current_user) as "weAreSuperuser"`,
    [role],
  );
  if (!rows[0]?.roleIsThere) {
    await tx.query(`create role ${name} nologin`);
    // Who is no superuser must be a member to end its sessions and to drop what it owns.
    if (!rows[0]?.weAreSuperuser) await tx.query(`grant ${name} to current_user`);
  }
  const verifier = await createScramVerifier(be.password);
  const database = pg.escapeIdentifier(be.database);
  await tx.query(`
    alter role ${name} ${be.canLogIn ? 'login' : 'nologin'}
      connection limit ${be.quota.connectionsMax} password ${pg.escapeLiteral(verifier)};
    alter role ${name} in database ${database} set search_path = ${name};
    alter role ${name} in database ${database} set statement_timeout = ${be.quota.statementTimeoutMs};
    create schema if not exists ${name};
    grant usage, create on schema ${name} to ${name};`);
}

async function dropTenant(tx: Queryable, role: string): Promise<void> {
  const name = pg.escapeIdentifier(role);
  await tx.query(`drop schema if exists ${name} cascade`);
  const { rows } = await tx.query<{ isThere: boolean }>(
    `select to_regrole($1) is not null as "isThere"`,
    [role],
  );
  if (!rows[0]?.isThere) return;
  await tx.query(`alter role ${name} nologin password null`);
  await tx.query('savepoint before_drop');
  try {
    await tx.query(`drop owned by ${name}; drop role ${name};`);
  } catch (error) {
    // It owns something in another database of the server, which is not ours to judge: the role
    // stays there as an empty name that nobody can log in with.
    if (!isServerError(error) || error.code !== '2BP01') throw error;
    await tx.query('rollback to savepoint before_drop');
  }
}

const sessionEndTimeoutMs = 2_000;

/**
 * Ends the sessions of a role, and what sessions are left here of roles that are dropped, and waits
 * until they ended.
 *
 * @returns how many there were
 */
async function endSessions(db: Queryable, role: string): Promise<number> {
  const { rowCount } = await db.query(
    `select pg_terminate_backend(pid, ${sessionEndTimeoutMs}) from pg_stat_activity
     where usesysid = to_regrole($1)
        or (datname = current_database() and usesysid is not null
            and not exists (select from pg_roles where oid = usesysid)
            and pg_has_role(current_user, 'pg_signal_backend', 'member'))`,
    [role],
  );
  return rowCount ?? 0;
}

/** An application connects again at once and may slip in between: looks until nobody is there. */
async function endAllSessions(db: Queryable, role: string): Promise<void> {
  for (let round = 0; round < 5; round += 1) {
    if ((await endSessions(db, role)) === 0) return;
  }
}

const deriveKey = promisify(pbkdf2);
const scramIterations = 4_096;

/**
 * What Postgres stores for a password (RFC 5803, as `pg_authid` writes it). Made here, so that no
 * statement, log or view of the server ever holds the password.
 *
 * @param password printable ASCII, which SASLprep leaves as it is
 */
export async function createScramVerifier(
  password: string,
  salt: Buffer = randomBytes(16),
): Promise<string> {
  const salted = await deriveKey(password, salt, scramIterations, 32, 'sha256');
  const hmac = (text: string) => createHmac('sha256', salted).update(text).digest();
  const storedKey = createHash('sha256').update(hmac('Client Key')).digest('base64');
  const serverKey = hmac('Server Key').toString('base64');
  return `SCRAM-SHA-256$${scramIterations}:${salt.toString('base64')}$${storedKey}:${serverKey}`;
}

/** A fresh password that any client and shell takes as it is. */
export function createTenantPassword(): string {
  return randomBytes(24).toString('base64url');
}

/**
 * What an error of `apply` means for the next try; undefined for what is no error of a database but
 * a fault of ours. The cause names the SQLSTATE and never what the server said, which may quote.
 */
export function classifyTenantsError(
  error: unknown,
): { class: 'permanent' | 'transient'; cause: string } | undefined {
  if (error instanceof pg.DatabaseError && error.code !== undefined) {
    const { code } = error;
    const isTransient =
      transientClasses.has(code.slice(0, 2)) || transientCodes.has(code) || code.startsWith('57P');
    return isTransient
      ? { class: 'transient', cause: `tenants database is not available (${code})` }
      : { class: 'permanent', cause: `tenants database refused (${code})` };
  }
  if (!(error instanceof Error)) return undefined;
  const hasSystemCode = typeof (error as NodeJS.ErrnoException).code === 'string';
  const isOfDriver = /^(timeout exceeded|Query read timeout|Connection terminated|Client )/i.test(
    error.message,
  );
  return hasSystemCode || isOfDriver
    ? { class: 'transient', cause: 'tenants database cannot be reached' }
    : undefined;
}

/** Connection, rollback of a transaction, resources, intervention, the server's own system errors. */
const transientClasses = new Set(['08', '40', '53', '58']);

const transientCodes = new Set([
  '55P03', // lock not available in time
  '57014', // statement cancelled, by its time limit
  '25P03', // idle in transaction for longer than the lease
  '25P04', // transaction timeout
  '55006', // object in use
  'XX000', // "tuple concurrently updated": two sessions altered one role or grant
  '23505', // two sessions created one role
  '42710',
]);

async function withClient<T>(url: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 10_000 });
  client.on('error', () => undefined);
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

function ignoreCode(...codes: string[]): (error: unknown) => void {
  return (error) => {
    const isIgnored = error instanceof pg.DatabaseError && codes.includes(error.code ?? '');
    if (!isIgnored) throw error;
  };
}

function databaseOf(url: string): string {
  return decodeURIComponent(new URL(url).pathname.slice(1));
}

function serverOf(url: string): string {
  const { hostname, port } = new URL(url);
  return `${hostname}:${port || 5432}`;
}
