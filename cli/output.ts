import Table from 'cli-table3';

/**
 * Ends a command's work: exactly one JSON document with --json, else what `text` makes of it.
 */
export function print<T>(
  value: T,
  options: { json?: true | undefined },
  text: (value: T) => string,
) {
  const output = options.json === true ? JSON.stringify(value, null, 2) : text(value);
  process.stdout.write(`${output}\n`);
}

/** A table without colours, so that it reads the same in a pipe. */
export function tableOf(head: readonly string[], rows: readonly (readonly Cell[])[]): string {
  const table = new Table({ head: [...head], style: { head: [], border: [] } });
  table.push(...rows.map((row) => row.map(showCell)));
  return table.toString();
}

type Cell = string | number | Date | null;

function showCell(cell: Cell): string {
  if (cell === null) return '–';
  return cell instanceof Date ? showTime(cell) : String(cell);
}

/** In UTC, to the second: the same for all who look at it. */
export function showTime(at: Date | null): string {
  return at === null ? '–' : `${at.toISOString().slice(0, 19).replace('T', ' ')}Z`;
}

/** One line for each, the names in one column. */
export function listOf(entries: readonly (readonly [name: string, value: string])[]): string {
  const width = Math.max(...entries.map(([name]) => name.length));
  return entries.map(([name, value]) => `${name.padEnd(width)}  ${value}`).join('\n');
}
