import { expect, test } from 'vitest';
import { type InstallationFacts, diagnose } from '../../operations/diagnose.ts';

type Reached = Extract<InstallationFacts['database'], { kind: 'reached' }>;

const database: Reached = {
  kind: 'reached',
  facts: {
    version: '18.4',
    versionNumber: 180_004,
    fsync: 'on',
    fullPageWrites: 'on',
    synchronousCommit: 'on',
    clockSkewMs: 3,
  },
  pendingMigrations: 0,
  content: {
    missingPartitions: [],
    masterKeyIds: ['0a1b2c3d'],
    productsWithoutKey: [],
    productCount: 2,
    operatorCount: 1,
    marketplaceClock: { calls: 12, medianMs: 40, minMs: 10, maxMs: 900 },
  },
};

const healthy: InstallationFacts = {
  isProduction: true,
  publicUrl: 'https://shop.example.com',
  dataDir: { path: '.data', mode: 0o40700 },
  masterKey: { origin: 'file', id: '0a1b2c3d' },
  database,
  redis: { kind: 'reached', version: '8.6.3', appendOnly: true, evictionPolicy: 'noeviction' },
};

function statusOf(name: string, facts: Partial<InstallationFacts>) {
  const check = diagnose({ ...healthy, ...facts }).find((each) => each.name === name);
  return check && { status: check.status, says: check.says };
}

const withServer = (facts: Partial<Reached['facts']>) => ({
  database: { ...database, facts: { ...database.facts, ...facts } },
});
const withContent = (content: Partial<NonNullable<Reached['content']>>) => ({
  database: {
    ...database,
    content: { ...(database.content as NonNullable<Reached['content']>), ...content },
  },
});
const redis = (facts: object): Partial<InstallationFacts> => ({
  redis: {
    ...(healthy.redis as Extract<InstallationFacts['redis'], { kind: 'reached' }>),
    ...facts,
  },
});

test('a sound installation has no complaint', () => {
  expect(diagnose(healthy).filter((each) => each.status !== 'ok')).toEqual([]);
});

test('whatever is not ok says what to do next', () => {
  const worst: InstallationFacts = {
    isProduction: true,
    publicUrl: 'http://10.0.0.1',
    dataDir: { path: '.data', mode: 0o40755 },
    masterKey: { origin: 'not made yet' },
    database: { kind: 'unreachable', problem: 'nothing listens' },
    redis: { kind: 'unreachable', problem: 'nothing listens' },
  };
  const checks = diagnose(worst);
  expect(checks.map((each) => each.status)).toEqual(checks.map(() => 'fail'));
  for (const check of checks) expect(check.next, check.name).not.toBeNull();
});

test.each<[string, string, Partial<InstallationFacts>, 'warn' | 'fail', string]>([
  ['http', 'public address', { publicUrl: 'http://shop.example.com' }, 'fail', 'not https'],
  ['an IP', 'public address', { publicUrl: 'https://1.2.3.4' }, 'fail', 'IP address'],
  ['an IPv6', 'public address', { publicUrl: 'https://[::1]' }, 'fail', 'IP address'],
  ['localhost', 'public address', { publicUrl: 'https://localhost' }, 'fail', 'no public domain'],
  [
    'an address for development',
    'public address',
    { publicUrl: 'http://localhost:8080', isProduction: false },
    'warn',
    'not https',
  ],
  [
    'an open data directory',
    'data directory',
    { dataDir: { path: '.data', mode: 0o40750 } },
    'fail',
    '0750',
  ],
  [
    'a key in the data directory only',
    'master key',
    { masterKey: { origin: 'data directory', id: '0a1b2c3d' } },
    'warn',
    'data directory only',
  ],
  [
    "another database's key",
    'master key',
    { masterKey: { origin: 'environment', id: 'ffffffff' } },
    'fail',
    '0a1b2c3d',
  ],
  ['a lost key', 'master key', { masterKey: { origin: 'not made yet' } }, 'fail', '0a1b2c3d'],
  ['an old Postgres', 'database', withServer({ versionNumber: 140_020 }), 'fail', 'too old'],
  ['fsync off', 'durability', withServer({ fsync: 'off' }), 'fail', 'fsync'],
  [
    'full_page_writes off',
    'durability',
    withServer({ fullPageWrites: 'off' }),
    'fail',
    'full_page_writes',
  ],
  [
    'synchronous_commit off',
    'durability',
    withServer({ synchronousCommit: 'off' }),
    'fail',
    'synchronous_commit',
  ],
  ['clocks 6 s apart', 'clocks', withServer({ clockSkewMs: -6_000 }), 'warn', '6.0 s behind'],
  ['clocks 31 s apart', 'clocks', withServer({ clockSkewMs: 31_000 }), 'fail', '31.0 s ahead'],
  [
    'an old schema',
    'schema',
    { database: { ...database, pendingMigrations: 2, content: undefined } },
    'warn',
    '2 migrations behind',
  ],
  [
    'no partition for tomorrow',
    'partitions',
    withContent({ missingPartitions: ['callbacks_20990101'] }),
    'fail',
    'callbacks_20990101',
  ],
  [
    'a product without key',
    'products',
    withContent({ productsWithoutKey: ['shop'] }),
    'warn',
    'shop',
  ],
  ['no operator', 'operators', withContent({ operatorCount: 0 }), 'warn', 'nobody'],
  ['a very old Redis', 'queues', redis({ version: '5.0.14' }), 'fail', 'too old'],
  ['a Redis with holes', 'queues', redis({ version: '7.0.15' }), 'warn', 'security holes'],
  ['a Redis without AOF', 'redis persistence', redis({ appendOnly: false }), 'warn', 'off'],
  [
    'a Redis that evicts',
    'redis eviction',
    redis({ evictionPolicy: 'allkeys-lru' }),
    'fail',
    'allkeys-lru',
  ],
])('%s is noticed', (_, name, facts, status, says) => {
  expect(statusOf(name, facts)).toEqual({ status, says: expect.stringContaining(says) });
});

test('a later Redis with a longer number is not older', () => {
  expect(statusOf('queues', redis({ version: '8.10.0' }))?.status).toBe('ok');
});
