export type ReadClockSkew = { medianMs: number; minMs: number; maxMs: number };

const samplesMax = 101;
const keptMs = 10 * 60_000;

/**
 * Keeps the newest comparisons of the marketplace's signed times with ours, of the last ten minutes.
 * The median moves when a clock does; the least and the greatest also by one slow call.
 */
export function createClockSkew(now: () => number) {
  const samples: { atMs: number; skewMs: number }[] = [];
  let next = 0;

  return {
    measure(skewMs: number): void {
      samples[next] = { atMs: now(), skewMs };
      next = (next + 1) % samplesMax;
    },

    /** @returns undefined when there was no call lately */
    read(): ReadClockSkew | undefined {
      const since = now() - keptMs;
      const skews = samples
        .filter(({ atMs }) => atMs >= since)
        .map(({ skewMs }) => skewMs)
        .sort((a, b) => a - b);
      const [minMs] = skews;
      const maxMs = skews.at(-1);
      const medianMs = skews[Math.floor(skews.length / 2)];
      if (minMs === undefined || maxMs === undefined || medianMs === undefined) return undefined;
      return { medianMs, minMs, maxMs };
    },
  };
}
