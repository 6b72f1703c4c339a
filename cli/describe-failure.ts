import { ConfigError } from '../runtime/config.ts';
import { maskSecrets } from '../runtime/logger.ts';
import { SecretsError } from '../runtime/secrets.ts';
import { CommandFailure, type ExitCode } from './failure.ts';

export type DescribedFailure = { message: string; next: string | undefined; exitCode: ExitCode };

const checkDatabase = 'Check DATABASE_URL, then: npx latchkey doctor';

const wordsOfCode: Record<string, string> = {
  ECONNREFUSED: 'Nothing listens at the address of the database.',
  ENOTFOUND: 'The host name of the database is unknown.',
  ECONNRESET: 'The database closed the connection.',
  ETIMEDOUT: 'The database does not answer.',
  '28P01': 'The database refuses the password.',
  '28000': 'The database refuses this user.',
  '3D000': 'The server has no database of this name.',
  '42501': 'The database user lacks a right that is needed.',
  '53300': 'The database takes no more connections.',
  '57P03': 'The database is starting up or shutting down.',
};

/** What a person is told when a command ends; never a parameter of a statement, never a password. */
export function describeFailure(error: unknown): DescribedFailure {
  if (error instanceof CommandFailure) {
    return { message: error.message, next: error.next, exitCode: error.exitCode };
  }
  if (error instanceof ConfigError) {
    return { message: error.message, next: 'Correct the environment.', exitCode: 2 };
  }
  if (error instanceof SecretsError) {
    const next = 'Start with the master key that this database was made with: npx latchkey doctor';
    return { message: `${capitalise(error.message)}.`, next, exitCode: 1 };
  }
  const inner = innermost(error);
  const words = wordsOfCode[codeOf(inner) ?? ''];
  if (words !== undefined) return { message: words, next: checkDatabase, exitCode: 1 };
  if (/connection timeout|timeout exceeded when trying to connect/i.test(inner.message)) {
    return { message: 'The database does not answer.', next: checkDatabase, exitCode: 1 };
  }
  return {
    message: maskSecrets(inner.message) || inner.name,
    next: 'npx latchkey doctor',
    exitCode: 1,
  };
}

// The outer ones quote whole statements with their parameters.
function innermost(error: unknown): Error {
  if (error instanceof AggregateError && error.errors.length > 0) return innermost(error.errors[0]);
  if (!(error instanceof Error)) return new Error(String(error));
  return error.cause === undefined ? error : innermost(error.cause);
}

function codeOf(error: Error): string | undefined {
  return 'code' in error && typeof error.code === 'string' ? error.code : undefined;
}

function capitalise(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
