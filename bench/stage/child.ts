import { fork } from 'node:child_process';
import { once } from 'node:events';
import { relative, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { projectDir } from './build.ts';

export type Child = {
  pid: number;
  /** Where it listens, if it does. */
  port: number;
  send(message: object): void;
  ended: Promise<{ code: number | null; signal: NodeJS.Signals | null; said: string }>;
  stop(): Promise<void>;
};

export type ChildOptions = {
  args?: readonly string[];
  env?: Record<string, string>;
  execArgv?: readonly string[];
  /** Everything but the message that it is ready. */
  onMessage?: (message: unknown) => void;
};

const readyTimeoutMs = 30_000;
const stopTimeoutMs = 15_000;

/**
 * Starts the compiled form of a module and waits until it says `{kind: 'ready'}`. It ends with us,
 * since it listens to the loss of its channel. It gets none of our own settings.
 *
 * @param module URL of the source
 * @param outDir where the compiled project is
 */
export async function startChild(
  module: URL,
  outDir: string,
  options: ChildOptions = {},
): Promise<Child> {
  const source = fileURLToPath(module);
  const script = join(outDir, relative(projectDir, source)).replace(/\.tsx?$/, '.js');
  const forked = fork(script, options.args ?? [], {
    execArgv: [...(options.execArgv ?? [])],
    env: { PATH: process.env['PATH'] ?? '', NODE_ENV: 'production', ...options.env },
    // The log is written as in production, but kept by nobody.
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
  });
  let said = '';
  forked.stderr?.on('data', (data) => (said = (said + String(data)).slice(-4_000)));
  const ended = once(forked, 'exit').then(() => ({
    code: forked.exitCode,
    signal: forked.signalCode,
    said,
  }));
  let port = 0;
  const ready = new Promise<void>((resolve) => {
    forked.on('message', (message) => {
      if (isReady(message)) {
        port = message.port ?? 0;
        resolve();
      } else {
        options.onMessage?.(message);
      }
    });
  });
  const stop = async (): Promise<void> => {
    if (forked.exitCode !== null || forked.signalCode !== null) return;
    const timer = setTimeout(() => forked.kill('SIGKILL'), stopTimeoutMs);
    forked.kill('SIGTERM');
    await ended;
    clearTimeout(timer);
  };

  let timer: NodeJS.Timeout | undefined;
  const name = relative(projectDir, source);
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${name} was not ready in time`)), readyTimeoutMs);
  });
  const early = ended.then((end) => {
    throw new Error(`${name} ended at its start (${end.code ?? end.signal}): ${end.said}`);
  });
  // Either may lose the race and fail later, when nobody listens any more.
  early.catch(() => undefined);
  try {
    await Promise.race([ready, late, early]);
  } catch (error) {
    await stop();
    throw error;
  } finally {
    clearTimeout(timer);
  }
  return {
    pid: forked.pid ?? 0,
    port,
    send: (message) => void forked.send(message),
    ended,
    stop,
  };
}

function isReady(message: unknown): message is { kind: 'ready'; port?: number } {
  return (
    typeof message === 'object' && message !== null && 'kind' in message && message.kind === 'ready'
  );
}
