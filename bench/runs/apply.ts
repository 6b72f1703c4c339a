import { once, EventEmitter } from 'node:events';
import { z } from 'zod';
import type { Section } from '../figures.ts';
import { createInstallation } from '../stage/installation.ts';
import { type BenchContext, sendOrders } from './context.ts';
import { type Sample, waitUntilActive } from './wait-until-active.ts';

const orders = 5_000;
const concurrency = 64;

const drained = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('drained'), addedPerSecond: z.number(), perSecond: z.number() }),
  z.object({ kind: z.literal('failed'), problem: z.string() }),
]);

/** Accepted orders applied a second, against jobs that do nothing at all. */
export async function benchApply(context: BenchContext): Promise<Section[]> {
  const { stage, options, say } = context;
  const latchkey = await createInstallation(stage, 'apply');
  const target = latchkey.target(await latchkey.startApi());
  const messages = new EventEmitter();
  const ceiling = await stage.startChild(new URL('../peers/bullmq-ceiling.ts', import.meta.url), {
    env: { ...latchkey.env, QUEUE_PREFIX: 'bench-ceiling' },
    onMessage: (message) => messages.emit('message', message),
  });
  await latchkey.startNoOpWorkers();

  const applied: number[] = [];
  const jobs: number[] = [];
  const added: number[] = [];
  for (let round = 1; round <= Math.min(3, options.rounds); round += 1) {
    const before = await latchkey.countActive();
    await sendOrders(context, target, `apply${round}x`, orders);
    const dispatcher = await latchkey.startDispatcher();
    const samples = await waitUntilActive(context, latchkey, before + orders);
    await dispatcher.stop();
    applied.push(rateOf(samples, before));

    const answered = once(messages, 'message');
    ceiling.send({ jobs: orders, concurrency });
    const [message] = await stage.whileRunning(answered, ceiling);
    const result = drained.parse(message);
    if (result.kind === 'failed') throw new Error(`BullMQ's ceiling: ${result.problem}`);
    jobs.push(result.perSecond);
    added.push(result.addedPerSecond);
    say(
      `  round ${round}: ${Math.round(applied.at(-1) ?? 0)} applied/s, ` +
        `${Math.round(result.perSecond)} no-op jobs/s`,
    );
  }
  await ceiling.stop();
  await latchkey.close();

  const queues = stage.redis ? 'Redis' : 'Postgres';
  return [
    {
      title: `Applied instances, backlog of ${orders}, ${concurrency} at once, queues on ${queues}`,
      figures: [
        {
          subject: 'Latchkey, no-op provisioner',
          values: applied,
          unit: '/s',
          against: { subject: 'BullMQ', values: jobs },
        },
        { subject: 'BullMQ, no-op jobs', values: jobs, unit: '/s' },
        { subject: 'BullMQ, addBulk', values: added, unit: '/s' },
      ],
      remarks: [
        'Dispatch, claim, attempt and settle in Postgres for each instance, against a worker that does nothing with jobs added before; both over the middle 80 % of the backlog.',
      ],
    },
  ];
}

/** Over the middle 80 %: neither the start nor the last stragglers. */
function rateOf(samples: readonly Sample[], before: number): number {
  const at = (share: number) =>
    samples.find(({ active }) => active - before >= orders * share) ?? samples.at(-1);
  const [from, to] = [at(0.1), at(0.9)];
  if (!from || !to || to.atMs === from.atMs) return NaN;
  return (to.active - from.active) / ((to.atMs - from.atMs) / 1_000);
}
