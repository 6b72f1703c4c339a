/** The signature that the marketplace puts on every request, in its query (saas-v2.md §4.1). */
import { createHmac, timingSafeEqual } from 'node:crypto';
import { buildSortedForm } from './sorted-form.ts';

/**
 * Building the sorted form costs a hundred times the signature, and anybody may ask for it with a
 * wrong one. No call of the marketplace comes near this size.
 */
const sortedFormSizeBytesMax = 16 * 1024;

export interface SignatureParameters {
  /** As received: hexadecimal digits of either case. */
  signature: string;
  /** As received: it is signed as text. */
  timestamp: string;
  nonce: string;
  /** The 32 bytes that the signature names, the same for either case: what replays are told by. */
  signatureBytes: Buffer;
  signedAt: Date;
}

export type SignatureReading =
  | ({ ok: true } & SignatureParameters)
  | { ok: false; problem: string };

export interface SigningKey {
  id: number;
  secret: string;
}

export type Verification =
  | { verified: true; keyId: number; secret: string; form: 'raw' | 'sorted' }
  | { verified: false; reason: string };

const rules = {
  signature: { pattern: /^[0-9a-fA-F]{64}$/, words: 'is not 64 hexadecimal digits' },
  // Thirteen digits and no other number: nonce and timestamp are joined without a mark between
  // them, so only a fixed length keeps digits from moving over and the same signature from
  // covering two pairs.
  timestamp: { pattern: /^[0-9]{13}$/, words: 'is not 13 digits of milliseconds' },
  nonce: { pattern: /^[^\p{C}\p{Z}]{1,128}$/u, words: 'is not 1 to 128 visible characters' },
} as const;

/**
 * Reads signature, timestamp and nonce from a raw query string (with or without the "?"), each of
 * which must be there exactly once. Other parameters are ignored. Problems never quote a value.
 */
export function readSignatureParameters(rawQuery: string): SignatureReading {
  const query = new URLSearchParams(rawQuery);
  const found = { signature: '', timestamp: '', nonce: '' };
  for (const name of ['signature', 'timestamp', 'nonce'] as const) {
    const [value, ...more] = query.getAll(name);
    if (value === undefined) return { ok: false, problem: `${name} is missing` };
    if (more.length > 0) {
      return { ok: false, problem: `${name} is given ${more.length + 1} times` };
    }
    const { pattern, words } = rules[name];
    if (!pattern.test(value)) return { ok: false, problem: `${name} ${words}` };
    found[name] = value;
  }
  return {
    ok: true,
    ...found,
    signatureBytes: Buffer.from(found.signature, 'hex'),
    signedAt: new Date(Number(found.timestamp)),
  };
}

/** Whether a call was signed at most windowMs before or after now, both ends included. */
export function isWithinWindow(signedAt: Date, now: Date, windowMs = 60_000): boolean {
  return Math.abs(now.getTime() - signedAt.getTime()) <= windowMs;
}

/**
 * Tells which key signed a call: over the bytes as they came, else over their sorted form. Every
 * key is tried to the end, so that the time taken tells nothing about which of them came close. The
 * reason is for the seller alone: who cannot sign must not learn how many keys there are.
 */
export function verifySignature(call: {
  parameters: SignatureParameters;
  body: Buffer;
  keys: readonly SigningKey[];
}): Verification {
  const { parameters, body, keys } = call;
  if (keys.length === 0) return { verified: false, reason: 'there is no active key' };
  const overRaw = findSigningKey(parameters, body, keys);
  if (overRaw) return { verified: true, keyId: overRaw.id, secret: overRaw.secret, form: 'raw' };
  const isShort = body.length <= sortedFormSizeBytesMax;
  const sorted = isShort ? buildSortedForm(body) : undefined;
  const overSorted = sorted === undefined ? undefined : findSigningKey(parameters, sorted, keys);
  if (overSorted) {
    return { verified: true, keyId: overSorted.id, secret: overSorted.secret, form: 'sorted' };
  }
  const forms = ['raw', ...(sorted === undefined ? [] : ['sorted'])].join(', ');
  const others =
    sorted !== undefined
      ? ''
      : isShort
        ? ' (no sorted one: the body is no JSON object)'
        : ' (no sorted one: the body is longer than 16 KiB)';
  const whose =
    keys.length === 1
      ? 'not signed with your only active key'
      : `signed with none of your ${keys.length} keys`;
  return { verified: false, reason: `${whose}; body forms tried: ${forms}${others}` };
}

function findSigningKey(
  parameters: SignatureParameters,
  payload: Buffer | string,
  keys: readonly SigningKey[],
): SigningKey | undefined {
  let found: SigningKey | undefined;
  for (const key of keys) {
    const expected = sign(key.secret, parameters, payload);
    if (timingSafeEqual(expected, parameters.signatureBytes)) found ??= key;
  }
  return found;
}

function sign(secret: string, parameters: SignatureParameters, payload: Buffer | string): Buffer {
  const { nonce, timestamp } = parameters;
  const inner = createHmac('sha256', secret).update(payload).digest('hex');
  return createHmac('sha256', secret).update(`${secret}${nonce}${timestamp}${inner}`).digest();
}
