import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { inspectJsonText, jsonDepthMax, readJsonObject } from '../../protocol/json-text.ts';

function nest(levels: number): string {
  return '{"a":'.repeat(levels - 1) + '{}' + '}'.repeat(levels - 1);
}

describe('a JSON body', () => {
  test('may be 32 levels deep and no deeper', () => {
    expect(readJsonObject(Buffer.from(nest(jsonDepthMax))).ok).toBe(true);
    expect(readJsonObject(Buffer.from(nest(jsonDepthMax + 1)))).toEqual({
      ok: false,
      problem: 'the body is nested deeper than 32 levels',
    });
  });

  test('of 64 KiB of brackets is refused, not crashed on', () => {
    const brackets = `{"a":${'['.repeat(32_000)}${']'.repeat(32_000)}}`;
    expect(readJsonObject(Buffer.from(brackets)).ok).toBe(false);
  });

  test('is judged by its text: brackets inside strings are no depth', () => {
    expect(inspectJsonText(String.raw`{"a":"[[[{{{\"[[["}`).depth).toBe(1);
  });

  test('a NUL or half of a pair is found in any string or name, also of an overwritten key', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), fc.string({ unit: 'binary' }), (name, value) => {
        const text = JSON.stringify({ [name]: [value] });
        const doubled = `{"k":${text},"k":1}`;
        const isLone = /\p{Surrogate}/u.test(name) || /\p{Surrogate}/u.test(value);
        const isNul = (name + value).includes('\0');
        const findings = inspectJsonText(doubled);
        expect(findings.hasNul).toBe(isNul);
        expect(findings.hasLoneSurrogate).toBe(isLone);
      }),
      { numRuns: 500 },
    );
  });

  test('half of a pair is told from a pair, however both are written', () => {
    const units = fc.array(fc.constantFrom('\\ud83d', '\\ude00', '\\uD83D', '😀', 'x', '\\n'), {
      maxLength: 6,
    });
    fc.assert(
      fc.property(units, (parts) => {
        const text = `{"a":"${parts.join('')}"}`;
        const value = String(JSON.parse(text).a);
        expect(inspectJsonText(text).hasLoneSurrogate).toBe(/\p{Surrogate}/u.test(value));
      }),
      { numRuns: 500 },
    );
  });
});
