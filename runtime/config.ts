import { BlockList, isIP } from 'node:net';
import { z } from 'zod';

// The only file that reads the environment. Everything is checked at start, whole, and reported
// without values: a typo must not print a password into a log collector.

/** A wrong environment. The message names each variable and the rule it breaks, never its value. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
}

/** One documented environment variable; `default` is the text shown to people. */
export type Setting = { name: string; default: string; meaning: string };

type Environment = Record<string, string | undefined>;

const wholeNumber = (min: number, max: number) =>
  z
    .string()
    .regex(/^\d{1,9}$/, `must be a whole number from ${min} to ${max}`)
    .transform(Number)
    .refine((n) => n >= min && n <= max, `must be a whole number from ${min} to ${max}`);

const addressOf = (protocols: readonly string[]) =>
  z.string().refine(
    (text) => {
      const url = URL.canParse(text) ? new URL(text) : undefined;
      return url !== undefined && protocols.includes(url.protocol);
    },
    `must be an address that begins with ${protocols.map((p) => `${p}//`).join(' or ')}`,
  );

const postgresUrl = addressOf(['postgres:', 'postgresql:']);

function isCidr(text: string): boolean {
  const match = /^(.+)\/(\d{1,3})$/.exec(text);
  const [address, bits] = [match?.[1] ?? '', Number(match?.[2] ?? NaN)];
  const family = isIP(address);
  if (family === 0) return false;
  try {
    new BlockList().addSubnet(address, bits, family === 6 ? 'ipv6' : 'ipv4');
    return true;
  } catch {
    return false;
  }
}

const cidrList = z
  .string()
  .transform((text) => text.split(',').map((part) => part.trim()))
  .refine((list) => list.every(isCidr), 'must be networks like 10.0.0.0/8, separated by commas');

const LOG_LEVELS = ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'] as const;

const milliseconds = wholeNumber(1, 100_000_000);

type Entry = {
  rule: z.ZodType<unknown, string>;
  default?: string;
  shown?: string;
  meaning: string;
};
const entry = <const T extends Entry>(e: T): T => e;

const entries = {
  HOST: entry({
    rule: z.string(),
    default: '0.0.0.0',
    meaning: 'Address the HTTP server listens on.',
  }),
  PORT: entry({
    rule: wholeNumber(0, 65_535),
    default: '8080',
    meaning: 'Port of the HTTP server; 0 takes a free one.',
  }),
  PUBLIC_URL: entry({
    rule: addressOf(['http:', 'https:']).transform((text) => text.replace(/\/+$/, '')),
    shown: 'http://localhost:PORT',
    meaning: 'Address under which the marketplace and buyers reach this server.',
  }),
  LATCHKEY_DATA_DIR: entry({
    rule: z.string(),
    default: './.data',
    meaning: 'Folder of the embedded Postgres and of the generated master key.',
  }),
  DATABASE_URL: entry({
    rule: postgresUrl,
    shown: 'embedded Postgres',
    meaning: 'Postgres of Latchkey itself.',
  }),
  TENANTS_DATABASE_URL: entry({
    rule: postgresUrl,
    shown: 'database of its own beside DATABASE_URL',
    meaning: 'Postgres in which the postgres-schema provisioner makes tenants.',
  }),
  TENANTS_PUBLIC_ADDRESS: entry({
    rule: z
      .string()
      .regex(/^[^\s:/@]+:\d{1,5}$/, 'must be HOST:PORT')
      .transform((text) => ({
        host: text.slice(0, text.lastIndexOf(':')),
        port: Number(text.slice(text.lastIndexOf(':') + 1)),
      })),
    shown: 'that of TENANTS_DATABASE_URL',
    meaning: 'HOST:PORT at which buyers reach the Postgres of their tenants.',
  }),
  REDIS_URL: entry({
    rule: addressOf(['redis:', 'rediss:']),
    shown: 'queues on Postgres',
    meaning: 'Redis for the queues.',
  }),
  LATCHKEY_MASTER_KEY: entry({
    rule: z.string(),
    shown: 'generated in the data folder',
    meaning: 'Base64 of the 32 bytes that seal all secrets; required in production.',
  }),
  LATCHKEY_MASTER_KEY_FILE: entry({
    rule: z.string(),
    shown: 'none',
    meaning: 'File to read the master key from instead.',
  }),
  NODE_ENV: entry({
    rule: z.enum(['production', 'development', 'test'], 'must be production, development or test'),
    default: 'development',
    meaning: 'production requires a master key and ignores failpoints.',
  }),
  ACK_BUDGET_MS: entry({
    rule: wholeNumber(500, 4_500),
    default: '3000',
    meaning: 'A callback is answered within this time, whatever Postgres does (500 to 4500).',
  }),
  OUTBOUND_ALLOWED_CIDRS: entry({
    rule: cidrList,
    shown: 'none',
    meaning: 'Private networks that calls to sellers may reach, separated by commas.',
  }),
  LOG_LEVEL: entry({
    rule: z.enum(LOG_LEVELS, `must be one of ${LOG_LEVELS.join(', ')}`),
    default: 'info',
    meaning: 'Lowest level that is logged.',
  }),
  METRICS_TOKEN: entry({
    rule: z.string().min(16, 'must have at least 16 characters'),
    shown: 'none, /metrics is open',
    meaning: 'Bearer token that /metrics asks for.',
  }),
  WORKER_CONCURRENCY: entry({
    rule: wholeNumber(1, 1_000),
    default: '64',
    meaning: 'Instances that one worker process works on at once.',
  }),
  ORDER_QUERY_PER_SECOND: entry({
    rule: wholeNumber(1, 1_000),
    default: '5',
    meaning:
      "Order queries a second for each access key of the marketplace's API, all workers together.",
  }),
  QUEUE_PREFIX: entry({
    rule: z.string().regex(/^[a-z][a-z0-9-]{0,30}$/, 'must be lower-case letters, digits and -'),
    default: 'latchkey',
    meaning: 'Prefix of the keys in Redis, so that several systems can share it.',
  }),
  LATCHKEY_FAILPOINTS: entry({
    rule: z.string(),
    shown: 'none',
    meaning: 'Points at which a process kills, stops or delays itself in tests.',
  }),
  WINDOW_MAX: entry({
    rule: wholeNumber(1, 100_000),
    default: '2000',
    meaning: 'Jobs handed over to one queue at a time; the rest of the backlog stays in Postgres.',
  }),
  TIMING_LEASE_MS: entry({
    rule: milliseconds,
    default: '15000',
    meaning: 'A worker that does not renew its claim for this long has lost it.',
  }),
  TIMING_LEASE_RENEW_MS: entry({
    rule: milliseconds,
    default: '5000',
    meaning: 'How often a worker renews its claim.',
  }),
  TIMING_SWEEP_MS: entry({
    rule: milliseconds,
    default: '5000',
    meaning: 'How often the sweep looks for work that a queue has lost.',
  }),
  TIMING_HANDED_GRACE_MS: entry({
    rule: milliseconds,
    default: '5000',
    meaning: 'Age at which the sweep compares a handed job with its queue.',
  }),
  TIMING_POLL_MS: entry({
    rule: milliseconds,
    default: '25',
    meaning: 'How often the dispatcher looks for due instances.',
  }),
  TIMING_DUE_AGAIN_MS: entry({
    rule: milliseconds,
    default: '1000',
    meaning: 'Delay of an instance that found its product at the limit.',
  }),
  TIMING_COMPLETION_MS: entry({
    rule: milliseconds,
    default: '600000',
    meaning: 'A backend that answered 202 and did not complete is asked again after this time.',
  }),
  TIMING_RETRY_SCALE_PERCENT: entry({
    rule: wholeNumber(0, 1_000),
    default: '100',
    meaning: 'Scales every retry delay; 1 makes the schedules a hundred times faster.',
  }),
  TIMING_SHUTDOWN_MS: entry({
    rule: milliseconds,
    default: '25000',
    meaning: 'Time a process has to finish what runs after SIGTERM.',
  }),
  TIMING_STALLED_MS: entry({
    rule: milliseconds,
    default: '5000',
    meaning: 'How often BullMQ looks for jobs of dead workers.',
  }),
  TIMING_LOCK_MS: entry({
    rule: milliseconds,
    default: '15000',
    meaning: 'BullMQ takes a job from a worker that is silent for this long.',
  }),
} satisfies Record<string, Entry>;

type Entries = typeof entries;
type Value<E extends Entry> = E extends { default: string }
  ? z.output<E['rule']>
  : z.output<E['rule']> | undefined;
type Values = { [K in keyof Entries]: Value<Entries[K]> };

/** Every variable that is read, as data, so that the documentation can be compared with it. */
export const settings: readonly Setting[] = Object.entries<Entry>(entries).map(([name, e]) => ({
  name,
  default: e.default ?? e.shown ?? 'none',
  meaning: e.meaning,
}));

/** The periods that tests and the demo shorten; all in milliseconds but the two named otherwise. */
type Timings = {
  leaseMs: number;
  leaseRenewMs: number;
  sweepMs: number;
  handedGraceMs: number;
  pollMs: number;
  dueAgainMs: number;
  completionMs: number;
  retryScalePercent: number;
  windowMax: number;
  shutdownMs: number;
  stalledMs: number;
  lockMs: number;
};

export type Config = Omit<
  Values,
  `TIMING_${string}` | 'WINDOW_MAX' | 'PUBLIC_URL' | 'OUTBOUND_ALLOWED_CIDRS'
> & {
  PUBLIC_URL: string;
  OUTBOUND_ALLOWED_CIDRS: readonly string[];
  timings: Timings;
};

const schema = z
  .object(
    Object.fromEntries(
      Object.entries<Entry>(entries).map(([name, e]) => [
        name,
        e.default === undefined ? e.rule.optional() : e.rule.prefault(e.default),
      ]),
    ),
  )
  .transform((values) => values as Values)
  .superRefine((v, context) => {
    const wrong = (name: keyof Entries, message: string) =>
      context.addIssue({ code: 'custom', path: [name], message });
    if (v.TIMING_LEASE_RENEW_MS >= v.TIMING_LEASE_MS)
      wrong('TIMING_LEASE_RENEW_MS', 'must be less than TIMING_LEASE_MS');
    if (v.LATCHKEY_MASTER_KEY !== undefined && v.LATCHKEY_MASTER_KEY_FILE !== undefined)
      wrong('LATCHKEY_MASTER_KEY_FILE', 'must not be set together with LATCHKEY_MASTER_KEY');
  });

/**
 * Reads and checks the whole environment; an empty variable counts as absent.
 * @throws ConfigError that names every wrong variable and its rule, without values
 */
export function readConfig(env: Environment = process.env): Config {
  const present = Object.fromEntries(
    Object.keys(entries).map((name) => [name, env[name] === '' ? undefined : env[name]]),
  );
  const result = schema.safeParse(present);
  if (!result.success) {
    // Not z.prettifyError: some of zod's own messages quote what they received.
    const lines = result.error.issues.map((i) => `✖ ${i.path.join('.')} ${i.message}`);
    throw new ConfigError(['The environment is not usable:', ...lines].join('\n'));
  }
  const v = result.data;
  return {
    HOST: v.HOST,
    PORT: v.PORT,
    PUBLIC_URL: v.PUBLIC_URL ?? `http://localhost:${v.PORT}`,
    LATCHKEY_DATA_DIR: v.LATCHKEY_DATA_DIR,
    DATABASE_URL: v.DATABASE_URL,
    TENANTS_DATABASE_URL: v.TENANTS_DATABASE_URL,
    TENANTS_PUBLIC_ADDRESS: v.TENANTS_PUBLIC_ADDRESS,
    REDIS_URL: v.REDIS_URL,
    LATCHKEY_MASTER_KEY: v.LATCHKEY_MASTER_KEY,
    LATCHKEY_MASTER_KEY_FILE: v.LATCHKEY_MASTER_KEY_FILE,
    NODE_ENV: v.NODE_ENV,
    ACK_BUDGET_MS: v.ACK_BUDGET_MS,
    OUTBOUND_ALLOWED_CIDRS: v.OUTBOUND_ALLOWED_CIDRS ?? [],
    LOG_LEVEL: v.LOG_LEVEL,
    METRICS_TOKEN: v.METRICS_TOKEN,
    WORKER_CONCURRENCY: v.WORKER_CONCURRENCY,
    ORDER_QUERY_PER_SECOND: v.ORDER_QUERY_PER_SECOND,
    QUEUE_PREFIX: v.QUEUE_PREFIX,
    LATCHKEY_FAILPOINTS: v.NODE_ENV === 'production' ? undefined : v.LATCHKEY_FAILPOINTS,
    timings: {
      leaseMs: v.TIMING_LEASE_MS,
      leaseRenewMs: v.TIMING_LEASE_RENEW_MS,
      sweepMs: v.TIMING_SWEEP_MS,
      handedGraceMs: v.TIMING_HANDED_GRACE_MS,
      pollMs: v.TIMING_POLL_MS,
      dueAgainMs: v.TIMING_DUE_AGAIN_MS,
      completionMs: v.TIMING_COMPLETION_MS,
      retryScalePercent: v.TIMING_RETRY_SCALE_PERCENT,
      windowMax: v.WINDOW_MAX,
      shutdownMs: v.TIMING_SHUTDOWN_MS,
      stalledMs: v.TIMING_STALLED_MS,
      lockMs: v.TIMING_LOCK_MS,
    },
  };
}

/** Our own environment with some variables changed, for a child process. */
export function environmentWith(changes: Record<string, string>): Record<string, string> {
  const own = Object.entries(process.env).filter((e): e is [string, string] => e[1] !== undefined);
  return { ...Object.fromEntries(own), ...changes };
}
