import { serve } from '@hono/node-server';
import type { Hono } from 'hono';
import type { HttpBindings } from '@hono/node-server';
import { z } from 'zod';

/** Products as the bench gives them to a peer: signing key by the product's name in the address. */
export function readPeerProducts(): Map<string, string> {
  const products = z
    .array(z.object({ key: z.string(), accessKey: z.string() }))
    .parse(JSON.parse(process.env['PEER_PRODUCTS'] ?? '[]'));
  return new Map(products.map(({ key, accessKey }) => [key, accessKey]));
}

/** Listens on a free port, tells it to the bench, and ends with the bench. */
export function servePeer(app: Hono | Hono<{ Bindings: HttpBindings }>): void {
  serve({ fetch: app.fetch, port: 0, hostname: '127.0.0.1' }, ({ port }) => {
    process.send?.({ kind: 'ready', port });
  });
  process.on('disconnect', () => process.exit(0));
  process.on('SIGTERM', () => process.exit(0));
}
