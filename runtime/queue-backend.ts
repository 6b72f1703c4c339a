import {
  DelayedError,
  PostgresConnection,
  PostgresQueueBackend,
  Queue,
  UnrecoverableError,
  Worker,
  assertSchemaCompatibility,
  createRedisBackend,
  runMigrations,
} from 'bullmq';
import type {
  BackendFactory,
  ConnectionOptions,
  DefaultJobOptions,
  IQueueBackend,
  Job,
  JobProgress,
  PostgresConnectionOptions,
} from 'bullmq';
import { Redis } from 'ioredis';
import type { RedisOptions } from 'ioredis';
import pg from 'pg';
import { describeError } from './logger.ts';
import type { Logger } from './logger.ts';
import { RetryAt, backoffOf } from './queues.ts';

// BullMQ on Redis where there is one, else on Postgres. All differences between the two are here.

export type JobQueue<D = unknown> = Queue<D, unknown, string, D, unknown, string, IQueueBackend>;
type JobWorker<D = unknown> = Worker<D, unknown, string, IQueueBackend>;
export type Processor<D = unknown> = (
  job: Job<D, unknown, string>,
  signal?: AbortSignal,
) => Promise<unknown>;

export type QueueBackend = {
  kind: 'redis' | 'postgres';
  /**
   * Makes ready what the queues need: BullMQ's tables on Postgres; on Redis it waits a moment for
   * the connection, but does not fail without it. Call it before `createQueue`.
   */
  prepare(): Promise<void>;
  /** A producer. Its calls fail at once while the store is away. */
  createQueue<D>(name: string, options?: { jobOptions?: DefaultJobOptions }): JobQueue<D>;
  /**
   * A consumer. To have a job run again at a given time the processor throws `RetryAt`; to put it
   * into the failed set, BullMQ's `UnrecoverableError`. Any other error is logged and runs again.
   */
  createWorker<D>(name: string, processor: Processor<D>, options: WorkerOptions): JobWorker<D>;
  /** Closes all that was created, after the running jobs; never rejects. */
  close(): Promise<void>;
};

type WorkerOptions = {
  concurrency: number;
  /** A job of a worker that is silent for this long is given to another. */
  lockMs: number;
  /** How often such jobs are looked for. */
  stalledMs: number;
  autorun?: boolean;
};

export type QueueBackendOptions = {
  redisUrl?: string | undefined;
  /** Used where redisUrl is absent. */
  databaseUrl: string;
  /** Of the keys in Redis. On Postgres the schema is always `bullmq`. */
  prefix: string;
  /** Connections of each queue and of each worker on Postgres, which has one more for LISTEN. */
  poolMax: number;
  log: Logger;
};

type Kind = 'queue' | 'worker';

type Store = {
  kind: QueueBackend['kind'];
  prepare(): Promise<void>;
  factory(kind: Kind): BackendFactory<IQueueBackend>;
  close(): Promise<void>;
};

export function createQueueBackend(options: QueueBackendOptions): QueueBackend {
  const { log, prefix } = options;
  const store =
    options.redisUrl === undefined ? onPostgres(options) : onRedis(options.redisUrl, log);
  const opened: { close(): Promise<unknown> }[] = [];
  // Replaced by the store's own, which the factories know.
  const connection: ConnectionOptions = {};

  return {
    kind: store.kind,
    prepare: () => store.prepare(),
    createQueue<D>(name: string, { jobOptions }: { jobOptions?: DefaultJobOptions } = {}) {
      const queue: JobQueue<D> = new Queue(
        name,
        {
          connection,
          prefix,
          ...(jobOptions === undefined ? {} : { defaultJobOptions: jobOptions }),
          // On Redis a call would otherwise wait until there is a connection.
          ...(store.kind === 'redis' ? { skipWaitingForReady: true, skipVersionCheck: true } : {}),
        },
        store.factory('queue'),
      );
      reportConnection(queue, { queue: name, part: 'queue' }, log);
      opened.unshift(queue);
      return queue;
    },
    createWorker<D>(name: string, processor: Processor<D>, worker: WorkerOptions) {
      const created: JobWorker<D> = new Worker<D, unknown, string, IQueueBackend, JobProgress>(
        name,
        (job, _token, signal) => guard(job, processor, log, signal),
        {
          connection,
          prefix,
          concurrency: worker.concurrency,
          lockDuration: worker.lockMs,
          stalledInterval: worker.stalledMs,
          // Postgres counts how often a worker died on an instance; BullMQ must not judge first.
          maxStalledCount: 1_000_000,
          // Else a worker sleeps 15 s after each refused connection.
          runRetryDelay: 500,
          autorun: worker.autorun ?? true,
          settings: { backoffStrategy: (_made, _type, error) => backoffOf(error) },
        },
        store.factory('worker'),
      );
      reportConnection(created, { queue: name, part: 'worker' }, log);
      opened.unshift(created);
      return created;
    },
    async close() {
      // Each may fail alone (closing rejects while Redis is down); the rest must still close.
      const results = await Promise.allSettled(opened.map((one) => one.close()));
      results.push(...(await Promise.allSettled([store.close()])));
      for (const r of results)
        if (r.status === 'rejected') log.debug({ err: r.reason }, 'queue.close_failed');
    },
  };
}

// BullMQ keeps message and stack of an error in the job and shows them on its board. Only our own
// words may get there: drivers quote parameters.
async function guard<D>(
  job: Job<D, unknown, string>,
  processor: Processor<D>,
  log: Logger,
  signal: AbortSignal | undefined,
): Promise<unknown> {
  try {
    return await processor(job, signal);
  } catch (error) {
    if (
      error instanceof RetryAt ||
      error instanceof UnrecoverableError ||
      error instanceof DelayedError
    )
      throw error;
    log.error({ err: error, jobId: job.id, queue: job.queueName }, 'job.failed_unexpectedly');
    const { type, code } = describeError(error);
    throw new Error(`unexpected ${type}${code === undefined ? '' : ` ${code}`}, see the log`);
  }
}

type Reporting = {
  on(event: 'error', listener: (error: Error) => void): unknown;
  getBackend(): { on(event: 'ready', listener: () => void): unknown };
};

// A store that is away makes BullMQ emit many errors a second: one line when it goes, one when it
// is back. Without a listener BullMQ prints past the log.
function reportConnection(source: Reporting, about: { queue: string; part: Kind }, log: Logger) {
  let failing = false;
  source.on('error', (error) => {
    if (!isConnectionError(error)) {
      log.warn({ ...about, err: error }, 'queue.error');
    } else if (!failing) {
      failing = true;
      log.warn({ ...about, err: error }, 'queue.failing');
    }
  });
  source.getBackend().on('ready', () => {
    if (failing) log.info(about, 'queue.recovered');
    failing = false;
  });
}

// Node's codes, Postgres's classes 08 and 57P, and what pg and ioredis say without a code.
function isConnectionError(error: Error): boolean {
  const code = 'code' in error && typeof error.code === 'string' ? error.code : '';
  return (
    /^(E[A-Z]{4,}|57P\d\d|08\w{3})$/.test(code) ||
    /connection|timeout|timed out|isn't writeable/i.test(error.message)
  );
}

// ---- Redis

// First tries are quick, because most outages are restarts.
const retryStrategy = (times: number): number => Math.min(50 * 2 ** Math.min(times, 6), 2_000);

function onRedis(url: string, log: Logger): Store {
  const common = {
    retryStrategy,
    connectTimeout: 3_000,
    keepAlive: 10_000,
  } satisfies RedisOptions;
  // One connection for all producers of the process. It fails at once while Redis is away: what
  // could not be handed over stays due in Postgres, where the next round finds it.
  const producer = new Redis(url, {
    ...common,
    enableOfflineQueue: false,
    maxRetriesPerRequest: 1,
    // A half-open connection is given up after this.
    socketTimeout: 5_000,
    commandTimeout: 5_000,
  });
  producer.on('error', (error) => log.trace({ err: error }, 'redis.error'));
  const worker: ConnectionOptions = {
    ...common,
    url,
    // A worker outlives an outage instead of failing its jobs.
    maxRetriesPerRequest: null,
    // Longer than BullMQ's longest blocking call (10 s), or each idle wait would end the socket.
    socketTimeout: 30_000,
  };
  return {
    kind: 'redis',
    async prepare() {
      if (producer.status === 'ready') return;
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, 2_000);
        producer.once('ready', () => {
          clearTimeout(timer);
          resolve();
        });
      });
    },
    factory: (kind) => (name, opts, how) =>
      createRedisBackend(name, { ...opts, connection: kind === 'queue' ? producer : worker }, how),
    async close() {
      producer.disconnect();
    },
  };
}

// ---- Postgres

const SCHEMA = 'bullmq';

function onPostgres(options: QueueBackendOptions): Store {
  const connection = {
    connectionString: options.databaseUrl,
    schema: SCHEMA,
    max: options.poolMax,
    application_name: 'latchkey-queue',
    connectionTimeoutMillis: 3_000,
    statement_timeout: 5_000,
    // A half-open connection is given up after this.
    query_timeout: 6_000,
    keepAlive: true,
  };
  return {
    kind: 'postgres',
    async prepare() {
      const client = new pg.Client({
        connectionString: options.databaseUrl,
        connectionTimeoutMillis: 3_000,
      });
      client.on('error', () => undefined);
      try {
        await client.connect();
        await runMigrations(client, SCHEMA);
      } finally {
        await client.end();
      }
    },
    factory: () => (name, opts, how) => {
      const listenName =
        how?.withBlockingConnection === true
          ? name
          : how?.blocking === true
            ? `${name}:qe`
            : undefined;
      return new PostgresQueueBackend(
        new HealingConnection(connection),
        name,
        { ...opts, connection },
        true,
        listenName,
      );
    },
    close: () => Promise.resolve(),
  };
}

/**
 * BullMQ's connection remembers a failed first contact for ever: a queue that is created while
 * Postgres restarts would be dead until the process ends. This one asks again.
 */
class HealingConnection extends PostgresConnection {
  private checked: Promise<void> | undefined;

  constructor(options: PostgresConnectionOptions) {
    super(options);
    // Each new connection is a sign of life, also after an outage.
    this.pool.on('connect', (client) => {
      // Without a listener of its own a client that ends right after it was connected ends the process.
      client.on('error', () => undefined);
      this.emit('ready');
    });
  }

  override waitUntilReady(): Promise<void> {
    this.checked ??= this.check().catch((error: unknown) => {
      this.checked = undefined;
      throw error;
    });
    return this.checked;
  }

  private async check(): Promise<void> {
    const client = await this.pool.connect();
    try {
      await assertSchemaCompatibility(client, this.schema);
    } finally {
      client.release();
    }
  }
}
