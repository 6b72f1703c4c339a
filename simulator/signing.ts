// The marketplace's side of every signature, written from its documents and from Standard Webhooks,
// apart from the code that is tested with it: one mistake made on both sides would prove itself right.
import { createHmac, timingSafeEqual } from 'node:crypto';

export type CallbackFields = Readonly<Record<string, unknown>>;

/**
 * Prints a callback as Huawei's sample does before it signs: top-level names sorted, nulls dropped,
 * compact, nothing escaped that JSON does not force (Jackson prints control characters as `\u001F`).
 * Nested objects keep their order.
 */
export function canonicalBody(fields: CallbackFields): string {
  const names = Object.keys(fields).filter(
    (name) => fields[name] !== null && fields[name] !== undefined,
  );
  const members = names
    .toSorted(compareAsJava)
    .map((name) => `${print(name)}:${print(fields[name])}`);
  return `{${members.join(',')}}`;
}

/**
 * Signs a callback: hex(HMAC(accessKey, accessKey + nonce + timestamp + hex(HMAC(accessKey, body)))),
 * in upper case as in the documented examples (SaaS V2.0, "HTTP Body签名").
 */
export function signRequest(call: {
  accessKey: string;
  nonce: string;
  timestamp: string;
  body: string | Uint8Array;
}): string {
  const inner = createHmac('sha256', call.accessKey).update(call.body).digest('hex');
  const canonicalRequest = call.accessKey + call.nonce + call.timestamp + inner;
  return createHmac('sha256', call.accessKey).update(canonicalRequest).digest('hex').toUpperCase();
}

/** The whole value of the `Body-Sign` header that the seller owes over these exact bytes. */
export function bodySignValue(accessKey: string, rawBody: string | Uint8Array): string {
  const signature = createHmac('sha256', accessKey).update(rawBody).digest('base64');
  return `sign_type="HMAC-SHA256", signature="${signature}"`;
}

/**
 * Looks for `Body-Sign` among raw headers (name, value, name, value …) with exactly these capitals,
 * since the marketplace is said to miss it otherwise, and checks it over the bytes received.
 */
export function isBodySigned(
  accessKey: string,
  rawHeaders: readonly string[],
  rawBody: Uint8Array,
): boolean {
  const at = rawHeaders.findIndex((text, index) => index % 2 === 0 && text === 'Body-Sign');
  return at >= 0 && rawHeaders[at + 1] === bodySignValue(accessKey, rawBody);
}

/**
 * Verifies a call to the seller's backend (Standard Webhooks): one of the space-separated `v1,…`
 * signatures fits one of the secrets (`whsec_` + base64), and the time (s) is within five minutes.
 */
export function isWebhookSigned(
  secrets: readonly string[],
  call: { id: string; timestamp: string; signatures: string; body: string; nowMs: number },
): boolean {
  if (!/^\d{1,12}$/.test(call.timestamp) || call.id === '') return false;
  if (Math.abs(call.nowMs / 1000 - Number(call.timestamp)) > 300) return false;
  const given = call.signatures.split(' ');
  return secrets.some((secret) => {
    const key = Buffer.from(secret.replace(/^whsec_/, ''), 'base64');
    const signed = createHmac('sha256', key)
      .update(`${call.id}.${call.timestamp}.${call.body}`)
      .digest('base64');
    return given.some((signature) => isSameText(signature, `v1,${signed}`));
  });
}

function isSameText(a: string, b: string): boolean {
  const left = Buffer.from(a);
  const right = Buffer.from(b);
  return left.length === right.length && timingSafeEqual(left, right);
}

// Java's String order is by UTF-16 unit, as `<` is; localeCompare is not.
function compareAsJava(a: string, b: string): number {
  return a < b ? -1 : Number(a > b);
}

function print(value: unknown): string {
  return JSON.stringify(value).replace(/\\(u00[0-9a-f]{2}|.)/g, (escaped, what: string) =>
    what.length > 1 ? `\\u${what.slice(1).toUpperCase()}` : escaped,
  );
}
