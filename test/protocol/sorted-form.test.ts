import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { buildSortedForm } from '../../protocol/saas-v2/sorted-form.ts';
import vectors from '../fixtures/vectors.json' with { type: 'json' };

function sortedForm(text: string): string | undefined {
  return buildSortedForm(Buffer.from(text));
}

describe('the sorted form', () => {
  test.each(vectors.saasV2)('of $body is the vector’s', ({ body, canonical }) => {
    expect(sortedForm(body)).toBe(canonical);
  });

  // What Java prints for these texts once read as int, BigInteger or Double.
  test.each([
    ['0', '0'],
    ['-0', '0'],
    ['-17', '-17'],
    ['123456789012345678901234567890', '123456789012345678901234567890'],
    ['0.0', '0.0'],
    ['-0.0', '-0.0'],
    ['0e5', '0.0'],
    ['10.0', '10.0'],
    ['1E1', '10.0'],
    ['1.10', '1.1'],
    ['-2.50', '-2.5'],
    ['0.001', '0.001'],
    ['0.0001', '1.0E-4'],
    ['0.00012345', '1.2345E-4'],
    ['9999999.0', '9999999.0'],
    ['9999999.5', '9999999.5'],
    ['1e7', '1.0E7'],
    ['12345678.9', '1.23456789E7'],
    ['1e23', '1.0E23'],
    ['-1.5e+300', '-1.5E300'],
    ['1.7976931348623157e308', '1.7976931348623157E308'],
    ['5e-324', '4.9E-324'],
    ['2e-323', '2.0E-323'],
    ['2.2250738585072014E-308', '2.2250738585072014E-308'],
    ['0.1000000000000000055511151231257827', '0.1'],
    ['1e400', '"Infinity"'],
    ['-1e400', '"-Infinity"'],
  ])('writes the number %s as %s', (number, written) => {
    expect(sortedForm(`{"n":${number}}`)).toBe(`{"n":${written}}`);
  });

  test('writes every double so that it is read as the same double', () => {
    fc.assert(
      fc.property(fc.double({ noNaN: true, noDefaultInfinity: true }), (value) => {
        // toExponential forgets the sign of zero.
        const sign = Object.is(value, -0) ? '-' : '';
        const written = sortedForm(`{"n":${sign}${value.toExponential()}}`) ?? '';
        expect(Object.is(JSON.parse(written).n, value)).toBe(true);
        expect(written).toMatch(/^\{"n":-?(?:\d{1,7}\.\d+|\d\.\d+E-?\d+)\}$/);
      }),
    );
  });

  test('sorts names by UTF-16 units: a pair comes before U+FF21', () => {
    expect(sortedForm('{"Ａ":1,"😀":2,"é":3,"z":4,"":5}')).toBe('{"":5,"z":4,"é":3,"😀":2,"Ａ":1}');
  });

  test('keeps the order and the nulls of nested objects, and drops nulls on top', () => {
    expect(sortedForm('{"b":{"z":null,"a":1,"10":2,"z":3},"a":null,"c":[null,{}]}')).toBe(
      '{"b":{"z":3,"a":1,"10":2},"c":[null,{}]}',
    );
  });

  test('a doubled name whose last value is null is dropped', () => {
    expect(sortedForm('{"a":1,"b":2,"a":null}')).toBe('{"b":2}');
  });

  test('names such as __proto__ and constructor are names like others', () => {
    expect(sortedForm('{"constructor":1,"__proto__":{"x":2}}')).toBe(
      '{"__proto__":{"x":2},"constructor":1}',
    );
  });

  test.each([
    ['no JSON', 'activity=newInstance'],
    ['a trailing comma', '{"a":1,}'],
    ['a comment', '{"a":1/**/}'],
    ['an array', '[1]'],
    ['a string', '"a"'],
    ['null', 'null'],
    ['nothing', ''],
    ['a byte order mark', '\ufeff{"a":1}'],
    ['half of a surrogate pair', '{"a":"\\ud800"}'],
    ['33 levels', `${'{"a":'.repeat(32)}{}${'}'.repeat(32)}`],
    ['30,000 levels', `{"a":${'['.repeat(30_000)}${']'.repeat(30_000)}}`],
  ])('%s has none', (_name, text) => {
    expect(sortedForm(text)).toBeUndefined();
  });

  test('bytes that are not UTF-8 have none', () => {
    expect(
      buildSortedForm(Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d])),
    ).toBeUndefined();
  });

  test('is its own sorted form, and the same for every order and spacing of the fields', () => {
    const anyFields = fc.dictionary(
      fc.string({ unit: 'grapheme' }),
      fc.oneof(fc.string({ unit: 'grapheme' }), fc.integer(), fc.boolean(), fc.constant(null)),
      { noNullPrototype: true },
    );
    fc.assert(
      fc.property(anyFields, fc.integer(), (fields, seed) => {
        const entries = Object.entries(fields);
        const start = entries.length === 0 ? 0 : Math.abs(seed) % entries.length;
        const turned = [...entries.slice(start), ...entries.slice(0, start)];
        const spaced = `{ ${turned
          .map(([name, value]) => `${JSON.stringify(name)}\t: ${JSON.stringify(value)}`)
          .join(' ,\n')} }`;
        const form = sortedForm(spaced);
        expect(form).toBe(sortedForm(JSON.stringify(fields)));
        expect(sortedForm(form ?? '')).toBe(form);
        const kept = entries.filter(([, value]) => value !== null);
        expect(new Map(Object.entries(JSON.parse(form ?? '')))).toEqual(new Map(kept));
      }),
    );
  });
});
