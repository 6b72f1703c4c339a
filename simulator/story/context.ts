// What the steps of the story share: the two products, the buyers' access data, and the ways to act.
import {
  isAcknowledged,
  type AppInfo,
  type BuyTiming,
  type InstanceInfo,
  type Marketplace,
  type Order,
  type Reply,
} from '../marketplace.ts';
import type { SellerBackend } from '../seller-backend.ts';
import type { CallbackFields } from '../signing.ts';
import { waitFor } from '../waiting.ts';
import { compareAccessData, compareWithBackend, fetchInfo } from './compare.ts';
import type { Counters, Progress, StoryRow } from './report.ts';

export type ProductAddress = { readonly callbackUrl: string; readonly accessKey: string };

export type StoryInput = {
  /** `tenants` is made by the postgres-schema provisioner, `backend` by calls to `sellerBackend`. */
  readonly products: { readonly tenants: ProductAddress; readonly backend: ProductAddress };
  readonly sellerBackend: SellerBackend;
  /** Kills the worker processes with SIGKILL (they come back by themselves); how many it killed. */
  readonly killWorkers: () => Promise<number>;
  /** Redrives the order's dead letter; rejects while there is none. */
  readonly redrive: (orderId: string) => Promise<void>;
  /** What the operator sees of an order, asked while one is a dead letter; undefined if unknown. */
  readonly showOrder?: (orderId: string) => Promise<unknown>;
  /** Whether a buyer of `tenants` gets in with this access data. */
  readonly logIn?: (appInfo: AppInfo) => Promise<boolean>;
  readonly onProgress?: (progress: Progress) => void;
  readonly purchasesPerProduct?: number;
  /** Pause between polls and between re-sends. */
  readonly retryEveryMs?: number;
  /** How long any one thing may take before the story counts it as broken. */
  readonly patienceMs?: number;
  readonly clock?: () => number;
};

export type Side = {
  readonly name: string;
  readonly market: Marketplace;
  readonly orders: BoughtOrder[];
};
export type BoughtOrder = Order & { readonly instanceId: string };
export type Story = {
  readonly input: StoryInput;
  readonly tenants: Side;
  readonly backend: Side;
  readonly timing: BuyTiming;
  /** Access data as each buyer first saw it: it must never change. */
  readonly firstSeen: Map<string, InstanceInfo>;
  readonly replies: Reply[];
  readonly nextOrder: () => Order;
};
export type Step = {
  count: (name: string, by?: number) => void;
  counters: Counters;
  problem: (text: string) => void;
  hasProblems: () => boolean;
};

export async function buyOne(
  story: Story,
  side: Side,
  order: Order,
  step: Step,
): Promise<BoughtOrder | undefined> {
  const result = await side.market.buy(order, story.timing);
  step.count('sent', result.calls);
  if (result.outcome !== 'not acknowledged') step.count('acknowledged');
  if (result.outcome !== 'ready') {
    step.problem(`${order.orderId} is ${result.outcome} (${result.resultCode || 'no answer'})`);
    return undefined;
  }
  step.count('ready');
  const bought = { ...order, instanceId: result.instanceId };
  side.orders.push(bought);
  story.firstSeen.set(result.instanceId, result.info);
  return bought;
}

/** Sends a fact and, signed anew, the same fact again: the second must be taken and change nothing. */
export async function sendTwice(
  side: Side,
  fields: CallbackFields,
  timing: BuyTiming,
  step: Step,
): Promise<void> {
  for (const time of ['first', 'second']) {
    const reply = await side.market.sendUntilAcknowledged(() => fields, timing);
    step.count('sent');
    if (isAcknowledged(reply)) step.count('acknowledged');
    else step.problem(`the ${time} ${String(fields['activity'])} was answered ${describe(reply)}`);
  }
  step.count('events');
}

/** Waits until backend and access data are what the ledger folds to; what still differs at the end. */
export async function waitForEquality(story: Story): Promise<string[]> {
  let different: string[] = [];
  await waitFor(async () => {
    different = compareWithBackend(
      story.backend.market.ledger,
      story.input.sellerBackend.instances,
    );
    for (const side of [story.tenants, story.backend]) {
      const info = await fetchInfo(side.market, story.timing);
      different.push(...compareAccessData(side.market.ledger, info, story.firstSeen));
    }
    return different.length === 0 || undefined;
  }, pace(story));
  return different;
}

export function pace({ timing }: Story): { everyMs: number; deadlineMs: number } {
  return { everyMs: timing.retryEveryMs, deadlineMs: timing.deadlineMs };
}

/** The row of a step: a step that met any problem has proven nothing. */
export function row(
  what: string,
  step: Step,
  outcome: Pick<StoryRow, 'applied' | 'proven'>,
): StoryRow {
  const { sent = 0, acknowledged = 0, answered = 0 } = step.counters;
  const proven = step.hasProblems() ? false : outcome.proven;
  return { what, sent, acknowledged: acknowledged + answered, applied: outcome.applied, proven };
}

export function reportAll(texts: readonly string[], step: Step): void {
  const shown = texts.slice(0, 5);
  for (const text of shown) step.problem(text);
  if (texts.length > shown.length) step.problem(`and ${texts.length - shown.length} more`);
}

export function describe(reply: Reply): string {
  return reply.failure ?? `${reply.httpStatus} ${reply.resultCode || 'without a result code'}`;
}
