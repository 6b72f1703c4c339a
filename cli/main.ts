#!/usr/bin/env node
import { existsSync, readFileSync } from 'node:fs';
import { CommanderError } from '@commander-js/extra-typings';
import { createProgram } from './program.ts';

process.exitCode = await run(process.argv);

async function run(argv: readonly string[]): Promise<number> {
  try {
    await createProgram(readVersion()).parseAsync([...argv]);
    // A command may have set it: doctor does when it found something wrong.
    return Number(process.exitCode ?? 0);
  } catch (error) {
    // Help and version end a command too; of a mistake commander has said already what it is.
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    const { describeFailure } = await import('./describe-failure.ts');
    const { message, next, exitCode } = describeFailure(error);
    // Standard output stays empty: what reads it gets the result or nothing.
    process.stderr.write(
      argv.includes('--json')
        ? `${JSON.stringify({ error: { message, next: next ?? null } })}\n`
        : `Error: ${message}\n${next === undefined ? '' : `Next:  ${next}\n`}`,
    );
    return exitCode;
  }
}

/** One level higher once it is built. */
function readVersion(): string {
  const found = ['../package.json', '../../package.json']
    .map((path) => new URL(path, import.meta.url))
    .find((url) => existsSync(url));
  if (!found) return 'unknown';
  return (JSON.parse(readFileSync(found, 'utf8')) as { version: string }).version;
}
