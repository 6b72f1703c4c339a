import type { Logger } from './logger.ts';

// How a process of ours ends: on a signal, when its supervisor is gone, or on a bug.

export type Ending = {
  log: Logger;
  /** Finishes what runs and closes everything; may reject. */
  close: () => Promise<unknown>;
  /** After this the process ends although `close` has not. */
  shutdownMs: number;
};

/**
 * Ties the process to its signals; call it once, at the end of a main.ts. SIGTERM, SIGINT and the
 * loss of the supervisor close the process: exit code 0, or 1 if closing failed or took too long.
 * Further SIGTERMs change nothing; a second SIGINT (Ctrl-C twice) ends it at once with 130. An
 * unhandled rejection or exception is logged and ends it with 1: after a bug nothing in memory is
 * to be trusted, and nothing that was acknowledged is only there.
 */
export function runUntilSignal({ log, close, shutdownMs }: Ending): void {
  let closing = false;

  const end = (reason: string): void => {
    if (closing) return;
    closing = true;
    log.info({ reason }, 'process.closing');
    const timer = setTimeout(() => {
      log.error({ reason, shutdownMs }, 'process.close_timed_out');
      process.exit(1);
    }, shutdownMs);
    timer.unref();
    // Closing may leave nothing that keeps the process alive, so the exit is explicit.
    Promise.resolve()
      .then(close)
      .then(
        () => {
          log.info({ reason }, 'process.closed');
          process.exit(0);
        },
        (error: unknown) => {
          log.error({ err: error, reason }, 'process.close_failed');
          process.exit(1);
        },
      );
  };

  const die = (event: string) => (error: unknown) => {
    log.fatal({ err: error }, event);
    process.exit(1);
  };

  process.on('SIGTERM', () => end('SIGTERM'));
  process.on('SIGINT', () => {
    if (closing) process.exit(130);
    end('SIGINT');
  });
  // A supervisor that was killed with -9 cannot tell us to stop, but its channel closes.
  if (process.connected) process.on('disconnect', () => end('supervisor gone'));
  process.on('unhandledRejection', die('process.unhandled_rejection'));
  process.on('uncaughtException', die('process.uncaught_exception'));
}

/** Sends a message to the supervisor, if there is one. */
export function tellSupervisor(message: object): void {
  if (process.connected) process.send?.(message);
}
