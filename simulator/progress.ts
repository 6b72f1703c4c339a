// Shows the story while it runs: a live list on a terminal, one plain line a step in a pipe.
import { Listr, type ListrTask } from 'listr2';
import type { Counters, Progress } from './story/report.ts';

type Line = {
  readonly title: string;
  /** The display's own task, once it shows this line. */
  shown?: { title: string; output: string };
  told: string;
  isOver: boolean;
  readonly finished: Promise<string | undefined>;
  readonly finish: (problem: string | undefined) => void;
};

export type ProgressDisplay = {
  /** Give this to the story. */
  readonly onProgress: (progress: Progress) => void;
  /** Resolves when the last step has ended, or at once after `stop`. */
  readonly closed: Promise<void>;
  /** Ends the display early, when the story broke off. */
  stop(): void;
};

/** Starts the display of these steps, in this order. `isLive` false gives plain lines. */
export function createProgressDisplay(options: {
  steps: readonly { readonly step: string; readonly title: string }[];
  isLive: boolean;
}): ProgressDisplay {
  const lines = new Map(options.steps.map(({ step, title }) => [step, createLine(title)]));
  const tasks: ListrTask[] = [...lines.values()].map((line) => ({
    title: line.title,
    task: async (_context, task): Promise<void> => {
      line.shown = task;
      show(line);
      const problem = await line.finished;
      if (problem !== undefined) throw new Error(problem);
    },
  }));
  const list = new Listr(tasks, {
    exitOnError: false,
    renderer: options.isLive ? 'default' : 'simple',
    // What went wrong stands below the step, not in its place.
    rendererOptions: { collapseErrors: false },
    // Ctrl-C belongs to the program that shows this.
    registerSignalListeners: false,
  });
  const closed = list.run().then(
    () => undefined,
    () => undefined,
  );

  function show({ shown, title, told, isOver }: Line): void {
    if (!shown || !told) return;
    if (!isOver) shown.output = told;
    else shown.title = `${title}: ${told}`;
  }

  return {
    onProgress: ({ step, state, counters, problem }) => {
      const line = lines.get(step);
      if (!line) return;
      const isOver = state === 'done' || state === 'failed';
      line.isOver = isOver;
      // In a pipe each change would be a line of its own: only the last is worth one.
      if (options.isLive || isOver) {
        line.told = formatCounters(counters);
        show(line);
      }
      if (isOver) line.finish(state === 'failed' ? (problem ?? 'failed') : undefined);
    },
    closed,
    stop: () => {
      for (const line of lines.values()) line.finish('not reached');
    },
  };
}

// Promise.withResolvers comes with Node 22.
function createLine(title: string): Line {
  let finish: Line['finish'] = () => undefined;
  const finished = new Promise<string | undefined>((resolve) => {
    finish = resolve;
  });
  return { title, told: '', isOver: false, finished, finish };
}

function formatCounters(counters: Counters): string {
  return Object.entries(counters)
    .map(([name, count]) => `${count} ${name}`)
    .join(', ');
}
