import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { type LaneOptions, createLane } from '../../api/receiver/group-commit.ts';
import { createFakeStore, lostConnection, serverError, turns } from './fake-store.ts';

let atMs: number;

beforeEach(() => {
  atMs = 1_000_000;
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
});

afterEach(() => {
  vi.useRealTimers();
});

/** The clock and the lane's own timer go on together. */
async function pass(ms: number): Promise<void> {
  atMs += ms;
  vi.advanceTimersByTime(ms);
  await turns();
}

function setUp(options: Partial<LaneOptions<string, string>> = {}) {
  const { store, batches } = createFakeStore();
  const logged: string[] = [];
  const log = {
    warn: (_: unknown, message: string) => void logged.push(message),
    error: (_: unknown, message: string) => void logged.push(message),
  } as unknown as LaneOptions<string, string>['log'];
  const lane = createLane<string, string>({
    name: 'test',
    store,
    log,
    nowMs: () => atMs,
    ...options,
  });
  /** What each row was answered, as far as it was. */
  const answers: Record<string, string> = {};
  const submit = (row: string, budgetMs = 3_000) => {
    lane.submit(row, atMs + budgetMs).then((outcome) => {
      answers[row] = outcome;
    }, expect.unreachable);
  };
  const rowsOf = () => batches.map(({ rows }) => rows.join(' '));
  return { lane, batches, answers, submit, rowsOf, logged };
}

describe('batches', () => {
  test('what comes in one turn goes together; while it commits the next one fills', async () => {
    const { batches, submit, rowsOf, answers } = setUp();
    submit('a');
    submit('b');
    await turns();
    expect(rowsOf()).toEqual(['a b']);
    submit('c');
    await turns();
    submit('d');
    await turns();
    expect(rowsOf()).toEqual(['a b']);
    await batches[0]?.succeed();
    expect(answers).toEqual({ a: 'a', b: 'b' });
    expect(rowsOf()).toEqual(['a b', 'c d']);
    await batches[1]?.succeed();
    expect(answers).toEqual({ a: 'a', b: 'b', c: 'c', d: 'd' });
  });

  test('one statement is in flight at a time', async () => {
    let running = 0;
    let most = 0;
    const { lane } = setUp({
      store: async (rows) => {
        most = Math.max(most, (running += 1));
        await turns(2);
        running -= 1;
        return rows;
      },
    });
    const rows = Array.from({ length: 200 }, (_, n) => `r${n}`);
    const answered = await Promise.all(
      rows.map(async (row, n) => {
        await turns(n % 7);
        return lane.submit(row, atMs + 3_000);
      }),
    );
    expect(answered).toEqual(rows);
    expect(most).toBe(1);
  });

  test('a batch has at most its size; the rest follows in order', async () => {
    const { batches, submit, rowsOf } = setUp({ batchMax: 2 });
    for (const row of ['a', 'b', 'c', 'd', 'e']) submit(row);
    await turns();
    await batches[0]?.succeed();
    await batches[1]?.succeed();
    expect(rowsOf()).toEqual(['a b', 'c d', 'e']);
  });

  test('again goes to the front of the next batch', async () => {
    const { batches, submit, rowsOf, answers } = setUp({ batchMax: 2 });
    submit('a');
    submit('b');
    await turns();
    submit('c');
    submit('d');
    await batches[0]?.succeed(['stored', 'again']);
    expect(answers).toEqual({ a: 'stored' });
    expect(rowsOf()).toEqual(['a b', 'b c']);
    await batches[1]?.succeed();
    expect(answers).toEqual({ a: 'stored', b: 'b', c: 'c' });
    expect(rowsOf()).toEqual(['a b', 'b c', 'd']);
  });

  test('two rows of one key never share a statement, and keep their order', async () => {
    const { batches, submit, rowsOf } = setUp({ separateBy: (row) => row.slice(0, 1) });
    for (const row of ['x1', 'x2', 'y1', 'x3', 'y2']) submit(row);
    await turns();
    await batches[0]?.succeed();
    await batches[1]?.succeed();
    expect(rowsOf()).toEqual(['x1 y1', 'x2 y2', 'x3']);
  });

  test('again and its successor of the same key stay in order and apart', async () => {
    const { batches, submit, rowsOf } = setUp({ separateBy: (row) => row.slice(0, 1) });
    submit('x1');
    submit('x2');
    await turns();
    await batches[0]?.succeed(['again']);
    await batches[1]?.succeed();
    expect(rowsOf()).toEqual(['x1', 'x1', 'x2']);
  });
});

describe('a row that cannot be stored', () => {
  test.each(['22021', '23505', '21000'])(
    '%s: it is found by halving, and its neighbours are stored',
    async (code) => {
      const seen: string[] = [];
      const { answers, submit, logged } = setUp({
        store: async (rows) => {
          seen.push(rows.join(' '));
          if (rows.includes('poison')) throw serverError(code);
          return rows;
        },
      });
      for (const row of ['a', 'b', 'poison', 'c', 'd']) submit(row);
      await turns(20);
      expect(answers).toEqual({ a: 'a', b: 'b', c: 'c', d: 'd', poison: 'not stored' });
      expect(seen[0]).toBe('a b poison c d');
      expect(seen.filter((rows) => rows === 'poison')).toHaveLength(1);
      expect(logged).toEqual(['row.refused_by_store']);
    },
  );

  test('two of them in a batch cost only themselves', async () => {
    const { answers, submit } = setUp({
      store: async (rows) => {
        if (rows.some((row) => row.startsWith('poison'))) throw serverError('22021');
        return rows;
      },
    });
    for (const row of ['poison1', 'a', 'b', 'poison2']) submit(row);
    await turns(20);
    expect(answers).toEqual({
      a: 'a',
      b: 'b',
      poison1: 'not stored',
      poison2: 'not stored',
    });
  });

  test('nobody is refused afterwards: the store is well', async () => {
    const { answers, submit } = setUp({
      store: async (rows) => {
        if (rows.includes('poison')) throw serverError('22021');
        return rows;
      },
    });
    submit('poison');
    await turns(10);
    submit('a');
    await turns(10);
    expect(answers).toEqual({ poison: 'not stored', a: 'a' });
  });

  test('one that can be repaired rides again in its other form', async () => {
    const seen: string[] = [];
    const { answers, submit } = setUp({
      store: async (rows) => {
        seen.push(rows.join(' '));
        if (rows.includes('taken')) throw serverError('23505');
        return rows;
      },
      repair: (row) => (row === 'taken' ? 'free' : undefined),
    });
    submit('a');
    submit('taken');
    await turns(20);
    expect(answers).toEqual({ a: 'a', taken: 'free' });
    expect(seen).toEqual(['a taken', 'a', 'taken', 'free']);
  });
});

describe('a store that fails', () => {
  test.each([
    ['a lost connection', lostConnection],
    ['a plan older than a migration', serverError('0A000')],
    ['a server that goes away', serverError('57P01')],
    ['a deadlock', serverError('40P01')],
  ])('%s is tried once more with the same rows', async (_, error) => {
    const { batches, submit, rowsOf, answers, logged } = setUp();
    submit('a');
    submit('b');
    await turns();
    await batches[0]?.fail(error);
    expect(rowsOf()).toEqual(['a b', 'a b']);
    await batches[1]?.succeed();
    expect(answers).toEqual({ a: 'a', b: 'b' });
    expect(logged).toEqual([]);
  });

  test('and only once', async () => {
    const { batches, submit, rowsOf, answers, logged } = setUp();
    submit('a');
    await turns();
    await batches[0]?.fail(lostConnection);
    await batches[1]?.fail(lostConnection);
    expect(rowsOf()).toHaveLength(2);
    expect(answers).toEqual({ a: 'not stored' });
    expect(logged).toEqual(['lane.failed']);
  });

  test('with less than a second left it is not tried again', async () => {
    const { batches, submit, rowsOf, answers } = setUp();
    submit('a', 3_000);
    await turns();
    await pass(2_001);
    await batches[0]?.fail(lostConnection);
    expect(rowsOf()).toHaveLength(1);
    expect(answers).toEqual({ a: 'not stored' });
  });

  test('a server that is out of order is not asked again', async () => {
    const { batches, submit, rowsOf } = setUp();
    submit('a');
    await turns();
    await batches[0]?.fail(serverError('53100'));
    expect(rowsOf()).toHaveLength(1);
  });

  test('the whole line is answered, 250 ms long everybody is refused, then one is tried', async () => {
    const { batches, submit, rowsOf, answers, logged } = setUp();
    submit('a');
    await turns();
    submit('b');
    await batches[0]?.fail(serverError('53300'));
    expect(answers).toEqual({ a: 'not stored', b: 'not stored' });
    await pass(249);
    submit('c');
    await turns();
    expect(answers['c']).toBe('not stored');
    expect(rowsOf()).toEqual(['a']);
    await pass(1);
    submit('d');
    await turns();
    await batches[1]?.succeed();
    expect(answers['d']).toBe('d');
    expect(logged).toEqual(['lane.failed', 'lane.recovered']);
  });

  test('an outage is one line in the log, however long it lasts', async () => {
    const { batches, submit, logged } = setUp();
    for (let round = 0; round < 5; round += 1) {
      submit(`r${round}`);
      await turns();
      await batches[round]?.fail(serverError('53300'));
      await pass(250);
    }
    expect(logged).toEqual(['lane.failed']);
  });
});

describe('the budget', () => {
  test('a store that hangs: all are answered before their time is up, each at its own', async () => {
    const { batches, submit, answers } = setUp();
    submit('short', 500);
    submit('long', 1_000);
    await turns();
    submit('waiting', 600);
    await turns();
    await pass(350);
    expect(answers).toEqual({});
    await pass(100);
    expect(answers).toEqual({ short: 'not stored' });
    await pass(100);
    expect(answers).toEqual({ short: 'not stored', waiting: 'not stored' });
    await pass(400);
    expect(answers).toEqual({ short: 'not stored', waiting: 'not stored', long: 'not stored' });
    expect(batches).toHaveLength(1);
    // It was committed after all: nobody is told, and who waited in vain is not stored.
    await batches[0]?.succeed();
    expect(answers['short']).toBe('not stored');
    expect(batches).toHaveLength(1);
  });

  test('under 300 ms left nothing is begun', async () => {
    const { batches, submit, answers } = setUp();
    submit('late', 299);
    submit('just', 300);
    await turns();
    expect(answers).toEqual({ late: 'not stored' });
    expect(batches.map(({ rows }) => rows)).toEqual([['just']]);
  });

  test('a row that rides again and again is answered in time', async () => {
    const { answers, submit } = setUp({
      store: async (rows) => {
        await pass(100);
        return rows.map(() => 'again');
      },
    });
    submit('a', 500);
    await vi.waitFor(() => expect(answers).toEqual({ a: 'not stored' }));
  });
});

describe('the line', () => {
  test('of 5,000 takes no more', async () => {
    const { lane, batches, submit } = setUp();
    submit('first');
    await turns();
    let refused = 0;
    for (let n = 0; n < 5_001; n += 1) {
      lane.submit(`r${n}`, atMs + 3_000).then((outcome) => {
        if (outcome === 'not stored') refused += 1;
      }, expect.unreachable);
    }
    await turns();
    expect(refused).toBe(1);
    for (let at = 0; at < 11; at += 1) await batches[at]?.succeed();
    expect(batches.map(({ rows }) => rows.length)).toEqual([1, ...Array(10).fill(500)]);
    expect(refused).toBe(1);
  });
});

describe('close', () => {
  test('refuses new rows and waits for those in flight and in line', async () => {
    const { lane, batches, submit, answers } = setUp();
    submit('a');
    await turns();
    submit('b');
    let isClosed = false;
    const closing = lane.close().then(() => {
      isClosed = true;
    });
    submit('c');
    await turns();
    expect(answers).toEqual({ c: 'not stored' });
    await batches[0]?.succeed();
    expect(isClosed).toBe(false);
    await batches[1]?.succeed();
    await closing;
    expect(answers).toEqual({ a: 'a', b: 'b', c: 'not stored' });
  });

  test('of an idle lane is at once, and leaves no timer behind', async () => {
    const { lane, batches, submit } = setUp();
    submit('a');
    await turns();
    await batches[0]?.succeed();
    await lane.close();
    expect(vi.getTimerCount()).toBe(0);
  });

  test('with a row that has just come waits for its commit', async () => {
    const { lane, batches, submit, answers } = setUp();
    submit('a');
    const closing = lane.close();
    await turns();
    await batches[0]?.succeed();
    await closing;
    expect(answers).toEqual({ a: 'a' });
  });

  test('ends also when the store fails meanwhile', async () => {
    const { lane, batches, submit, answers } = setUp();
    submit('a');
    await turns();
    const closing = lane.close();
    await batches[0]?.fail(serverError('53300'));
    await closing;
    expect(answers).toEqual({ a: 'not stored' });
  });
});
