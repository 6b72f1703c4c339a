import { createHash, createHmac } from 'node:crypto';

// How calls to Huawei Cloud's API gateway are signed (SDK-HMAC-SHA256, saas-v2.md §8.1).

export type AkSkRequest = {
  method: string;
  /** Absolute. Its path must be plain ASCII: Huawei's own signer encodes an encoded path again. */
  url: URL;
  /** Beside Host and X-Sdk-Date, which are always signed. */
  headers?: Readonly<Record<string, string>>;
  /** The very bytes that are sent; none by default. */
  body?: Uint8Array | string;
};

/**
 * Signs a request with an access key (AK) and its secret key (SK).
 *
 * @returns the headers to send: the given ones, X-Sdk-Date and Authorization; Host is what an HTTP
 *   client makes of the URL
 */
export function signAkSk(
  key: { accessKeyId: string; secretKey: string },
  request: AkSkRequest,
  at: Date,
): Record<string, string> {
  const date = formatSdkDate(at);
  const headers = { ...request.headers, 'X-Sdk-Date': date };
  const { canonical, signedHeaders } = canonicalize({ ...request, headers });
  const toSign = `${algorithm}\n${date}\n${sha256(canonical)}`;
  const signature = createHmac('sha256', key.secretKey).update(toSign).digest('hex');
  const authorization = `${algorithm} Access=${key.accessKeyId}, SignedHeaders=${signedHeaders}, Signature=${signature}`;
  return { ...headers, Authorization: authorization };
}

const algorithm = 'SDK-HMAC-SHA256';

/** UTC as `yyyyMMdd'T'HHmmss'Z'`. */
export function formatSdkDate(at: Date): string {
  return at.toISOString().replace(/[-:]|\.\d+/g, '');
}

/** What is hashed and signed, and the names of the headers in it. */
export function canonicalize(request: AkSkRequest): { canonical: string; signedHeaders: string } {
  const { method, url, headers = {}, body = '' } = request;
  const signed = Object.entries({ ...headers, host: url.host })
    .map(([name, value]) => [name.toLowerCase(), value.trim()] as const)
    .toSorted(byName);
  const signedHeaders = signed.map(([name]) => name).join(';');
  const canonical = [
    method.toUpperCase(),
    url.pathname.endsWith('/') ? url.pathname : `${url.pathname}/`,
    // Sorted by the raw names: by the encoded ones the order would differ from Huawei's signer.
    [...url.searchParams].toSorted(byName).map(writePair).join('&'),
    ...signed.map(([name, value]) => `${name}:${value}`),
    '',
    signedHeaders,
    sha256(body),
  ].join('\n');
  return { canonical, signedHeaders };
}

function writePair([name, value]: readonly [string, string]): string {
  return `${encode(name)}=${encode(value)}`;
}

/** RFC 3986, which leaves fewer characters as they are than encodeURIComponent. */
function encode(text: string): string {
  return encodeURIComponent(text).replace(
    /[!'()*]/g,
    (mark) => `%${mark.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}

function sha256(content: Uint8Array | string): string {
  return createHash('sha256').update(content).digest('hex');
}

function byName([a]: readonly [string, string], [b]: readonly [string, string]): number {
  return a < b ? -1 : Number(a > b);
}
