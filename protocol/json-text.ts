/**
 * What every family asks of a JSON body before it reads a field: strict UTF-8, an object, bounded
 * depth, and only text that PostgreSQL can store.
 */

/** Levels of objects and arrays, the outermost counted. */
export const jsonDepthMax = 32;

const strictUtf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** The text of a body, or undefined where the bytes are not UTF-8. A byte order mark stays in. */
export function decodeUtf8(body: Buffer): string | undefined {
  try {
    return strictUtf8.decode(body);
  } catch {
    return undefined;
  }
}

/** The value of a JSON text, or undefined where it is no JSON. (No JSON text means undefined.) */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // The parser's message quotes the text, which may hold a buyer's data.
    return undefined;
  }
}

export function isJsonObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

export interface JsonTextFindings {
  depth: number;
  hasNul: boolean;
  hasLoneSurrogate: boolean;
}

/**
 * Looks through a text that is known to be JSON. It looks at the text and not at the parsed value,
 * because parsing drops all but the last of doubled keys.
 */
export function inspectJsonText(text: string): JsonTextFindings {
  let depth = 0;
  let depthMax = 0;
  let hasNul = false;
  let hasLoneSurrogate = false;
  let inString = false;
  // Set while the last character of a string was the first half of a pair, written as an escape.
  let pendingHigh = false;
  for (let at = 0; at < text.length; at += 1) {
    const character = text[at];
    if (!inString) {
      if (character === '"') inString = true;
      else if (character === '{' || character === '[') depthMax = Math.max(depthMax, (depth += 1));
      else if (character === '}' || character === ']') depth -= 1;
      continue;
    }
    if (character === '\\' && text[at + 1] === 'u') {
      const unit = Number.parseInt(text.slice(at + 2, at + 6), 16);
      at += 5;
      const isLow = unit >= 0xdc00 && unit <= 0xdfff;
      if (pendingHigh !== isLow) hasLoneSurrogate = true;
      pendingHigh = unit >= 0xd800 && unit <= 0xdbff;
      if (unit === 0) hasNul = true;
      continue;
    }
    // Unescaped halves always come in pairs: the text was made from valid UTF-8.
    if (pendingHigh) hasLoneSurrogate = true;
    pendingHigh = false;
    if (character === '\\') at += 1;
    else if (character === '"') inString = false;
  }
  return { depth: depthMax, hasNul, hasLoneSurrogate };
}

export type JsonObjectReading =
  | { ok: true; value: Record<string, unknown> }
  | { ok: false; problem: string };

/** Reads a body as a JSON object; of doubled keys the last wins. Problems never quote the body. */
export function readJsonObject(body: Buffer): JsonObjectReading {
  const text = decodeUtf8(body);
  if (text === undefined) return { ok: false, problem: 'the body is not UTF-8' };
  const value = parseJson(text);
  if (value === undefined) return { ok: false, problem: 'the body is not JSON' };
  if (!isJsonObject(value)) return { ok: false, problem: 'the body is not a JSON object' };
  const problem = findJsonTextProblem(text);
  return problem === undefined
    ? { ok: true, value }
    : { ok: false, problem: `the body ${problem}` };
}

/** What makes a JSON text unfit to be stored, in words that follow its name; undefined if nothing. */
export function findJsonTextProblem(text: string): string | undefined {
  const findings = inspectJsonText(text);
  if (findings.depth > jsonDepthMax) return `is nested deeper than ${jsonDepthMax} levels`;
  if (findings.hasNul) return 'contains a NUL character';
  if (findings.hasLoneSurrogate) return 'contains half of a surrogate pair';
  return undefined;
}
