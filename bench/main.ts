// npm run bench: the receiver and the workers against their peers, in the same run on the same
// machine, since only what ran side by side can be compared.
import { writeFile } from 'node:fs/promises';
import { listOf } from '../cli/output.ts';
import type { Section } from './figures.ts';
import { startGenerator } from './load/generator.ts';
import { type BenchName, type Options, benchNames, readOptions, usage } from './options.ts';
import { renderResults, showSection } from './report.ts';
import { benchAcknowledge } from './runs/acknowledge.ts';
import { benchApply } from './runs/apply.ts';
import { benchBadSignatures } from './runs/bad-signatures.ts';
import type { BenchContext } from './runs/context.ts';
import { benchKnownOrders } from './runs/known-orders.ts';
import { benchSteady } from './runs/steady.ts';
import { describeMachine } from './stage/machine.ts';
import { Interrupted, openStage } from './stage/stage.ts';

const benches: Record<BenchName, (context: BenchContext) => Promise<Section[]>> = {
  acknowledge: benchAcknowledge,
  'known-orders': benchKnownOrders,
  apply: benchApply,
  steady: benchSteady,
  'bad-signatures': benchBadSignatures,
};

process.exitCode = await main();

async function main(): Promise<number> {
  let options: Options | 'help';
  try {
    options = readOptions(process.argv.slice(2));
  } catch (error) {
    process.stderr.write(`${String(error)}\n\n${usage}\n`);
    return 2;
  }
  if (options === 'help') {
    process.stdout.write(`${usage}\n`);
    return 0;
  }
  const stopping = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      if (!stopping.signal.aborted) say('stopping and cleaning up …');
      stopping.abort();
    });
  }
  try {
    await run(options, stopping.signal);
    return 0;
  } catch (error) {
    if (stopping.signal.aborted || error instanceof Interrupted) return 130;
    throw error;
  }
}

async function run(options: Options, signal: AbortSignal): Promise<void> {
  const fromMs = performance.now();
  const stage = await openStage({ signal, wantsRedis: options.queues === 'redis', say });
  try {
    const machine = await describeMachine(stage);
    say(listOf(machine.lines));
    for (const warning of machine.warnings) say(`!!! ${warning}`);
    const generator = await startGenerator(stage);
    const sections: Section[] = [];
    for (const name of options.only ? [options.only] : benchNames) {
      say(`\n== ${name}`);
      const measured = await benches[name]({ stage, generator, options, say });
      for (const section of measured) process.stdout.write(`\n${showSection(section)}\n`);
      sections.push(...measured);
    }
    say(`\nIt took ${Math.round((performance.now() - fromMs) / 1_000)} s.`);
    if (!options.isFull) {
      say('\nNot a whole run of the usual length: bench/results.md stays as it is.');
      return;
    }
    const { rounds, seconds } = options;
    const text = renderResults({ machine, sections, date: new Date(), rounds, seconds });
    await writeFile(new URL('./results.md', import.meta.url), text);
    say('\nWritten to bench/results.md.');
  } finally {
    await stage.close();
  }
}

/** Progress, apart from the results. */
function say(line: string): void {
  process.stderr.write(`${line}\n`);
}
