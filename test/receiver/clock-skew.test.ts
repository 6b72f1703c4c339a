import { expect, test } from 'vitest';
import { createClockSkew } from '../../api/clock-skew.ts';

test('one slow call moves the greatest, not the median', () => {
  const skew = createClockSkew(() => 0);
  for (const ms of [10, 20, 30, 50_000, 15]) skew.measure(ms);
  expect(skew.read()).toEqual({ medianMs: 20, minMs: 10, maxMs: 50_000 });
});

test('a clock that was set right is seen as right after a hundred calls, and after ten minutes', () => {
  let nowMs = 0;
  const skew = createClockSkew(() => nowMs);
  for (let i = 0; i < 500; i++) skew.measure(30_000);
  for (let i = 0; i < 101; i++) skew.measure(5);
  expect(skew.read()).toEqual({ medianMs: 5, minMs: 5, maxMs: 5 });
  nowMs = 10 * 60_000 + 1;
  expect(skew.read()).toBeUndefined();
});
