import { createHash, timingSafeEqual } from 'node:crypto';
import { Hono } from 'hono';
import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import { type ApplyHistogram, readApplyHistograms } from '../db/apply-durations.ts';
import type { Queryable } from '../db/client.ts';
import { type WorkGauges, readWorkGauges } from '../db/health.ts';
import { createBoundedRead } from './bounded-read.ts';
import { type ReadClockSkew, createClockSkew } from './clock-skew.ts';

/**
 * What the receiver reports. A product is the key of a known one, else `unknown`: what strangers
 * send must not become a label, and an order's id never is one.
 */
export type Metrics = {
  /** A call that was answered; `result` is the result code, or the HTTP status where there is none. */
  callbackAnswered(call: { product: string | undefined; activity: string; result: string }): void;
  /** From the first byte to the answer. */
  acknowledged(call: { activity: string; durationMs: number }): void;
  /** A verified callback that could not be stored; License V1 never sends it again. */
  refusedUnstored(call: { product: string | undefined; activity: string }): void;
  /** A verified call's time here minus its signed time: how far the clocks are apart, and the way. */
  clockCompared(call: { skewMs: number }): void;
  /** Prometheus text: this process's own figures, and those of the whole system from its stores. */
  render(): Promise<string>;
  contentType: string;
};

/** What the gauges need of a queue; BullMQ's Queue has it. */
export type CountedQueue = { name: string; getJobCounts(): Promise<Record<string, number>> };

const acknowledgeBucketsSeconds = [
  0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5,
];

/**
 * @param queues counted at scrape; may be empty
 * @param onError why a store could not be read, for the log; its figures are then left out and
 *   `latchkey_scrape_ok` is 0
 * @param now in milliseconds
 */
export function createMetrics(options: {
  db: Queryable;
  queues: readonly CountedQueue[];
  onError: (error: unknown) => void;
  now?: () => number;
}): Metrics {
  const { db, queues, onError, now = Date.now } = options;
  const registers = [new Registry()];
  const [registry] = registers as [Registry];
  const own = createOwnMetrics(registers);
  const shared = createSharedGauges(registers);
  const clock = createClockSkew(now);
  const activity = createLabelGuard(64);
  const product = createLabelGuard(10_000);
  const result = createLabelGuard(64);

  const bounds = { timeoutMs: 1_000, cacheMs: 2_000, now, onError };
  const readDatabase = createBoundedRead({
    ...bounds,
    read: async () => ({
      work: await readWorkGauges(db),
      applies: await readApplyHistograms(db),
    }),
  });
  const readQueues = createBoundedRead({
    ...bounds,
    read: () =>
      Promise.all(
        queues.map(async (queue) => ({ queue: queue.name, counts: await queue.getJobCounts() })),
      ),
  });

  return {
    callbackAnswered(call) {
      own.callbacks.inc({
        product: product(call.product),
        activity: activity(call.activity),
        result: result(call.result),
      });
    },
    acknowledged(call) {
      own.acknowledge.observe({ activity: activity(call.activity) }, call.durationMs / 1_000);
    },
    refusedUnstored(call) {
      own.refusedUnstored.inc({
        product: product(call.product),
        activity: activity(call.activity),
      });
    },
    clockCompared({ skewMs }) {
      clock.measure(skewMs);
    },
    async render() {
      const [database, jobs] = await Promise.all([readDatabase(), readQueues()]);
      showWork(shared, database === 'unavailable' ? undefined : database.work);
      showJobs(shared, jobs === 'unavailable' ? undefined : jobs);
      showClock(own.clockSkew, clock.read());
      const applies = database === 'unavailable' ? [] : database.applies;
      return (await registry.metrics()) + renderApplies(applies);
    },
    contentType: registry.contentType,
  };
}

/** GET /metrics; with a token only for those who bear it. */
export function createMetricsRoutes(options: {
  metrics: Pick<Metrics, 'render' | 'contentType'>;
  token?: string | undefined;
}): Hono {
  const { metrics, token } = options;
  const app = new Hono();
  app.get('/metrics', async (c) => {
    if (token !== undefined && !isSame(c.req.header('authorization') ?? '', `Bearer ${token}`)) {
      const challenge = { 'www-authenticate': 'Bearer realm="metrics"' };
      return c.text('METRICS_TOKEN is set: send it as a bearer token\n', 401, challenge);
    }
    const headers = { 'content-type': metrics.contentType, 'cache-control': 'no-store' };
    return c.body(await metrics.render(), 200, headers);
  });
  return app;
}

function isSame(got: string, wanted: string): boolean {
  const digest = (text: string): Buffer => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(got), digest(wanted));
}

function createOwnMetrics(registers: Registry[]) {
  return {
    callbacks: new Counter({
      registers,
      name: 'latchkey_callbacks_total',
      help: 'Calls of the marketplace that this process answered',
      labelNames: ['product', 'activity', 'result'],
    }),
    acknowledge: new Histogram({
      registers,
      name: 'latchkey_acknowledge_duration_seconds',
      help: 'From the first byte of a call to its answer',
      labelNames: ['activity'],
      buckets: acknowledgeBucketsSeconds,
    }),
    refusedUnstored: new Counter({
      registers,
      name: 'latchkey_refused_unstored_total',
      help: 'Verified callbacks that could not be stored and were answered 000005',
      labelNames: ['product', 'activity'],
    }),
    clockSkew: new Gauge({
      registers,
      name: 'latchkey_clock_skew_seconds',
      help: "Time here minus the marketplace's signed time, of verified calls lately; refused at 60",
      labelNames: ['of'],
    }),
  };
}

/** While nobody called lately there is nothing to say. */
function showClock(gauge: Gauge<'of'>, skew: ReadClockSkew | undefined): void {
  gauge.reset();
  if (!skew) return;
  gauge.set({ of: 'median' }, skew.medianMs / 1_000);
  gauge.set({ of: 'min' }, skew.minMs / 1_000);
  gauge.set({ of: 'max' }, skew.maxMs / 1_000);
}

type SharedGauges = ReturnType<typeof createSharedGauges>;

function createSharedGauges(registers: Registry[]) {
  const gauge = <L extends string>(name: string, help: string, ...labelNames: L[]) =>
    new Gauge<L>({ registers, name, help, labelNames });
  return {
    due: gauge('latchkey_due_instances', 'Instances that are due and not handed over', 'queue'),
    oldestDue: gauge(
      'latchkey_oldest_due_seconds',
      'How long the oldest due instance has waited to be handed over',
      'queue',
    ),
    deadLetters: gauge('latchkey_dead_letters', 'Dispatches that wait for a redrive', 'product'),
    parked: gauge(
      'latchkey_parked_instances',
      "Dispatches that wait for a time or for a seller's completion call",
      'product',
    ),
    waitingRetries: gauge(
      'latchkey_waiting_retries',
      'Dispatches that wait to be tried again',
      'product',
    ),
    jobs: gauge('latchkey_queue_jobs', "Jobs in BullMQ's queues", 'queue', 'state'),
    scrapeOk: gauge(
      'latchkey_scrape_ok',
      'Whether the store answered; if not, its figures are left out',
      'store',
    ),
  };
}

/** Old figures would look like calm: what could not be read is left out. */
function showWork(gauges: SharedGauges, work: WorkGauges | undefined): void {
  const { due, oldestDue, deadLetters, parked, waitingRetries, scrapeOk } = gauges;
  for (const gauge of [due, oldestDue, deadLetters, parked, waitingRetries]) gauge.reset();
  scrapeOk.set({ store: 'database' }, work ? 1 : 0);
  for (const row of work?.queues ?? []) {
    due.set({ queue: row.queue }, row.due);
    oldestDue.set({ queue: row.queue }, row.oldestDueSeconds);
  }
  for (const row of work?.products ?? []) {
    deadLetters.set({ product: row.product }, row.deadLetters);
    parked.set({ product: row.product }, row.parked);
    waitingRetries.set({ product: row.product }, row.waitingRetries);
  }
}

function showJobs(
  { jobs, scrapeOk }: SharedGauges,
  counted: { queue: string; counts: Record<string, number> }[] | undefined,
): void {
  jobs.reset();
  scrapeOk.set({ store: 'queues' }, counted ? 1 : 0);
  for (const { queue, counts } of counted ?? []) {
    for (const [state, count] of Object.entries(counts)) jobs.set({ queue, state }, count);
  }
}

/** Written by hand, because a Histogram of prom-client can only be fed one observation at a time. */
function renderApplies(applies: readonly ApplyHistogram[]): string {
  const name = 'latchkey_apply_duration_seconds';
  const lines = [
    `# HELP ${name} How long applies took, of all workers`,
    `# TYPE ${name} histogram`,
  ];
  for (const { product, outcome, buckets, sumSeconds } of applies) {
    const labels = `product="${escapeLabel(product)}",outcome="${escapeLabel(outcome)}"`;
    for (const { le, count } of buckets) {
      lines.push(`${name}_bucket{${labels},le="${le === Infinity ? '+Inf' : le}"} ${count}`);
    }
    lines.push(`${name}_sum{${labels}} ${sumSeconds}`);
    lines.push(`${name}_count{${labels}} ${buckets.at(-1)?.count ?? 0}`);
  }
  return `\n${lines.join('\n')}\n`;
}

function escapeLabel(text: string): string {
  return text.replaceAll('\\', '\\\\').replaceAll('\n', '\\n').replaceAll('"', '\\"');
}

/** Lets so many values through and calls the rest `other`: each one costs memory for ever. */
function createLabelGuard(max: number): (value: string | undefined) => string {
  const known = new Set<string>();
  return (value) => {
    if (value === undefined || value === '') return 'unknown';
    if (known.has(value)) return value;
    if (known.size >= max) return 'other';
    known.add(value);
    return value;
  };
}
