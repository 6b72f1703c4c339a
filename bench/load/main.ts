// The load generator, a process of its own: what it costs is the same for every peer, and none of
// it runs in theirs.
import type { Answer, Order } from './plan.ts';
import { runStream } from './run-stream.ts';

process.on('message', (message) => {
  const { id, plan } = message as Order;
  Promise.all(plan.streams.map((stream) => runStream(plan, stream, Math.random))).then(
    (results) => answer({ id, results }),
    (error: unknown) => answer({ id, problem: String(error) }),
  );
});
process.on('disconnect', () => process.exit(0));
process.send?.({ kind: 'ready' });

function answer(message: Answer): void {
  process.send?.(message);
}
