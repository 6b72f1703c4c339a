// Plays the marketplace's own API: the order query with a signature check of its own, written from the
// documents apart from the code that is tested with it, and able to misbehave on command.
import { createHash, createHmac } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { isObject } from './json.ts';
import { type MockOrder, mockOrders } from './mock-orders.ts';

/** How it behaves, for the next `times` calls (for ever without). */
export type OpenApiMode =
  | { readonly kind: 'ok' }
  /** A status without a code, or with one: 500, 503, 406 … */
  | {
      readonly kind: 'fail';
      readonly status: number;
      readonly code?: string;
      readonly times?: number;
    }
  /** HTTP 200, and an error in the body. */
  | { readonly kind: 'error under 200'; readonly code: string; readonly times?: number }
  | { readonly kind: 'html'; readonly status?: number; readonly times?: number }
  | { readonly kind: 'hang'; readonly times?: number }
  /** The head at once, the body byte by byte for ever. */
  | { readonly kind: 'slow body'; readonly times?: number }
  | { readonly kind: 'cut'; readonly times?: number }
  /** Another order than the one asked for. */
  | { readonly kind: 'other order'; readonly times?: number };

type OpenApiCall = {
  readonly atMs: number;
  readonly orderId: string;
  readonly orderLineId: string;
  readonly accessKeyId: string;
  readonly isSigned: boolean;
  /** 0 when it was never answered. */
  readonly status: number;
};

export type OpenApi = {
  /** Listens on a free port of the loopback address; the base URL to set for the product. */
  listen(): Promise<string>;
  close(): Promise<void>;
  setMode(...modes: OpenApiMode[]): void;
  addOrder(...orders: MockOrder[]): void;
  removeOrder(orderId: string): void;
  /** Accepts calls signed with this pair too. */
  addKey(accessKeyId: string, secretKey: string): void;
  readonly calls: readonly OpenApiCall[];
};

const path = '/api/mkp-openapi-public/global/v1/order/query';
const signatureAgeMaxMs = 15 * 60_000;

/** @param options.clock ms since 1970; of it the gateway judges signatures and dates its answers */
export function createOpenApi(options: {
  keys: Readonly<Record<string, string>>;
  clock?: () => number;
}): OpenApi {
  const { clock = Date.now } = options;
  const keys = new Map(Object.entries(options.keys));
  const orders = new Map(mockOrders.map((order) => [order.orderId, order]));
  const calls: OpenApiCall[] = [];
  let modes: { mode: OpenApiMode; left: number }[] = [];

  const server = createServer((incoming, outgoing) => {
    serve(incoming, outgoing).catch(() => outgoing.destroy());
  });

  async function serve(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
    incoming.resume();
    outgoing.sendDate = false;
    outgoing.setHeader('Date', new Date(clock()).toUTCString());
    const url = new URL(incoming.url ?? '/', 'http://api');
    const orderId = url.searchParams.get('orderId') ?? '';
    const orderLineId = url.searchParams.get('orderLineId') ?? '';
    const accessKeyId = /Access=([^,]*)/.exec(header(incoming, 'authorization'))?.[1] ?? '';
    const problem = findSignatureProblem(incoming, keys.get(accessKeyId), clock());
    const call = { atMs: performance.timeOrigin + performance.now(), orderId, orderLineId };
    const at = calls.push({ ...call, accessKeyId, isSigned: problem === undefined, status: 0 });
    const status = await answer(outgoing, url, { orderId, orderLineId, problem });
    const recorded = calls[at - 1];
    if (recorded) calls[at - 1] = { ...recorded, status };
  }

  async function answer(
    outgoing: ServerResponse,
    url: URL,
    asked: { orderId: string; orderLineId: string; problem: string | undefined },
  ): Promise<number> {
    const mode = nextMode();
    switch (mode.kind) {
      case 'fail':
        return print(outgoing, mode.status, mode.code ? gatewayError(mode.code, 'as told') : {});
      case 'html':
        outgoing.writeHead(mode.status ?? 200, { 'content-type': 'text/html' });
        outgoing.end('<html><body>Welcome to nginx!</body></html>');
        return mode.status ?? 200;
      case 'hang':
        return 0;
      case 'cut':
        outgoing.destroy();
        return 0;
      case 'slow body':
        outgoing.writeHead(200, { 'content-type': 'application/json' });
        while (!outgoing.destroyed) {
          outgoing.write(' ');
          await sleep(100);
        }
        return 0;
      case 'error under 200':
        return print(outgoing, 200, { resultCode: mode.code, resultMsg: 'as told' });
      case 'ok':
      case 'other order':
        break;
    }
    if (url.pathname !== path)
      return print(outgoing, 404, gatewayError('APIGW.0101', 'no such API'));
    if (asked.problem !== undefined) {
      return print(outgoing, 401, gatewayError('APIGW.0301', asked.problem));
    }
    const order = orders.get(asked.orderId);
    if (!order) {
      return print(outgoing, 400, { resultCode: 'MKT.0101', resultMsg: 'Invalid parameter' });
    }
    const lines = order.orderLine.filter(
      (line) => asked.orderLineId === '' || line.orderLineId === asked.orderLineId,
    );
    const named = mode.kind === 'other order' ? { orderId: 'CSANOTHER' } : {};
    return print(outgoing, 200, {
      resultCode: 'MKT.0000',
      resultMsg: 'success',
      traceId: 'a field that no page lists',
      orderInfo: {
        ...order,
        ...named,
        orderLine: lines,
        extendParams: [],
        someNewField: { a: [1] },
      },
    });
  }

  function nextMode(): OpenApiMode {
    while (modes[0]?.left === 0) modes = modes.slice(1);
    const current = modes[0];
    if (!current) return { kind: 'ok' };
    current.left -= 1;
    return current.mode;
  }

  return {
    listen: () =>
      new Promise((resolve, reject) => {
        server.once('error', reject);
        server.listen(0, '127.0.0.1', () => {
          const address = server.address();
          resolve(`http://127.0.0.1:${String(isObject(address) ? address['port'] : 0)}`);
        });
      }),
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
    setMode: (...next) => {
      modes = next.map((mode) => ({
        mode,
        left: mode.kind === 'ok' ? Infinity : (mode.times ?? Infinity),
      }));
    },
    addOrder: (...added) => {
      for (const order of added) orders.set(order.orderId, order);
    },
    removeOrder: (orderId) => void orders.delete(orderId),
    addKey: (accessKeyId, secretKey) => void keys.set(accessKeyId, secretKey),
    calls,
  };
}

/** SDK-HMAC-SHA256 as the gateway checks it: over what arrived, header by header as named. */
function findSignatureProblem(
  incoming: IncomingMessage,
  secretKey: string | undefined,
  nowMs: number,
): string | undefined {
  const given =
    /^SDK-HMAC-SHA256 Access=[^,]+, SignedHeaders=([^,]+), Signature=([0-9a-f]{64})$/.exec(
      header(incoming, 'authorization'),
    );
  if (!given) return 'Incorrect IAM authentication information: no signature';
  if (secretKey === undefined)
    return 'Incorrect IAM authentication information: unknown access key';
  const [, names = '', signature = ''] = given;
  if (!names.split(';').includes('host')) return 'Incorrect IAM authentication information: host';
  const date = header(incoming, 'x-sdk-date');
  const parts = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/.exec(date)?.slice(1).map(Number) ?? [];
  const [y = 0, mo = 0, d = 0, h = 0, mi = 0, s = 0] = parts;
  if (Math.abs(Date.UTC(y, mo - 1, d, h, mi, s) - nowMs) > signatureAgeMaxMs) {
    return 'Incorrect IAM authentication information: x-sdk-date expired';
  }
  const [pathname = '', query = ''] = (incoming.url ?? '').split('?');
  const pairs = query
    .split('&')
    .filter((pair) => pair !== '')
    .map((pair) => pair.split('=').map(decodeURIComponent))
    .toSorted(([a = ''], [b = '']) => (a < b ? -1 : Number(a > b)))
    .map((pair) => pair.map(escape3986).join('='));
  const canonical =
    `${incoming.method ?? ''}\n${pathname}${pathname.endsWith('/') ? '' : '/'}\n${pairs.join('&')}\n` +
    names
      .split(';')
      .map((name) => `${name}:${header(incoming, name).trim()}\n`)
      .join('') +
    `\n${names}\n${sha256('')}`;
  const expected = createHmac('sha256', secretKey)
    .update(`SDK-HMAC-SHA256\n${date}\n${sha256(canonical)}`)
    .digest('hex');
  return expected === signature
    ? undefined
    : 'Incorrect IAM authentication information: verify aksk signature fail';
}

const escape3986 = (text: string): string =>
  [...Buffer.from(text)]
    .map((byte) => {
      const character = String.fromCharCode(byte);
      return /[A-Za-z0-9._~-]/.test(character)
        ? character
        : `%${byte.toString(16).toUpperCase().padStart(2, '0')}`;
    })
    .join('');

const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex');

function header(incoming: IncomingMessage, name: string): string {
  const value = incoming.headers[name];
  return Array.isArray(value) ? value.join(', ') : (value ?? '');
}

function gatewayError(code: string, message: string): Record<string, string> {
  return { error_code: code, error_msg: message, request_id: 'a1b2' };
}

function print(outgoing: ServerResponse, status: number, body: Record<string, unknown>): number {
  outgoing.writeHead(status, { 'content-type': 'application/json;charset=utf8' });
  outgoing.end(JSON.stringify(body));
  return status;
}
