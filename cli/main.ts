#!/usr/bin/env node
import { existsSync, readFileSync } from 'node:fs';
import { CommanderError } from '@commander-js/extra-typings';
import { createProgram } from './program.ts';

process.exitCode = await run(process.argv);

async function run(argv: readonly string[]): Promise<number> {
  const isJson = argv.includes('--json');
  try {
    await createProgram(readVersion(), { isQuiet: isJson }).parseAsync([...argv]);
    // A command may have set it: doctor does when it found something wrong.
    return Number(process.exitCode ?? 0);
  } catch (error) {
    const code = await explain(error, isJson);
    // What was opened before it failed must not keep the process.
    process.exit(code);
  }
}

/** Standard output stays empty: what reads it gets the result or nothing. */
async function explain(error: unknown, isJson: boolean): Promise<number> {
  if (error instanceof CommanderError) {
    // Help and version end a command too; of a mistake commander has said already what it is.
    if (error.exitCode === 0) return 0;
    if (isJson) writeJson(error.message.replace(/^error: /, ''), undefined);
    return 2;
  }
  const { describeFailure } = await import('./describe-failure.ts');
  const { message, next, exitCode } = describeFailure(error);
  if (isJson) writeJson(message, next);
  else process.stderr.write(`Error: ${message}\n${next === undefined ? '' : `Next:  ${next}\n`}`);
  return exitCode;
}

function writeJson(message: string, next: string | undefined): void {
  process.stderr.write(`${JSON.stringify({ error: { message, next: next ?? null } })}\n`);
}

/** One level higher once it is built. */
function readVersion(): string {
  const found = ['../package.json', '../../package.json']
    .map((path) => new URL(path, import.meta.url))
    .find((url) => existsSync(url));
  if (!found) return 'unknown';
  return (JSON.parse(readFileSync(found, 'utf8')) as { version: string }).version;
}
