import { expect, test } from 'vitest';
import { ConfigError, readConfig, settings } from '../../runtime/config.ts';

function messageOf(env: Record<string, string>): string {
  try {
    readConfig(env);
  } catch (error) {
    if (error instanceof ConfigError) return error.message;
    throw error;
  }
  return 'accepted';
}

test('an empty environment gives a usable configuration', () => {
  const config = readConfig({});
  expect(config).toMatchObject({
    HOST: '0.0.0.0',
    PORT: 8080,
    PUBLIC_URL: 'http://localhost:8080',
    LATCHKEY_DATA_DIR: './.data',
    DATABASE_URL: undefined,
    REDIS_URL: undefined,
    ACK_BUDGET_MS: 3000,
    OUTBOUND_ALLOWED_CIDRS: [],
    WORKER_CONCURRENCY: 64,
  });
  expect(config.timings).toEqual({
    leaseMs: 15_000,
    leaseRenewMs: 5_000,
    sweepMs: 5_000,
    handedGraceMs: 5_000,
    pollMs: 25,
    dueAgainMs: 1_000,
    completionMs: 600_000,
    retryScalePercent: 100,
    windowMax: 2_000,
    shutdownMs: 25_000,
    stalledMs: 5_000,
    lockMs: 15_000,
  });
});

test('a variable that is set but empty counts as absent', () => {
  expect(readConfig({ PORT: '', REDIS_URL: '', PUBLIC_URL: '' }).PORT).toBe(8080);
  expect(readConfig({ REDIS_URL: '' }).REDIS_URL).toBeUndefined();
});

test('every timing can be set by its variable', () => {
  const names = settings.map((s) => s.name).filter((n) => /^TIMING_|^WINDOW_MAX$/.test(n));
  const env = Object.fromEntries(names.map((name, i) => [name, String(20 - i)]));
  const values = Object.values(readConfig(env).timings).map(String);
  expect(values.toSorted()).toEqual(Object.values(env).toSorted());
});

test.each([
  ['PORT', '8o80', 'must be a whole number from 0 to 65535'],
  ['PORT', '65536', 'must be a whole number from 0 to 65535'],
  ['ACK_BUDGET_MS', '499', 'must be a whole number from 500 to 4500'],
  ['ACK_BUDGET_MS', '4501', 'must be a whole number from 500 to 4500'],
  ['ACK_BUDGET_MS', '1e3', 'must be a whole number from 500 to 4500'],
  ['PUBLIC_URL', 'example.com', 'must be an address that begins with http:// or https://'],
  [
    'DATABASE_URL',
    'mysql://root:tell-nobody@h/d',
    'must be an address that begins with postgres://',
  ],
  ['REDIS_URL', 'tell-nobody', 'must be an address that begins with redis:// or rediss://'],
  ['OUTBOUND_ALLOWED_CIDRS', '10.0.0.0/8,10.0.0.0/33', 'must be networks like 10.0.0.0/8'],
  ['OUTBOUND_ALLOWED_CIDRS', 'localhost/8', 'must be networks like 10.0.0.0/8'],
  ['OUTBOUND_ALLOWED_CIDRS', '127.0.0.1', 'must be networks like 10.0.0.0/8'],
  ['LOG_LEVEL', 'loud', 'must be one of fatal, error, warn, info, debug, trace, silent'],
  ['NODE_ENV', 'prod', 'must be production, development or test'],
  ['METRICS_TOKEN', 'tell-nobody', 'must have at least 16 characters'],
  ['WORKER_CONCURRENCY', '0', 'must be a whole number from 1 to 1000'],
  ['TIMING_LEASE_RENEW_MS', '15000', 'must be less than TIMING_LEASE_MS'],
  ['TIMING_POLL_MS', '-1', 'must be a whole number'],
  ['WINDOW_MAX', '0', 'must be a whole number from 1 to 100000'],
])('%s=%s is refused by name and rule', (name, value, rule) => {
  const message = messageOf({ [name]: value });
  expect(message).toContain(`${name} ${rule}`);
});

test('all wrong variables are reported at once, and no value is', () => {
  const message = messageOf({
    PORT: 'tell-nobody',
    DATABASE_URL: 'tell-nobody',
    LOG_LEVEL: 'tell-nobody',
    METRICS_TOKEN: 'tell-nobody',
  });
  for (const name of ['PORT', 'DATABASE_URL', 'LOG_LEVEL', 'METRICS_TOKEN'])
    expect(message).toContain(name);
  expect(message).not.toContain('tell-nobody');
});

test('the public address follows the port and loses a trailing slash', () => {
  expect(readConfig({ PORT: '9000' }).PUBLIC_URL).toBe('http://localhost:9000');
  expect(readConfig({ PUBLIC_URL: 'https://shop.example/x/' }).PUBLIC_URL).toBe(
    'https://shop.example/x',
  );
});

test('private networks are read as a list, IPv4 and IPv6', () => {
  expect(
    readConfig({ OUTBOUND_ALLOWED_CIDRS: '127.0.0.0/8, fd00::/8' }).OUTBOUND_ALLOWED_CIDRS,
  ).toEqual(['127.0.0.0/8', 'fd00::/8']);
});

test('two master keys at once are refused', () => {
  expect(messageOf({ LATCHKEY_MASTER_KEY: 'a', LATCHKEY_MASTER_KEY_FILE: 'b' })).toContain(
    'LATCHKEY_MASTER_KEY_FILE must not be set together with LATCHKEY_MASTER_KEY',
  );
});

test('failpoints are ignored in production', () => {
  const env = { LATCHKEY_FAILPOINTS: 'api.after-commit=kill' };
  expect(readConfig(env).LATCHKEY_FAILPOINTS).toBe('api.after-commit=kill');
  expect(readConfig({ ...env, NODE_ENV: 'production' }).LATCHKEY_FAILPOINTS).toBeUndefined();
});

test('every setting has a name, a default and a meaning, once', () => {
  expect(new Set(settings.map((s) => s.name)).size).toBe(settings.length);
  for (const s of settings) {
    expect(s.name).toMatch(/^[A-Z_]+$/);
    expect(s.default).not.toBe('');
    expect(s.meaning).toMatch(/^.+\.$/);
  }
});
