import pg from 'pg';
import type { Store } from '../../api/receiver/group-commit.ts';

type Batch = {
  rows: readonly string[];
  /** Answers the statement; by default each row with its own name. */
  succeed(outcomes?: readonly string[]): Promise<void>;
  fail(error: Error): Promise<void>;
};

/** A store whose statements end when the test says so. */
export function createFakeStore(): { store: Store<string, string>; batches: Batch[] } {
  const batches: Batch[] = [];
  return {
    batches,
    store: (rows) =>
      new Promise((resolve, reject) => {
        batches.push({
          rows,
          succeed: (outcomes = rows) => settle(() => resolve(outcomes)),
          fail: (error) => settle(() => reject(error)),
        });
      }),
  };
}

async function settle(work: () => void): Promise<void> {
  work();
  await turns();
}

/** Lets what was promised and what was put off to the end of this turn happen. */
export async function turns(count = 5): Promise<void> {
  for (let turn = 0; turn < count; turn += 1) await new Promise((resolve) => setImmediate(resolve));
}

/** What Postgres answers when a statement fails with this SQLSTATE. */
export function serverError(code: string): pg.DatabaseError {
  const error = new pg.DatabaseError(`refused with ${code}`, 0, 'error');
  error.code = code;
  return error;
}

export const lostConnection = new Error('Connection terminated unexpectedly');
