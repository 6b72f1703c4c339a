import { createHmac } from 'node:crypto';
import { signRequest } from '../../simulator/signing.ts';
import type { Calls, Target, TargetProduct } from './plan.ts';

/** Gives the whole bytes of the next request, signed at this moment. */
export type NextCall = () => string;

/**
 * Requests as the marketplace sends them. They are made right before they are sent, because the
 * signature covers the time; that costs some microseconds, the same for every peer.
 */
export function createCalls(calls: Calls, target: Target): NextCall {
  const { products, port } = target;
  const wrongKey = createHmac('sha256', 'nobody').update(calls.series).digest('hex');
  let sent = 0;
  let nonces = 0;

  function request(order: number, body: string, accessKey?: string): string {
    const product = productOf(order, products);
    const timestamp = String(Date.now());
    nonces += 1;
    const nonce = `${calls.series}${nonces.toString(36)}`;
    const signature = signRequest({
      accessKey: accessKey ?? product.accessKey,
      nonce,
      timestamp,
      body,
    });
    // The bodies are ASCII, so their length in characters is their length in bytes.
    return (
      `POST /callbacks/${product.key}?signature=${signature}&timestamp=${timestamp}&nonce=${nonce} HTTP/1.1\r\n` +
      `Host: 127.0.0.1:${port}\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`
    );
  }

  function purchase(order: number, businessId: string): string {
    const orderId = `CS${calls.series}${String(order).padStart(9, '0')}`;
    return `{"activity":"newInstance","businessId":"${businessId}","orderId":"${orderId}","orderLineId":"${orderId}-000001"}`;
  }

  switch (calls.kind) {
    case 'new orders':
      return () => {
        const order = sent++;
        return request(order, purchase(order, idOf(calls.series, order)));
      };
    case 're-sends':
      return () => {
        const order = scatter(sent++) % calls.orders;
        return request(order, purchase(order, `again-${sent}-${idOf(calls.series, order)}`));
      };
    case 'queries':
      return () => {
        const order = scatter(sent++) % calls.orders;
        const id = idOf(calls.series, order);
        return request(order, `{"activity":"queryInstance","instanceId":"${id}"}`);
      };
    case 'bad signatures':
      return () => {
        const order = sent++;
        return request(order, purchase(order, idOf(calls.series, order)), wrongKey);
      };
  }
}

function productOf(order: number, products: readonly TargetProduct[]): TargetProduct {
  const product = products[order % products.length];
  if (!product) throw new Error('a target needs a product');
  return product;
}

/** Ids that come in no order, as the marketplace's do, and that can be told from the number. */
function idOf(series: string, order: number): string {
  return `${scatter(order).toString(16).padStart(8, '0')}-${series}-${order}`;
}

function scatter(number: number): number {
  return Math.imul(number + 1, 2_654_435_761) >>> 0;
}
