export type Latencies = {
  add(ms: number): void;
  count(): number;
  summary(): { p50: number; p99: number; max: number };
};

/** Keeps every value: exact percentiles, and some megabytes for the largest run. */
export function createLatencies(): Latencies {
  let values = new Float64Array(65_536);
  let count = 0;
  return {
    add(ms) {
      if (count === values.length) {
        const larger = new Float64Array(values.length * 2);
        larger.set(values);
        values = larger;
      }
      values[count] = ms;
      count += 1;
    },
    count: () => count,
    summary() {
      const sorted = values.slice(0, count).sort();
      const at = (share: number) => sorted[Math.max(0, Math.ceil(count * share) - 1)] ?? 0;
      return { p50: at(0.5), p99: at(0.99), max: at(1) };
    },
  };
}
