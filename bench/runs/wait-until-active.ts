import { setTimeout as sleep } from 'node:timers/promises';
import type { Installation } from '../stage/installation.ts';
import type { BenchContext } from './context.ts';

const everyMs = 50;
const stalledMs = 30_000;

/** One look at how many instances are active. */
export type Sample = { atMs: number; active: number };

/**
 * Looks on until so many instances are active, and returns what it saw.
 *
 * @throws when nothing moves any more
 */
export async function waitUntilActive(
  context: BenchContext,
  latchkey: Pick<Installation, 'countActive'>,
  wanted: number,
): Promise<Sample[]> {
  const samples: Sample[] = [];
  let movedAtMs = performance.now();
  for (;;) {
    const active = await context.stage.whileRunning(latchkey.countActive());
    const atMs = performance.now();
    if (active !== samples.at(-1)?.active) movedAtMs = atMs;
    samples.push({ atMs, active });
    if (active >= wanted) return samples;
    if (atMs - movedAtMs > stalledMs) {
      throw new Error(`${active} of ${wanted} instances are active, and no more become so`);
    }
    await sleep(everyMs);
  }
}
