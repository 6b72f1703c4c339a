import { expect, test } from 'vitest';
import { createFairShare } from '../../workers/fair-share.ts';

/** Takes until refused. */
function takeAll(take: () => (() => void) | undefined): (() => void)[] {
  const taken: (() => void)[] = [];
  for (let give = take(); give; give = take()) taken.push(give);
  return taken;
}

test('a product alone may use all slots', () => {
  const share = createFairShare(8, () => 0);
  expect(takeAll(() => share.take(1, null))).toHaveLength(8);
});

test('while several are at work each holds a quarter', () => {
  const share = createFairShare(8, () => 0);
  share.take(2, null)?.();
  expect(takeAll(() => share.take(1, null))).toHaveLength(2);
  expect(takeAll(() => share.take(2, null))).toHaveLength(2);
});

test('one slot is left for each product however few there are', () => {
  const share = createFairShare(2, () => 0);
  share.take(2, null)?.();
  expect(takeAll(() => share.take(1, null))).toHaveLength(1);
});

test("a product's own limit holds, also when it is alone", () => {
  const share = createFairShare(8, () => 0);
  expect(takeAll(() => share.take(1, 3))).toHaveLength(3);
});

test('what is given back can be taken again', () => {
  const share = createFairShare(2, () => 0);
  const [give] = takeAll(() => share.take(1, null));
  expect(share.take(1, null)).toBeUndefined();
  give?.();
  expect(share.take(1, null)).toBeDefined();
});

test('a product that is silent for ten seconds leaves its share to the others', () => {
  let atMs = 0;
  const share = createFairShare(8, () => atMs);
  share.take(2, null)?.();
  atMs = 10_001;
  expect(takeAll(() => share.take(1, null))).toHaveLength(8);
});

test('one that still holds a slot is not forgotten, however long it takes', () => {
  let atMs = 0;
  const share = createFairShare(8, () => atMs);
  share.take(2, null);
  atMs = 60_000;
  expect(takeAll(() => share.take(1, null))).toHaveLength(2);
});
