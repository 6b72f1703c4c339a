// Named points in the code at which a test makes the process die, stand still or dawdle, so that a
// crash is hit exactly and not by luck. Without a specification they do nothing.

/** Awaited at a named point; does nothing unless the specification names the point. */
export type Failpoints = (name: string) => Promise<void> | void;

type Action = { kind: 'kill' | 'stop' | 'delay'; amount: number };

const ENTRY = /^([a-z0-9.-]+)=(kill|stop|delay)(?::(\d{1,7}))?$/;

/**
 * @param spec e.g. `api.after-commit=kill:3,worker.before-effect=stop,dispatcher.marked=delay:200`:
 *   `kill` (SIGKILL) and `stop` (SIGSTOP) act on the n-th hit only, by default the first; `delay`
 *   waits so many milliseconds at every hit
 * @throws on a specification that cannot be read
 */
export function createFailpoints(spec: string | undefined): Failpoints {
  if (spec === undefined || spec === '') return () => undefined;
  const actions = new Map<string, Action>();
  for (const part of spec.split(',')) {
    const [, name, kind, amount] = ENTRY.exec(part.trim()) ?? [];
    if (name === undefined || (kind !== 'kill' && kind !== 'stop' && kind !== 'delay'))
      throw new Error(`LATCHKEY_FAILPOINTS: "${part}" is not NAME=kill|stop|delay[:NUMBER]`);
    actions.set(name, { kind, amount: Number(amount ?? 1) });
  }
  const hits = new Map<string, number>();

  return (name) => {
    const action = actions.get(name);
    if (action === undefined) return undefined;
    const hit = (hits.get(name) ?? 0) + 1;
    hits.set(name, hit);
    switch (action.kind) {
      case 'delay':
        return new Promise((resolve) => setTimeout(resolve, action.amount));
      case 'stop':
        if (hit === action.amount) process.kill(process.pid, 'SIGSTOP');
        return undefined;
      case 'kill':
        if (hit !== action.amount) return undefined;
        process.kill(process.pid, 'SIGKILL');
        // Nothing after this point may run, should the signal take a moment.
        return new Promise(() => undefined);
    }
  };
}
