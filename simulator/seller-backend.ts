// Plays a seller's backend: PUT and DELETE /instances/{id} with Standard Webhooks signatures, fenced by
// generation, and able to misbehave on command. It counts every effect, so that "nothing twice" is seen.
import { randomBytes } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { isObject, parseObject, textOf } from './json.ts';
import { isWebhookSigned } from './signing.ts';

/** How it behaves, for the next `times` requests (for ever without). 'ok' needs no name in a sequence. */
export type Mode =
  | { readonly kind: 'ok' }
  | { readonly kind: 'fail'; readonly status?: number; readonly times?: number }
  | { readonly kind: 'throttle'; readonly retryAfterSeconds: number; readonly times?: number }
  | { readonly kind: 'hang'; readonly times?: number }
  | { readonly kind: 'reset'; readonly times?: number }
  /** Does what was asked, then resets the connection: the caller cannot know. */
  | { readonly kind: 'lost answer'; readonly times?: number }
  /** Does what was asked at once and answers after `delayMs` (longer than the caller waits, or not). */
  | { readonly kind: 'late'; readonly delayMs: number; readonly times?: number }
  | { readonly kind: 'nonsense'; readonly times?: number };

type BackendAppInfo = {
  frontEndUrl: string;
  adminUrl: string;
  userName: string;
  password: string;
  memo: string;
};

export type BackendInstance = {
  readonly instanceId: string;
  readonly product: string;
  readonly generation: number;
  readonly exists: boolean;
  readonly desired: Readonly<Record<string, unknown>>;
  readonly orderId: string;
  readonly created: number;
  readonly deleted: number;
  readonly appInfo: Readonly<BackendAppInfo>;
};

type BackendRequest = {
  readonly at: number;
  readonly method: string;
  readonly instanceId: string;
  readonly generation: number;
  readonly orderIds: readonly string[];
  readonly mode: Mode['kind'];
  /** 0 when it was never answered. */
  readonly status: number;
};

export type SellerBackend = {
  /** Listens on a free port of the loopback address; the base URL to register for the product. */
  listen(): Promise<string>;
  close(): Promise<void>;
  /** Behaves so from the next request on; a sequence is played through, then it is well again. */
  setMode(...modes: Mode[]): void;
  /** Refuses every PUT about this order, until acceptOrder: 422 with a resultCode, or 400 without. */
  refuseOrder(orderId: string, refusal: { status: number; resultCode?: string }): void;
  acceptOrder(orderId: string): void;
  readonly instances: ReadonlyMap<string, BackendInstance>;
  readonly requests: readonly BackendRequest[];
  /** Breaches of the contract by the caller: wrong keys, one generation with two meanings. */
  readonly problems: readonly string[];
};

type Asked = {
  method: string;
  instanceId: string;
  generation: number;
  desired: Record<string, unknown>;
  product: string;
  orderIds: string[];
};
type Said = { status: number; body?: Record<string, unknown> };

/** Creates the backend; `secrets` are the webhook secrets (`whsec_…`) of which any may have signed. */
export function createSellerBackend(options: {
  secrets: readonly string[];
  mode?: Mode;
  clock?: () => number;
  random?: (sizeBytes: number) => Uint8Array;
}): SellerBackend {
  const { secrets, clock = Date.now, random = randomBytes } = options;
  const instances = new Map<string, BackendInstance>();
  const requests: BackendRequest[] = [];
  const problems: string[] = [];
  const refusals = new Map<string, { status: number; resultCode?: string }>();
  let modes = [playable(options.mode ?? { kind: 'ok' })];
  let baseUrl = '';

  const server = createServer((incoming, outgoing) => {
    serve(incoming, outgoing).catch((error: unknown) => {
      problems.push(`the backend itself failed: ${String(error)}`);
      outgoing.destroy();
    });
  });

  async function serve(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
    const body = await readBody(incoming);
    if (body === undefined) return;
    const asked = readRequest(incoming, body);
    if (!isSigned(incoming, body) || asked === undefined) {
      answer(outgoing, { status: asked === undefined ? 400 : 401 });
      return;
    }
    if (header(incoming, 'idempotency-key') !== `${asked.instanceId}:${asked.generation}`) {
      problems.push(`${asked.method} ${asked.instanceId} came with another idempotency key`);
    }
    const mode = nextMode();
    const at = requests.push({
      at: clock(),
      method: asked.method,
      instanceId: asked.instanceId,
      generation: asked.generation,
      orderIds: asked.orderIds,
      mode: mode.kind,
      status: 0,
    });
    const said = await behave(mode, asked, outgoing);
    const recorded = requests[at - 1];
    if (said && recorded) requests[at - 1] = { ...recorded, status: said.status };
  }

  async function behave(
    mode: Mode,
    asked: Asked,
    outgoing: ServerResponse,
  ): Promise<Said | undefined> {
    switch (mode.kind) {
      case 'ok':
        return answer(outgoing, act(asked));
      case 'fail':
        return answer(outgoing, { status: mode.status ?? 500, body: { error: 'out of order' } });
      case 'throttle':
        outgoing.setHeader('retry-after', String(mode.retryAfterSeconds));
        return answer(outgoing, { status: 429 });
      case 'hang':
        return undefined;
      case 'reset':
        outgoing.destroy();
        return undefined;
      case 'lost answer':
        act(asked);
        outgoing.destroy();
        return undefined;
      case 'late': {
        const said = act(asked);
        await sleep(mode.delayMs);
        return answer(outgoing, said);
      }
      case 'nonsense':
        outgoing.writeHead(200, { 'content-type': 'text/html' });
        outgoing.end('<html>It works!</html>');
        return { status: 200 };
    }
  }

  function act(asked: Asked): Said {
    const known = instances.get(asked.instanceId);
    if (known && asked.generation < known.generation) return { status: 409 };
    // The generation fixes the state, so the one that deleted can never ask for a tenant again.
    if (known && !known.exists && asked.method === 'PUT' && asked.generation === known.generation) {
      return { status: 409 };
    }
    if (asked.method === 'DELETE') return remove(asked, known);
    const refused = [...asked.orderIds, known?.orderId ?? '']
      .map((orderId) => refusals.get(orderId))
      .find((refusal) => refusal !== undefined);
    if (refused) {
      const { status, resultCode } = refused;
      return { status, body: resultCode === undefined ? { error: 'refused' } : { resultCode } };
    }
    return put(asked, known);
  }

  function put(asked: Asked, known: BackendInstance | undefined): Said {
    if (
      known?.exists &&
      known.generation === asked.generation &&
      JSON.stringify(known.desired) !== JSON.stringify(asked.desired)
    ) {
      problems.push(`${asked.instanceId}: generation ${asked.generation} came with two meanings`);
    }
    const appInfo = known?.appInfo ?? inventAppInfo(asked.instanceId);
    instances.set(asked.instanceId, {
      instanceId: asked.instanceId,
      product: asked.product,
      generation: asked.generation,
      exists: true,
      desired: asked.desired,
      orderId: known?.orderId || (asked.orderIds[0] ?? ''),
      created: (known?.created ?? 0) + (known?.exists ? 0 : 1),
      deleted: known?.deleted ?? 0,
      appInfo,
    });
    return { status: 200, body: { appInfo } };
  }

  // The generation outlives the tenant: a PUT that was delayed on the way must not bring it back.
  function remove(asked: Asked, known: BackendInstance | undefined): Said {
    instances.set(asked.instanceId, {
      instanceId: asked.instanceId,
      product: known?.product ?? '',
      generation: asked.generation,
      exists: false,
      desired: known?.desired ?? {},
      orderId: known?.orderId ?? '',
      created: known?.created ?? 0,
      deleted: (known?.deleted ?? 0) + (known?.exists ? 1 : 0),
      appInfo: known?.appInfo ?? inventAppInfo(asked.instanceId),
    });
    return { status: known?.exists ? 204 : 404 };
  }

  function inventAppInfo(instanceId: string): BackendAppInfo {
    return {
      frontEndUrl: `${baseUrl}/app/${instanceId}`,
      adminUrl: `${baseUrl}/admin/${instanceId}`,
      userName: `admin-${Buffer.from(random(6)).toString('hex')}`,
      password: Buffer.from(random(18)).toString('base64url'),
      memo: '首次登录后请修改密码',
    };
  }

  function isSigned(incoming: IncomingMessage, body: string): boolean {
    return isWebhookSigned(secrets, {
      id: header(incoming, 'webhook-id'),
      timestamp: header(incoming, 'webhook-timestamp'),
      signatures: header(incoming, 'webhook-signature'),
      body,
      nowMs: clock(),
    });
  }

  function nextMode(): Mode {
    while (modes.length > 0 && modes[0]?.left === 0) modes = modes.slice(1);
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
          const port = isObject(address) ? address['port'] : 0;
          baseUrl = `http://127.0.0.1:${String(port)}`;
          resolve(baseUrl);
        });
      }),
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
    setMode: (...next) => {
      modes = next.map(playable);
    },
    refuseOrder: (orderId, refusal) => void refusals.set(orderId, refusal),
    acceptOrder: (orderId) => void refusals.delete(orderId),
    instances,
    requests,
    problems,
  };
}

function playable(mode: Mode): { mode: Mode; left: number } {
  return { mode, left: mode.kind === 'ok' ? Infinity : (mode.times ?? Infinity) };
}

function readRequest(incoming: IncomingMessage, body: string): Asked | undefined {
  const method = incoming.method ?? '';
  const url = new URL(incoming.url ?? '/', 'http://backend');
  const id = /\/instances\/([^/]+)$/.exec(url.pathname)?.[1];
  if (id === undefined || (method !== 'PUT' && method !== 'DELETE')) return undefined;
  const instanceId = decodeURIComponent(id);
  const parsed = parseObject(body) ?? {};
  const generation = Number(
    method === 'PUT' ? parsed['generation'] : url.searchParams.get('generation'),
  );
  if (!Number.isSafeInteger(generation) || generation < 1) return undefined;
  const desired = parsed['desired'];
  if (method === 'PUT' && (!isObject(desired) || parsed['instanceId'] !== instanceId))
    return undefined;
  const changes: unknown[] = Array.isArray(parsed['changes']) ? parsed['changes'] : [];
  return {
    method,
    instanceId,
    generation,
    desired: isObject(desired) ? desired : {},
    product: textOf(parsed, 'product') ?? '',
    orderIds: changes.filter(isObject).flatMap((change) => textOf(change, 'orderId') ?? []),
  };
}

function answer(outgoing: ServerResponse, said: Said): Said {
  if (!said.body) {
    outgoing.writeHead(said.status).end();
    return said;
  }
  outgoing.writeHead(said.status, { 'content-type': 'application/json' });
  outgoing.end(JSON.stringify(said.body));
  return said;
}

function header(incoming: IncomingMessage, name: string): string {
  const value = incoming.headers[name];
  return typeof value === 'string' ? value : '';
}

/** The whole body as text, or undefined when the caller went away while sending it. */
async function readBody(incoming: IncomingMessage): Promise<string | undefined> {
  const chunks: Buffer[] = [];
  try {
    for await (const chunk of incoming) chunks.push(Buffer.from(chunk));
  } catch {
    return undefined;
  }
  return Buffer.concat(chunks).toString('utf8');
}
