/**
 * The form in which the marketplace may have signed a body: what Java's Jackson writes for the
 * TreeMap of its fields (saas-v2.md §4.1). Numbers are taken from the text, because JSON.parse
 * makes 10 of 10.0 and rounds long integers, and both are signed.
 */
import { parseTree, type Node } from 'jsonc-parser';
import {
  decodeUtf8,
  inspectJsonText,
  isJsonObject,
  jsonDepthMax,
  parseJson,
} from '../json-text.ts';

/**
 * The top level sorted by name in Java's String order, without fields that are null; compact;
 * nested objects in the order in which they came. Undefined for a body that has no such form: not
 * a JSON object, deeper than 32 levels, or with half of a surrogate pair.
 */
export function buildSortedForm(body: Buffer): string | undefined {
  const text = decodeUtf8(body);
  if (text === undefined || !isJsonObject(parseJson(text))) return undefined;
  const findings = inspectJsonText(text);
  // parseTree recurses; the bound keeps an unsigned caller from choosing how deep.
  if (findings.depth > jsonDepthMax || findings.hasLoneSurrogate) return undefined;
  const root = parseTree(text);
  if (!root) return undefined;
  const fields = [...lastOfEachName(root)]
    .filter(([, value]) => value.type !== 'null')
    // JavaScript compares strings as Java does, by UTF-16 units.
    .sort(([a], [b]) => (a < b ? -1 : 1));
  return writeFields(fields, text);
}

/** A Java map: a doubled name keeps its first place and takes its last value. */
function lastOfEachName(object: Node): Map<string, Node> {
  const fields = new Map<string, Node>();
  for (const property of object.children ?? []) {
    const [name, value] = property.children ?? [];
    if (name && value) fields.set(String(name.value), value);
  }
  return fields;
}

function writeFields(fields: Iterable<[string, Node]>, text: string): string {
  const written = Array.from(
    fields,
    ([name, value]) => `${writeString(name)}:${writeValue(value, text)}`,
  );
  return `{${written.join(',')}}`;
}

function writeValue(node: Node, text: string): string {
  switch (node.type) {
    case 'object':
      return writeFields(lastOfEachName(node), text);
    case 'array':
      return `[${(node.children ?? []).map((child) => writeValue(child, text)).join(',')}]`;
    case 'string':
      return writeString(String(node.value));
    case 'number':
      return writeNumber(text.slice(node.offset, node.offset + node.length));
    case 'boolean':
      return String(node.value);
    case 'null':
      return 'null';
    case 'property':
      throw new Error('a property stands inside an object only');
  }
}

/** Jackson's escapes are JSON.stringify's, but for the capitals in \u001F. */
function writeString(value: string): string {
  return JSON.stringify(value).replace(
    /\\(?:u([0-9a-f]{4})|.)/g,
    (escape, hex: string | undefined) => (hex === undefined ? escape : `\\u${hex.toUpperCase()}`),
  );
}

function writeNumber(raw: string): string {
  if (/[.eE]/.test(raw)) return writeDouble(Number(raw));
  // Integers of any length come through Jackson unchanged, but for an int's missing sign of zero.
  return raw === '-0' ? '0' : raw;
}

/**
 * Java's Double.toString: the shortest digits that name the double, at least one of them after the
 * point, with an exponent outside 0.001 to 10,000,000. Known gap: before JDK 19 Java prints some
 * doubles with a digit too many (1.9999999999999998E23 for 2e23); a body with one of those verifies
 * by its raw bytes alone. No field of the protocol is such a number.
 */
function writeDouble(value: number): string {
  // Jackson quotes what JSON has no number for.
  if (!Number.isFinite(value)) return value > 0 ? '"Infinity"' : '"-Infinity"';
  if (Object.is(value, -0)) return '-0.0';
  if (value === 0) return '0.0';
  const shortest = value.toExponential();
  // Java wants two digits, and takes the nearest such: 4.9E-324 where JavaScript says 5e-324.
  const scientific = shortest.includes('.') ? shortest : value.toExponential(1);
  const size = Math.abs(value);
  if (size < 1e-3 || size >= 1e7) return scientific.replace('e+', 'E').replace('e', 'E');
  const plain = String(value);
  return plain.includes('.') ? plain : `${plain}.0`;
}
