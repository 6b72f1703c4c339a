import type { Context } from 'hono';
import { z } from 'zod';
import { type Logger, describeError } from '../../runtime/logger.ts';

/** What a program can tell apart; the words beside it are for people and may change. */
type ProblemCode =
  | 'unauthorized'
  | 'forbidden'
  | 'too-many-failures'
  | 'not-found'
  | 'invalid'
  | 'too-large'
  | 'other-generation'
  | 'ended-otherwise'
  | 'nothing-fits'
  | 'unavailable'
  | 'unexpected';

type ProblemStatus = 400 | 401 | 403 | 404 | 409 | 413 | 429 | 500 | 503;

/** Answers that it could not be done: a stable code, words, and what else helps. */
export function answerProblem(
  c: Context,
  status: ProblemStatus,
  problem: { error: ProblemCode; message: string } & Record<string, unknown>,
): Response {
  c.header('cache-control', 'no-store');
  return c.json(problem, status);
}

export function answerNotFound(c: Context): Response {
  return answerProblem(c, 404, { error: 'not-found', message: 'there is no such thing here' });
}

/** @param problems fields, each with the rule that it breaks; no values */
export function answerInvalid(c: Context, problems: readonly string[]): Response {
  return answerProblem(c, 400, {
    error: 'invalid',
    message: 'the request is not as documented',
    problems,
  });
}

export function answer(c: Context, body: object): Response {
  c.header('cache-control', 'no-store');
  return c.json(body);
}

/** What a schema makes of a value, or the fields that are wrong, without their values. */
export function check<T>(
  schema: z.ZodType<T>,
  value: unknown,
): { value: T } | { problems: string[] } {
  const parsed = schema.safeParse(value);
  if (parsed.success) return { value: parsed.data };
  const problems = parsed.error.issues.map((issue) => {
    const names = issue.code === 'unrecognized_keys' ? issue.keys : [];
    const field = [...issue.path, ...(names.length === 1 ? names : [])].map(String).join('.');
    return `${field || 'the whole'}: ${wordsOf(issue)}`;
  });
  return { problems: [...new Set(problems)] };
}

/** zod's own words may quote what came. */
function wordsOf(issue: z.core.$ZodIssue): string {
  switch (issue.code) {
    case 'custom':
      return issue.message;
    case 'invalid_type':
      return `must be ${issue.expected}`;
    case 'unrecognized_keys':
      return 'is not known';
    case 'invalid_value':
      return `must be one of ${issue.values.map(String).join(', ')}`;
    case 'too_small':
      return 'is too small or too short';
    case 'too_big':
      return 'is too big or too long';
    case 'invalid_format':
    case 'invalid_union':
    case 'invalid_key':
    case 'invalid_element':
    case 'not_multiple_of':
      return 'is not as documented';
  }
}

/** The body as a schema makes it; a body that is no JSON breaks it as a whole. */
export async function readBody<T>(
  c: Context,
  schema: z.ZodType<T>,
): Promise<{ value: T } | { problems: string[] }> {
  const text = await c.req.text();
  try {
    return check(schema, JSON.parse(text));
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    return { problems: ['the whole: is not JSON'] };
  }
}

/** The unexpected; what happened stays in the log. */
export function answerFailure(c: Context, error: Error, log: Pick<Logger, 'error'>): Response {
  log.error({ err: error }, 'v1.failed');
  if (!isStoreAway(error)) {
    return answerProblem(c, 500, { error: 'unexpected', message: 'unexpected, see the log' });
  }
  c.header('retry-after', '1');
  return answerProblem(c, 503, { error: 'unavailable', message: 'try again in a moment' });
}

function isStoreAway(error: Error): boolean {
  const { code = '', message, cause } = describeError(error);
  const text = `${code} ${message} ${cause?.code ?? ''} ${cause?.message ?? ''}`;
  return /ECONN|EPIPE|ETIMEDOUT|57P0|57014|\b08\d{3}|\b40P?0\d|connection|timeout/i.test(text);
}
