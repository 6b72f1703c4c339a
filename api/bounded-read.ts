/** What a bounded read knows: a value that is at most so old, or that there was none in time. */
export type BoundedRead<T> = () => Promise<T | 'unavailable'>;

/**
 * Guards something that is asked often and may hang: one reading at a time, each good for
 * `cacheMs`, each answer within `timeoutMs`. A reading that is late goes on alone, so that a server
 * which hangs costs one connection and not one for each asker.
 *
 * @param now in milliseconds
 * @param onError what `read` threw; the asker only learns `unavailable`
 */
export function createBoundedRead<T>(options: {
  read: () => Promise<T>;
  timeoutMs: number;
  cacheMs: number;
  now: () => number;
  onError: (error: unknown) => void;
}): BoundedRead<T> {
  const { read, timeoutMs, cacheMs, now, onError } = options;
  let last: { value: T | 'unavailable'; atMs: number } | undefined;
  let running: Promise<T | 'unavailable'> | undefined;

  const start = (): Promise<T | 'unavailable'> => {
    const reading = read()
      .catch((error: unknown) => {
        onError(error);
        return 'unavailable' as const;
      })
      .then((value) => {
        last = { value, atMs: now() };
        running = undefined;
        return value;
      });
    running = reading;
    return reading;
  };

  return async () => {
    if (last && now() - last.atMs < cacheMs) return last.value;
    return within(running ?? start(), timeoutMs);
  };
}

async function within<T>(work: Promise<T>, timeoutMs: number): Promise<T | 'unavailable'> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<'unavailable'>((resolve) => {
    timer = setTimeout(() => resolve('unavailable'), timeoutMs);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}
