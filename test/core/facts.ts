import type { InstanceEvent, Plan, RenewalScene } from '../../core/events.ts';

/** A minute of a story; events of the same story differ in it. */
export function minute(n: number): Date {
  return new Date(Date.UTC(2026, 0, 1, 0, n));
}

type Facts<E = InstanceEvent> = E extends InstanceEvent
  ? Omit<E, 'id' | 'orderId' | 'orderLineId' | 'acceptedAt' | 'resolvedAt' | 'appliedAt'>
  : never;

type Marks = { isResolved?: boolean; isApplied?: boolean };

/** Numbers the facts of a story: the n-th was accepted in minute n. */
export function tell(...facts: (Facts & Marks)[]): InstanceEvent[] {
  return facts.map(({ isResolved = true, isApplied = false, ...fact }, place) => {
    const n = place + 1;
    return {
      ...fact,
      id: n,
      orderId: `CS${n}`,
      orderLineId: `CS${n}-1`,
      acceptedAt: minute(n),
      resolvedAt: isResolved ? minute(n) : null,
      appliedAt: isApplied ? minute(n) : null,
    };
  });
}

export function planOf(productId: string): Plan {
  return { productId, skuCode: null, quantity: null, period: null };
}

export const created = { kind: 'created', plan: null, trial: null, expiresAt: null } as const;
export const frozen = { kind: 'frozen' } as const;
export const unfrozen = { kind: 'unfrozen' } as const;
export const expired = { kind: 'expired' } as const;
export const released = { kind: 'released' } as const;
export const upgraded = (plan: Plan | null) => ({ kind: 'upgraded', plan }) as const;
export const renewed = (
  expiresAt: Date,
  scene: RenewalScene | null = 'RENEWAL',
  plan: Plan | null = null,
) => ({ kind: 'renewed', expiresAt, scene, plan }) as const;
