// What the load generator is asked to do and what it answers, over its IPC channel.

/** Where calls go: the products are taken in turn, by the number of the order. */
export type Target = { port: number; products: readonly TargetProduct[] };
export type TargetProduct = { key: string; accessKey: string };

/** Orders of a series have the numbers 0, 1, 2 …; the same number is always the same order. */
export type Calls =
  | { kind: 'new orders'; series: string }
  /** newInstance of known orders, each under a new business id, signed anew. */
  | { kind: 're-sends'; series: string; orders: number }
  /** queryInstance of one known instance. */
  | { kind: 'queries'; series: string; orders: number }
  /** Well-formed newInstance calls whose signature fits no key. */
  | { kind: 'bad signatures'; series: string };

export type Pace =
  /** Each connection sends its next call when the last one is answered. */
  | { kind: 'closed'; connections: number }
  /**
   * Calls come at random times (Poisson) that do not depend on the answers; what finds no free
   * connection waits, and its wait counts.
   */
  | { kind: 'open'; perSecond: number; connections: number };

export type Stream = { name: string; calls: Calls; pace: Pace };

export type Plan = {
  target: Target;
  streams: readonly Stream[];
  /** Under load, but not counted. */
  leadInMs: number;
  /** A number of calls, then it ends; or a time. */
  until: { calls: number } | { ms: number };
};

export type StreamResult = {
  name: string;
  /** Counted answers. */
  answered: number;
  perSecond: number;
  /** How often each result code came. */
  codes: Record<string, number>;
  /** Calls without an answer: their connection broke, or none came in time. */
  unanswered: number;
  /** From the time a call was due (open) or sent (closed) to its answer. */
  latencyMs: { p50: number; p99: number; max: number };
  /** How late the generator itself sent (open only): what of the latency is its own. */
  lagMs: { p50: number; p99: number; max: number };
};

export type Order = { id: number; plan: Plan };
export type Answer = { id: number; results: StreamResult[] } | { id: number; problem: string };
