import { expect, test } from 'vitest';
import { isCreateRefusalCode, resultMessages } from '../../protocol/result-codes.ts';

test('the table has the fourteen codes of the protocol, each with words', () => {
  expect(Object.keys(resultMessages).toSorted()).toEqual([
    '000000',
    '000001',
    '000002',
    '000003',
    '000004',
    '000005',
    '000100',
    '000101',
    '000102',
    '000103',
    '000104',
    '000105',
    '000106',
    '000107',
  ]);
  for (const words of Object.values(resultMessages)) expect(words).toMatch(/^[\x20-\x7e]{3,255}$/);
});

test('only the 0001xx codes of the table refuse a purchase', () => {
  const refusing = Object.keys(resultMessages).filter((code) => isCreateRefusalCode(code));
  expect(refusing).toHaveLength(8);
  for (const code of ['000000', '000005', '000108', '0001', '0001006', '', 'toString']) {
    expect(isCreateRefusalCode(code)).toBe(false);
  }
});
