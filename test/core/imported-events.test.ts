import { expect, test } from 'vitest';
import type { InstanceEvent } from '../../core/events.ts';
import { fold } from '../../core/fold.ts';
import { wantedAfter } from '../../core/wanted.ts';

const at = new Date('2026-01-01T00:00:00Z');
const base = { orderId: null, orderLineId: null, acceptedAt: at, resolvedAt: at, appliedAt: at };
const created: InstanceEvent = {
  ...base,
  id: 1,
  kind: 'created',
  plan: null,
  trial: null,
  expiresAt: new Date('2027-01-01T00:00:00Z'),
};
const imported = (id: number): InstanceEvent => ({ ...base, id, kind: 'imported' });

test('what was done before an instance was taken over counts in no facet and no generation', () => {
  const log = [created, imported(2), imported(3)];
  expect(fold(log)).toEqual(fold([created]));
  expect(fold(log).generation).toBe(1);
  expect(wantedAfter(log)).toBe('serving');
});

test('the first renewal after it is generation 2', () => {
  const renewed: InstanceEvent = {
    ...base,
    id: 4,
    kind: 'renewed',
    scene: 'RENEWAL',
    expiresAt: new Date('2028-01-01T00:00:00Z'),
    plan: null,
    appliedAt: null,
  };
  const { generation, desired, covered } = fold([created, imported(2), imported(3), renewed]);
  expect(generation).toBe(2);
  expect(desired.expiresAt).toEqual(renewed.expiresAt);
  expect(covered).toContain(4);
});
