import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { QueueName } from '../core/instance.ts';
import type { Database } from '../db/client.ts';
import { takeBack } from '../db/hand-over.ts';
import { createPartitions, dropExpiredPartitions } from '../db/retention.ts';
import { deleteExpiredRefusals } from '../db/refusals.ts';
import { deleteExpiredLogins } from '../db/sessions.ts';
import {
  type OldHandOver,
  freeExpiredLeases,
  makeOverdueRetriesDue,
  readOldHandOvers,
} from '../db/sweep.ts';
import type { JobQueue } from '../runtime/queue-backend.ts';
import { type LookPayload, lookQueue } from '../runtime/queues.ts';

export type Upkeep = { stop(): Promise<void> };

export type SweptQueue = {
  name: QueueName;
  queue: Pick<JobQueue<LookPayload>, 'getJob'>;
};

const lookUpsAtOnce = 50;
const hourMs = 3_600_000;

/**
 * What heals: timers of this process, because nothing that heals may live in the queue that may be
 * lost. Any number of them may run side by side.
 */
export function startUpkeep(options: {
  db: Database;
  queues: readonly SweptQueue[];
  log: Logger;
  sweepMs: number;
  handedGraceMs: number;
}): Upkeep {
  const { db, queues, log, sweepMs, handedGraceMs } = options;
  const stopping = new AbortController();

  async function sweep(): Promise<void> {
    const leases = await freeExpiredLeases(db.pool);
    for (const { instanceId, productId } of leases.dead) {
      log.error(
        { instanceNumber: instanceId, productNumber: productId },
        'dispatch.died_with_workers',
      );
    }
    const overdue = await makeOverdueRetriesDue(db.pool, handedGraceMs);
    let lost = 0;
    for (const { name, queue } of queues) {
      const old = await readOldHandOvers(db.pool, name, handedGraceMs);
      const missing = await findMissing(queue, old);
      if (missing.length > 0) lost += await takeBack(db.pool, missing);
    }
    if (leases.due + overdue + lost > 0) {
      log.warn(
        { leasesExpired: leases.due, retriesOverdue: overdue, jobsLost: lost },
        'sweep.found_work',
      );
    }
  }

  async function tidy(): Promise<void> {
    await createPartitions(db.pool);
    const dropped = await dropExpiredPartitions(db.pool);
    if (dropped.length > 0) log.info({ dropped }, 'partitions.dropped');
    await deleteExpiredLogins(db);
    await deleteExpiredRefusals(db.pool);
  }

  async function every(ms: number, name: string, work: () => Promise<void>): Promise<void> {
    while (!stopping.signal.aborted) {
      await work().catch((error: unknown) => {
        log.warn({ err: error, work: name }, 'upkeep.failed');
      });
      await sleep(ms, undefined, { signal: stopping.signal }).catch(() => undefined);
    }
  }

  const running = Promise.all([every(sweepMs, 'sweep', sweep), every(hourMs, 'tidying', tidy)]);
  return {
    async stop() {
      stopping.abort();
      await running;
    },
  };
}

/**
 * Hand-overs that their queue does not know, or has finished with. While the queue cannot be asked
 * nothing is said to be lost.
 */
async function findMissing(
  queue: SweptQueue['queue'],
  handed: readonly OldHandOver[],
): Promise<OldHandOver[]> {
  const missing: OldHandOver[] = [];
  for (let from = 0; from < handed.length; from += lookUpsAtOnce) {
    const some = handed.slice(from, from + lookUpsAtOnce);
    const jobs = await Promise.all(
      some.map(({ instanceId, dispatch }) => queue.getJob(lookQueue.jobId(instanceId, dispatch))),
    );
    some.forEach((row, place) => {
      const job = jobs[place];
      if (!job || job.finishedOn !== undefined) missing.push(row);
    });
  }
  return missing;
}
