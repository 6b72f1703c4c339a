import { setTimeout as sleep } from 'node:timers/promises';

/** The user does not want to see the rest. */
export class Interrupted extends Error {
  override readonly name = 'Interrupted';
}

export type Interruption = {
  isRequested(): boolean;
  /** Resolves on the first request. */
  readonly requested: Promise<void>;
  /**
   * Waits for work that may take long.
   * @throws Interrupted as soon as the user asks for the end
   */
  unlessRequested<T>(work: Promise<T>): Promise<T>;
};

// npm passes Ctrl-C on to a program that has got it from the terminal already.
const secondSignalAfterMs = 1_000;

/** Listens for Ctrl-C and its relatives; a second one ends the process at once. */
export function listenForInterruption(): Interruption {
  const controller = new AbortController();
  const { signal } = controller;
  let firstAtMs: number | undefined;
  const onSignal = (): void => {
    if (firstAtMs !== undefined && Date.now() - firstAtMs > secondSignalAfterMs) process.exit(130);
    firstAtMs ??= Date.now();
    controller.abort();
  };
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(name, onSignal);
  // Whoever reads our output has gone: `npm run demo | head`.
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', () => controller.abort());
  }
  const requested = new Promise<void>((resolve) => {
    signal.addEventListener('abort', () => resolve());
  });
  return {
    isRequested: () => signal.aborted,
    requested,
    unlessRequested: (work) =>
      Promise.race([
        work,
        requested.then(() => {
          throw new Interrupted();
        }),
      ]),
  };
}

/** @throws Error with this message when the work takes longer */
export async function within<T>(timeoutMs: number, message: string, work: Promise<T>): Promise<T> {
  const over = new AbortController();
  const late = sleep(timeoutMs, undefined, { signal: over.signal }).then(() => {
    throw new Error(message);
  });
  // Called off once the work is done.
  late.catch(() => undefined);
  try {
    return await Promise.race([work, late]);
  } finally {
    over.abort();
  }
}
