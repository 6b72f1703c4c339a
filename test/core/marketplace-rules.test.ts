import { expect, test } from 'vitest';
import { schedules } from '../../core/failure.ts';
import { families, outlookOf, ruleOf } from '../../core/marketplace-rules.ts';

const hourMs = 3_600_000;
const kinds = [
  'created',
  'renewed',
  'frozen',
  'expired',
  'unfrozen',
  'upgraded',
  'released',
] as const;
const every = families.flatMap((family) =>
  kinds.map((kind) => ({ family, kind, ...ruleOf(family, kind) })),
);

test('we stop before the marketplace does, with time for a person, and each rule says where it stands', () => {
  for (const rule of every) {
    expect(rule.source, `${rule.family} ${rule.kind}`).not.toBe('');
    if (rule.resendsForMs === null) expect(rule.refunds).toBe(false);
    else expect(rule.resendsForMs - rule.deadAfterMs).toBeGreaterThanOrEqual(50 * 60_000);
  }
});

test('the tries of a purchase end an hour before its refund', () => {
  const { resendsForMs } = ruleOf('saas-v2', 'created');
  expect((resendsForMs ?? 0) - schedules.create.deadAfterMs).toBeGreaterThanOrEqual(hourMs);
  expect(schedules.acknowledged.deadAfterMs).toBe(ruleOf('saas-v2', 'renewed').deadAfterMs);
});

test('only what is assumed says so: SaaS V2.0 is silent, V1 is not', () => {
  expect(ruleOf('saas-v2', 'created')).toMatchObject({ assumed: true, refunds: true });
  expect(ruleOf('saas-v1', 'created')).toMatchObject({ assumed: false, refunds: true });
  expect(ruleOf('license-v1', 'created')).toMatchObject({ refunds: false });
  expect(ruleOf('something new', 'created')).toEqual(ruleOf('saas-v2', 'created'));
});

test('the time left counts down to the refund and ends at nothing', () => {
  const acceptedAt = new Date('2026-01-01T00:00:00Z');
  const purchase = { family: 'saas-v2', kind: 'created', acceptedAt } as const;
  const at = (hours: number) =>
    outlookOf(purchase, new Date(acceptedAt.getTime() + hours * hourMs));
  const refundAt = new Date('2026-01-01T03:00:00Z');
  expect(at(2)).toMatchObject({ refundAt, stopsAt: refundAt, refundInMs: hourMs, assumed: true });
  expect(at(5)).toMatchObject({ refundAt, refundInMs: 0 });
  expect(outlookOf({ ...purchase, kind: 'renewed' }, acceptedAt)).toMatchObject({
    stopsAt: null,
    refundAt: null,
    refundInMs: null,
  });
  expect(outlookOf({ ...purchase, family: 'license-v1' }, acceptedAt)).toMatchObject({
    stopsAt: refundAt,
    refundAt: null,
  });
});
