import { isIP } from 'node:net';
import type { ClockSkew, DatabaseFacts } from '../db/database-facts.ts';

export type CheckStatus = 'ok' | 'warn' | 'fail';

/** One thing that was looked at: how it is, in words, and what to do about it. */
export type Check = { name: string; status: CheckStatus; says: string; next: string | null };

/** What was found; undefined where it does not apply. Every judgement is made from this alone. */
export type InstallationFacts = {
  isProduction: boolean;
  publicUrl: string;
  dataDir: { path: string; mode: number | undefined };
  masterKey:
    | { origin: 'environment' | 'file' | 'data directory'; id: string }
    | { origin: 'not made yet' }
    | { origin: 'unusable'; problem: string };
  database:
    | { kind: 'not made yet' }
    | { kind: 'unreachable'; problem: string }
    | {
        kind: 'reached';
        facts: DatabaseFacts;
        pendingMigrations: number;
        /** Undefined while migrations are pending: then the tables are not there. */
        content: DatabaseContent | undefined;
      };
  redis:
    | undefined
    | { kind: 'unreachable'; problem: string }
    | { kind: 'reached'; version: string; appendOnly: boolean; evictionPolicy: string };
};

export type DatabaseContent = {
  missingPartitions: string[];
  masterKeyIds: string[];
  productsWithoutKey: string[];
  productCount: number;
  operatorCount: number;
  /** Null when nobody called in the last hour. */
  marketplaceClock: ClockSkew | null;
};

/** Marketplace and server must agree on the time to a minute; half of it is left for its clock. */
const clockSkewMaxMs = 30_000;
const clockSkewNotedMs = 5_000;
/** A call is refused at 60 s: time to act is left at either of these. */
const marketplaceSkewNotedMs = 20_000;
const marketplaceSkewMaxMs = 40_000;
const postgresVersionMin = 150_000;
/** What BullMQ needs at least, and the first release without the known holes. */
const redisVersionMin = '6.2.0';
const redisVersionSafe = '8.6.3';

/** Judges an installation; all that can be known before the marketplace finds out. */
export function diagnose(facts: InstallationFacts): Check[] {
  return [
    checkPublicUrl(facts),
    checkDataDir(facts),
    checkMasterKey(facts),
    ...checkDatabase(facts),
    ...checkRedis(facts),
  ];
}

function checkPublicUrl({ publicUrl, isProduction }: InstallationFacts): Check {
  const url = new URL(publicUrl);
  const host = url.hostname.replace(/^\[|\]$/g, '');
  const problems = [
    ...(url.protocol === 'https:' ? [] : ['it is not https']),
    ...(isIP(host) === 0 ? [] : ['it is an IP address']),
    ...(isIP(host) !== 0 || host.includes('.') ? [] : ['it is no public domain name']),
  ];
  if (problems.length === 0) return ok('public address', publicUrl);
  return {
    name: 'public address',
    status: isProduction ? 'fail' : 'warn',
    says: `${publicUrl}: the marketplace will not call it, because ${problems.join(' and ')}`,
    next: 'Set PUBLIC_URL to https:// and a domain name.',
  };
}

function checkDataDir({ dataDir }: InstallationFacts): Check {
  const name = 'data directory';
  if (dataDir.mode === undefined) return ok(name, `${dataDir.path} is not made yet`);
  const mode = (dataDir.mode & 0o777).toString(8).padStart(4, '0');
  return (dataDir.mode & 0o077) === 0
    ? ok(name, `${dataDir.path}, mode ${mode}`)
    : fail(
        name,
        `${dataDir.path} has mode ${mode}: others on this machine can look inside`,
        `chmod 700 ${dataDir.path}`,
      );
}

function checkMasterKey({ masterKey, database, isProduction }: InstallationFacts): Check {
  const name = 'master key';
  if (masterKey.origin === 'unusable') {
    return fail(name, masterKey.problem, 'Correct it; keep the old one if there was one.');
  }
  const wrappedBy = database.kind === 'reached' ? (database.content?.masterKeyIds ?? []) : [];
  if (masterKey.origin === 'not made yet') {
    return wrappedBy.length === 0 && !isProduction
      ? ok(name, 'not made yet; it is on the first start')
      : fail(
          name,
          wrappedBy.length === 0
            ? 'there is none, and production requires one'
            : `there is none, but this database was sealed with ${wrappedBy.join(', ')}`,
          'Set LATCHKEY_MASTER_KEY or LATCHKEY_MASTER_KEY_FILE.',
        );
  }
  const others = wrappedBy.filter((id) => id !== masterKey.id);
  if (others.length > 0) {
    return fail(
      name,
      `it is ${masterKey.id}, but this database was sealed with ${others.join(', ')}: its secrets cannot be read`,
      'Set LATCHKEY_MASTER_KEY to the key of this database.',
    );
  }
  if (masterKey.origin === 'data directory') {
    return warn(
      name,
      `${masterKey.id} is kept in the data directory only: lost with it, all secrets are lost`,
      'Copy master.key to a safe place, and give it by LATCHKEY_MASTER_KEY_FILE.',
    );
  }
  return ok(name, `${masterKey.id} from the ${masterKey.origin}`);
}

function checkDatabase(facts: InstallationFacts): Check[] {
  const { database } = facts;
  if (database.kind === 'not made yet') {
    return [warn('database', 'the embedded Postgres is not made yet', 'npx latchkey start')];
  }
  if (database.kind === 'unreachable') {
    return [fail('database', database.problem, 'Check DATABASE_URL and that the server runs.')];
  }
  const { facts: server, pendingMigrations, content } = database;
  return [
    server.versionNumber >= postgresVersionMin
      ? ok('database', `Postgres ${server.version} answers`)
      : fail('database', `Postgres ${server.version} is too old`, 'Use Postgres 15 or later.'),
    checkDurability(server),
    checkClock(server.clockSkewMs),
    pendingMigrations === 0
      ? ok('schema', 'the newest')
      : warn(
          'schema',
          `${pendingMigrations} migration${pendingMigrations === 1 ? '' : 's'} behind`,
          'npx latchkey migrate',
        ),
    ...(content === undefined ? [] : checkContent(content)),
  ];
}

function checkDurability(server: DatabaseFacts): Check {
  const off = [
    ...(server.fsync === 'off' ? ['fsync'] : []),
    ...(server.fullPageWrites === 'off' ? ['full_page_writes'] : []),
    // local and above flush before the commit is answered; only off does not.
    ...(server.synchronousCommit === 'off' ? ['synchronous_commit'] : []),
  ];
  return off.length === 0
    ? ok('durability', 'a commit is on disk before it is acknowledged')
    : fail(
        'durability',
        `${off.join(', ')} off: a power cut loses what was acknowledged to the marketplace`,
        `Turn ${off.join(', ')} on in postgresql.conf.`,
      );
}

function checkClock(skewMs: number): Check {
  const seconds = (Math.abs(skewMs) / 1_000).toFixed(1);
  const says = `the database is ${seconds} s ${skewMs < 0 ? 'behind' : 'ahead of'} this machine`;
  const next = 'Let both follow a time server (NTP).';
  if (Math.abs(skewMs) > clockSkewMaxMs) return fail('clocks', says, next);
  if (Math.abs(skewMs) > clockSkewNotedMs) return warn('clocks', says, next);
  return ok('clocks', 'this machine and the database agree');
}

function checkContent(content: DatabaseContent): Check[] {
  const { missingPartitions, productsWithoutKey, productCount, operatorCount } = content;
  return [
    missingPartitions.length === 0
      ? ok('partitions', 'tomorrow has a place')
      : fail(
          'partitions',
          `${missingPartitions.join(', ')} missing: callbacks would be refused tomorrow`,
          'npx latchkey migrate',
        ),
    checkMarketplaceClock(content.marketplaceClock),
    checkProducts(productCount, productsWithoutKey),
    operatorCount > 0
      ? ok('operators', `${operatorCount} can log in`)
      : warn(
          'operators',
          'nobody can log in',
          'printf %s "$PASSWORD" | npx latchkey password set NAME --password-stdin',
        ),
  ];
}

function checkMarketplaceClock(skew: ClockSkew | null): Check {
  const name = 'marketplace clock';
  if (skew === null) return ok(name, 'no verified call in the last hour to compare with');
  const { calls, medianMs, minMs, maxMs } = skew;
  const seconds = (ms: number) => (ms / 1_000).toFixed(1);
  const size = Math.abs(medianMs);
  // Positive also where calls are slow to arrive, which counts against the same 60 s.
  const says =
    `calls are ${seconds(size)} s ${medianMs < 0 ? 'younger than now' : 'old'} by their signed time ` +
    `(median of ${calls} in the last hour, ${seconds(minMs)} to ${seconds(maxMs)} s); at 60 s they are refused`;
  const next = 'Let this machine and the database follow a time server (NTP); look at the proxy.';
  if (size >= marketplaceSkewMaxMs) return fail(name, says, next);
  if (size >= marketplaceSkewNotedMs) return warn(name, says, next);
  return ok(name, `agrees to ${seconds(size)} s (median of ${calls} calls in the last hour)`);
}

function checkProducts(count: number, withoutKey: readonly string[]): Check {
  if (count === 0) {
    return warn(
      'products',
      'there is none yet',
      'npx latchkey product add KEY --name NAME --provisioner postgres-schema',
    );
  }
  const [first] = withoutKey;
  return first === undefined
    ? ok('products', `${count}, each with an active key`)
    : warn(
        'products',
        `without an active key, so that every callback is refused: ${withoutKey.join(', ')}`,
        `printf %s "$KEY" | npx latchkey key add ${first} --class base --secret-stdin`,
      );
}

function checkRedis({ redis }: InstallationFacts): Check[] {
  if (redis === undefined) return [ok('queues', 'on Postgres (REDIS_URL is not set)')];
  if (redis.kind === 'unreachable') {
    return [fail('queues', redis.problem, 'Check REDIS_URL and that the server runs.')];
  }
  return [
    checkRedisVersion(redis.version),
    redis.appendOnly
      ? ok('redis persistence', 'append-only file is on')
      : warn(
          'redis persistence',
          'append-only file is off: a restart empties the queues, and the work waits for the sweep',
          'Set appendonly yes in redis.conf.',
        ),
    redis.evictionPolicy === 'noeviction'
      ? ok('redis eviction', 'noeviction')
      : fail(
          'redis eviction',
          `maxmemory-policy is ${redis.evictionPolicy}: Redis may throw jobs away`,
          'Set maxmemory-policy noeviction in redis.conf.',
        ),
  ];
}

function checkRedisVersion(version: string): Check {
  if (isOlder(version, redisVersionMin)) {
    return fail('queues', `Redis ${version} is too old`, `Use ${redisVersionSafe} or later.`);
  }
  return isOlder(version, redisVersionSafe)
    ? warn(
        'queues',
        `Redis ${version} answers, but has known security holes`,
        `Use ${redisVersionSafe} or later, and let nobody else reach it.`,
      )
    : ok('queues', `Redis ${version} answers`);
}

function isOlder(version: string, than: string): boolean {
  return version.localeCompare(than, 'en', { numeric: true }) < 0;
}

function ok(name: string, says: string): Check {
  return { name, status: 'ok', says, next: null };
}

function warn(name: string, says: string, next: string): Check {
  return { name, status: 'warn', says, next };
}

function fail(name: string, says: string, next: string): Check {
  return { name, status: 'fail', says, next };
}
