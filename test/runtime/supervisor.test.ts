import { afterEach, expect, test } from 'vitest';
import { isRunning, startChild } from '../servers/child.ts';
import type { TestChild } from '../servers/child.ts';
import { until } from '../servers/until.ts';

const module = new URL('fixtures/supervised.ts', import.meta.url);
const started: TestChild[] = [];

function start(...args: string[]): TestChild {
  const child = startChild(module, args);
  started.push(child);
  return child;
}

afterEach(() => {
  for (const child of started.splice(0)) child.kill('SIGKILL');
});

const pidsOf = (child: TestChild, name: string): number[] =>
  child.lines.flatMap((line) => {
    const [word, who, pid] = line.split(' ');
    return word === 'started' && who === name ? [Number(pid)] : [];
  });

async function pidOf(child: TestChild, name: string, nth = 0): Promise<number> {
  const pids = await until(
    () => pidsOf(child, name),
    (p) => p.length > nth,
    { what: child.lines.join('\n') },
  );
  return pids[nth] ?? 0;
}

test('a child that is killed is started again, and its sister is left alone', async () => {
  const supervisor = start('supervise', 'api', 'workers');
  const [api, workers] = [await pidOf(supervisor, 'api'), await pidOf(supervisor, 'workers')];
  process.kill(workers, 'SIGKILL');
  const next = await pidOf(supervisor, 'workers', 1);
  expect(next).not.toBe(workers);
  expect(pidsOf(supervisor, 'api')).toEqual([api]);
  expect(isRunning(api)).toBe(true);
});

test('SIGTERM closes every child and then the supervisor, with exit code 0', async () => {
  const supervisor = start('supervise', 'api', 'workers');
  const pids = [await pidOf(supervisor, 'api'), await pidOf(supervisor, 'workers')];
  supervisor.kill('SIGTERM');
  expect(await supervisor.ended).toEqual({ code: 0, signal: null });
  expect(supervisor.lines).toContain('closed api');
  expect(supervisor.lines).toContain('closed workers');
  expect(pids.filter(isRunning)).toEqual([]);
});

test('children end when their supervisor is killed with SIGKILL', async () => {
  const supervisor = start('supervise', 'api', 'workers');
  const pids = [await pidOf(supervisor, 'api'), await pidOf(supervisor, 'workers')];
  supervisor.kill('SIGKILL');
  await until(() => pids.filter(isRunning), [], {
    timeoutMs: 5_000,
    what: 'the end of all children',
  });
});

test('a child that does not end on SIGTERM is killed when the time is over', async () => {
  const supervisor = start('supervise', 'stubborn');
  const pid = await pidOf(supervisor, 'stubborn');
  supervisor.kill('SIGTERM');
  expect(await supervisor.ended).toEqual({ code: 0, signal: null });
  expect(supervisor.lines).toContain('stubborn heard SIGTERM');
  expect(isRunning(pid)).toBe(false);
});

test('what a child tells its supervisor arrives with its role', async () => {
  const supervisor = start('supervise', 'api');
  await until(
    () => supervisor.lines,
    (l) => l.includes('message api {"ready":true}'),
  );
});

test('a process whose closing hangs ends with 1 when its time is over', async () => {
  const child = start('work', 'stuck');
  await pidOf(child, 'stuck');
  child.kill('SIGTERM');
  expect(await child.ended).toEqual({ code: 1, signal: null });
  await until(
    () => child.lines.join('\n'),
    (text) => text.includes('process.close_timed_out'),
  );
});

test('five SIGTERMs close a process once', async () => {
  const child = start('work', 'api');
  await pidOf(child, 'api');
  for (let i = 0; i < 5; i++) child.kill('SIGTERM');
  expect(await child.ended).toEqual({ code: 0, signal: null });
  expect(child.lines.filter((line) => line === 'closed api')).toHaveLength(1);
});

test('an unhandled rejection is logged once and ends the process with 1', async () => {
  const child = start('work', 'buggy');
  expect(await child.ended).toEqual({ code: 1, signal: null });
  const said = await until(
    () => child.lines.filter((line) => line.includes('process.unhandled_rejection')),
    (lines) => lines.length > 0,
  );
  expect(said).toHaveLength(1);
  expect(said[0]).toContain('a bug');
});
