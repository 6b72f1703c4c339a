import { expect, test } from 'vitest';
import { createFailpoints } from '../../runtime/failpoints.ts';
import { startChild } from '../servers/child.ts';
import { until } from '../servers/until.ts';

const failing = new URL('fixtures/failing.ts', import.meta.url);

test('without a specification a failpoint does nothing, not even wait', () => {
  expect(createFailpoints(undefined)('api.after-commit')).toBeUndefined();
  expect(createFailpoints('')('api.after-commit')).toBeUndefined();
  expect(createFailpoints('other=kill')('api.after-commit')).toBeUndefined();
});

test('kill:3 kills the process at the third hit, and nothing after it runs', async () => {
  const child = startChild(failing, ['here=kill:3,elsewhere=kill']);
  expect(await child.ended).toEqual({ code: null, signal: 'SIGKILL' });
  expect(child.lines).toEqual(['passed 1', 'passed 2']);
});

test('stop halts the process until it is told to go on', async () => {
  const child = startChild(failing, ['here=stop:2']);
  try {
    const stateOf = async () => {
      const { readFile } = await import('node:fs/promises');
      return (await readFile(`/proc/${child.pid}/stat`, 'utf8')).split(' ')[2];
    };
    await until(stateOf, 'T', { what: 'the stopped state' });
    expect(child.lines).toEqual(['passed 1']);
    child.kill('SIGCONT');
    await until(
      () => child.lines.length,
      (n) => n > 2,
    );
  } finally {
    child.kill('SIGKILL');
  }
});

test('delay waits at every hit', async () => {
  const failpoint = createFailpoints('here=delay:40');
  const before = performance.now();
  await failpoint('here');
  await failpoint('here');
  expect(performance.now() - before).toBeGreaterThan(75);
});

test.each(['here', 'here=explode', 'here=kill:x', '=kill', 'here=kill,,'])(
  'the specification "%s" is refused',
  (spec) => {
    expect(() => createFailpoints(spec)).toThrow('LATCHKEY_FAILPOINTS');
  },
);
