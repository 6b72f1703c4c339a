import type { DefaultJobOptions } from 'bullmq';
import { z } from 'zod';

// The contract between the dispatcher, which adds jobs, and the workers, which process them. A job
// only says where to look: what is to be done is in Postgres, and so is whether it is still due.

const id = z.number().int().positive().max(Number.MAX_SAFE_INTEGER);

const lookPayload = z.object({ instance: id, dispatch: id, product: id });

/** "Look at this instance": ids only, never personal data. */
export type LookPayload = z.output<typeof lookPayload>;

const names = ['provisioning', 'order-lookup'] as const;

const jobOptions: DefaultJobOptions = {
  // Postgres counts attempts and decides when to stop; the queue only waits.
  attempts: 1_000,
  backoff: { type: 'decided-in-postgres' },
  removeOnComplete: { age: 3_600, count: 1_000 },
  // Dead letters are rows in Postgres; here they are kept to be looked at.
  removeOnFail: { age: 30 * 86_400, count: 10_000 },
  stackTraceLimit: 1,
};

export const lookQueue = {
  names,
  /** The processor parses, because a job may be older than the code. */
  payload: lookPayload,
  jobOptions,
  /**
   * One id for each handing over: adding the same one twice is one job, and a finished job that is
   * still kept cannot swallow the next.
   */
  jobId: (instance: number, dispatch: number): string => `look-${instance}-${dispatch}`,
} as const;

/** Thrown by a processor after it has recorded a failed attempt: look again after `delayMs`. */
export class RetryAt extends Error {
  override readonly name = 'RetryAt';
  readonly delayMs: number;

  constructor(delayMs: number) {
    super(`to be tried again in ${delayMs} ms`);
    this.delayMs = delayMs;
  }
}

// An error that says no time means that the worker could not even record what happened, most likely
// because Postgres is away.
const UNRECORDED_DELAY_MS = 1_000;

/** How long BullMQ waits before it runs a job again that ended with this error. */
export function backoffOf(error: unknown): number {
  return error instanceof RetryAt ? Math.max(0, Math.round(error.delayMs)) : UNRECORDED_DELAY_MS;
}
