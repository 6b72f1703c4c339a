import type { Figure, Section } from '../figures.ts';
import type { Stream, StreamResult } from '../load/plan.ts';
import { createInstallation } from '../stage/installation.ts';
import { type BenchContext, connections, leadInMs, remarkUnexpected } from './context.ts';

const validPerSecond = 500;
const badPerSecond = 1_000;

/** What strangers who cannot sign cost those who can. */
export async function benchBadSignatures(context: BenchContext): Promise<Section[]> {
  const { stage, generator, options, say } = context;
  const latchkey = await createInstallation(stage, 'bad');
  const target = latchkey.target(await latchkey.startApi());
  const valid = (series: string): Stream => ({
    name: 'valid',
    calls: { kind: 'new orders', series },
    pace: { kind: 'open', perSecond: validPerSecond, connections: connections * 4 },
  });
  const bad = (series: string): Stream => ({
    name: 'bad',
    calls: { kind: 'bad signatures', series },
    // A bad call may be kept waiting for keys read anew, so many are open at once.
    pace: { kind: 'open', perSecond: badPerSecond, connections: connections * 10 },
  });
  const measure = async (streams: readonly Stream[], seconds = options.seconds) => {
    const results = await generator.run({
      target,
      streams,
      leadInMs,
      until: { ms: seconds * 1_000 },
    });
    const [first, second] = results;
    if (!first) throw new Error('the generator gave no result');
    return { valid: first, bad: second };
  };

  await measure([valid('warm'), bad('wb')], 1);
  const alone: StreamResult[] = [];
  const beside: StreamResult[] = [];
  const refused: StreamResult[] = [];
  for (let round = 1; round <= Math.min(3, options.rounds); round += 1) {
    const quiet = await measure([valid(`quiet${round}x`)]);
    const noisy = await measure([valid(`noisy${round}x`), bad(`bad${round}x`)]);
    alone.push(quiet.valid);
    beside.push(noisy.valid);
    if (noisy.bad) refused.push(noisy.bad);
    say(
      `  round ${round}: p99 ${quiet.valid.latencyMs.p99.toFixed(2)} ms alone, ` +
        `${noisy.valid.latencyMs.p99.toFixed(2)} ms beside bad calls`,
    );
  }
  await latchkey.close();

  const figureOf = (
    subject: string,
    results: readonly StreamResult[],
    at: 'p50' | 'p99',
    more: Partial<Figure> = {},
  ): Figure => ({
    subject: `${at} of valid calls, ${subject}`,
    values: results.map(({ latencyMs }) => latencyMs[at]),
    unit: 'ms',
    ...more,
  });
  const against = { subject: 'alone', values: alone.map(({ latencyMs }) => latencyMs.p99) };
  return [
    {
      title: `${badPerSecond} bad signatures/s beside ${validPerSecond} valid new orders/s`,
      figures: [
        figureOf('alone', alone, 'p50'),
        figureOf('beside bad ones', beside, 'p50'),
        figureOf('alone', alone, 'p99'),
        figureOf('beside bad ones', beside, 'p99', { against }),
        {
          subject: 'p50 of bad calls',
          values: refused.map(({ latencyMs }) => latencyMs.p50),
          unit: 'ms',
        },
        {
          subject: 'bad calls refused',
          values: refused.map(({ perSecond }) => perSecond),
          unit: '/s',
        },
      ],
      remarks: [
        ...remarkUnexpected('valid calls alone', alone, '000004'),
        ...remarkUnexpected('valid calls beside bad ones', beside, '000004'),
        ...remarkUnexpected('bad calls', refused, '000001'),
      ],
    },
  ];
}
