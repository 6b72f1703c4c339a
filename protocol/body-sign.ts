import { createHmac } from 'node:crypto';

/**
 * The value of the `Body-Sign` response header over exactly the bytes that are sent
 * (saas-v2.md §4.3: base64 HMAC-SHA256 under the access key alone, both values in double quotes).
 */
export function bodySignHeader(accessKey: string, body: Buffer | string): string {
  const signature = createHmac('sha256', accessKey).update(body).digest('base64');
  return `sign_type="HMAC-SHA256", signature="${signature}"`;
}
