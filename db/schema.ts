import { sql } from 'drizzle-orm';
import {
  bigint,
  bigserial,
  boolean,
  customType,
  doublePrecision,
  foreignKey,
  index,
  integer,
  jsonb,
  pgSequence,
  pgTable,
  primaryKey,
  serial,
  text,
  timestamp,
  unique,
  uuid,
} from 'drizzle-orm/pg-core';
import type { DispatchState, InstanceState, QueueName, WantedState } from '../core/instance.ts';
import type { EventKind } from '../core/events.ts';
import type { ProvisionerName } from '../core/provisioner.ts';

const bytea = customType<{ data: Buffer }>({ dataType: () => 'bytea' });
const at = (name: string) => timestamp(name, { withTimezone: true });
const id64 = (name: string) => bigint(name, { mode: 'number' });

/** Fences and dispatch numbers: one sequence, so that a later claim or dispatch is always greater. */
export const fenceSequence = pgSequence('fences');

/** What a seller sells through us: one address of the marketplace, one way to make it real. */
export const products = pgTable('products', {
  id: serial().primaryKey(),
  key: text().notNull().unique('products_key'),
  name: text().notNull(),
  family: text().notNull().default('saas-v2'),
  provisioner: text().$type<ProvisionerName>().notNull(),
  /** Only for http: the base address of the seller's backend. */
  httpUrl: text('http_url'),
  httpSecretEnc: bytea('http_secret_enc'),
  /** Where buyers go, with {instanceId}; null means our own page. */
  frontEndUrl: text('front_end_url'),
  /** A second secret signs too while the seller's backend changes from one to the other. */
  httpSecretNextEnc: bytea('http_secret_next_enc'),
  /** Only for module: the path of the seller's ES module. */
  modulePath: text('module_path'),
  charging: text()
    .$type<'period' | 'one-time' | 'pay-per-use' | 'package'>()
    .notNull()
    .default('period'),
  /** Address of the marketplace's order API; null means that purchases stand for themselves. */
  openApiUrl: text('open_api_url'),
  /** What changeInstanceCheck is answered: asked of the backend, or always the same. */
  changeRule: text('change_rule').$type<'allow' | 'refuse' | 'ask'>().notNull().default('allow'),
  /** When the backend does not answer a check in time. */
  checkOnFailure: text('check_on_failure').$type<'allow' | 'refuse'>().notNull().default('allow'),
  /** Days between a release and the loss of what a tenant holds. */
  releaseGraceDays: integer('release_grace_days').notNull().default(0),
  /** While set nothing is applied; callbacks are acknowledged all the same. */
  pausedAt: at('paused_at'),
  /** At most so many applies at once; null means a quarter of a worker's slots. */
  inFlightMax: integer('in_flight_max'),
  createdAt: at('created_at').notNull().defaultNow(),
});

/** The keys that the marketplace signs with; retired ones stay as evidence of who signed what. */
export const productKeys = pgTable(
  'product_keys',
  {
    id: serial().primaryKey(),
    productId: integer('product_id')
      .notNull()
      .references(() => products.id),
    class: text().$type<'base' | 'kit' | 'license' | 'general' | 'open-api'>().notNull(),
    /** Only for open-api: the public half (AK) of the pair. */
    accessKeyId: text('access_key_id'),
    secretEnc: bytea('secret_enc').notNull(),
    createdAt: at('created_at').notNull().defaultNow(),
    retiredAt: at('retired_at'),
  },
  (t) => [index('product_keys_product').on(t.productId)],
);

/** Keys that seal data, each wrapped by the master key whose id it names. */
export const dataKeys = pgTable('data_keys', {
  id: serial().primaryKey(),
  /** `product/{id}` for access data and secrets, `product/{id}/{yyyy-mm}` for evidence. */
  scope: text().notNull().unique('data_keys_one_a_scope'),
  wrapped: bytea().notNull(),
  masterKeyId: text('master_key_id').notNull(),
  createdAt: at('created_at').notNull().defaultNow(),
});

/**
 * Every verified callback that asked for something, as evidence, and the memory of which signed
 * bytes were here before: time and nonce are under the signature, so the key names the bytes.
 * Partitioned by day; the body is sealed.
 */
export const callbacks = pgTable(
  'callbacks',
  {
    signedAt: at('signed_at').notNull(),
    signature: bytea().notNull(),
    id: uuid().notNull(),
    productId: integer('product_id').notNull(),
    keyId: integer('key_id').notNull(),
    family: text().notNull(),
    activity: text().notNull(),
    orderKey: text('order_key'),
    query: bytea(),
    body: bytea(),
    receivedAt: at('received_at').notNull().defaultNow(),
  },
  (t) => [primaryKey({ name: 'callbacks_same_bytes', columns: [t.signedAt, t.signature] })],
);

/** Queries, checks and test calls: only the memory for replays. Partitioned by day, kept a week. */
export const reads = pgTable(
  'reads',
  {
    signedAt: at('signed_at').notNull(),
    signature: bytea().notNull(),
    id: uuid().notNull(),
    productId: integer('product_id').notNull(),
    activity: text().notNull(),
    receivedAt: at('received_at').notNull().defaultNow(),
  },
  (t) => [primaryKey({ name: 'reads_same_bytes', columns: [t.signedAt, t.signature] })],
);

/** What a buyer gets, one for each order key. A row is born with the first callback and never dies. */
export const instances = pgTable(
  'instances',
  {
    id: bigserial({ mode: 'number' }).primaryKey(),
    productId: integer('product_id').notNull(),
    orderKey: text('order_key').notNull(),
    publicId: text('public_id').notNull(),
    orderId: text('order_id').notNull(),
    orderLineId: text('order_line_id'),
    firstCallback: uuid('first_callback'),
    state: text().$type<InstanceState>().notNull().default('pending'),
    /** Only for refused: what the marketplace is told. */
    resultCode: text('result_code'),
    wanted: text().$type<WantedState>().notNull().default('serving'),
    /** Numbers the status events, which carry no key of their own. */
    statusChanges: integer('status_changes').notNull().default(0),
    /** The generation that was last made real. */
    applied: integer().notNull().default(0),
    expiresAt: at('expires_at'),
    plan: jsonb(),
    accessEnc: bytea('access_enc'),
    aliasOf: id64('alias_of'),
    createdAt: at('created_at').notNull().defaultNow(),
  },
  (t) => [
    // The marketplace re-sends until it is answered, so one purchase arrives many times.
    // This key is what makes "bought" mean "bought once"; the queue only speeds things up.
    unique('instances_order_key').on(t.productId, t.orderKey),
    unique('instances_public_id').on(t.productId, t.publicId),
    index('instances_order').on(t.orderId),
    foreignKey({ name: 'instances_alias', columns: [t.aliasOf], foreignColumns: [t.id] }),
  ],
);

/** Append-only: what was asked of each instance, in the order of acceptance. */
export const events = pgTable(
  'events',
  {
    id: bigserial({ mode: 'number' }).primaryKey(),
    instanceId: id64('instance_id').notNull(),
    kind: text().$type<EventKind>().notNull(),
    dedupKey: text('dedup_key').notNull(),
    orderId: text('order_id'),
    orderLineId: text('order_line_id'),
    detail: jsonb(),
    callbackId: uuid('callback_id'),
    signedAt: at('signed_at'),
    acceptedAt: at('accepted_at').notNull().defaultNow(),
    /** When all that it means became known; null while the marketplace's order is to be looked up. */
    resolvedAt: at('resolved_at'),
    appliedAt: at('applied_at'),
    outcome: text().$type<'applied' | 'moot' | 'skipped'>(),
  },
  (t) => [
    // One fact arrives many times and counts once, for ever.
    unique('events_one_fact').on(t.instanceId, t.dedupKey),
    index('events_open')
      .on(t.instanceId, t.id)
      .where(sql`applied_at is null`),
    index('events_order').on(t.orderId),
  ],
);

/**
 * One row for each instance with open events or a timer, none for idle ones. The only place where
 * callbacks, dispatcher, workers, sweep and operators meet; every decision is made from this row.
 */
export const dispatches = pgTable(
  'dispatches',
  {
    instanceId: id64('instance_id').primaryKey(),
    productId: integer('product_id').notNull(),
    queue: text().$type<QueueName>().notNull().default('provisioning'),
    openEvents: integer('open_events').notNull().default(1),
    /** When the present run of tries began: at acceptance, at a newer event, at a redrive. */
    since: at('since').notNull().defaultNow(),
    dueAt: at('due_at'),
    /** Number of the hand-over; a job that carries an older one has nothing to do. */
    dispatch: id64('dispatch').notNull().default(0),
    dispatchedAt: at('dispatched_at'),
    retryAt: at('retry_at'),
    leaseUntil: at('lease_until'),
    fence: id64('fence').notNull().default(0),
    claims: integer().notNull().default(0),
    attempts: integer().notNull().default(0),
    state: text().$type<DispatchState>().notNull().default('due'),
    cause: text(),
    /** A worker woke late: whatever it did, the newest state must come last. */
    putAgain: boolean('put_again').notNull().default(false),
  },
  (t) => [
    index('dispatches_due')
      .on(t.queue, t.productId, t.dueAt)
      .where(sql`due_at is not null`),
    index('dispatches_dead')
      .on(t.productId, t.cause)
      .where(sql`state = 'dead'`),
    index('dispatches_handed')
      .on(t.queue, t.productId, t.dispatchedAt)
      .where(sql`dispatched_at is not null`),
    index('dispatches_leased')
      .on(t.productId, t.leaseUntil)
      .where(sql`lease_until is not null`),
    index('dispatches_waiting')
      .on(t.retryAt)
      .where(sql`retry_at is not null`),
  ],
);

/** Transient failures in a row, for the breaker of each product's queue; shared by all workers. */
export const productQueues = pgTable(
  'product_queues',
  {
    productId: integer('product_id').notNull(),
    queue: text().$type<QueueName>().notNull(),
    failuresRunning: integer('failures_running').notNull().default(0),
  },
  (t) => [primaryKey({ columns: [t.productId, t.queue] })],
);

/** The marketplace's own record of an order, sealed because it names the buyer. */
export const orders = pgTable(
  'orders',
  {
    productId: integer('product_id').notNull(),
    orderId: text('order_id').notNull(),
    replyEnc: bytea('reply_enc').notNull(),
    fetchedAt: at('fetched_at').notNull().defaultNow(),
  },
  (t) => [primaryKey({ columns: [t.productId, t.orderId] })],
);

/** Until when an access key of the marketplace's API may not be used; shared by all workers. */
export const openApiLimits = pgTable('open_api_limits', {
  key: text().primaryKey(),
  points: integer().notNull(),
  expire: at('expire'),
});

/** Keys of sellers' programs for /v1; known to them alone, here stands the hash. */
export const apiKeys = pgTable(
  'api_keys',
  {
    id: serial().primaryKey(),
    productId: integer('product_id')
      .notNull()
      .references(() => products.id),
    scopes: text().array().notNull(),
    hash: bytea().notNull().unique('api_keys_hash'),
    createdAt: at('created_at').notNull().defaultNow(),
    retiredAt: at('retired_at'),
    lastUsedAt: at('last_used_at'),
  },
  (t) => [index('api_keys_product').on(t.productId)],
);

/** Each try to apply, written before it begins, so that a release knows whether something may be out there. */
export const attempts = pgTable(
  'attempts',
  {
    began: at('began').notNull(),
    fence: id64('fence').notNull(),
    instanceId: id64('instance_id').notNull(),
    productId: integer('product_id').notNull(),
    generation: integer().notNull(),
    no: integer().notNull(),
    kind: text().$type<'apply' | 'look-up'>().notNull(),
    worker: text().notNull(),
    target: text().notNull(),
    ended: at('ended'),
    /** Null while it runs; then applied, stale, refused, the class of the failure, or lost with its claim. */
    class: text(),
    httpStatus: integer('http_status'),
    saidEnc: bytea('said_enc'),
    retryAt: at('retry_at'),
  },
  (t) => [
    primaryKey({ columns: [t.began, t.fence] }),
    index('attempts_instance').on(t.instanceId, t.began),
    index('attempts_target').on(t.target, t.began),
  ],
);

/** What the marketplace was answered about an instance, equal answers in a row as one. */
export const replies = pgTable(
  'replies',
  {
    instanceId: id64('instance_id').notNull(),
    activity: text().notNull(),
    resultCode: text('result_code').notNull(),
    bodyHash: bytea('body_hash').notNull(),
    firstAt: at('first_at').notNull(),
    lastAt: at('last_at').notNull(),
    times: integer().notNull().default(1),
  },
  (t) => [index('replies_instance').on(t.instanceId, t.firstAt)],
);

/** A sample of refused calls, so that a seller who connects can read why. */
export const refusals = pgTable(
  'refusals',
  {
    id: bigserial({ mode: 'number' }).primaryKey(),
    productId: integer('product_id').notNull(),
    at: at('at').notNull().defaultNow(),
    resultCode: text('result_code').notNull(),
    reason: text().notNull(),
    times: integer().notNull().default(1),
  },
  (t) => [index('refusals_product').on(t.productId, t.at)],
);

export const operators = pgTable('operators', {
  id: serial().primaryKey(),
  name: text().notNull().unique('operators_name'),
  passwordHash: text('password_hash').notNull(),
  createdAt: at('created_at').notNull().defaultNow(),
  passwordSetAt: at('password_set_at').notNull().defaultNow(),
});

/** A session's token is known to the browser alone; here stands its hash. */
export const sessions = pgTable(
  'sessions',
  {
    tokenHash: bytea('token_hash').primaryKey(),
    operatorId: integer('operator_id')
      .notNull()
      .references(() => operators.id),
    createdAt: at('created_at').notNull().defaultNow(),
    expiresAt: at('expires_at').notNull(),
  },
  (t) => [index('sessions_expiry').on(t.expiresAt)],
);

/** Who did what, when and why; written in the transaction of the act. */
export const audit = pgTable(
  'audit',
  {
    id: bigserial({ mode: 'number' }).primaryKey(),
    at: at('at').notNull().defaultNow(),
    actor: text().notNull(),
    act: text().notNull(),
    subject: text().notNull(),
    reason: text(),
    detail: jsonb(),
  },
  (t) => [index('audit_time').on(t.at)],
);

/** Counts of login attempts; the shape that the rate limiter expects. */
export const loginAttempts = pgTable('login_attempts', {
  key: text().primaryKey(),
  points: integer().notNull(),
  expire: at('expire'),
});

/** How long applies took: what workers measure and the api shows, as counts that only grow. */
export const applyDurations = pgTable(
  'apply_durations',
  {
    productId: integer('product_id').notNull(),
    outcome: text().notNull(),
    /** Upper bound in seconds; Infinity for the rest. Each row counts its own bucket alone. */
    bucketLe: doublePrecision('bucket_le').notNull(),
    count: id64('count').notNull(),
    sumSeconds: doublePrecision('sum_seconds').notNull(),
  },
  (t) => [primaryKey({ columns: [t.productId, t.outcome, t.bucketLe] })],
);
