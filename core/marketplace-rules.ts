import type { MarketplaceEventKind } from './events.ts';

// When the marketplace gives up and what it does then, against when we give up: rules as data, each
// with where it is written, or that nobody wrote it down.

const minuteMs = 60_000;
const hourMs = 60 * minuteMs;

export const families = [
  'saas-v2',
  'saas-v1',
  'license-v1',
  'license-code',
  'online-license',
] as const;
type Family = (typeof families)[number];

export type MarketplaceRule = {
  /**
   * How long it goes on sending a call that is not answered 000000. Null: it was acknowledged once,
   * and is never sent again.
   */
  resendsForMs: number | null;
  /** Whether the buyer gets his money back when that time is over. */
  refunds: boolean;
  /** How long after acceptance we stop by ourselves, so that a person still has time. */
  deadAfterMs: number;
  source: string;
  /** True where the source speaks of another interface, or is silent. */
  assumed: boolean;
};

const createV2: MarketplaceRule = {
  resendsForMs: 3 * hourMs,
  refunds: true,
  deadAfterMs: 110 * minuteMs,
  source:
    "saas-v2.md §9: the pages of SaaS V1 say so; V2.0's own paragraph on re-sending is not known",
  assumed: true,
};

const createV1: MarketplaceRule = {
  ...createV2,
  source: 'saas-v2.md §9: SaaS V1, new purchase and upgrade',
  assumed: false,
};

const acknowledged: MarketplaceRule = {
  resendsForMs: null,
  refunds: false,
  deadAfterMs: 24 * hourMs,
  source: 'families.md §D: what was answered 000000 is done for the marketplace',
  assumed: false,
};

const rules: Record<Family, Partial<Record<MarketplaceEventKind, MarketplaceRule>>> = {
  'saas-v2': { created: createV2 },
  'saas-v1': { created: createV1, upgraded: createV1 },
  'license-v1': {
    created: {
      resendsForMs: 3 * hourMs,
      refunds: false,
      deadAfterMs: 110 * minuteMs,
      source: 'saas-v1-and-license.md: getLicense; the order stays open, to be delivered by hand',
      assumed: false,
    },
  },
  'license-code': {},
  'online-license': {
    created: {
      resendsForMs: 2 * hourMs,
      refunds: true,
      deadAfterMs: 70 * minuteMs,
      source: 'saas-v1-and-license.md: Online License, new purchase',
      assumed: false,
    },
  },
};

/** The rule for one kind of call of a family; a family that is not in the table gets SaaS V2.0's. */
export function ruleOf(family: string, kind: MarketplaceEventKind): MarketplaceRule {
  const known = families.find((each) => each === family) ?? 'saas-v2';
  return rules[known][kind] ?? acknowledged;
}

/** What becomes of a call that is not yet done. */
export type Outlook = {
  /** When the marketplace stops sending it; null: it does not send it any more. */
  stopsAt: Date | null;
  /** When the buyer is refunded; null: never for this. */
  refundAt: Date | null;
  /** Until then, 0 once it is over; null where nothing is refunded. */
  refundInMs: number | null;
  source: string;
  assumed: boolean;
};

/** @param acceptedAt when the first call of it was stored, from which the marketplace counts too */
export function outlookOf(
  call: { family: string; kind: MarketplaceEventKind; acceptedAt: Date },
  now: Date,
): Outlook {
  const { resendsForMs, refunds, source, assumed } = ruleOf(call.family, call.kind);
  const stopsAt = resendsForMs === null ? null : new Date(call.acceptedAt.getTime() + resendsForMs);
  const refundAt = refunds ? stopsAt : null;
  const refundInMs = refundAt && Math.max(0, refundAt.getTime() - now.getTime());
  return { stopsAt, refundAt, refundInMs, source, assumed };
}
