import { fork } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import type { Logger } from './logger.ts';

// Runs the roles of one machine as child processes and starts those again that end. The children
// end by themselves when the supervisor dies (see runUntilSignal).

/** One child process: a name for the log, and the arguments of the module. */
export type Role = { name: string; args: readonly string[] };

export type SupervisorOptions = {
  /** The module that every role runs. */
  module: string | URL;
  roles: readonly Role[];
  log: Logger;
  /** After this, children that have not ended on SIGTERM are killed. */
  shutdownMs: number;
  /** The children's whole environment; by default our own. */
  env?: Record<string, string>;
  /** File descriptor that the children write to; by default they write to our own outputs. */
  outputFd?: number;
  /** What a child sent with `tellSupervisor`. */
  onMessage?: (role: string, message: unknown) => void;
  /** Wait before a child is started again: doubled each time, up to the second number. */
  backoffMs?: readonly [first: number, max: number];
};

export type Supervisor = {
  /** Process ids of the children that run now, by role. */
  pids(): Record<string, number>;
  /** Ends all children; resolves when they are gone. */
  stop(): Promise<void>;
};

// A child that lived this long was healthy: its next end is a new story.
const HEALTHY_AFTER_MS = 10_000;

export function startSupervisor(options: SupervisorOptions): Supervisor {
  const { log, roles } = options;
  const [backoffFirstMs, backoffMaxMs] = options.backoffMs ?? [100, 5_000];
  const children = new Map<string, ChildProcess>();
  const restarts = new Map<string, NodeJS.Timeout>();
  let stopping: Promise<void> | undefined;

  function start(role: Role, backoffMs: number): void {
    const startedAt = Date.now();
    // execArgv is inherited, so this also works from TypeScript under tsx.
    const output = options.outputFd ?? 'inherit';
    const child = fork(options.module, role.args, {
      stdio: ['inherit', output, output, 'ipc'],
      ...(options.env === undefined ? {} : { env: options.env }),
    });
    children.set(role.name, child);
    log.info({ child: role.name, childPid: child.pid }, 'child.started');
    if (options.onMessage !== undefined)
      child.on('message', (message) => options.onMessage?.(role.name, message));

    let over = false;
    const ended = (code: number | null, signal: string | null, error?: Error): void => {
      if (over) return;
      over = true;
      children.delete(role.name);
      const lived = Date.now() - startedAt;
      if (stopping !== undefined) {
        log.info({ child: role.name, childPid: child.pid, code, signal }, 'child.stopped');
        return;
      }
      const waitMs = lived >= HEALTHY_AFTER_MS ? backoffFirstMs : backoffMs;
      log.warn(
        { child: role.name, childPid: child.pid, code, signal, waitMs, err: error },
        'child.ended',
      );
      restarts.set(
        role.name,
        setTimeout(() => start(role, Math.min(waitMs * 2, backoffMaxMs)), waitMs),
      );
    };
    child.on('exit', (code, signal) => ended(code, signal));
    // Could not be started at all, or a message could not be sent.
    child.on('error', (error) => {
      if (child.pid === undefined) ended(null, null, error);
    });
  }

  async function stopAll(): Promise<void> {
    for (const timer of restarts.values()) clearTimeout(timer);
    const running = [...children.values()];
    const gone = Promise.all(running.map((child) => exitOf(child)));
    for (const child of running) child.kill('SIGTERM');
    const timer = setTimeout(() => {
      for (const [name, child] of children) {
        log.error({ child: name, childPid: child.pid }, 'child.killed');
        child.kill('SIGKILL');
      }
    }, options.shutdownMs);
    await gone;
    clearTimeout(timer);
  }

  for (const role of roles) start(role, backoffFirstMs);

  return {
    pids: () =>
      Object.fromEntries(
        [...children].flatMap(([name, child]) =>
          child.pid === undefined ? [] : [[name, child.pid]],
        ),
      ),
    stop: () => (stopping ??= stopAll()),
  };
}

async function exitOf(child: ChildProcess): Promise<void> {
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
}
