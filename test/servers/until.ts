import { setTimeout as sleep } from 'node:timers/promises';
import { inspect, isDeepStrictEqual } from 'node:util';

/**
 * Polls until `read` gives what is expected (deeply equal, or accepted by a predicate) and returns
 * it. A throwing read counts as "not yet". Fails with the last thing that was seen.
 */
export async function until<T>(
  read: () => T | Promise<T>,
  expected: T | ((value: T) => boolean),
  options: { timeoutMs?: number; everyMs?: number; what?: string } = {},
): Promise<T> {
  const { timeoutMs = 10_000, everyMs = 20, what = 'the awaited state' } = options;
  const isIt = (value: T): boolean =>
    isPredicate(expected) ? expected(value) : isDeepStrictEqual(value, expected);
  const deadline = performance.now() + timeoutMs;
  let last = 'nothing was read';
  for (;;) {
    try {
      const value = await read();
      if (isIt(value)) return value;
      last = `last seen: ${inspect(value, { depth: 4 })}`;
    } catch (error) {
      last = `last failure: ${inspect(error)}`;
    }
    if (performance.now() >= deadline) {
      const wanted = isPredicate(expected) ? expected.toString() : inspect(expected);
      throw new Error(`${what} did not come in ${timeoutMs} ms\nexpected: ${wanted}\n${last}`);
    }
    await sleep(everyMs);
  }
}

function isPredicate<T>(expected: T | ((value: T) => boolean)): expected is (value: T) => boolean {
  return typeof expected === 'function';
}
