import { setTimeout as sleep } from 'node:timers/promises';
import type { Reply } from './marketplace.ts';

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

/**
 * Asks again, as the marketplace does, while the receiver says that it cannot store now (000005):
 * on a busy machine that is no fault. The last answer, whatever it is.
 */
export async function untilStored(
  ask: () => Promise<Reply>,
  timing: { retryEveryMs: number; deadlineMs: number },
): Promise<Reply> {
  let reply = await ask();
  const end = performance.now() + timing.deadlineMs;
  while (reply.resultCode === '000005' && performance.now() + timing.retryEveryMs <= end) {
    await sleep(timing.retryEveryMs);
    reply = await ask();
  }
  return reply;
}
