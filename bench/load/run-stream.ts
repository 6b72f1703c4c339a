import { type NextCall, createCalls } from './calls.ts';
import { type HttpAnswer, type HttpConnection, openHttpConnection } from './http-connection.ts';
import { createLatencies } from './latencies.ts';
import type { Pace, Plan, Stream, StreamResult } from './plan.ts';

/** After the end, answers that are still under way are waited for so long. */
const lastAnswersMs = 5_000;

/** Runs one stream of a plan; streams of the same plan run side by side. */
export async function runStream(
  plan: Plan,
  stream: Stream,
  random: () => number,
): Promise<StreamResult> {
  const { pace } = stream;
  const next = createCalls(stream.calls, plan.target);
  const connections = Array.from({ length: pace.connections }, () =>
    openHttpConnection(plan.target.port),
  );
  const record = createRecord(stream.name, plan);
  try {
    if (pace.kind === 'closed') await runClosed(connections, next, record, plan);
    else await runOpen(connections, next, record, { plan, pace, random });
  } finally {
    for (const connection of connections) connection.close();
  }
  return record.result();
}

type StreamRecord = ReturnType<typeof createRecord>;

function createRecord(name: string, plan: Plan) {
  const fromMs = performance.now() + plan.leadInMs;
  const toMs = 'ms' in plan.until ? fromMs + plan.until.ms : Infinity;
  const latencies = createLatencies();
  const lags = createLatencies();
  const codes: Record<string, number> = {};
  let unanswered = 0;
  let lastMs = fromMs;

  return {
    fromMs,
    toMs,
    /** @param beganMs when it was due, or sent; decides whether it counts, `answer` when it ends */
    answered(answer: HttpAnswer, beganMs: number, countedAtMs: number, nowMs: number): void {
      if (countedAtMs < fromMs || countedAtMs >= toMs) return;
      if (answer === 'broken') {
        unanswered += 1;
        return;
      }
      latencies.add(nowMs - beganMs);
      codes[answer.resultCode] = (codes[answer.resultCode] ?? 0) + 1;
      lastMs = nowMs;
    },
    lagged(dueMs: number, nowMs: number): void {
      if (dueMs >= fromMs && dueMs < toMs) lags.add(nowMs - dueMs);
    },
    missed(calls: number): void {
      unanswered += calls;
    },
    result(): StreamResult {
      const answered = latencies.count();
      const endMs = Number.isFinite(toMs) ? toMs : lastMs;
      return {
        name,
        answered,
        perSecond: answered / Math.max(0.001, (endMs - fromMs) / 1_000),
        codes,
        unanswered,
        latencyMs: latencies.summary(),
        lagMs: lags.summary(),
      };
    },
  };
}

/** As fast as answers come: says what a server can do, nothing about how long a call waits. */
async function runClosed(
  connections: readonly HttpConnection[],
  next: NextCall,
  record: StreamRecord,
  plan: Plan,
): Promise<void> {
  let left = 'calls' in plan.until ? plan.until.calls : Infinity;
  const chains = connections.map(
    (connection) =>
      new Promise<void>((resolve) => {
        const again = (): void => {
          if (left <= 0) return resolve();
          left -= 1;
          const request = next();
          const sentMs = performance.now();
          if (sentMs >= record.toMs) return resolve();
          connection.send(request, (answer) => {
            const nowMs = performance.now();
            record.answered(answer, sentMs, nowMs, nowMs);
            again();
          });
        };
        again();
      }),
  );
  await Promise.all(chains);
}

/** At times of its own, whatever the server does: a stall delays all calls that were due in it. */
async function runOpen(
  connections: readonly HttpConnection[],
  next: NextCall,
  record: StreamRecord,
  how: { plan: Plan; pace: Extract<Pace, { kind: 'open' }>; random: () => number },
): Promise<void> {
  const { plan, pace, random } = how;
  const free = [...connections];
  const waiting: number[] = [];
  const inFlight = new Set<number>();
  let serial = 0;
  const endMs = record.toMs;
  const gapMs = () => (-Math.log(1 - random()) * 1_000) / pace.perSecond;
  if (!('ms' in plan.until)) throw new Error('an open stream runs for a time');

  function send(connection: HttpConnection, dueMs: number): void {
    const id = serial++;
    inFlight.add(id);
    const request = next();
    record.lagged(dueMs, performance.now());
    connection.send(request, (answer) => {
      inFlight.delete(id);
      record.answered(answer, dueMs, dueMs, performance.now());
      const longest = waiting.shift();
      if (longest === undefined) free.push(connection);
      else send(connection, longest);
    });
  }

  await new Promise<void>((resolve) => {
    let dueMs = performance.now() + gapMs();
    const tick = (): void => {
      const nowMs = performance.now();
      while (dueMs <= nowMs && dueMs < endMs) {
        const connection = free.pop();
        if (connection) send(connection, dueMs);
        else waiting.push(dueMs);
        dueMs += gapMs();
      }
      if (dueMs >= endMs) resolve();
      else setTimeout(tick, Math.max(0, dueMs - nowMs));
    };
    tick();
  });

  const giveUpMs = performance.now() + lastAnswersMs;
  while (inFlight.size + waiting.length > 0 && performance.now() < giveUpMs) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  record.missed(inFlight.size + waiting.length);
}
