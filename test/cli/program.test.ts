import type { CommandUnknownOpts } from '@commander-js/extra-typings';
import { expect, test } from 'vitest';
import { createProgram } from '../../cli/program.ts';

/** Parses a line that ends before any command runs. */
async function parse(line: string): Promise<{ exitCode: number; out: string; err: string }> {
  const program = createProgram('1.2.3');
  const said = { out: '', err: '' };
  const capture = (command: CommandUnknownOpts): void => {
    command.configureOutput({
      writeOut: (text) => void (said.out += text),
      writeErr: (text) => void (said.err += text),
    });
    command.commands.forEach(capture);
  };
  capture(program);
  try {
    await program.parseAsync(line.split(' '), { from: 'user' });
  } catch (error) {
    const { exitCode, message } = error as { exitCode: number; message: string };
    return { exitCode, ...said, err: said.err || message };
  }
  throw new Error(`"${line}" ran`);
}

function pathsOf(command: CommandUnknownOpts, above = ''): string[] {
  if (command.commands.length === 0) return [above];
  return command.commands.flatMap((each) => pathsOf(each, `${above} ${each.name()}`.trim()));
}

test('every command has help with an example', async () => {
  const paths = pathsOf(createProgram('1.2.3'));
  expect(paths).toEqual(
    expect.arrayContaining([
      ...['migrate', 'doctor', 'product add', 'product list', 'product show', 'key add'],
      ...['key list', 'key retire', 'order show', 'dead-letter list', 'dead-letter redrive'],
      'password set',
    ]),
  );
  for (const path of paths) {
    const { exitCode, out } = await parse(`${path} --help`);
    expect(exitCode, path).toBe(0);
    expect(out, path).toMatch(/Examples?:\n +\$ .*npx latchkey/);
  }
});

test('every command that prints a result can print it as JSON', () => {
  const leaves = (command: CommandUnknownOpts): CommandUnknownOpts[] =>
    command.commands.length === 0 ? [command] : command.commands.flatMap(leaves);
  const processes = new Set(['start', 'demo']);
  for (const command of leaves(createProgram('1.2.3'))) {
    if (processes.has(command.name())) continue;
    const options = command.options.map((each) => each.long);
    expect(options, command.name()).toContain('--json');
  }
});

test.each([
  ['prodcut list', "unknown command 'prodcut'", 'Did you mean product?'],
  ['product lsit', "unknown command 'lsit'", 'Did you mean list?'],
  ['product list --jsno', "unknown option '--jsno'", 'Did you mean --json?'],
  ['product list --jsno', "unknown option '--jsno'", 'latchkey product list --help shows how'],
  ['product add x --name X', '--provisioner', 'latchkey product add --help shows how'],
  [
    'product add x --name X --provisioner htpp',
    "'htpp' is invalid",
    'Allowed choices are postgres-schema, http',
  ],
  ['key add shop --class bsae', "'bsae' is invalid", 'base, kit, license, general'],
  ['key add shop --class base --secret x', "unknown option '--secret'", 'key add --help'],
  ['key retire shop base', "'base' is invalid", 'A key is named by its number'],
  ['order show', "missing required argument 'order-id'", 'order show --help'],
  ['dead-letter redrive --all', '--reason', ''],
  ['dead-letter redrive --reason why', '--product, --order, --cause or --all', ''],
  ['dead-letter redrive --all --order 1 --reason why', '--all goes with none of', ''],
])('"%s" is a mistake that says which and what to do', async (line, what, next) => {
  const { exitCode, out, err } = await parse(line);
  expect(exitCode).not.toBe(0);
  expect(out).toBe('');
  expect(err).toContain(what);
  expect(err).toContain(next);
});
