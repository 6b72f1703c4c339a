// What the story tells while it runs and when it ends, and the table in which it ends.
import Table from 'cli-table3';

export type Counters = Readonly<Record<string, number>>;

export type Progress = {
  readonly step: string;
  readonly title: string;
  readonly state: 'started' | 'running' | 'done' | 'failed';
  readonly counters: Counters;
  readonly problem?: string;
};

export type StoryRow = {
  readonly what: string;
  readonly sent: number;
  readonly acknowledged: number;
  readonly applied: number;
  /** What was proven, in words; false where the proof failed. */
  readonly proven: string | false;
};

export type StoryReport = {
  readonly rows: readonly StoryRow[];
  readonly problems: readonly string[];
  readonly ok: boolean;
  readonly durationMs: number;
};

/** The report as a plain table without colours, followed by the problems, if any. */
export function formatReport(report: StoryReport): string {
  const table = new Table({
    head: ['What', 'Sent', 'Acknowledged', 'Applied', 'Proven'],
    colAligns: ['left', 'right', 'right', 'right', 'left'],
    // No line between rows, so that the whole table fits on a small screen.
    chars: { mid: '', 'left-mid': '', 'mid-mid': '', 'right-mid': '' },
    style: { head: [], border: [] },
  });
  for (const { what, sent, acknowledged, applied, proven } of report.rows) {
    table.push([what, sent, acknowledged, applied, proven === false ? 'NO' : proven]);
  }
  const seconds = (report.durationMs / 1000).toFixed(1);
  const verdict = report.ok
    ? `All proven, in ${seconds} s.`
    : `NOT proven, after ${seconds} s:\n${shortenProblems(report.problems)}`;
  return `${table.toString()}\n${verdict}\n`;
}

const shownOfAKind = 3;

/** One line for each, but of those that differ in nothing but an id only the first few. */
function shortenProblems(problems: readonly string[]): string {
  const kinds = new Map<string, string[]>();
  for (const text of problems) {
    const kind = text.replace(/\b[0-9a-f]{8}-[0-9a-f-]{27}\b|\bCS[0-9A-Z]+\b/g, '');
    kinds.set(kind, [...(kinds.get(kind) ?? []), text]);
  }
  return [...kinds.values()]
    .flatMap((texts) => {
      const more = texts.length - shownOfAKind;
      const last = more > 0 ? [`(and ${more} more like it)`] : [];
      return [...texts.slice(0, shownOfAKind), ...last].map((text) => `  - ${text}`);
    })
    .join('\n');
}
