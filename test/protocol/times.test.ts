import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { formatMarketplaceTime, parseMarketplaceTime } from '../../protocol/times.ts';

describe('marketplace times', () => {
  test.each([
    ['20221124023618', '2022-11-24T02:36:18.000Z'],
    ['20221124023618256', '2022-11-24T02:36:18.256Z'],
    ['20240229235959', '2024-02-29T23:59:59.000Z'],
    ['00010101000000', '0001-01-01T00:00:00.000Z'],
    ['99991231235959999', '9999-12-31T23:59:59.999Z'],
  ])('%s is read as UTC', (text, iso) => {
    expect(parseMarketplaceTime(text)?.toISOString()).toBe(iso);
  });

  test.each([
    ['month 13', '20221324023618'],
    ['month 0', '20220024023618'],
    ['day 0', '20221100023618'],
    ['February 30', '20240230000000'],
    ['February 29 of a common year', '20230229000000'],
    ['April 31', '20230431000000'],
    ['hour 24', '20230401240000'],
    ['minute 60', '20230401006000'],
    ['second 60', '20230401000060'],
    ['year 0', '00000101000000'],
    ['nothing', ''],
    ['13 digits', '2022112402361'],
    ['15 digits', '202211240236182'],
    ['16 digits', '2022112402361825'],
    ['18 digits', '202211240236182567'],
    ['a space', '20221124 23618'],
    ['a trailing line break', '20221124023618\n'],
    ['a sign', '-2022112402361'],
    ['digits of another script', '٢٠٢٢١١٢٤٠٢٣٦١٨'],
    ['ISO 8601', '2022-11-24T02:36:18Z'],
  ])('%s is refused', (_name, text) => {
    expect(parseMarketplaceTime(text)).toBeUndefined();
  });

  const anyDate = fc.date({
    min: new Date('0001-01-01T00:00:00.000Z'),
    max: new Date('9999-12-31T23:59:59.999Z'),
    noInvalidDate: true,
  });

  test('what is written with 17 digits is read as the same instant', () => {
    fc.assert(
      fc.property(anyDate, (date) => {
        expect(parseMarketplaceTime(formatMarketplaceTime(date, 17))).toEqual(date);
      }),
    );
  });

  test('what is written with 14 digits is read as the same second', () => {
    fc.assert(
      fc.property(anyDate, (date) => {
        const read = parseMarketplaceTime(formatMarketplaceTime(date, 14));
        expect(read?.toISOString()).toBe(`${date.toISOString().slice(0, 19)}.000Z`);
      }),
    );
  });

  test('a date that has no four-digit year is not written', () => {
    expect(() => formatMarketplaceTime(new Date(8.64e15), 14)).toThrow(RangeError);
    expect(() => formatMarketplaceTime(new Date('-000001-01-01T00:00:00Z'), 14)).toThrow(
      RangeError,
    );
    expect(() => formatMarketplaceTime(new Date(Number.NaN), 17)).toThrow(RangeError);
  });
});
