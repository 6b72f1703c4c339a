/** Random choices that one number repeats: a failure names the seed, `FAULT_SEED` plays it again. */
export type Chance = {
  /** A whole number from `from` to `to`, both included. */
  between(from: number, to: number): number;
  pick<T>(choices: readonly [T, ...T[]]): T;
  /** True in so many of a hundred cases. */
  percent(likely: number): boolean;
};

/** Runs a test with choices of its own; what it throws begins with the seed. */
export async function withChance(body: (chance: Chance) => Promise<void>): Promise<void> {
  const given = process.env['FAULT_SEED'];
  const seed = given === undefined ? Math.floor(Math.random() * 2 ** 31) : Number(given);
  try {
    await body(createChance(seed));
  } catch (error) {
    if (error instanceof Error) error.message = `FAULT_SEED=${seed}: ${error.message}`;
    throw error;
  }
}

function createChance(seed: number): Chance {
  const next = createRandom(seed);
  const between = (from: number, to: number): number => from + Math.floor(next() * (to - from + 1));
  return {
    between,
    pick: (choices) => choices[between(0, choices.length - 1)] ?? choices[0],
    percent: (likely) => next() * 100 < likely,
  };
}

/** Mulberry32: small, and even enough for a choice of moments. */
function createRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
