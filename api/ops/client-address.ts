import { getConnInfo } from '@hono/node-server/conninfo';
import type { Context } from 'hono';
import ipaddr from 'ipaddr.js';

/**
 * Whose attempts are counted together: an IPv4 address, or an IPv6 /64, which is what one customer
 * of a provider has. Forwarded headers are not believed, since anybody can send them; behind a
 * proxy all attempts therefore count as one address.
 */
export function clientAddressOf(c: Context): string {
  const address = getConnInfo(c).remote.address;
  if (address === undefined || !ipaddr.isValid(address)) return 'unknown';
  const parsed = ipaddr.process(address);
  if (parsed instanceof ipaddr.IPv4) return parsed.toString();
  return `${parsed.parts
    .slice(0, 4)
    .map((part) => part.toString(16))
    .join(':')}::/64`;
}
