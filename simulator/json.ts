/** Reads JSON from the other side: an object, or undefined for anything else. */
export function parseObject(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return isObject(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The text of a member, or undefined when it is absent or no text. */
export function textOf(
  object: Readonly<Record<string, unknown>>,
  name: string,
): string | undefined {
  const value = object[name];
  return typeof value === 'string' ? value : undefined;
}
