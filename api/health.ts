import { Hono } from 'hono';
import type { StorageProblem } from '../db/health.ts';
import { createBoundedRead } from './bounded-read.ts';

/** Whether a callback that came now could be stored; the problems hold no address and no secret. */
export type CanStore = () => Promise<{ ok: boolean; problems: string[] }>;

/**
 * Asks the database at most once a second, and never waits for it longer than that.
 *
 * @param read see createStorageCheck in db/health.ts
 * @param onError what the driver said, for the log
 */
export function createCanStore(options: {
  read: () => Promise<(StorageProblem | 'no secret of a product can be opened')[]>;
  onError: (error: unknown) => void;
  now?: () => number;
  timeoutMs?: number;
  cacheMs?: number;
}): CanStore {
  const problemsOf = createBoundedRead({
    read: options.read,
    onError: options.onError,
    now: options.now ?? Date.now,
    timeoutMs: options.timeoutMs ?? 1_000,
    cacheMs: options.cacheMs ?? 1_000,
  });
  return async () => {
    const problems = await problemsOf();
    if (problems === 'unavailable')
      return { ok: false, problems: ['the database does not answer'] };
    return { ok: problems.length === 0, problems };
  };
}

/** GET /healthz answers while the process runs; GET /readyz only while callbacks can be stored. */
export function createHealthRoutes(options: { canStore: CanStore }): Hono {
  const app = new Hono();
  app.get('/healthz', (c) => c.json({ ok: true }, 200, { 'cache-control': 'no-store' }));
  app.get('/readyz', async (c) => {
    const { ok, problems } = await options.canStore();
    return c.json({ ok, problems }, ok ? 200 : 503, { 'cache-control': 'no-store' });
  });
  return app;
}
