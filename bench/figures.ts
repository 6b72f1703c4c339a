/** One measured thing: a value for each round. */
export type Figure = {
  subject: string;
  values: readonly number[];
  unit: '/s' | 'ms';
  /** Against which it stands: a ratio for each round, so that both saw the same machine. */
  against?: { subject: string; values: readonly number[] };
  aim?: Aim;
  note?: string;
};

/** Printed beside the figure; a missed aim is shown, never a failure. */
type Aim = { of: 'value' | 'ratio'; atLeast: number } | { of: 'value'; atMost: number };

export type Section = { title: string; figures: readonly Figure[]; remarks: readonly string[] };

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const [low = NaN, high = NaN] = [
    sorted[sorted.length % 2 === 1 ? middle : middle - 1],
    sorted[middle],
  ];
  return (low + high) / 2;
}

/** Median of the ratios of the rounds. */
export function ratioOf(figure: Figure): number | undefined {
  if (!figure.against) return undefined;
  const others = figure.against.values;
  return median(figure.values.map((value, round) => value / (others[round] ?? NaN)));
}

export function isReached(figure: Figure): boolean | undefined {
  const { aim } = figure;
  if (!aim) return undefined;
  const value = aim.of === 'ratio' ? ratioOf(figure) : median(figure.values);
  if (value === undefined) return undefined;
  return 'atLeast' in aim ? value >= aim.atLeast : value <= aim.atMost;
}
