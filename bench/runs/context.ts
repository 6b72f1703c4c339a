import type { Generator } from '../load/generator.ts';
import type { Calls, StreamResult, Target } from '../load/plan.ts';
import type { Options } from '../options.ts';
import type { Stage } from '../stage/stage.ts';

/** What every part of the bench is given. */
export type BenchContext = {
  stage: Stage;
  generator: Generator;
  options: Options;
  say: (line: string) => void;
};

export const connections = 64;
export const leadInMs = 500;

/** As many answers a second as 64 connections that wait for nothing else can get. */
export async function measureFlood(
  context: BenchContext,
  target: Target,
  calls: Calls,
  seconds = context.options.seconds,
): Promise<StreamResult> {
  const [result] = await context.generator.run({
    target,
    streams: [{ name: calls.kind, calls, pace: { kind: 'closed', connections } }],
    leadInMs,
    until: { ms: seconds * 1_000 },
  });
  if (!result) throw new Error('the generator gave no result');
  return result;
}

/** Sends that many new orders, numbered from 0, and checks that each was acknowledged. */
export async function sendOrders(
  context: BenchContext,
  target: Target,
  series: string,
  orders: number,
): Promise<void> {
  const [result] = await context.generator.run({
    target,
    streams: [
      {
        name: 'seed',
        calls: { kind: 'new orders', series },
        pace: { kind: 'closed', connections },
      },
    ],
    leadInMs: 0,
    until: { calls: orders },
  });
  if (result?.codes['000004'] !== orders) {
    throw new Error(`not all orders were acknowledged: ${JSON.stringify(result?.codes)}`);
  }
}

/** A figure is only worth something if all answers were the expected ones: says so where not. */
export function remarkUnexpected(
  subject: string,
  results: readonly StreamResult[],
  expected: string,
): string[] {
  let [wrong, unanswered] = [0, 0];
  const seen = new Set<string>();
  for (const result of results) {
    unanswered += result.unanswered;
    for (const [code, times] of Object.entries(result.codes)) {
      if (code === expected) continue;
      wrong += times;
      seen.add(code);
    }
  }
  if (wrong + unanswered === 0) return [];
  return [
    `!!! ${subject}: ${wrong} answers other than ${expected} (${[...seen].join(', ')}), ${unanswered} calls without an answer`,
  ];
}
