/** The base address of a seller's backend; undefined for what cannot be one. */
export function parseBackendBase(text: string): URL | undefined {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  return url && /^https?:$/.test(url.protocol) ? url : undefined;
}

/**
 * `{base}/instances/{id}`, and what comes behind it.
 *
 * @returns undefined for an id that a URL takes for "here" or "up", however it is encoded
 */
export function addressOfInstance(base: URL, publicId: string, behind = ''): URL | undefined {
  if (publicId === '.' || publicId === '..') return undefined;
  const url = new URL(base);
  url.pathname = `${base.pathname.replace(/\/+$/, '')}/instances/${encodeURIComponent(publicId)}${behind}`;
  return url;
}
