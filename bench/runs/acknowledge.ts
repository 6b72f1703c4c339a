import type { Figure, Section } from '../figures.ts';
import type { StreamResult, Target } from '../load/plan.ts';
import { createBenchDatabase, createInstallation } from '../stage/installation.ts';
import { type BenchContext, measureFlood, remarkUnexpected } from './context.ts';

type Peer = { name: string; target: Target; results: StreamResult[] };

const warmUpSeconds = 1;

/** New orders acknowledged a second, by the receiver and by its peers, in turn. */
export async function benchAcknowledge(context: BenchContext): Promise<Section[]> {
  const { stage, options, say } = context;
  const latchkey = await createInstallation(stage, 'acknowledge');
  const api = await latchkey.startApi();
  const { products } = latchkey;
  const startPeer = async (module: URL, env: Record<string, string> = {}): Promise<Target> => {
    const peer = await stage.startChild(module, {
      env: { PEER_PRODUCTS: JSON.stringify(products), ...env },
    });
    return { port: peer.port, products };
  };
  const peers: Peer[] = [
    { name: 'Latchkey', target: latchkey.target(api), results: [] },
    {
      name: 'bare Hono',
      target: await startPeer(new URL('../peers/bare-hono.ts', import.meta.url)),
      results: [],
    },
    {
      name: 'no store',
      target: await startPeer(new URL('../peers/no-store.ts', import.meta.url)),
      results: [],
    },
    {
      name: 'naive',
      target: await startPeer(new URL('../peers/naive.ts', import.meta.url), {
        DATABASE_URL: await createBenchDatabase(stage, 'bench_naive'),
        ...(stage.redis ? { REDIS_URL: stage.redis.url } : {}),
      }),
      results: [],
    },
  ];
  const measure = async (peer: Peer, round: string, seconds?: number): Promise<StreamResult> => {
    const calls = { kind: 'new orders', series: `${round}${peers.indexOf(peer)}` } as const;
    const result = await measureFlood(context, peer.target, calls, seconds);
    say(`  ${peer.name}: ${Math.round(result.perSecond)} /s`);
    return result;
  };

  say('warm-up');
  for (const peer of peers) await measure(peer, 'w', warmUpSeconds);
  for (let round = 1; round <= options.rounds; round += 1) {
    say(`round ${round} of ${options.rounds}`);
    for (const peer of peers) peer.results.push(await measure(peer, `r${round}x`));
  }
  await latchkey.close();

  const ratesOf = (name: string) =>
    peers.find((peer) => peer.name === name)?.results.map(({ perSecond }) => perSecond) ?? [];
  const ours = ratesOf('Latchkey');
  const figures: Figure[] = [
    {
      subject: 'Latchkey',
      values: ours,
      unit: '/s',
      against: { subject: 'bare Hono', values: ratesOf('bare Hono') },
      aim: { of: 'ratio', atLeast: 0.65 },
    },
    {
      subject: 'Latchkey',
      values: ours,
      unit: '/s',
      against: { subject: 'naive', values: ratesOf('naive') },
      aim: { of: 'ratio', atLeast: 4 },
    },
    {
      subject: 'Latchkey',
      values: ours,
      unit: '/s',
      against: { subject: 'no store', values: ratesOf('no store') },
    },
    ...peers.slice(1).map(({ name }): Figure => ({
      subject: name,
      values: ratesOf(name),
      unit: '/s',
    })),
    ...peers.map(({ name, results }): Figure => ({
      subject: `p99 of ${name}`,
      values: results.map(({ latencyMs }) => latencyMs.p99),
      unit: 'ms',
    })),
  ];
  return [
    {
      title: 'Acknowledged new orders, 64 connections, neither dispatcher nor workers',
      figures,
      remarks: [
        'bare Hono: verify, parse and the same signed reply, nothing stored. ' +
          "no store: the same with the receiver's own reading and writing. " +
          'naive: zod, one transaction and one BullMQ job for each request.',
        ...peers.flatMap(({ name, results }) => remarkUnexpected(name, results, '000004')),
      ],
    },
    await benchBeside(context, ours),
  ];
}

/** The same with the rest of the system at work on the same machine. */
async function benchBeside(context: BenchContext, alone: readonly number[]): Promise<Section> {
  const { stage, options, say } = context;
  const rounds = Math.min(3, options.rounds);
  const latchkey = await createInstallation(stage, 'beside');
  const target = latchkey.target(await latchkey.startApi());
  const series = async (name: string): Promise<StreamResult[]> => {
    await measureFlood(context, target, { kind: 'new orders', series: `${name}w` }, warmUpSeconds);
    const results: StreamResult[] = [];
    for (let round = 1; round <= rounds; round += 1) {
      const calls = { kind: 'new orders', series: `${name}${round}x` } as const;
      const result = await measureFlood(context, target, calls);
      say(`  ${name}: ${Math.round(result.perSecond)} /s`);
      results.push(result);
    }
    return results;
  };
  say('beside the dispatcher, then beside dispatcher and workers');
  // Without workers the usual window would be full, and the dispatcher idle, after a moment; and
  // the sweep would look up each job of so large a window.
  const dispatcher = await latchkey.startDispatcher({
    WINDOW_MAX: '100000',
    TIMING_SWEEP_MS: '600000',
  });
  const withDispatcher = await series('d');
  await dispatcher.stop();
  await latchkey.startDispatcher();
  await latchkey.startNoOpWorkers();
  const activeBefore = await latchkey.countActive();
  const fromMs = performance.now();
  const withWorkers = await series('a');
  const appliedPerSecond =
    (await latchkey.countActive().then((active) => active - activeBefore)) /
    ((performance.now() - fromMs) / 1_000);
  await latchkey.close();

  const figureOf = (subject: string, results: readonly StreamResult[]): Figure => ({
    subject,
    values: results.map(({ perSecond }) => perSecond),
    unit: '/s',
    against: { subject: 'alone', values: alone },
  });
  return {
    title: 'Acknowledged new orders while the rest is at work',
    figures: [
      figureOf('with the dispatcher', withDispatcher),
      figureOf('with dispatcher and no-op workers', withWorkers),
    ],
    remarks: [
      `Meanwhile the workers applied ${Math.round(appliedPerSecond)} instances/s; the backlog stays in Postgres.`,
      ...remarkUnexpected('with the dispatcher', withDispatcher, '000004'),
      ...remarkUnexpected('with workers', withWorkers, '000004'),
    ],
  };
}
