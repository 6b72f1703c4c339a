export type FairShare = {
  /** @returns a function that gives the slot back, or undefined when the product is at its limit */
  take(productId: number, inFlightMax: number | null): (() => void) | undefined;
};

const rememberedMs = 10_000;

/**
 * Slots of one worker process, shared between products: while several are at work each may hold a
 * quarter, so that a backend that hangs leaves room for the others. One alone may use all.
 */
export function createFairShare(slots: number, nowMs: () => number): FairShare {
  const inFlight = new Map<number, number>();
  const seenAtMs = new Map<number, number>();

  return {
    take(productId, inFlightMax) {
      const atMs = nowMs();
      seenAtMs.set(productId, atMs);
      for (const [other, lastMs] of seenAtMs) {
        if (atMs - lastMs > rememberedMs && !inFlight.has(other)) seenAtMs.delete(other);
      }
      const share = seenAtMs.size > 1 ? Math.max(1, Math.floor(slots / 4)) : slots;
      const held = inFlight.get(productId) ?? 0;
      if (held >= (inFlightMax ?? share)) return undefined;
      inFlight.set(productId, held + 1);
      return () => {
        const now = (inFlight.get(productId) ?? 1) - 1;
        if (now > 0) inFlight.set(productId, now);
        else inFlight.delete(productId);
      };
    },
  };
}
