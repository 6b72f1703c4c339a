import type { Figure, Section } from '../figures.ts';
import type { StreamResult } from '../load/plan.ts';
import { createInstallation } from '../stage/installation.ts';
import { type BenchContext, connections, leadInMs, remarkUnexpected } from './context.ts';

const perSecond = 1_000;

/** How long a purchase waits for its acknowledgement at a steady rate, with everything running. */
export async function benchSteady(context: BenchContext): Promise<Section[]> {
  const { stage, generator, options, say } = context;
  const latchkey = await createInstallation(stage, 'steady');
  const target = latchkey.target(await latchkey.startApi());
  await latchkey.startDispatcher();
  await latchkey.startNoOpWorkers();
  const results: StreamResult[] = [];
  const applied: number[] = [];
  const measure = async (series: string, seconds: number): Promise<StreamResult> => {
    const [result] = await generator.run({
      target,
      streams: [
        {
          name: 'new orders',
          calls: { kind: 'new orders', series },
          pace: { kind: 'open', perSecond, connections: connections * 4 },
        },
      ],
      leadInMs,
      until: { ms: seconds * 1_000 },
    });
    if (!result) throw new Error('the generator gave no result');
    return result;
  };

  await measure('warm', 2);
  for (let round = 1; round <= Math.min(3, options.rounds); round += 1) {
    const [activeBefore, fromMs] = [await latchkey.countActive(), performance.now()];
    const result = await measure(`steady${round}x`, options.seconds);
    results.push(result);
    const seconds = (performance.now() - fromMs) / 1_000;
    applied.push(((await latchkey.countActive()) - activeBefore) / seconds);
    const { p50, p99, max } = result.latencyMs;
    say(`  round ${round}: p50 ${p50.toFixed(2)}, p99 ${p99.toFixed(2)}, max ${max.toFixed(1)} ms`);
  }
  await latchkey.close();

  const latency = (at: 'p50' | 'p99' | 'max', more: Partial<Figure> = {}): Figure => ({
    subject: at,
    values: results.map(({ latencyMs }) => latencyMs[at]),
    unit: 'ms',
    ...more,
  });
  return [
    {
      title: `Latency at ${perSecond} new orders/s, dispatcher and no-op workers running`,
      figures: [
        latency('p50'),
        latency('p99', { aim: { of: 'value', atMost: 10 } }),
        latency('max'),
        {
          subject: 'p99 of the generator itself',
          values: results.map(({ lagMs }) => lagMs.p99),
          unit: 'ms',
          note: 'part of the above',
        },
        { subject: 'answered', values: results.map((one) => one.perSecond), unit: '/s' },
        { subject: 'applied meanwhile', values: applied, unit: '/s' },
      ],
      remarks: [
        'Arrivals at random times (Poisson) that wait for nobody; latency counts from the time a call was due.',
        ...remarkUnexpected('new orders', results, '000004'),
      ],
    },
  ];
}
