import type { Logger } from 'pino';
import type { Database } from '../../db/client.ts';
import { writeRefusals } from '../../db/refusals.ts';

export type Refusals = {
  /** Counts a refused call of a known product. The reason quotes nothing of the call. */
  record(refusal: { productId: number; resultCode: string; reason: string }): void;
  stop(): Promise<void>;
};

const flushEveryMs = 1_000;
/** Somebody who only tries must not fill a disk. */
const kindsMax = 200;

/**
 * A sample of what was refused and why, for the seller who connects a product: equal refusals of a
 * second become one row.
 */
export function createRefusals(db: Database, log: Pick<Logger, 'warn'>): Refusals {
  let writing: Promise<void> = Promise.resolve();
  let counts = new Map<
    string,
    { productId: number; resultCode: string; reason: string; times: number }
  >();

  async function flush(): Promise<void> {
    if (counts.size === 0) return;
    const rows = [...counts.values()];
    counts = new Map();
    await writeRefusals(db.pool, rows).catch((error: unknown) => {
      log.warn({ err: error, rows: rows.length }, 'refusals.not_written');
    });
  }

  const timer = setInterval(() => {
    writing = writing.then(flush);
  }, flushEveryMs);
  timer.unref();

  return {
    record(refusal) {
      const kind = `${refusal.productId}/${refusal.resultCode}/${refusal.reason}`;
      const count = counts.get(kind);
      if (count) count.times += 1;
      else if (counts.size < kindsMax) counts.set(kind, { ...refusal, times: 1 });
    },
    async stop() {
      clearInterval(timer);
      await writing;
      await flush();
    },
  };
}
