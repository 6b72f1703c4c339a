import { afterAll, beforeAll, expect, inject, test } from 'vitest';
import { createMetrics } from '../../api/metrics.ts';
import { createApplyDurations } from '../../db/apply-durations.ts';
import { type FaultProxy, startFaultProxy } from '../servers/fault-proxy.ts';
import { until } from '../servers/until.ts';
import { type OpsServer, startOpsServer } from './ops-server.ts';

let server: OpsServer;
let proxy: FaultProxy;
beforeAll(async () => {
  proxy = await startFaultProxy({ port: Number(new URL(inject('postgresUrl')).port) });
  server = await startOpsServer({ through: (url) => proxy.through(url), withOperator: false });
  await server.db.pool.query(
    `insert into products (key, name, provisioner) values ('shop', 'Shop', 'http'), ('idle', 'Idle', 'http')`,
  );
});
afterAll(async () => {
  await proxy.set({ kind: 'pass' });
  await server.stop();
  await proxy.close();
});

const scrape = async (): Promise<string> => (await fetch(`${server.url}/metrics`)).text();

/** The value of a sample by its whole name with labels. */
function valueOf(text: string, sample: string): number | undefined {
  const line = text.split('\n').find((l) => l.startsWith(`${sample} `));
  return line === undefined ? undefined : Number(line.slice(sample.length + 1));
}

const unused = { onError: () => undefined, queues: [] };

test('callbacks, acknowledgements and losses are counted by product and activity', async () => {
  const { metrics } = server;
  const call = { product: 'shop', activity: 'newInstance' };
  metrics.callbackAnswered({ ...call, result: '000004' });
  metrics.callbackAnswered({ ...call, result: '000004' });
  metrics.callbackAnswered({ product: undefined, activity: 'unknown', result: '404' });
  metrics.acknowledged({ activity: 'newInstance', durationMs: 4 });
  metrics.refusedUnstored(call);
  const text = await scrape();
  const of = (name: string) => valueOf(text, name);
  const labels = 'product="shop",activity="newInstance"';
  expect(of(`latchkey_callbacks_total{${labels},result="000004"}`)).toBe(2);
  expect(of('latchkey_callbacks_total{product="unknown",activity="unknown",result="404"}')).toBe(1);
  expect(of(`latchkey_refused_unstored_total{${labels}}`)).toBe(1);
  const bucket = 'latchkey_acknowledge_duration_seconds_bucket';
  expect(of(`${bucket}{le="0.003",activity="newInstance"}`)).toBe(0);
  expect(of(`${bucket}{le="0.005",activity="newInstance"}`)).toBe(1);
  expect(of(`${bucket}{le="+Inf",activity="newInstance"}`)).toBe(1);
});

test('made-up activities do not become more and more time series', async () => {
  const metrics = createMetrics({ db: server.db.pool, ...unused });
  for (let i = 0; i < 1_000; i++) {
    metrics.callbackAnswered({ product: 'shop', activity: `made-up-${i}`, result: '000002' });
  }
  const lines = (await metrics.render())
    .split('\n')
    .filter((line) => line.startsWith('latchkey_callbacks_total{'));
  expect(lines.length).toBeLessThan(100);
  expect(lines.at(-1)).toContain('activity="other"');
});

test('what is due, dead, parked and waiting is read from the database, idle products as 0', async () => {
  await server.db.pool.query(`
    insert into dispatches (instance_id, product_id, due_at, state, retry_at) values
      (1, 1, now() - interval '90 seconds', 'due', null),
      (2, 1, now() - interval '1 second', 'due', null),
      (3, 1, now() + interval '1 hour', 'due', null),
      (4, 1, null, 'dead', null),
      (5, 1, null, 'timed', now() + interval '10 minutes'),
      (6, 1, null, 'failing', now() + interval '1 minute')`);
  const text = await createMetrics({ db: server.db.pool, ...unused }).render();
  const of = (name: string) => valueOf(text, name);
  expect(of('latchkey_due_instances{queue="provisioning"}')).toBe(2);
  expect(of('latchkey_due_instances{queue="order-lookup"}')).toBe(0);
  expect(of('latchkey_oldest_due_seconds{queue="provisioning"}')).toBeGreaterThanOrEqual(90);
  expect(of('latchkey_oldest_due_seconds{queue="provisioning"}')).toBeLessThan(120);
  expect(of('latchkey_dead_letters{product="shop"}')).toBe(1);
  expect(of('latchkey_dead_letters{product="idle"}')).toBe(0);
  expect(of('latchkey_parked_instances{product="shop"}')).toBe(1);
  expect(of('latchkey_waiting_retries{product="shop"}')).toBe(2);
  expect(of('latchkey_scrape_ok{store="database"}')).toBe(1);
});

test('jobs are counted by queue and state', async () => {
  await server.queues[0]?.add('created', {}, { jobId: 'look-1-1', delay: 3_600_000 });
  await until(
    async () =>
      valueOf(await scrape(), 'latchkey_queue_jobs{queue="provisioning",state="delayed"}'),
    1,
  );
});

test('durations that two workers measured add up to one histogram', async () => {
  const workers = [createApplyDurations(server.db.pool), createApplyDurations(server.db.pool)];
  for (const [i, worker] of workers.entries()) {
    for (const durationMs of [3, 30, 400, 120_000]) {
      worker.observe({ productId: 1, outcome: 'applied', durationMs });
    }
    worker.observe({ productId: 1, outcome: 'transient', durationMs: 5 + i });
  }
  await Promise.all(workers.map((worker) => worker.flush()));
  // Nothing is left to add.
  await Promise.all(workers.map((worker) => worker.flush()));
  const text = await createMetrics({ db: server.db.pool, ...unused }).render();
  const name = 'latchkey_apply_duration_seconds';
  const labels = 'product="shop",outcome="applied"';
  const counts = ['0.01', '0.05', '0.25', '0.5', '60', '+Inf'].map((le) =>
    valueOf(text, `${name}_bucket{${labels},le="${le}"}`),
  );
  expect(counts).toEqual([2, 4, 4, 6, 6, 8]);
  expect(valueOf(text, `${name}_count{${labels}}`)).toBe(8);
  expect(valueOf(text, `${name}_sum{${labels}}`)).toBeCloseTo(240.866, 3);
  expect(valueOf(text, `${name}_count{product="shop",outcome="transient"}`)).toBe(2);
});

test('workers that flush at the same moment do not stop each other, and nothing is lost', async () => {
  const rounds = 20;
  const workers = Array.from({ length: 4 }, () => createApplyDurations(server.db.pool));
  for (let round = 0; round < rounds; round++) {
    for (const worker of workers) {
      for (const outcome of ['a', 'b', 'c', 'd']) {
        for (const durationMs of [1, 20, 200, 2_000]) {
          worker.observe({ productId: 2, outcome, durationMs });
        }
      }
    }
    await Promise.all(workers.map((worker) => worker.flush()));
  }
  const { rows } = await server.db.pool.query<{ total: number }>(
    'select sum(count)::int as total from apply_durations where product_id = 2',
  );
  expect(rows[0]?.total).toBe(rounds * workers.length * 16);
});

test('counts that could not be flushed are flushed the next time', async () => {
  let isAway = true;
  const durations = createApplyDurations({
    query: ((...args: Parameters<typeof server.db.pool.query>) =>
      isAway ? Promise.reject(new Error('away')) : server.db.pool.query(...args)) as never,
  });
  durations.observe({ productId: 1, outcome: 'contract', durationMs: 1 });
  await expect(durations.flush()).rejects.toThrow('away');
  durations.observe({ productId: 1, outcome: 'contract', durationMs: 1 });
  isAway = false;
  await durations.flush();
  const { rows } = await server.db.pool.query(
    `select count::int as count from apply_durations where outcome = 'contract'`,
  );
  expect(rows).toEqual([{ count: 2 }]);
});

test('with the database away metrics still come in time, without stale figures', async () => {
  server.metrics.callbackAnswered({
    product: 'shop',
    activity: 'releaseInstance',
    result: '000005',
  });
  await proxy.set({ kind: 'black-hole' });
  const text = await until(scrape, (t) => t.includes('latchkey_scrape_ok{store="database"} 0'));
  const began = performance.now();
  expect(await scrape()).toContain('result="000005"');
  expect(performance.now() - began).toBeLessThan(2_500);
  expect(text).not.toContain('latchkey_due_instances{');
  expect(text).not.toContain('latchkey_dead_letters{');
  await proxy.set({ kind: 'pass' });
  await until(
    async () => (await scrape()).includes('latchkey_scrape_ok{store="database"} 1'),
    true,
    {
      timeoutMs: 20_000,
    },
  );
});

test('with the queues away metrics still come in time', async () => {
  for (const getJobCounts of [
    () => Promise.reject(new Error('away')),
    () => new Promise<never>(() => undefined),
  ]) {
    const queues = [{ name: 'provisioning', getJobCounts }];
    const metrics = createMetrics({ db: server.db.pool, queues, onError: () => undefined });
    const began = performance.now();
    const text = await metrics.render();
    expect(performance.now() - began).toBeLessThan(2_500);
    expect(valueOf(text, 'latchkey_scrape_ok{store="queues"}')).toBe(0);
    expect(valueOf(text, 'latchkey_scrape_ok{store="database"}')).toBe(1);
    expect(text).not.toContain('latchkey_queue_jobs{');
  }
});

test('with a token only its bearer reads the metrics', async () => {
  const closed = await startOpsServer({ metricsToken: 'a-token-of-16-chars', withOperator: false });
  try {
    const status = async (headers: Record<string, string>) =>
      (await fetch(`${closed.url}/metrics`, { headers })).status;
    expect(await status({})).toBe(401);
    expect(await status({ authorization: 'Bearer a-token-of-16-charX' })).toBe(401);
    expect(await status({ authorization: 'Bearer a-token-of-16-chars' })).toBe(200);
  } finally {
    await closed.stop();
  }
});

test('the text is what Prometheus reads', async () => {
  const response = await fetch(`${server.url}/metrics`);
  expect(response.headers.get('content-type')).toBe('text/plain; version=0.0.4; charset=utf-8');
  const lines = (await response.text()).split('\n').filter((line) => line !== '');
  const sample = /^[a-z_]+(\{[a-z]+="[^"\\]*"(,[a-z]+="[^"\\]*")*\})? -?[\d.e+-]+$/;
  for (const line of lines) expect(line).toMatch(line.startsWith('#') ? /^# (HELP|TYPE) / : sample);
  const types = lines
    .filter((line) => line.startsWith('# TYPE '))
    .map((line) => line.split(' ')[2]);
  expect(new Set(types).size).toBe(types.length);
});
