import { type LookupAddress, lookup as lookUpName } from 'node:dns';
import { type LookupFunction, isIP } from 'node:net';
import ipaddr from 'ipaddr.js';
import { Webhook } from 'standardwebhooks';
import { Agent, type Dispatcher, buildConnector, errors, request } from 'undici';

// Calls to addresses that a person typed in: they must not become a way into our own network, hang a
// worker, or fill its memory.

type OutboundRequest = {
  method: 'GET' | 'PUT' | 'POST' | 'DELETE';
  /** Absolute, http or https. */
  url: string;
  headers: Record<string, string>;
  body?: string;
  /** For everything from the wait for a connection to the last byte; 10 s by default. */
  totalTimeoutMs?: number;
  signal?: AbortSignal;
};

/** Why there was no whole answer. `protocol`: what answered does not speak HTTP. */
export type OutboundFailure =
  | 'connect'
  | 'dns'
  | 'tls'
  | 'timeout'
  | 'reset'
  | 'too-large'
  | 'protocol'
  | 'cancelled';

export type OutboundResult =
  | { kind: 'answered'; status: number; headers: Record<string, string>; body: string }
  | { kind: 'refused-address' }
  | { kind: 'failed'; reason: OutboundFailure };

export type Outbound = {
  /** Follows no redirect. @throws only for a request that cannot be sent at all, like a bad header */
  call(request: OutboundRequest): Promise<OutboundResult>;
  /** Ends what still runs: those calls fail as `cancelled`. */
  close(): Promise<void>;
};

export type OutboundOptions = {
  /** Networks that may be reached though they are private, like `10.0.0.0/8`. */
  allowedCidrs: readonly string[];
  connectTimeoutMs?: number;
  /** Node's `dns.lookup` by default. */
  lookup?: typeof lookUpName;
  /** PEM certificates to trust beside none other; the system's by default. */
  certificateAuthority?: string;
};

const bodySizeBytesMax = 1 << 20;
const connectionsPerHostMax = 64;

class RefusedAddressError extends Error {
  override readonly name = 'RefusedAddressError';
}

/** Opens no connection until the first call. Close it to give back what is kept alive. */
export function createOutbound(options: OutboundOptions): Outbound {
  const isAllowed = createAddressRule(options.allowedCidrs);
  const agent = createGuardedAgent(isAllowed, options);
  return {
    call: (what) => callThrough(agent, what),
    close: () => agent.destroy(),
  };
}

/**
 * Which addresses may be reached: public unicast ones, and those in `allowedCidrs`. An IPv6 form of
 * an IPv4 address counts as that IPv4 address; allowing 127.0.0.1 allows ::1, its other name.
 *
 * @throws when a network is not written as address/bits
 */
export function createAddressRule(
  allowedCidrs: readonly string[],
): (address: string | undefined) => boolean {
  const allowed = allowedCidrs.map((cidr) => ipaddr.parseCIDR(cidr));
  const isListed = (ip: ipaddr.IPv4 | ipaddr.IPv6) =>
    allowed.some(([network, bits]) => network.kind() === ip.kind() && ip.match(network, bits));
  const isLoopbackListed = isListed(ipaddr.parse('127.0.0.1'));
  return (address) => {
    if (address === undefined || isIP(address) === 0) return false;
    const ip = ipaddr.process(address);
    if (isListed(ip)) return true;
    const range = ip.range();
    if (range === 'loopback' && ip.kind() === 'ipv6') return isLoopbackListed;
    // Beside the known special ranges, IPv6 outside 2000::/3 is not handed out to anyone.
    return range === 'unicast' && (ip.kind() === 'ipv4' || ip.match(globalUnicast, 3));
  };
}

const globalUnicast = ipaddr.parse('2000::');

/**
 * Guards the connection three times: an address literal is never looked up, a name is judged by all
 * that it resolves to, and the socket by whom it really reached.
 */
function createGuardedAgent(
  isAllowed: (address: string | undefined) => boolean,
  options: OutboundOptions,
): Agent {
  const lookup = createGuardedLookup(isAllowed, options.lookup ?? lookUpName);
  const dial = buildConnector({
    timeout: options.connectTimeoutMs ?? 3_000,
    lookup,
    ...(options.certificateAuthority === undefined ? {} : { ca: options.certificateAuthority }),
  });
  return new Agent({
    connections: connectionsPerHostMax,
    maxResponseSize: bodySizeBytesMax,
    // Each call has its own limit for everything; these only count from byte to byte.
    headersTimeout: 0,
    bodyTimeout: 0,
    connect: (to, done) => {
      const host = to.hostname.replace(/^\[|\]$/g, '');
      if (isIP(host) !== 0 && !isAllowed(host)) {
        done(new RefusedAddressError(), null);
        return;
      }
      dial(to, (error, socket) => {
        if (error !== null) {
          done(error, null);
        } else if (isAllowed(socket.remoteAddress)) {
          done(null, socket);
        } else {
          socket.destroy();
          done(new RefusedAddressError(), null);
        }
      });
    },
  });
}

/** One private address among public ones refuses the name: somebody tries something. */
function createGuardedLookup(
  isAllowed: (address: string) => boolean,
  lookup: typeof lookUpName,
): LookupFunction {
  return (hostname, options, done) => {
    lookup(hostname, { ...options, all: true }, (error, addresses: LookupAddress[]) => {
      const first = addresses?.[0];
      if (error) done(error, '', 0);
      else if (!first || addresses.some(({ address }) => !isAllowed(address)))
        done(new RefusedAddressError(), '', 0);
      else if (options.all) done(null, addresses);
      else done(null, first.address, first.family);
    });
  };
}

class EndedError extends Error {
  readonly reason: 'timeout' | 'cancelled';
  constructor(reason: 'timeout' | 'cancelled') {
    super(reason);
    this.reason = reason;
  }
}

async function callThrough(agent: Dispatcher, what: OutboundRequest): Promise<OutboundResult> {
  if (what.signal?.aborted) return { kind: 'failed', reason: 'cancelled' };
  const end = new AbortController();
  const timer = setTimeout(
    () => end.abort(new EndedError('timeout')),
    what.totalTimeoutMs ?? 10_000,
  );
  const cancel = () => end.abort(new EndedError('cancelled'));
  what.signal?.addEventListener('abort', cancel, { once: true });
  try {
    // undici hears a signal only once there is a connection; the limit holds while there is none.
    return await Promise.race([exchange(agent, what, end.signal), rejectOnAbort(end.signal)]);
  } catch (error) {
    if (error instanceof RefusedAddressError) return { kind: 'refused-address' };
    const reason = failureOf(error);
    if (reason === undefined) throw error;
    return { kind: 'failed', reason };
  } finally {
    clearTimeout(timer);
    what.signal?.removeEventListener('abort', cancel);
  }
}

async function exchange(
  agent: Dispatcher,
  what: OutboundRequest,
  signal: AbortSignal,
): Promise<OutboundResult> {
  const { method, url, headers } = what;
  const answer = await request(url, {
    dispatcher: agent,
    method,
    headers,
    signal,
    ...(what.body === undefined ? {} : { body: what.body }),
  });
  const body = await answer.body.text();
  return { kind: 'answered', status: answer.statusCode, headers: flatten(answer.headers), body };
}

function rejectOnAbort(signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
  });
}

function flatten(headers: Record<string, string | string[] | undefined>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(headers).map(([name, value]) => [
      name,
      Array.isArray(value) ? value.join(', ') : (value ?? ''),
    ]),
  );
}

const reasons: Record<string, OutboundFailure> = {
  UND_ERR_CONNECT_TIMEOUT: 'connect',
  ECONNREFUSED: 'connect',
  EHOSTUNREACH: 'connect',
  ENETUNREACH: 'connect',
  EADDRNOTAVAIL: 'connect',
  ETIMEDOUT: 'connect',
  UND_ERR_HEADERS_TIMEOUT: 'timeout',
  UND_ERR_BODY_TIMEOUT: 'timeout',
  UND_ERR_RES_EXCEEDED_MAX_SIZE: 'too-large',
  UND_ERR_HEADERS_OVERFLOW: 'too-large',
  UND_ERR_SOCKET: 'reset',
  ECONNRESET: 'reset',
  EPIPE: 'reset',
  UND_ERR_RES_CONTENT_LENGTH_MISMATCH: 'protocol',
  UND_ERR_DESTROYED: 'cancelled',
  UND_ERR_CLOSED: 'cancelled',
};

/** OpenSSL's and Node's own names for what is wrong with a certificate or a handshake. */
const tlsCode = /^(ERR_TLS_|ERR_SSL_|CERT_|UNABLE_TO_|SELF_SIGNED|DEPTH_ZERO|EPROTO$|INVALID_CA$)/;
const dnsCode = /^(ENOTFOUND|EAI_|ENODATA|ESERVFAIL|EREFUSED)/;

/** @returns undefined for what is no failure of the network but a fault in the request */
function failureOf(error: unknown): OutboundFailure | undefined {
  if (error instanceof EndedError) return error.reason;
  if (error instanceof errors.HTTPParserError) return 'protocol';
  const code = (error as { code?: unknown } | undefined)?.code;
  if (typeof code !== 'string') return undefined;
  if (dnsCode.test(code)) return 'dns';
  if (tlsCode.test(code)) return 'tls';
  return reasons[code] ?? ((error as { syscall?: unknown }).syscall ? 'connect' : undefined);
}

/** Whether a text can sign: `whsec_` and base64, as Standard Webhooks writes secrets. */
export function isWebhookSecret(text: string): boolean {
  return /^whsec_(?:[A-Za-z0-9+/]{4}){2,}(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/.test(text);
}

/**
 * The headers of Standard Webhooks. Two secrets make two signatures, of which either is enough, so
 * that a receiver can change its secret at leisure.
 *
 * @throws TypeError when a secret is not `whsec_` and base64; the message does not hold it
 */
export function signWebhook(
  secrets: readonly string[],
  id: string,
  at: Date,
  body: string,
): Record<'webhook-id' | 'webhook-timestamp' | 'webhook-signature', string> {
  if (secrets.length === 0 || !secrets.every(isWebhookSecret)) {
    throw new TypeError('a webhook secret must be whsec_ and base64');
  }
  return {
    'webhook-id': id,
    'webhook-timestamp': String(Math.floor(at.getTime() / 1_000)),
    'webhook-signature': secrets.map((secret) => new Webhook(secret).sign(id, at, body)).join(' '),
  };
}
