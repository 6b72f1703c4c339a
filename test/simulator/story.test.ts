import { test, type TestContext } from 'vitest';
import { createProgressDisplay } from '../../simulator/progress.ts';
import { playStory, storySteps, type Progress } from '../../simulator/scenarios.ts';
import { createSellerBackend } from '../../simulator/seller-backend.ts';
import { formatReport, type StoryReport } from '../../simulator/story/report.ts';
import { createFakeReceiver, type Fault } from './fake-receiver.ts';

const secret = `whsec_${Buffer.from('a secret of the story, 32 bytes!').toString('base64')}`;

async function playAgainst(
  { onTestFinished }: TestContext,
  fault?: Fault,
  onProgress?: (progress: Progress) => void,
  killWorkers?: () => Promise<number>,
): Promise<StoryReport> {
  const sellerBackend = createSellerBackend({ secrets: [secret] });
  const url = await sellerBackend.listen();
  const faulty = fault === undefined ? {} : { fault };
  const tenants = await createFakeReceiver(faulty);
  const backend = await createFakeReceiver({ ...faulty, backend: { url, secret } });
  onTestFinished(async () => {
    await Promise.all([tenants.close(), backend.close(), sellerBackend.close()]);
  });
  return playStory({
    products: { tenants, backend },
    sellerBackend,
    killWorkers: killWorkers ?? backend.killWorkers,
    redrive: backend.redrive,
    logIn: tenants.logIn,
    ...(onProgress ? { onProgress } : {}),
    purchasesPerProduct: 16,
    retryEveryMs: 20,
    patienceMs: fault === undefined ? 10_000 : 300,
  });
}

test('a system that keeps its promises is proven in every row, and each step is told', async (context) => {
  const { expect } = context;
  const told: Progress[] = [];
  const report = await playAgainst(context, undefined, (progress) => told.push(progress));
  expect(report.problems).toEqual([]);
  expect(report.ok).toBe(true);
  expect(report.rows.filter((row) => row.proven === false)).toEqual([]);
  for (const { step } of storySteps) {
    expect(told.filter((one) => one.step === step).at(-1)?.state).toBe('done');
  }
  expect(formatReport(report)).toContain('All proven');
}, 30_000);

test.concurrent.for<[Fault, RegExp]>([
  ['second id on a re-send', /was given \d ids/],
  ['replays accepted', /a replayed (purchase|query) was answered 200 000/],
  ['signatures not checked', /a call with signature changed was answered/],
  ['freezes forgotten', /should be frozen[^]*still lets its buyer in/],
  ['renewals never go back', /should end at 2097/],
  ['released access data shown', /still has access data/],
  ['password changes', /other access data than at first/],
  ['access data shared', /share access data/],
  ['answers not signed', /without a good Body-Sign/],
  ['generation stands still', /came with two meanings|should be frozen/],
])(
  'the story notices a system with this fault: %s',
  { timeout: 60_000 },
  async ([fault, problem], context) => {
    const { expect } = context;
    const report = await playAgainst(context, fault);
    expect(report.ok).toBe(false);
    expect(report.problems.join('\n')).toMatch(problem);
    expect(formatReport(report)).toContain('NOT proven');
  },
);

test('a kill that killed nothing is no proof', async (context) => {
  const { expect } = context;
  const report = await playAgainst(context, undefined, undefined, () => Promise.resolve(0));
  expect(report.problems.join('\n')).toContain('no worker was killed');
}, 30_000);

test('a display without a terminal closes after the last step, and after a stop', async () => {
  const steps = [
    { step: 'a', title: 'First' },
    { step: 'b', title: 'Second' },
  ];
  const full = createProgressDisplay({ steps, isLive: false });
  for (const { step, title } of steps) {
    full.onProgress({ step, title, state: 'started', counters: {} });
    full.onProgress({ step, title, state: 'done', counters: { sent: 3 } });
  }
  await full.closed;
  const stopped = createProgressDisplay({ steps, isLive: false });
  stopped.stop();
  await stopped.closed;
});
