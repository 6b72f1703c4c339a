// The story that the demo tells: buyers buy, everything that goes wrong goes wrong, and in the end the
// marketplace's ledger, the buyers' access data and the seller's backend are compared with each other.
import { randomUUID } from 'node:crypto';
import { createMarketplace, type Marketplace, type Reply } from './marketplace.ts';
import type { ProductAddress, Step, Story, StoryInput } from './story/context.ts';
import { proof } from './story/proof.ts';
import type { Progress, StoryReport, StoryRow } from './story/report.ts';
import { forgeries, lives, purchases, resends, testCalls } from './story/trade.ts';
import { kill, outage, refusals } from './story/trouble.ts';

export type { StoryInput } from './story/context.ts';
export type { Progress, StoryReport } from './story/report.ts';

/** The steps in their order, with the titles for a display. */
export const storySteps = [
  { step: 'testCalls', title: 'The console debugs both products (test calls)' },
  { step: 'purchases', title: 'Buyers buy, every order sent several times at once' },
  { step: 'resends', title: 'The marketplace re-sends every order under new business ids' },
  { step: 'forgeries', title: 'A stranger replays and forges callbacks' },
  { step: 'lives', title: 'Instances are frozen, renewed, unfrozen and released' },
  { step: 'outage', title: "The seller's backend fails and recovers" },
  { step: 'refusals', title: 'The backend refuses two orders for good; one is redriven' },
  { step: 'kill', title: 'The workers are killed (SIGKILL) in a burst of purchases' },
  { step: 'proof', title: 'Everything is compared' },
] as const;
type StoryStep = (typeof storySteps)[number]['step'];

/** Plays the whole story; resolves with what was sent, acknowledged, applied and proven. Never rejects. */
export async function playStory(input: StoryInput): Promise<StoryReport> {
  const clock = input.clock ?? Date.now;
  const startedAt = performance.now();
  const replies: Reply[] = [];
  const watch = (address: ProductAddress): Marketplace =>
    createMarketplace({ ...address, clock, onReply: (reply) => replies.push(reply) });
  // Orders of an earlier story may still be there: these must be new to the receiver.
  const run = `${clock().toString(36)}${randomUUID().slice(0, 4)}`.toUpperCase();
  let orders = 0;
  const story: Story = {
    input,
    tenants: { name: 'tenants', market: watch(input.products.tenants), orders: [] },
    backend: { name: 'backend', market: watch(input.products.backend), orders: [] },
    timing: { retryEveryMs: input.retryEveryMs ?? 150, deadlineMs: input.patienceMs ?? 45_000 },
    firstSeen: new Map(),
    replies,
    nextOrder: () => {
      orders += 1;
      const orderId = `CS${run}${String(orders).padStart(5, '0')}`;
      return { orderId, orderLineId: `${orderId}-000001` };
    },
  };
  const rows: StoryRow[] = [];
  const problems: string[] = [];
  try {
    for (const { step, title } of storySteps) {
      const found: string[] = [];
      // What was waited for in vain will not come in the next steps either.
      const deadlineMs = Math.min(story.timing.deadlineMs, problems.length > 0 ? 5_000 : Infinity);
      const timing = { ...story.timing, deadlineMs };
      const row = await playStep({ ...story, timing }, step, title, found);
      rows.push(...row);
      problems.push(...found.map((text) => `${title}: ${text}`));
    }
  } finally {
    story.tenants.market.close();
    story.backend.market.close();
  }
  return { rows, problems, ok: problems.length === 0, durationMs: performance.now() - startedAt };
}

const play: Record<StoryStep, (story: Story, step: Step) => Promise<StoryRow[]>> = {
  testCalls,
  purchases,
  resends,
  forgeries,
  lives,
  outage,
  refusals,
  kill,
  proof,
};

async function playStep(
  story: Story,
  step: StoryStep,
  title: string,
  found: string[],
): Promise<StoryRow[]> {
  const counters: Record<string, number> = {};
  const tell = (state: Progress['state']): void =>
    story.input.onProgress?.({
      step,
      title,
      state,
      counters: { ...counters },
      ...(found[0] === undefined ? {} : { problem: found[0] }),
    });
  tell('started');
  try {
    return await play[step](story, {
      counters,
      count: (name, by = 1) => {
        counters[name] = (counters[name] ?? 0) + by;
        tell('running');
      },
      problem: (text) => void found.push(text),
      hasProblems: () => found.length > 0,
    });
  } catch (error) {
    found.push(`the step broke off: ${error instanceof Error ? error.message : String(error)}`);
    return [];
  } finally {
    tell(found.length > 0 ? 'failed' : 'done');
  }
}
