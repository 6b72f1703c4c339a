/** 1: understood, but it could not be done. 2: the command line or the environment is wrong. */
export type ExitCode = 1 | 2;

/** Ends a command: what happened, and what to do next. */
export class CommandFailure extends Error {
  override readonly name = 'CommandFailure';
  readonly next: string | undefined;
  readonly exitCode: ExitCode;

  constructor(message: string, options: { next?: string; exitCode?: ExitCode } = {}) {
    super(message);
    this.next = options.next;
    this.exitCode = options.exitCode ?? 1;
  }
}

/** Names what there is, because most unknown names are misspelt ones. */
export function unknownProduct(key: string, known: readonly string[]): CommandFailure {
  return known.length === 0
    ? new CommandFailure(`There is no product "${key}"; there is none yet at all.`, {
        next: `npx latchkey product add ${key} --name NAME --provisioner postgres-schema`,
      })
    : new CommandFailure(`There is no product "${key}". Known: ${known.join(', ')}.`, {
        next: 'npx latchkey product list',
      });
}
