import { writeAudit } from '../../db/audit.ts';
import type { Database } from '../../db/client.ts';

/** What pausing needs of a queue; BullMQ's Queue has it. */
export type PausableQueue = {
  name: string;
  isPaused(): Promise<boolean>;
  pause(): Promise<unknown>;
  resume(): Promise<unknown>;
};

/**
 * Pauses or resumes a queue for all of its workers, with a trace of who did it. The trace is
 * written first, in a transaction that ends with the act: where the act fails, none remains.
 *
 * @throws what the queue's store throws
 */
export async function pauseQueue(
  { db, actor }: { db: Database; actor: string },
  queue: PausableQueue,
  isPaused: boolean,
): Promise<void> {
  await db.transaction(async (tx) => {
    await writeAudit(tx, {
      actor,
      act: isPaused ? 'queue.paused' : 'queue.resumed',
      subject: `queue/${queue.name}`,
    });
    await (isPaused ? queue.pause() : queue.resume());
  });
}
