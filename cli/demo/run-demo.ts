import { randomBytes } from 'node:crypto';
import { type ProgressDisplay, createProgressDisplay } from '../../simulator/progress.ts';
import { storySteps } from '../../simulator/scenarios.ts';
import { createSellerBackend } from '../../simulator/seller-backend.ts';
import { formatReport } from '../../simulator/story/report.ts';
import { describeFailure } from '../describe-failure.ts';
import { CommandFailure } from '../failure.ts';
import { addDemoAccounts, openDemoDatabase } from './demo-accounts.ts';
import { namesAnotherDatabase } from './demo-environment.ts';
import { type DemoFolder, createDemoFolder } from './demo-folder.ts';
import { type Interruption, Interrupted, listenForInterruption } from './interruption.ts';
import { playDemo } from './play-demo.ts';
import { startDemoSystem } from './start-demo-system.ts';
import { describeWhereNext } from './where-next.ts';

const startStep = { step: 'start', title: 'Postgres, api, dispatcher and workers start' };
const actor = 'cli:demo';

/**
 * Starts the whole system in a folder of its own, plays the story against it, and takes all of it
 * away again. Sets the exit code: 1 when something was not proven.
 *
 * @param options.isOnce ends after the proof; otherwise everything stays up until Ctrl-C
 * @throws CommandFailure when the system could not be started, with the path of its log
 */
export async function runDemo(options: { isOnce: boolean }): Promise<void> {
  const interruption = listenForInterruption();
  const folder = await createDemoFolder();
  const display = createProgressDisplay({
    steps: [startStep, ...storySteps],
    isLive: process.stdout.isTTY,
  });
  const closers: (() => Promise<unknown>)[] = [];
  let outcome: Outcome;
  try {
    const isProven = await showDemo({
      ...options,
      folder,
      display,
      interruption,
      onClose: (close) => closers.push(close),
    });
    outcome = isProven ? { kind: 'proven' } : { kind: 'not proven' };
  } catch (error) {
    outcome =
      error instanceof Interrupted ? { kind: 'interrupted' } : { kind: 'broken off', error };
  }
  display.stop();
  await display.closed;
  if (interruption.isRequested()) process.stderr.write('\nStopping everything …\n');
  // Each may fail alone; the rest must still close.
  for (const close of closers.toReversed()) await Promise.allSettled([close()]);
  await end(outcome, folder);
}

type Outcome =
  | { kind: 'proven' | 'not proven' | 'interrupted' }
  | { kind: 'broken off'; error: unknown };

async function showDemo(demo: {
  isOnce: boolean;
  folder: DemoFolder;
  display: ProgressDisplay;
  interruption: Interruption;
  onClose: (close: () => Promise<void>) => void;
}): Promise<boolean> {
  const { folder, display, interruption, onClose } = demo;
  display.onProgress({ ...startStep, state: 'started', counters: {} });
  const system = await startDemoSystem(folder, interruption, onClose);
  const db = openDemoDatabase(system.databaseUrl);
  onClose(() => db.close());
  const backendSecret = `whsec_${randomBytes(32).toString('base64')}`;
  const sellerBackend = createSellerBackend({ secrets: [backendSecret] });
  const backendUrl = await sellerBackend.listen();
  onClose(() => sellerBackend.close());
  const { path: dataDir, logPath } = folder;
  const { publicUrl } = system;
  const where = { dataDir, publicUrl, actor, backendUrl, backendSecret };
  const accounts = await addDemoAccounts(db, where);
  display.onProgress({ ...startStep, state: 'done', counters: { processes: 4, products: 2 } });

  const { onProgress } = display;
  const playing = playDemo({ system, db, accounts, sellerBackend, actor, onProgress });
  const { report, redrivenOrder } = await interruption.unlessRequested(playing);
  await display.closed;
  process.stdout.write(`\n${formatReport(report)}`);
  if (!demo.isOnce) {
    const { operator } = accounts;
    const mustHideDatabaseUrl = namesAnotherDatabase();
    const order = redrivenOrder;
    const found = { dataDir, logPath, publicUrl, operator, order, mustHideDatabaseUrl };
    process.stdout.write(`\n${describeWhereNext(found)}\n`);
    await interruption.requested;
  }
  return report.ok;
}

async function end(outcome: Outcome, folder: DemoFolder): Promise<void> {
  switch (outcome.kind) {
    case 'proven':
      return folder.remove();
    case 'interrupted':
      await folder.remove();
      // The story does not stop by itself when it is no longer wanted.
      process.exit(130);
    case 'not proven':
      await folder.removeAllButLogs();
      process.stderr.write(`What the processes wrote is kept: ${folder.logPath}\n`);
      process.exitCode = 1;
      return;
    case 'broken off':
      await folder.removeAllButLogs();
      throw new CommandFailure(describeFailure(outcome.error).message, {
        next: `read what the processes wrote: ${folder.logPath}`,
      });
  }
}
