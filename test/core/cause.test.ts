import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  type CauseParts,
  fingerprintOf,
  normaliseMessage,
  readCause,
  writeCause,
} from '../../core/cause.ts';
import type { FailureClass } from '../../core/failure.ts';

const parts: CauseParts = {
  product: 1,
  kinds: ['created'],
  class: 'transient',
  message: 'backend answered 503',
  httpStatus: 503,
};

describe('what differs from one instance to the next is replaced', () => {
  test.each([
    ['backend did not answer in 10 s', 'backend did not answer in <number> s'],
    ['waited 1.5 s, then 12,000', 'waited <number> s, then <number>'],
    ['order CS2211181819B4LVS is not there', 'order <id> is not there'],
    ['no 10e758d0-31ad-4c4b-8f1b-81d03469a10e', 'no <id>'],
    ['GET https://crm.example.com/i/5?x=1 failed', 'get <url> failed'],
    ['until 2026-01-02T03:04:05.678Z at most', 'until <time> at most'],
    ['closed at 03:04:05', 'closed at <time>'],
    ['no plan "Gold 3" here', 'no plan <text> here'],
    ["no plan 'Gold 3' here, it isn't", "no plan <text> here, it isn't"],
    ['no plan “黄金” here', 'no plan <text> here'],
    ['Tenants   database\nrefused (42P01)', 'tenants database refused (<id>)'],
    ['backend closed the connection', 'backend closed the connection'],
  ])('%s', (message, normal) => {
    expect(normaliseMessage(message)).toBe(normal);
  });
});

const anyDigits = fc.nat().map(String);
const anyOrder = fc
  .tuple(fc.constantFrom('CS', 'order-', 'b_'), anyDigits)
  .map((two) => two.join(''));
const anyTime = fc
  .date({ min: new Date('2000-01-01'), max: new Date('2099-12-31'), noInvalidDate: true })
  .map((at) => at.toISOString());
const anyUrl = fc.webUrl({ withQueryParameters: true }).map((url) => url.replace(/["'`]/g, ''));
const anyQuoted = fc
  .tuple(fc.constantFrom('""', '``', '“”', '「」'), fc.string({ unit: 'grapheme-ascii' }))
  .map(([marks, text]) => `${marks[0]}${text.replace(/["`]/g, '')}${marks[1]}`);
const anyDetails = fc.tuple(anyDigits, anyOrder, fc.uuid(), anyTime, anyUrl, anyQuoted);
const tell = (details: readonly string[]) => {
  const [number, order, id, time, url, quoted] = details;
  return `after ${number} tries of ${order} (${id}) at ${time}: ${url} said ${quoted} again`;
};

test('two failures that differ in numbers, ids, times, addresses and quoted parts have one fingerprint', () => {
  fc.assert(
    fc.property(anyDetails, anyDetails, (one, other) => {
      const of = (details: readonly string[]) =>
        fingerprintOf({ ...parts, message: tell(details) });
      expect(of(one)).toBe(of(other));
    }),
  );
});

test('a normal message stays as it is, and holds no digit', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme' }), (message) => {
      const normal = normaliseMessage(message);
      expect(normal).not.toMatch(/\p{N}/u);
      expect(normaliseMessage(normal)).toBe(normal);
    }),
  );
});

test('product, what was asked, class, status and words each tell causes apart', () => {
  const others: CauseParts[] = [
    parts,
    { ...parts, product: 2 },
    { ...parts, kinds: ['created', 'frozen'] },
    { ...parts, class: 'permanent' },
    { ...parts, httpStatus: 404 },
    { ...parts, httpStatus: undefined },
    { ...parts, message: 'backend closed the connection' },
  ];
  expect(new Set(others.map(fingerprintOf)).size).toBe(others.length);
});

test('neither the order nor the repetition of what was asked counts', () => {
  const two = fingerprintOf({ ...parts, kinds: ['renewed', 'created'] });
  expect(fingerprintOf({ ...parts, kinds: ['created', 'renewed', 'renewed'] })).toBe(two);
});

test('a cause that was written is read again as message and fingerprint', () => {
  fc.assert(
    fc.property(
      fc.string({ unit: 'grapheme' }),
      fc.constantFrom<FailureClass>('permanent', 'transient', 'contract'),
      (message, failureClass) => {
        const told = { ...parts, message, class: failureClass };
        expect(readCause(writeCause(told))).toEqual({ message, fingerprint: fingerprintOf(told) });
      },
    ),
  );
  const bare = 'the worker died 5 times on this';
  expect(readCause(bare)).toEqual({ message: bare, fingerprint: null });
});
