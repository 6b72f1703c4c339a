import { randomUUID } from 'node:crypto';

/** A UUID of version 7 (RFC 9562): sorts by time, so that the evidence's index grows at one end. */
export function createCallbackId(nowMs: number): string {
  const time = nowMs.toString(16).padStart(12, '0');
  // Node draws the random part from a pool, which its randomBytes does not.
  const random = randomUUID();
  return `${time.slice(0, 8)}-${time.slice(8)}-7${random.slice(15)}`;
}
