// Buys a number of orders and says how each ended: what a seller wants to know of a new address.
import Table from 'cli-table3';
import type { BuyTiming, Marketplace } from './marketplace.ts';

type PurchaseLine = {
  readonly orderId: string;
  readonly outcome: 'ready' | 'not ready' | 'not acknowledged';
  readonly instanceId: string;
  readonly calls: number;
  readonly polls: number;
  readonly durationMs: number;
  /** The last result code when it did not end well; empty when no answer came. */
  readonly resultCode: string;
};
export type PurchasesResult = {
  readonly ok: boolean;
  readonly lines: readonly PurchaseLine[];
  readonly problems: readonly string[];
};

/** Buys all orders at once and re-sends each: ok when all are ready and no order has two ids. */
export async function playPurchases(
  market: Marketplace,
  options: { orders: number; timing: BuyTiming; clock: () => number },
): Promise<PurchasesResult> {
  const run = options.clock().toString(36).toUpperCase();
  const lines = await Promise.all(
    Array.from({ length: options.orders }, async (_, at): Promise<PurchaseLine> => {
      const orderId = `CS${run}${String(at + 1).padStart(5, '0')}`;
      const order = { orderId, orderLineId: `${orderId}-000001` };
      const startedAt = performance.now();
      const result = await market.buy(order, options.timing);
      const durationMs = Math.round(performance.now() - startedAt);
      if (result.outcome !== 'not acknowledged') await market.newInstance(order);
      return {
        orderId,
        outcome: result.outcome,
        instanceId: 'instanceId' in result ? result.instanceId : '',
        calls: result.calls,
        polls: result.polls,
        durationMs,
        resultCode: 'resultCode' in result ? result.resultCode : '000000',
      };
    }),
  );
  const problems = market.ledger.problems();
  const ok = problems.length === 0 && lines.every((line) => line.outcome === 'ready');
  return { ok, lines, problems };
}

/** The result as a plain table; access data is left out. */
export function formatPurchases({ ok, lines, problems }: PurchasesResult): string {
  const table = new Table({
    head: ['Order', 'Outcome', 'Instance', 'Calls', 'Polls', 'Ms', 'Code'],
    style: { head: [], border: [] },
  });
  for (const line of lines) {
    table.push([
      line.orderId,
      line.outcome,
      line.instanceId,
      line.calls,
      line.polls,
      line.durationMs,
      line.resultCode || 'no answer',
    ]);
  }
  const ready = lines.filter((line) => line.outcome === 'ready').length;
  const verdict = ok ? 'all well' : ['NOT well', ...problems].join('\n  - ');
  return `${table.toString()}\n${ready} of ${lines.length} ready: ${verdict}\n`;
}
