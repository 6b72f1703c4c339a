import { tableOf } from '../cli/output.ts';
import { type Figure, type Section, isReached, median, ratioOf } from './figures.ts';
import type { Machine } from './stage/machine.ts';

const head = ['what', 'median', 'min – max', 'ratio', 'aim'] as const;

/** For the screen. */
export function showSection(section: Section): string {
  const rows = section.figures.map(cellsOf);
  return [section.title, tableOf(head, rows), ...section.remarks.map((text) => `  ${text}`)].join(
    '\n',
  );
}

/** For `bench/results.md`. */
export function renderResults(run: {
  machine: Machine;
  sections: readonly Section[];
  date: Date;
  rounds: number;
  seconds: number;
}): string {
  const { machine, sections, date, rounds, seconds } = run;
  const lines = [
    '# Results of `npm run bench`',
    '',
    `Measured on ${date.toISOString().slice(0, 10)}; ${rounds} rounds of ${seconds} s, peers in turn within a round, ` +
      'medians of rounds, ratios within a round. Client, servers, Postgres and Redis share the machine.',
    '',
    '| | |',
    '|---|---|',
    ...machine.lines.map(([name, value]) => `| ${name} | ${value} |`),
    '',
    ...machine.warnings.flatMap((text) => [`**${text}**`, '']),
  ];
  for (const section of sections) {
    lines.push(
      `## ${section.title}`,
      '',
      `| ${head.join(' | ')} |`,
      '|---|--:|--:|--:|---|',
      ...section.figures.map((figure) => `| ${cellsOf(figure).join(' | ')} |`),
      '',
      ...section.remarks.flatMap((text) => [text, '']),
    );
  }
  return `${lines.join('\n').trimEnd()}\n`;
}

function cellsOf(figure: Figure): string[] {
  const { values, unit, against, note } = figure;
  const ratio = ratioOf(figure);
  return [
    note === undefined ? figure.subject : `${figure.subject} (${note})`,
    `${show(median(values), unit)} ${unit}`,
    `${show(Math.min(...values), unit)} – ${show(Math.max(...values), unit)}`,
    ratio === undefined ? '' : `${ratio.toFixed(2)} × ${against?.subject ?? ''}`,
    showAim(figure),
  ];
}

function showAim(figure: Figure): string {
  const { aim, unit } = figure;
  if (!aim) return '';
  const bound = 'atLeast' in aim ? `≥ ${aim.atLeast}` : `≤ ${aim.atMost}`;
  const measured = aim.of === 'ratio' ? ' ×' : ` ${unit}`;
  return `${bound}${measured}: ${isReached(figure) === true ? 'reached' : 'missed'}`;
}

function show(value: number, unit: Figure['unit']): string {
  return unit === 'ms' ? value.toFixed(2) : Math.round(value).toLocaleString('en');
}
