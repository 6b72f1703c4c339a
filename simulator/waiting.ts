import { setTimeout as sleep } from 'node:timers/promises';

/**
 * Asks again until the answer is something, at most for `deadlineMs`; undefined when time is up.
 * Each question waits for the one before, so a slow answer never piles up questions.
 */
export async function waitFor<T>(
  ask: () => T | undefined | Promise<T | undefined>,
  timing: { everyMs: number; deadlineMs: number },
): Promise<T | undefined> {
  const end = performance.now() + timing.deadlineMs;
  for (;;) {
    const answer = await ask();
    if (answer !== undefined) return answer;
    if (performance.now() + timing.everyMs > end) return undefined;
    await sleep(timing.everyMs);
  }
}
