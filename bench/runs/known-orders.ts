import type { Section } from '../figures.ts';
import type { StreamResult } from '../load/plan.ts';
import { createInstallation } from '../stage/installation.ts';
import { type BenchContext, measureFlood, remarkUnexpected, sendOrders } from './context.ts';
import { waitUntilActive } from './wait-until-active.ts';

const orders = 3_000;
const series = 'known';

/** What the marketplace sends most: purchases again, and questions whether they are ready. */
export async function benchKnownOrders(context: BenchContext): Promise<Section[]> {
  const { stage, options, say } = context;
  const latchkey = await createInstallation(stage, 'known');
  const target = latchkey.target(await latchkey.startApi());
  say(`buying and applying ${orders} orders`);
  await sendOrders(context, target, series, orders);
  const [dispatcher, workers] = [
    await latchkey.startDispatcher(),
    await latchkey.startNoOpWorkers(),
  ];
  await waitUntilActive(context, latchkey, orders);
  await dispatcher.stop();
  await workers.stop();

  const reSends: StreamResult[] = [];
  const queries: StreamResult[] = [];
  const floodOf = (kind: 're-sends' | 'queries', seconds?: number) =>
    measureFlood(context, target, { kind, series, orders }, seconds);
  await floodOf('re-sends', 1);
  await floodOf('queries', 1);
  for (let round = 1; round <= Math.min(3, options.rounds); round += 1) {
    reSends.push(await floodOf('re-sends'));
    queries.push(await floodOf('queries'));
    say(
      `  round ${round}: ${Math.round(reSends.at(-1)?.perSecond ?? 0)} re-sends/s, ` +
        `${Math.round(queries.at(-1)?.perSecond ?? 0)} queries/s`,
    );
  }
  await latchkey.close();

  const figuresOf = (subject: string, results: readonly StreamResult[]) => [
    { subject, values: results.map(({ perSecond }) => perSecond), unit: '/s' as const },
    {
      subject: `p99 of ${subject}`,
      values: results.map(({ latencyMs }) => latencyMs.p99),
      unit: 'ms' as const,
    },
  ];
  return [
    {
      title: 'Known orders, 64 connections',
      figures: [...figuresOf('re-sends', reSends), ...figuresOf('queries', queries)],
      remarks: [
        'Re-sends carry a new business id and are signed anew; queries ask for one active instance and are answered with its access data.',
        ...remarkUnexpected('re-sends', reSends, '000000'),
        ...remarkUnexpected('queries', queries, '000000'),
      ],
    },
  ];
}
