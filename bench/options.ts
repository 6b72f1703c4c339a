import { parseArgs } from 'node:util';

export const benchNames = [
  'acknowledge',
  'known-orders',
  'apply',
  'steady',
  'bad-signatures',
] as const;
export type BenchName = (typeof benchNames)[number];

export type Options = {
  only: BenchName | undefined;
  /** Counted time of a round. */
  seconds: number;
  rounds: number;
  queues: 'redis' | 'postgres';
  /** A whole run at its usual length; only such a one is written down. */
  isFull: boolean;
};

const defaults = { seconds: 4, rounds: 5 };

export const usage = `Usage: npm run bench -- [--only NAME] [--seconds N] [--rounds N] [--queues redis|postgres]

  --only NAME    one of ${benchNames.join(', ')}
  --seconds N    counted time of a round (${defaults.seconds})
  --rounds N     rounds of each peer (${defaults.rounds}; most parts take at most 3)
  --queues Q     postgres: the queues on Postgres although Redis is installed

A whole run with the usual lengths writes bench/results.md; any other only prints.`;

/** @throws Error with words for people when the command line is wrong */
export function readOptions(args: readonly string[]): Options | 'help' {
  const { values } = parseArgs({
    args: [...args],
    options: {
      only: { type: 'string' },
      seconds: { type: 'string', default: String(defaults.seconds) },
      rounds: { type: 'string', default: String(defaults.rounds) },
      queues: { type: 'string', default: 'redis' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) return 'help';
  const only = benchNames.find((name) => name === values.only);
  if (values.only !== undefined && !only) throw new Error(`there is no part "${values.only}"`);
  const seconds = Number(values.seconds);
  const rounds = Number(values.rounds);
  if (!(seconds > 0 && seconds <= 600)) throw new Error('--seconds takes a number up to 600');
  if (!(Number.isInteger(rounds) && rounds >= 1 && rounds <= 100)) {
    throw new Error('--rounds takes a whole number from 1 to 100');
  }
  if (values.queues !== 'redis' && values.queues !== 'postgres') {
    throw new Error('--queues takes redis or postgres');
  }
  const isFull =
    only === undefined &&
    seconds === defaults.seconds &&
    rounds === defaults.rounds &&
    values.queues === 'redis';
  return { only, seconds, rounds, queues: values.queues, isFull };
}
