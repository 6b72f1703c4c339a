// Documentation that lies is worse than none. What can be compared with the code is compared here:
// paths, links, commands, scripts, settings, metrics, log lines, result codes, and both READMEs with
// each other. Prints a line for each problem, and ends with 1 if there is any. Needs no service.
import { readFileSync, readdirSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type CommandUnknownOpts, CommanderError } from '@commander-js/extra-typings';
import { createProgram } from '../../cli/program.ts';
import { resultMessages } from '../../protocol/result-codes.ts';
import { settings } from '../../runtime/config.ts';

type Fence = { line: number; language: string; lines: string[] };
type Table = { line: number; header: string[]; rows: { line: number; cells: string[] }[] };
type Document = {
  path: string;
  headings: { line: number; level: number; text: string }[];
  fences: Fence[];
  tables: Table[];
  /** Lines outside of fences, by number from 1. */
  prose: { line: number; text: string }[];
};
/** Code in backticks or a line of a fence; only the latter must be complete. */
type Code = { line: number; text: string; isWhole: boolean };
type Report = (line: number, problem: string) => void;

const root = fileURLToPath(new URL('../../', import.meta.url));
const notOurs = new Set(['node_modules', 'dist', '.git', '.data']);
const sourceExtension = /\.(?:ts|tsx|mjs|md|sql|ya?ml|json)$/;

/** Looks like a metric and is none. */
const tenantsDatabase = 'latchkey_tenants';

/** How the README in Chinese writes defaults that are words. */
const defaultsInChinese: Record<string, string> = {
  'embedded Postgres': '内嵌 Postgres',
  'queues on Postgres': '队列放在 Postgres 上',
  'generated in the data folder': '在数据目录中生成',
  none: '无',
};

const files = listFiles('');
const folders = new Set([...files].flatMap(parentsOf));
const topFolders = [...folders].filter((folder) => !folder.includes('/'));
const scripts = readScripts();
const program = createSilentProgram();
const metricNames = new Set(readText('api/metrics.ts').match(/latchkey_[a-z_]+/g) ?? []);
const logNames = readLogNames();

const documents = [
  'README.md',
  'README.zh-CN.md',
  'CHANGELOG.md',
  ...[...files].filter((path) => /^docs\/.*\.md$/.test(path)),
].map(readDocument);

const problems: string[] = [];
for (const document of documents) {
  const report: Report = (line, problem) => problems.push(`${document.path}:${line} ${problem}`);
  checkLinks(document, report);
  checkPaths(document, report);
  checkCommands(document, report);
  checkNames(document, report);
  checkSettings(document, report);
}
checkTranslation(find('README.md'), find('README.zh-CN.md'));

for (const problem of problems) process.stdout.write(`${problem}\n`);
process.stdout.write(
  `${documents.length} documents, ${problems.length === 0 ? 'no' : problems.length} problems\n`,
);
if (problems.length > 0) process.exitCode = 1;

// Links and paths

function checkLinks(document: Document, report: Report): void {
  for (const { line, text } of document.prose) {
    for (const [, target = ''] of withoutCode(text).matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^[a-z]+:/.test(target)) continue;
      const [file = '', anchor] = target.split('#');
      const path = file === '' ? document.path : normalize(join(dirname(document.path), file));
      if (!exists(path.replace(/\/$/, ''))) report(line, `links to ${target}, which is not there`);
      else if (anchor !== undefined && !anchorsOf(path).includes(anchor))
        report(line, `links to ${target}, but there is no such heading`);
    }
  }
}

function checkPaths(document: Document, report: Report): void {
  const cited = codeOf(document).flatMap(({ line, text }) =>
    text.split(/[\s"'`,;()→]+/).map((word) => ({ line, word: word.replace(/[.:]+$/, '') })),
  );
  for (const { line, word } of cited) {
    const isPath = topFolders.some((folder) => word.startsWith(`${folder}/`));
    const isFile = !/[/\\:<{}]/.test(word) && sourceExtension.test(word) && /^[.\w]/.test(word);
    if (!isPath && !isFile) continue;
    for (const path of expandBraces(word)) {
      if (!exists(path.replace(/\/$/, ''))) report(line, `cites ${path}, which is not there`);
    }
  }
}

function exists(path: string): boolean {
  if (!path.includes('*')) return files.has(path) || folders.has(path);
  const parts = path.split('*').map((part) => part.replace(/[.+?^${}()|[\]\\]/g, '\\$&'));
  const pattern = new RegExp(`^${parts.join('[^/]*')}$`);
  return [...files].some((file) => pattern.test(file));
}

function anchorsOf(path: string): string[] {
  const document = documents.find((each) => each.path === path);
  return (document?.headings ?? []).map(({ text }) =>
    text
      .toLowerCase()
      .replace(/[^\p{L}\p{N}\s_-]/gu, '')
      .replace(/\s/g, '-'),
  );
}

/** `db/{claims,settle}.ts` is two paths. */
function expandBraces(text: string): string[] {
  const match = /^(.*?)\{([^{}]*,[^{}]*)\}(.*)$/.exec(text);
  if (!match) return [text];
  const [, before = '', inner = '', after = ''] = match;
  return inner.split(',').flatMap((part) => expandBraces(`${before}${part}${after}`));
}

// Commands

function checkCommands(document: Document, report: Report): void {
  for (const code of codeOf(document)) {
    for (const words of splitCommands(code.text)) {
      for (const problem of problemsOfCommand(words, code.isWhole)) report(code.line, problem);
    }
  }
}

function problemsOfCommand(words: readonly string[], isWhole: boolean): string[] {
  const [first, second] = words;
  if (first === 'npm') return problemsOfScript(words, isWhole);
  const isOurs = first === 'latchkey' || (first === 'npx' && second === 'latchkey');
  const at = isOurs || first === 'docker' ? words.indexOf('latchkey') : -1;
  return at < 0 ? [] : problemsOfLatchkey(words.slice(at + 1), isWhole);
}

function problemsOfScript(words: readonly string[], isWhole: boolean): string[] {
  const [, verb = '', named = ''] = words;
  const name = verb === 'run' ? named : verb;
  if (verb !== 'run' && verb !== 'start' && verb !== 'test') return [];
  const script = scripts[name];
  if (script === undefined) return [`npm run ${name}: there is no such script`];
  const dashes = words.indexOf('--');
  const own = /cli\/main\.[jt]s (.*)$/.exec(script)?.[1]?.split(' ');
  if (dashes < 0 || own === undefined) return [];
  return problemsOfLatchkey([...own, ...words.slice(dashes + 1)], isWhole);
}

/** What commander says of it, without running it. WORDS in capitals stand for any value. */
function problemsOfLatchkey(words: readonly string[], isWhole: boolean): string[] {
  const said = `latchkey ${words.join(' ')}`;
  const args = words
    .filter((word) => word !== '…')
    .map((word) => (/^[A-Z][A-Z_]*$/.test(word) ? '1' : word));
  let command: CommandUnknownOpts = program;
  for (const arg of args) {
    const next = command.commands.find((each) => each.name() === arg);
    if (next === undefined) break;
    command = next;
  }
  const known = ['--help', '--version', ...command.options.map((option) => option.long)];
  const unknown = args.filter((arg) => arg.startsWith('--') && !known.includes(arg.split('=')[0]));
  if (unknown.length > 0) return [`${said}: there is no option ${unknown.join(', ')}`];
  try {
    program.parse(args, { from: 'user' });
    return [];
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    const { code, message } = error;
    const isHelp = /^commander\.(?:help|version)/.test(code);
    const isShort = /missing|optionMissingArgument/i.test(code);
    if (isHelp || (isShort && !isWhole)) return [];
    return [`${said}: ${message.replace(/^error: /, '')}`];
  }
}

function createSilentProgram(): CommandUnknownOpts {
  const created = createProgram('0');
  const silence = (command: CommandUnknownOpts): void => {
    command.configureOutput({ writeOut: () => undefined, writeErr: () => undefined });
    if (command.commands.length === 0) command.action(() => undefined);
    command.commands.forEach(silence);
  };
  silence(created);
  return created;
}

/** Commands of a line, as words; variables set before a command and comments are left out. */
function splitCommands(text: string): string[][] {
  const commands: string[][] = [[]];
  for (const [word, quoted] of text.matchAll(/"([^"]*)"|'[^']*'|&&|\|\||[|;]|[^\s|;"'&]+/g)) {
    if (word.startsWith('#')) break;
    const current = commands.at(-1) ?? [];
    if (/^(?:&&|\|\||[|;])$/.test(word)) commands.push([]);
    else if (current.length === 0 && (word === '$' || /^[A-Z_]+=/.test(word))) continue;
    else current.push(quoted ?? word.replace(/^'(.*)'$/, '$1'));
  }
  return commands;
}

// Names of metrics, log lines and result codes

function checkNames(document: Document, report: Report): void {
  for (const { line, text } of codeOf(document)) {
    for (const [name] of text.matchAll(/\blatchkey_[a-z_]+/g)) {
      const isKnown = metricNames.has(name) || metricNames.has(name.replace(/_[a-z]+$/, ''));
      if (!isKnown && name !== tenantsDatabase) report(line, `${name}: there is no such metric`);
    }
    for (const [code] of text.matchAll(/(?<![\w-])000\d{3}(?!\w)/g)) {
      if (!Object.hasOwn(resultMessages, code)) report(line, `${code}: there is no such code`);
    }
  }
  for (const { header, rows } of document.tables) {
    if (header[0] !== 'log line') continue;
    for (const { line, cells } of rows) {
      for (const name of (cells[0] ?? '').match(/[a-z_]+\.[a-z_]+/g) ?? []) {
        if (!logNames.has(name)) report(line, `${name}: nothing logs this`);
      }
    }
  }
}

// Settings

function checkSettings(document: Document, report: Report): void {
  const tables = document.tables.filter(({ header }) =>
    /^(?:variable|变量)$/.test(header[0] ?? ''),
  );
  const isChinese = document.path.includes('zh-CN');
  const seen: string[] = [];
  for (const { line, cells } of tables.flatMap(({ rows }) => rows)) {
    const [name = '', shown = '', meaning = ''] = cells.map((cell) => cell.replaceAll('`', ''));
    const setting = settings.find((each) => each.name === name);
    if (seen.includes(name)) report(line, `${name} is listed twice`);
    seen.push(name);
    if (setting === undefined) {
      report(line, `${name}: there is no such setting`);
      continue;
    }
    const isWord = !/^[\w./:]+$/.test(setting.default) || setting.default === 'none';
    const wanted = isChinese && isWord ? defaultsInChinese[setting.default] : setting.default;
    const isTranslated = !isChinese || wanted !== undefined || setting.default.includes('://');
    if (!isTranslated || (wanted ?? setting.default) !== shown)
      report(line, `${name}: the default is "${wanted ?? setting.default}", not "${shown}"`);
    if (!isChinese && setting.meaning !== meaning)
      report(line, `${name}: the meaning is "${setting.meaning}"`);
  }
  if (document.path === 'docs/configuration.md') {
    const missing = settings.filter(({ name }) => !seen.includes(name));
    for (const { name } of missing) report(1, `${name} is not listed`);
  } else if (document.path.startsWith('README') && seen.length === 0) {
    report(1, 'there is no table of settings');
  }
}

// The README in two languages

function checkTranslation(original: Document, translation: Document): void {
  const report = (line: number, problem: string) =>
    problems.push(`${translation.path}:${line} ${problem}`);
  const levels = ({ headings }: Document) => headings.map(({ level }) => '#'.repeat(level));
  if (levels(original).join(' ') !== levels(translation).join(' ')) {
    report(
      1,
      `has the headings ${levels(translation).join(' ')}, not ${levels(original).join(' ')}`,
    );
  }
  compareEach('code block', original.fences, translation.fences, (fence) =>
    [fence.language, ...fence.lines.map(withoutComment)].join('\n'),
  );
  compareEach('table', original.tables, translation.tables, ({ rows }) => `${rows.length} rows`);
  compareEach('list', listsOf(original), listsOf(translation), ({ count }) => `${count} entries`);

  function compareEach<T extends { line: number }>(
    what: string,
    originals: readonly T[],
    translations: readonly T[],
    say: (each: T) => string,
  ): void {
    if (originals.length !== translations.length)
      report(1, `has ${translations.length} ${what}s, not ${originals.length}`);
    originals.forEach((each, place) => {
      const other = translations[place];
      if (other && say(other) !== say(each))
        report(other.line, `this ${what} differs from ${original.path}:${each.line}`);
    });
  }
}

/** Numbered and other lists, told by their entries that follow one another without a heading. */
function listsOf({ prose }: Document): { line: number; count: number }[] {
  const entries = prose.filter(({ text }) => /^(?:\d+\.|-) /.test(text));
  const [first] = entries;
  return first ? [{ line: first.line, count: entries.length }] : [];
}

function withoutComment(line: string): string {
  return line.replace(/(?:^|\s+)#\s.*$/, '');
}

// Reading

function readDocument(path: string): Document {
  const document: Document = { path, headings: [], fences: [], tables: [], prose: [] };
  let fence: Fence | undefined;
  let table: Table | undefined;
  readText(path)
    .split('\n')
    .forEach((text, index) => {
      const line = index + 1;
      const mark = /^\s*```(\w*)/.exec(text);
      if (mark && fence) {
        fence = undefined;
      } else if (mark) {
        fence = { line, language: mark[1] ?? '', lines: [] };
        document.fences.push(fence);
      } else if (fence) {
        fence.lines.push(text);
      } else {
        document.prose.push({ line, text });
        const heading = /^(#+) (.*)$/.exec(text);
        if (heading)
          document.headings.push({ line, level: heading[1]?.length ?? 0, text: heading[2] ?? '' });
        table = readTableLine(document, table, line, text);
      }
    });
  return document;
}

function readTableLine(
  document: Document,
  table: Table | undefined,
  line: number,
  text: string,
): Table | undefined {
  if (!text.startsWith('|')) return undefined;
  const cells = text
    .split(/(?<!\\)\|/)
    .slice(1, -1)
    .map((cell) => cell.trim());
  if (table === undefined) {
    const begun: Table = { line, header: cells, rows: [] };
    document.tables.push(begun);
    return begun;
  }
  if (!cells.every((cell) => /^:?-+:?$/.test(cell))) table.rows.push({ line, cells });
  return table;
}

function codeOf({ prose, fences }: Document): Code[] {
  const spans = prose.flatMap(({ line, text }) =>
    [...text.matchAll(/`([^`]+)`/g)].map(([, code = '']) => ({ line, text: code, isWhole: false })),
  );
  const blocks = fences.flatMap((fence) => {
    const joined: Code[] = [];
    let isOpen = false;
    fence.lines.forEach((text, index) => {
      const last = joined.at(-1);
      const own = text.replace(/\\$/, ' ');
      if (isOpen && last) last.text += own;
      else joined.push({ line: fence.line + 1 + index, text: own, isWhole: true });
      isOpen = text.endsWith('\\');
    });
    return joined;
  });
  return [...spans, ...blocks];
}

function withoutCode(text: string): string {
  return text.replace(/`[^`]*`/g, (code) => '`'.repeat(code.length));
}

function find(path: string): Document {
  const document = documents.find((each) => each.path === path);
  if (!document) throw new Error(`${path} was not read`);
  return document;
}

function readText(path: string): string {
  return readFileSync(join(root, path), 'utf8');
}

function readScripts(): Record<string, string> {
  const { scripts: found } = JSON.parse(readText('package.json')) as {
    scripts: Record<string, string>;
  };
  return found;
}

function readLogNames(): Set<string> {
  const sources = [...files].filter((path) =>
    /^(?:api|cli|db|operations|runtime|workers)\/.*\.tsx?$/.test(path),
  );
  return new Set(
    sources.flatMap((path) =>
      [...readText(path).matchAll(/'([a-z_]+\.[a-z_]+)'/g)].map(([, name = '']) => name),
    ),
  );
}

function listFiles(folder: string): Set<string> {
  const found = new Set<string>();
  for (const entry of readdirSync(join(root, folder), { withFileTypes: true })) {
    const path = folder === '' ? entry.name : `${folder}/${entry.name}`;
    if (!entry.isDirectory()) found.add(path);
    else if (!notOurs.has(entry.name)) for (const inner of listFiles(path)) found.add(inner);
  }
  return found;
}

function parentsOf(path: string): string[] {
  const parts = path.split('/').slice(0, -1);
  return parts.map((_, index) => parts.slice(0, index + 1).join('/'));
}
