import type { Logger } from 'pino';
import { classifyStoreError } from '../../db/store-errors.ts';

/** What a lane does with the rows that came together: one statement, one commit. */
export type Store<Row, Outcome> = (rows: readonly Row[]) => Promise<readonly (Outcome | 'again')[]>;

export type Lane<Row, Outcome> = {
  /**
   * Waits for the commit that contains the row.
   *
   * @param deadlineMs on the lane's clock; 'not stored' is returned before it whatever happens.
   *   It means that nobody may acknowledge: the row may still be committed, and is then a re-send.
   */
  submit(row: Row, deadlineMs: number): Promise<Outcome | 'not stored'>;
  /** Refuses new rows and waits for those in line. */
  close(): Promise<void>;
};

export type LaneOptions<Row, Outcome> = {
  name: string;
  store: Store<Row, Outcome>;
  log: Pick<Logger, 'warn' | 'error'>;
  nowMs: () => number;
  /** Rows of the same key never share a statement (Postgres refuses to touch a row twice in one). */
  separateBy?: (row: Row) => string;
  /** Another form of a row that broke a rule, to be tried alone; undefined where there is none. */
  repair?: (row: Row, error: unknown) => Row | undefined;
  /** How much of a batch a row takes up; 1 each when absent. */
  sizeOf?: (row: Row) => number;
  batchMax?: number;
  waitingMax?: number;
  refuseAfterFailureMs?: number;
};

type Entry<Row, Outcome> = {
  row: Row;
  deadlineMs: number;
  answer: (outcome: Outcome | 'not stored') => void;
  isAnswered: boolean;
};

/** With less than this left nothing is begun: it would only be answered late. */
const leastBudgetMs = 300;
/** A lost connection may be tried once more while this much is left. */
const retryBudgetMs = 1_000;
const deadlineCheckMs = 50;
const heldPauseMs = 5;

/**
 * One commit for all rows that came while the last one was under way: while one batch commits the
 * next fills, without a timer. One statement is in flight a lane, in autocommit, so that a process
 * that is stopped holds no lock.
 */
export function createLane<Row, Outcome>(options: LaneOptions<Row, Outcome>): Lane<Row, Outcome> {
  const { name, store, log, nowMs, separateBy, sizeOf, repair } = options;
  const batchMax = options.batchMax ?? 500;
  const waitingMax = options.waitingMax ?? 5_000;
  const refuseAfterFailureMs = options.refuseAfterFailureMs ?? 250;

  let line: Entry<Row, Outcome>[] = [];
  let inFlight: readonly Entry<Row, Outcome>[] = [];
  let isScheduled = false;
  let isClosed = false;
  let refusingUntilMs = 0;
  let wasFailing = false;
  let deadlineTimer: NodeJS.Timeout | undefined;
  const idleWaiters: (() => void)[] = [];

  function submit(row: Row, deadlineMs: number): Promise<Outcome | 'not stored'> {
    const atMs = nowMs();
    const mustRefuse =
      isClosed ||
      atMs < refusingUntilMs ||
      deadlineMs - atMs < leastBudgetMs ||
      line.length >= waitingMax;
    if (mustRefuse) return Promise.resolve('not stored');
    return new Promise((resolve) => {
      line.push({ row, deadlineMs, answer: resolve, isAnswered: false });
      deadlineTimer ??= setInterval(answerOverdue, deadlineCheckMs);
      schedule();
    });
  }

  /** After the I/O of this turn of the event loop, so that what arrived together goes together. */
  function schedule(): void {
    if (isScheduled || inFlight.length > 0) return;
    isScheduled = true;
    setImmediate(() => {
      isScheduled = false;
      pump();
    });
  }

  function pause(): void {
    isScheduled = true;
    setTimeout(() => {
      isScheduled = false;
      pump();
    }, heldPauseMs);
  }

  function pump(): void {
    if (inFlight.length > 0) return;
    const batch = takeBatch();
    if (batch.length === 0) return settleIdle();
    inFlight = batch;
    storeBatch(batch).then(
      (outcomes) => finish(batch, outcomes),
      (error: unknown) => fail(batch, error),
    );
  }

  function finish(
    batch: readonly Entry<Row, Outcome>[],
    outcomes: readonly (Outcome | 'again' | 'not stored')[],
  ): void {
    if (wasFailing) log.warn({ lane: name }, 'lane.recovered');
    wasFailing = false;
    inFlight = [];
    // To the front: the next statement's snapshot sees the winner.
    const again = batch.filter((_, place) => outcomes[place] === 'again');
    if (again.length > 0) line = again.concat(line);
    // The next statement is on its way before this batch's answers are written. Where somebody holds
    // all of its rows, a moment later: asking at full speed frees nothing.
    if (again.length > 0 && again.length === line.length && again.length === batch.length) {
      pause();
    } else pump();
    batch.forEach((entry, place) => {
      const outcome = outcomes[place];
      if (outcome !== undefined && outcome !== 'again') answer(entry, outcome);
    });
  }

  function fail(batch: readonly Entry<Row, Outcome>[], error: unknown): void {
    refusingUntilMs = nowMs() + refuseAfterFailureMs;
    if (!wasFailing) log.error({ lane: name, err: error, rows: batch.length }, 'lane.failed');
    wasFailing = true;
    const refused = [...batch, ...line];
    inFlight = [];
    line = [];
    for (const entry of refused) answer(entry, 'not stored');
    settleIdle();
  }

  async function storeBatch(
    batch: readonly Entry<Row, Outcome>[],
    mayRetry = true,
  ): Promise<readonly (Outcome | 'again' | 'not stored')[]> {
    const rows = batch.map((entry) => entry.row);
    try {
      return await store(rows);
    } catch (error) {
      const kind = classifyStoreError(error);
      if (kind === 'data') return storeApart(batch, error);
      const leftMs = Math.min(...batch.map((entry) => entry.deadlineMs)) - nowMs();
      if (mayRetry && kind === 'try again' && leftMs >= retryBudgetMs) {
        return storeBatch(batch, false);
      }
      throw error;
    }
  }

  /** Halves until the row that cannot be stored is alone, so that it cannot fail its neighbours. */
  async function storeApart(
    batch: readonly Entry<Row, Outcome>[],
    error: unknown,
  ): Promise<(Outcome | 'again' | 'not stored')[]> {
    const [only] = batch;
    if (batch.length === 1 && only) {
      const repaired = repair?.(only.row, error);
      if (repaired !== undefined) {
        only.row = repaired;
        return ['again'];
      }
      log.error({ lane: name, err: error }, 'row.refused_by_store');
      return ['not stored'];
    }
    const middle = Math.ceil(batch.length / 2);
    const first = await storeBatch(batch.slice(0, middle));
    const second = await storeBatch(batch.slice(middle));
    return [...first, ...second];
  }

  function takeBatch(): Entry<Row, Outcome>[] {
    const batch: Entry<Row, Outcome>[] = [];
    const rest: Entry<Row, Outcome>[] = [];
    const keys = new Set<string>();
    let size = 0;
    for (const entry of line) {
      if (entry.isAnswered) continue;
      const key = separateBy?.(entry.row);
      if (size >= batchMax || (key !== undefined && keys.has(key))) {
        rest.push(entry);
        continue;
      }
      if (key !== undefined) keys.add(key);
      size += sizeOf?.(entry.row) ?? 1;
      batch.push(entry);
    }
    line = rest;
    return batch;
  }

  function answer(entry: Entry<Row, Outcome>, outcome: Outcome | 'not stored'): void {
    if (entry.isAnswered) return;
    entry.isAnswered = true;
    entry.answer(outcome);
  }

  function answerOverdue(): void {
    // The check runs at intervals, so it looks one interval ahead.
    const limitMs = nowMs() + deadlineCheckMs;
    for (const entry of inFlight) if (entry.deadlineMs <= limitMs) answer(entry, 'not stored');
    for (const entry of line) if (entry.deadlineMs <= limitMs) answer(entry, 'not stored');
  }

  function settleIdle(): void {
    clearInterval(deadlineTimer);
    deadlineTimer = undefined;
    for (const resolve of idleWaiters.splice(0)) resolve();
  }

  async function close(): Promise<void> {
    isClosed = true;
    if (line.length === 0 && inFlight.length === 0) return settleIdle();
    await new Promise<void>((resolve) => {
      idleWaiters.push(resolve);
    });
  }

  return { submit, close };
}
