import { expect, test } from 'vitest';
import { createLogger, describeError, maskSecrets } from '../../runtime/logger.ts';

function logged(write: (log: ReturnType<typeof createLogger>) => void): Record<string, unknown>[] {
  const lines: string[] = [];
  write(
    createLogger({ level: 'info', role: 'test', destination: { write: (l) => lines.push(l) } }),
  );
  return lines.map((line) => JSON.parse(line) as Record<string, unknown>);
}

test('a line is one JSON object with time, level, role and the fields', () => {
  const [line] = logged((log) => log.info({ instance: 7, outcome: 'applied' }, 'apply.attempted'));
  expect(line).toMatchObject({
    level: 'info',
    role: 'test',
    instance: 7,
    outcome: 'applied',
    msg: 'apply.attempted',
  });
  expect(line?.['time']).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
});

const secretNames = [
  'password',
  'secret',
  'accessKey',
  'authorization',
  'Authorization',
  'cookie',
  'set-cookie',
  'access',
  'appInfo',
  'mobilePhone',
  'email',
  'license',
  'userName',
  'authToken',
  'databaseUrl',
  'access_key',
];

test('a child of a child has the fields of both', () => {
  const [line] = logged((log) => log.child({ product: 1 }).child({ instance: 2 }).info('x'));
  expect(line).toMatchObject({ role: 'test', product: 1, instance: 2 });
});

test.each(secretNames)('the field %s is hidden, also two levels down and in children', (name) => {
  const lines = logged((log) => {
    log.info({ [name]: 'tell-nobody' }, 'a');
    log.info({ order: { [name]: 'tell-nobody', list: [{ [name]: 'tell-nobody' }] } }, 'b');
    log.info({ order: { buyer1: { [name]: 'tell-nobody' } } }, 'c');
    log.child({ [name]: 'tell-nobody' }).info({ instance: 1 }, 'd');
  });
  expect(lines).toHaveLength(4);
  expect(JSON.stringify(lines)).not.toContain('tell-nobody');
});

test('an error keeps type, message, code and stack, and loses what hangs on it', () => {
  const error = Object.assign(new Error('no connection to postgres://me:tell-nobody@db/x'), {
    code: 'ECONNREFUSED',
    detail: 'Key (email)=(tell-nobody) already exists.',
    parameters: ['tell-nobody'],
  });
  for (const lines of [
    logged((l) => l.error(error, 'x')),
    logged((l) => l.error({ err: error }, 'x')),
  ]) {
    expect(lines[0]?.['err']).toMatchObject({
      type: 'Error',
      message: 'no connection to postgres://me:***@db/x',
      code: 'ECONNREFUSED',
    });
    expect(JSON.stringify(lines)).not.toContain('tell-nobody');
  }
});

test('the causes of an error are described the same way, and a circle of causes ends', () => {
  const inner = new Error('redis://:tell-nobody@r:6379 is away');
  const outer = new Error('outer', { cause: inner });
  inner.cause = outer;
  const text = JSON.stringify(describeError(outer));
  expect(text).toContain('redis://:***@r:6379 is away');
  expect(text).not.toContain('tell-nobody');
});

test.each([
  ['postgres://u:tell-nobody@h:1/d', 'postgres://u:***@h:1/d'],
  ['rediss://:tell-nobody/@with@h:1', 'rediss://:***@h:1'],
  ['http://h/p?authToken=tell-nobody&x=1', 'http://h/p?authToken=***&x=1'],
  [
    'Failed query: select $1\nparams: tell-nobody,\ntell-nobody\n    at run (x.ts:1)',
    'Failed query: select $1\nparams: ***\n    at run (x.ts:1)',
  ],
  ['http://localhost:8080/callbacks/shop@home', 'http://localhost:8080/callbacks/shop@home'],
  ['12:30 a@b', '12:30 a@b'],
])('%s is masked', (text, masked) => {
  expect(maskSecrets(text)).toBe(masked);
});
