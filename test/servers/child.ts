import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

/** A process of its own that runs one of our TypeScript modules. */
export type TestChild = {
  pid: number;
  /** Lines that it and its children wrote, errors included. */
  lines: string[];
  kill(signal: NodeJS.Signals): void;
  /** How it ended. */
  ended: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
};

/** Starts a module, given by its URL; it gets our environment and what `env` adds. */
export function startChild(
  module: URL,
  args: readonly string[] = [],
  env: Record<string, string> = {},
): TestChild {
  const child = spawn(process.execPath, ['--import', 'tsx', fileURLToPath(module), ...args], {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const lines: string[] = [];
  for (const stream of [child.stdout, child.stderr])
    createInterface({ input: stream }).on('line', (line) => lines.push(line));
  const ended = once(child, 'exit').then(() => ({
    code: child.exitCode,
    signal: child.signalCode,
  }));
  return {
    pid: child.pid ?? 0,
    lines,
    kill: (signal) => void child.kill(signal),
    ended,
  };
}

/** Whether a process exists; one that has ended but was not yet collected does not count. */
export function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
