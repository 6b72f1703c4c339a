import { createHash } from 'node:crypto';
import type { FailureClass } from './failure.ts';

/** Why an instance could not be made what it should be, and of which kind that reason is. */
export type CauseParts = {
  /** Number of the product. */
  product: number;
  /** What was asked for and not yet made real; neither order nor repetition counts. */
  kinds: readonly string[];
  class: FailureClass;
  /** Words for people, without secrets. */
  message: string;
  /** What the other side answered: 503 is another matter than 404. */
  httpStatus?: number | undefined;
};

const fingerprintLength = 12;
const marked = new RegExp(`\\[([0-9a-f]{${fingerprintLength}})\\]$`);

/**
 * The same text for all failures of one kind: what differs from one instance to the next (ids,
 * numbers, addresses, times, quoted parts) is replaced by its kind.
 */
export function normaliseMessage(message: string): string {
  return replacements
    .reduce((text, [pattern, by]) => text.replace(pattern, by), message.normalize('NFC'))
    .toLowerCase()
    .replace(/\s+/g, ' ')
    .trim();
}

// The longer forms first: an address contains numbers, a time is made of them.
const replacements: readonly (readonly [RegExp, string])[] = [
  [/\b[a-z][a-z0-9+.-]*:\/\/[^\s"'`]+/gi, '<url>'],
  [/"[^"]*"|`[^`]*`|(?<![\p{L}\p{N}])'[^']*'|“[^”]*”|‘[^’]*’|«[^»]*»|「[^」]*」/gu, '<text>'],
  [/\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?)?(?:Z|[+-]\d\d:?\d\d)?/gi, '<time>'],
  [/\b\d{1,2}:\d\d(?::\d\d(?:[.,]\d+)?)?\b/g, '<time>'],
  [/\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b/gi, '<id>'],
  // Words that carry a digit, whatever they are glued together with: order numbers, hosts, hashes.
  [/(?<![\p{L}\p{N}<])[\p{L}_][\p{L}\p{N}_.:-]*\p{N}[\p{L}\p{N}_.:-]*/gu, '<id>'],
  [/(?<![\p{L}\p{N}])\p{N}[\p{N}_.,:-]*[\p{L}][\p{L}\p{N}_.:-]*/gu, '<id>'],
  [/\p{N}+(?:[.,]\p{N}+)*/gu, '<number>'],
];

/** Twelve hexadecimal digits that name a cause: equal for equal causes, in every process. */
export function fingerprintOf(parts: CauseParts): string {
  const kinds = [...new Set(parts.kinds)].toSorted();
  const text = JSON.stringify([
    parts.product,
    kinds,
    parts.class,
    parts.httpStatus ?? null,
    normaliseMessage(parts.message),
  ]);
  return createHash('sha256').update(text).digest('hex').slice(0, fingerprintLength);
}

/** The message as it was, with its fingerprint behind it: what a dead letter is kept and found by. */
export function writeCause(parts: CauseParts): string {
  return `${parts.message} [${fingerprintOf(parts)}]`;
}

/** The other way round; a cause that was written without a fingerprint has none. */
export function readCause(cause: string): { message: string; fingerprint: string | null } {
  const fingerprint = marked.exec(cause)?.[1] ?? null;
  return fingerprint === null
    ? { message: cause, fingerprint }
    : { message: cause.slice(0, -(fingerprintLength + 3)), fingerprint };
}
