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
    : `NOT proven, after ${seconds} s:\n${report.problems.map((text) => `  - ${text}`).join('\n')}`;
  return `${table.toString()}\n${verdict}\n`;
}
