/** The marketplace's side of a signature, written apart from the code under test. */
import { createHmac } from 'node:crypto';

export const accessKey = 'demo-access-key-0001';

function hmac(key: string, data: string | Buffer): Buffer {
  return createHmac('sha256', key).update(data).digest();
}

export function signPayload(call: {
  key?: string;
  payload: string | Buffer;
  timestamp: string;
  nonce: string;
}): string {
  const { key = accessKey, payload, timestamp, nonce } = call;
  const inner = hmac(key, payload).toString('hex');
  return hmac(key, key + nonce + timestamp + inner)
    .toString('hex')
    .toUpperCase();
}

export function buildQuery(parameters: {
  signature: string;
  timestamp: string;
  nonce: string;
}): string {
  return new URLSearchParams(parameters).toString();
}
