import type { ServerResponse } from 'node:http';
import { bodySignHeader } from '../../protocol/body-sign.ts';
import { type Reply, serializeReply } from '../../protocol/saas-v2/reply.ts';

/**
 * Writes a reply on Node's own response: the marketplace takes `Body-Sign` only with its capitals
 * (saas-v2.md §4.3), and the framework's headers are lower-case.
 *
 * @param secret of the key that verified the call; undefined where none did
 * @returns the exact bytes that were sent
 */
export function writeReply(
  response: ServerResponse,
  reply: Reply,
  options: {
    httpStatus?: number;
    secret?: string | undefined;
    mustClose?: boolean;
    allow?: string;
  } = {},
): Buffer {
  const body = Buffer.from(serializeReply(reply));
  const headers: Record<string, string | number> = {
    'Content-Type': 'application/json',
    'Content-Length': body.length,
    'Cache-Control': 'no-store',
    'X-Content-Type-Options': 'nosniff',
  };
  if (options.secret !== undefined) headers['Body-Sign'] = bodySignHeader(options.secret, body);
  if (options.mustClose) headers['Connection'] = 'close';
  if (options.allow !== undefined) headers['Allow'] = options.allow;
  if (!response.destroyed && !response.headersSent) {
    response.writeHead(options.httpStatus ?? 200, headers);
    response.end(body);
  }
  return body;
}
