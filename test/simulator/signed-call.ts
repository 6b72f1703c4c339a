import { Webhook } from 'standardwebhooks';

export type SignedCallOptions = {
  url: string;
  secret: string;
  method: 'PUT' | 'DELETE';
  instanceId: string;
  generation: number;
  desired?: Record<string, unknown>;
  orderId?: string;
  /** Sent instead of what was signed. */
  bodySent?: string;
  at?: Date;
};

/** Calls a seller's backend as the http provisioner is to call it. */
export function callBackend(options: SignedCallOptions): Promise<Response> {
  const { url, method, instanceId, generation, at = new Date() } = options;
  const body =
    method === 'DELETE'
      ? ''
      : JSON.stringify({
          instanceId,
          product: 'shop',
          generation,
          desired: options.desired ?? { exists: true, frozen: false, expiresAt: null },
          changes: [
            {
              kind: 'created',
              scene: null,
              orderId: options.orderId ?? `order-of-${instanceId}`,
              orderLineId: 'l',
              acceptedAt: '2026-01-01T00:00:00Z',
            },
          ],
        });
  const id = `${instanceId}:${generation}`;
  const sent = options.bodySent ?? body;
  return fetch(
    `${url}/instances/${instanceId}${method === 'DELETE' ? `?generation=${generation}` : ''}`,
    {
      method,
      ...(sent === '' ? {} : { body: sent }),
      signal: AbortSignal.timeout(2_000),
      headers: {
        'content-type': 'application/json',
        'idempotency-key': id,
        'webhook-id': id,
        'webhook-timestamp': String(Math.floor(at.getTime() / 1000)),
        'webhook-signature': new Webhook(options.secret).sign(id, at, body),
      },
    },
  );
}
