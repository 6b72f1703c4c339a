import { rmSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startEmbeddedPostgres } from '../../runtime/embedded-postgres.ts';
import { createLogger } from '../../runtime/logger.ts';
import { buildInto } from './build.ts';
import { type Child, type ChildOptions, startChild } from './child.ts';
import { type BenchRedis, startRedis } from './redis.ts';

/** The servers of one run and everything that must be gone at its end. */
export type Stage = {
  dir: string;
  postgresUrl: string;
  /** Absent when redis-server is not installed: the queues are then on Postgres. */
  redis: BenchRedis | undefined;
  startChild(module: URL, options?: ChildOptions): Promise<Child>;
  /** Waits for something, but not longer than a child and the run live. */
  whileRunning<T>(work: Promise<T>, child?: Child): Promise<T>;
  close(): Promise<void>;
};

/** @param signal ends the run: what waits through `whileRunning` then fails */
export async function openStage(options: {
  signal: AbortSignal;
  wantsRedis: boolean;
  say: (line: string) => void;
}): Promise<Stage> {
  const { signal, say } = options;
  const dir = await mkdtemp(join(tmpdir(), 'latchkey-bench-'));
  const closers: (() => Promise<unknown>)[] = [() => rm(dir, { recursive: true, force: true })];
  // Also when the bench dies of a bug; the servers end with it by themselves.
  process.once('exit', () => rmSync(dir, { recursive: true, force: true }));
  const close = async (): Promise<void> => {
    // Newest first: children before the servers that they use, the folder last.
    for (const closer of closers.splice(0).toReversed()) {
      await closer().catch((error: unknown) => say(`could not clean up: ${String(error)}`));
    }
  };
  const aborted = new Promise<never>((_, reject) => {
    signal.addEventListener('abort', () => reject(new Interrupted()));
  });
  aborted.catch(() => undefined);

  try {
    const outDir = join(dir, 'built');
    say('compiling …');
    await buildInto(outDir);
    signal.throwIfAborted();
    const log = createLogger({ level: 'warn', role: 'bench' });
    const postgres = await startEmbeddedPostgres({
      dataDir: join(dir, 'data'),
      log,
      settings: { fsync: 'on', synchronous_commit: 'on', full_page_writes: 'on' },
    });
    closers.push(() => postgres.stop());
    const redis = options.wantsRedis ? await startRedis(join(dir, 'redis')) : undefined;
    if (redis) closers.push(() => redis.stop());
    signal.throwIfAborted();

    return {
      dir,
      postgresUrl: postgres.url,
      redis,
      async startChild(module, childOptions) {
        signal.throwIfAborted();
        const child = await startChild(module, outDir, childOptions);
        closers.push(() => child.stop());
        return child;
      },
      whileRunning: (work, child) =>
        Promise.race([
          work,
          aborted,
          ...(child ? [child.ended.then((end) => Promise.reject(endedEarly(end)))] : []),
        ]),
      close,
    };
  } catch (error) {
    await close();
    throw signal.aborted ? new Interrupted() : error;
  }
}

/** Ctrl-C: not a failure of what was measured. */
export class Interrupted extends Error {
  override readonly name = 'Interrupted';
}

function endedEarly(end: { code: number | null; signal: string | null; said: string }): Error {
  return new Error(`a process ended in the middle (${end.code ?? end.signal}): ${end.said}`);
}
