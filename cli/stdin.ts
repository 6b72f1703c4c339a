import { CommandFailure } from './failure.ts';

const sizeBytesMax = 64 * 1024;

/**
 * Reads a secret from standard input, whole. Arguments stand in the process list and in the shell's
 * history, so there is no other way to give one.
 *
 * @param name for messages, like "secret"
 * @param example a whole command line that shows how
 */
export async function readSecretFromStdin(name: string, example: string): Promise<string> {
  if (process.stdin.isTTY) {
    throw new CommandFailure(`The ${name} is read from a pipe, and standard input is a terminal.`, {
      next: example,
      exitCode: 2,
    });
  }
  const parts: Buffer[] = [];
  let sizeBytes = 0;
  for await (const part of process.stdin as AsyncIterable<Buffer>) {
    parts.push(part);
    sizeBytes += part.length;
    if (sizeBytes > sizeBytesMax) {
      throw new CommandFailure(`The ${name} on standard input is longer than any ${name} can be.`, {
        next: example,
        exitCode: 2,
      });
    }
  }
  const text = Buffer.concat(parts)
    .toString('utf8')
    .replace(/\r?\n$/, '');
  if (text === '') {
    throw new CommandFailure(`Standard input is empty; the ${name} is expected there.`, {
      next: example,
      exitCode: 2,
    });
  }
  return text;
}
