import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { QueueName } from '../core/instance.ts';
import type { Queryable } from '../db/client.ts';
import { type HandedDispatch, handOver, takeBack } from '../db/hand-over.ts';
import type { JobQueue } from '../runtime/queue-backend.ts';
import { type LookPayload, lookQueue } from '../runtime/queues.ts';

export type Dispatcher = {
  /** False when the loop has not come round for a while, whatever it hangs in. */
  isTurning(): boolean;
  /** Takes no more, and waits for what is on its way to the queue. */
  stop(): Promise<void>;
};

export type DispatcherOptions = {
  db: Queryable;
  queueName: QueueName;
  queue: Pick<JobQueue<LookPayload>, 'addBulk'>;
  log: Logger;
  pollMs: number;
  windowMax: number;
  failpoint: (name: string) => Promise<void> | void;
};

const pageMax = 500;
const pauseAfterFailureMs = 500;
const turnMaxMs = 60_000;

/**
 * Moves what is due from Postgres to a queue. A crash between the mark and the queue loses nothing:
 * the sweep compares the two and makes due what the queue does not know.
 */
export function startDispatcher(options: DispatcherOptions): Dispatcher {
  const { db, queueName, queue, log, pollMs, windowMax, failpoint } = options;
  const stopping = new AbortController();
  let isFailing = false;
  let turnedAtMs = performance.now();

  /** @returns whether there may be more at once */
  async function dispatchPage(): Promise<boolean> {
    // After a failure one alone goes ahead, so that an outage does not mark and unmark hundreds.
    const page = isFailing ? 1 : pageMax;
    const handed = await handOver(db, { queue: queueName, windowMax, pageMax: page });
    if (handed.length === 0) return false;
    await failpoint('dispatcher.after-mark');
    try {
      await queue.addBulk(handed.map(toJob));
    } catch (error) {
      // What did reach the queue has an old number now, and finds nothing to do.
      await takeBack(db, handed);
      throw error;
    }
    await failpoint('dispatcher.after-add');
    return handed.length === page;
  }

  async function run(): Promise<void> {
    while (!stopping.signal.aborted) {
      let waitMs = pollMs;
      turnedAtMs = performance.now();
      try {
        if (await dispatchPage()) waitMs = 0;
        if (isFailing) {
          log.info({ queue: queueName }, 'dispatcher.recovered');
          waitMs = 0;
        }
        isFailing = false;
      } catch (error) {
        if (!isFailing) log.error({ queue: queueName, err: error }, 'dispatcher.failed');
        isFailing = true;
        waitMs = pauseAfterFailureMs;
      }
      if (waitMs > 0)
        await sleep(waitMs, undefined, { signal: stopping.signal }).catch(() => undefined);
    }
  }

  const running = run();
  return {
    isTurning: () => performance.now() - turnedAtMs < turnMaxMs,
    async stop() {
      stopping.abort();
      await running;
    },
  };
}

function toJob({ instanceId, dispatch, productId, kinds }: HandedDispatch) {
  return {
    name: kinds,
    data: { instance: instanceId, dispatch, product: productId },
    opts: { jobId: lookQueue.jobId(instanceId, dispatch) },
  };
}
