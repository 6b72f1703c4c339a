// Plays the marketplace: signs SaaS V2.0 callbacks, sends them over HTTP, re-sends and polls as it does,
// and keeps the ledger of what it was answered.
import { randomBytes, randomUUID } from 'node:crypto';
import { Agent as HttpAgent, request as httpRequest, type IncomingMessage } from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import { setTimeout as sleep } from 'node:timers/promises';
import { isObject, parseObject, textOf } from './json.ts';
import { createLedger, type Ledger, type LedgerEntry } from './ledger.ts';
import { canonicalBody, isBodySigned, signRequest, type CallbackFields } from './signing.ts';

export type Order = { readonly orderId: string; readonly orderLineId: string };

export type AppInfo = {
  readonly frontEndUrl?: string;
  readonly adminUrl?: string;
  readonly userName?: string;
  readonly password?: string;
  readonly memo?: string;
};
export type InstanceInfo = { readonly instanceId: string; readonly appInfo?: AppInfo };

/** One signed call: the very bytes and query, so that it can be sent again unchanged. */
type SignedCall = {
  readonly body: string;
  readonly query: string;
  readonly fields: CallbackFields;
};

export type Reply = {
  /** 0 when no whole answer came; `failure` then says why. */
  readonly httpStatus: number;
  readonly resultCode: string;
  readonly resultMsg: string;
  readonly instanceId?: string;
  readonly info?: readonly InstanceInfo[];
  readonly headers: IncomingMessage['headers'];
  readonly rawHeaders: readonly string[];
  /** `Body-Sign`, capitals included, is there and signs the bytes received under our key. */
  readonly bodySignOk: boolean;
  readonly durationMs: number;
  readonly rawBody: string;
  readonly failure?: string;
  readonly call: SignedCall;
};

/** What a forger or a broken proxy changes, after signing. 'stale' is signed well, two minutes ago. */
export type Tamper =
  | 'signature'
  | 'body'
  | 'timestamp'
  | 'nonce'
  | 'unsigned'
  | 'stale'
  | 'other key';

export type BuyTiming = { readonly retryEveryMs: number; readonly deadlineMs: number };
type BuyResult = { readonly calls: number; readonly polls: number } & (
  | { readonly outcome: 'ready'; readonly instanceId: string; readonly info: InstanceInfo }
  | { readonly outcome: 'not ready'; readonly instanceId: string; readonly resultCode: string }
  | { readonly outcome: 'not acknowledged'; readonly resultCode: string }
);

type Renewal = Order & {
  readonly instanceId: string;
  readonly scene: 'TRIAL_TO_FORMAL' | 'RENEWAL' | 'UNSUBSCRIBE_RENEWAL_PERIOD' | 'RENEWAL_CHANGE';
  /** UTC, `yyyyMMddHHmmss` or `yyyyMMddHHmmssSSS`: both are seen on the wire. */
  readonly expireTime: string;
  readonly productId?: string;
  readonly testFlag?: string;
};

export type Marketplace = {
  readonly ledger: Ledger;
  newInstance(order: Order & { businessId?: string; testFlag?: string }): Promise<Reply>;
  /** At most 100 ids, as one list or as the comma-separated text itself. */
  queryInstance(ids: string | readonly string[], testFlag?: string): Promise<Reply>;
  refreshInstance(renewal: Renewal): Promise<Reply>;
  updateInstanceStatus(instanceId: string, status: 'FREEZE' | 'UNFREEZE'): Promise<Reply>;
  upgradeInstance(upgrade: Order & { instanceId: string }): Promise<Reply>;
  releaseInstance(instanceId: string, order?: Order): Promise<Reply>;
  changeInstanceCheck(instanceId: string, productInfo: unknown): Promise<Reply>;
  /** Signs and sends anything: fields are printed sorted and compact, text goes out as it is. */
  send(body: CallbackFields | string, options?: { tamper?: Tamper }): Promise<Reply>;
  /** The very same signed bytes and query once more. */
  replay(call: SignedCall): Promise<Reply>;
  /** Signs anew and sends until it is acknowledged, as the marketplace does after any other answer. */
  sendUntilAcknowledged(fields: () => CallbackFields, timing: BuyTiming): Promise<Reply>;
  /** Buys as the marketplace does: newInstance until acknowledged, then polls until info appears. */
  buy(order: Order, timing: BuyTiming): Promise<BuyResult>;
  /** Closes the kept connections. */
  close(): void;
};

type Answer = Pick<Reply, 'httpStatus' | 'headers' | 'rawHeaders'> & {
  raw: Buffer;
  failure?: string;
};

/**
 * Creates the marketplace's side of one product: `callbackUrl` is its production address, `accessKey`
 * the key bound to it. An answer later than `replyTimeoutMs` counts as none (the documents give 5 s).
 */
export function createMarketplace(options: {
  callbackUrl: string;
  accessKey: string;
  clock?: () => number;
  random?: (sizeBytes: number) => Uint8Array;
  replyTimeoutMs?: number;
  /** Told of every reply, whoever asked. */
  onReply?: (reply: Reply) => void;
}): Marketplace {
  const { callbackUrl, accessKey, clock = Date.now, random = randomBytes } = options;
  const replyTimeoutMs = options.replyTimeoutMs ?? 5_000;
  const isTls = new URL(callbackUrl).protocol === 'https:';
  const agent = isTls ? new HttpsAgent({ keepAlive: true }) : new HttpAgent({ keepAlive: true });
  const startRequest = isTls ? httpsRequest : httpRequest;
  const ledger = createLedger();

  function sign(body: string, fields: CallbackFields, tamper?: Tamper): SignedCall {
    const nonce = Buffer.from(random(32)).toString('hex').toUpperCase();
    const timestamp = String(clock() - (tamper === 'stale' ? 120_000 : 0));
    const key = tamper === 'other key' ? `${accessKey}-of-another` : accessKey;
    const signature = signRequest({ accessKey: key, nonce, timestamp, body });
    const query = new URLSearchParams({
      signature: tamper === 'signature' ? changeFirstDigit(signature) : signature,
      timestamp: tamper === 'timestamp' ? String(Number(timestamp) + 1) : timestamp,
      nonce: tamper === 'nonce' ? changeFirstDigit(nonce) : nonce,
    });
    if (tamper === 'unsigned') query.delete('signature');
    return {
      query: query.toString(),
      // A space would not do: the sorted form of the JSON would still be well signed.
      body: tamper === 'body' ? body.replace('{', '{"forged":"1",') : body,
      fields,
    };
  }

  async function exchange(call: SignedCall): Promise<Reply> {
    const startedAt = performance.now();
    const answer = await post(call);
    const rawBody = answer.raw.toString('utf8');
    const parsed = parseObject(rawBody) ?? {};
    const instanceId = textOf(parsed, 'instanceId');
    const info = readInfo(parsed['info']);
    const reply: Reply = {
      httpStatus: answer.httpStatus,
      resultCode: textOf(parsed, 'resultCode') ?? '',
      resultMsg: textOf(parsed, 'resultMsg') ?? '',
      ...(instanceId === undefined ? {} : { instanceId }),
      ...(info === undefined ? {} : { info }),
      headers: answer.headers,
      rawHeaders: answer.rawHeaders,
      bodySignOk: isBodySigned(accessKey, answer.rawHeaders, answer.raw),
      durationMs: performance.now() - startedAt,
      rawBody,
      ...(answer.failure === undefined ? {} : { failure: answer.failure }),
      call,
    };
    ledger.record(entryOf(reply, clock()));
    options.onReply?.(reply);
    return reply;
  }

  function post(call: SignedCall): Promise<Answer> {
    return new Promise((resolve) => {
      const none = (error: Error): void =>
        resolve({
          httpStatus: 0,
          headers: {},
          rawHeaders: [],
          raw: Buffer.alloc(0),
          failure: error.message,
        });
      const outgoing = startRequest(
        `${callbackUrl}${callbackUrl.includes('?') ? '&' : '?'}${call.query}`,
        {
          method: 'POST',
          agent,
          signal: AbortSignal.timeout(replyTimeoutMs),
          headers: {
            accept: 'application/json',
            'content-type': 'application/json;charset=utf8',
            'content-length': Buffer.byteLength(call.body),
          },
        },
        (incoming) => {
          const chunks: Buffer[] = [];
          incoming.on('data', (chunk: Buffer) => chunks.push(chunk));
          incoming.on('error', none);
          incoming.on('end', () =>
            resolve({
              httpStatus: incoming.statusCode ?? 0,
              headers: incoming.headers,
              rawHeaders: incoming.rawHeaders,
              raw: Buffer.concat(chunks),
            }),
          );
        },
      );
      outgoing.on('error', none);
      outgoing.end(call.body);
    });
  }

  function send(body: CallbackFields | string, how: { tamper?: Tamper } = {}): Promise<Reply> {
    const call =
      typeof body === 'string'
        ? sign(body, parseObject(body) ?? {}, how.tamper)
        : sign(canonicalBody(body), body, how.tamper);
    return exchange(call);
  }

  async function sendUntilAcknowledged(
    fields: () => CallbackFields,
    timing: BuyTiming,
  ): Promise<Reply> {
    const end = performance.now() + timing.deadlineMs;
    for (;;) {
      const reply = await send(fields());
      if (isAcknowledged(reply) || performance.now() + timing.retryEveryMs > end) return reply;
      await sleep(timing.retryEveryMs);
    }
  }

  const purchaseOf = (
    order: Order & { businessId?: string; testFlag?: string },
  ): CallbackFields => ({
    activity: 'newInstance',
    businessId: order.businessId ?? randomUUID(),
    orderId: order.orderId,
    orderLineId: order.orderLineId,
    testFlag: order.testFlag,
  });

  async function buy(order: Order, timing: BuyTiming): Promise<BuyResult> {
    const end = performance.now() + timing.deadlineMs;
    let calls = 0;
    const bought = await sendUntilAcknowledged(() => {
      calls += 1;
      return purchaseOf(order);
    }, timing);
    const { instanceId } = bought;
    if (!isAcknowledged(bought) || instanceId === undefined) {
      return { outcome: 'not acknowledged', resultCode: bought.resultCode, calls, polls: 0 };
    }
    for (let polls = 1; ; polls += 1) {
      const reply = await send({ activity: 'queryInstance', instanceId });
      const info = reply.info?.find((one) => one.instanceId === instanceId);
      if (isAcknowledged(reply) && info)
        return { outcome: 'ready', instanceId, info, calls, polls };
      if (performance.now() + timing.retryEveryMs > end) {
        return { outcome: 'not ready', instanceId, resultCode: reply.resultCode, calls, polls };
      }
      await sleep(timing.retryEveryMs);
    }
  }

  return {
    ledger,
    newInstance: (order) => send(purchaseOf(order)),
    queryInstance: (ids, testFlag) =>
      send({
        activity: 'queryInstance',
        instanceId: typeof ids === 'string' ? ids : ids.join(','),
        testFlag,
      }),
    refreshInstance: (renewal) => send({ activity: 'refreshInstance', ...renewal }),
    updateInstanceStatus: (instanceId, status) =>
      send({ activity: 'updateInstanceStatus', instanceId, status }),
    upgradeInstance: (upgrade) => send({ activity: 'upgradeInstance', ...upgrade }),
    releaseInstance: (instanceId, order) =>
      send({ activity: 'releaseInstance', instanceId, ...order }),
    changeInstanceCheck: (instanceId, productInfo) =>
      send({ activity: 'changeInstanceCheck', instanceId, productInfo }),
    send,
    replay: exchange,
    sendUntilAcknowledged,
    buy,
    close: () => agent.destroy(),
  };
}

/** 000004 means "in process" for a purchase and for a poll; to every other call only 000000 says yes. */
export function isAcknowledged(reply: Pick<Reply, 'httpStatus' | 'resultCode' | 'call'>): boolean {
  if (reply.httpStatus !== 200) return false;
  const activity = reply.call.fields['activity'];
  const mayBeInProcess = activity === 'newInstance' || activity === 'queryInstance';
  return reply.resultCode === '000000' || (mayBeInProcess && reply.resultCode === '000004');
}

function entryOf(reply: Reply, at: number): LedgerEntry {
  const { fields } = reply.call;
  const named = {
    orderId: textOf(fields, 'orderId'),
    orderLineId: textOf(fields, 'orderLineId'),
    instanceId: reply.instanceId ?? textOf(fields, 'instanceId'),
    status: textOf(fields, 'status'),
    expireTime: textOf(fields, 'expireTime'),
  };
  return {
    at,
    activity: textOf(fields, 'activity') ?? '',
    outcome: isAcknowledged(reply)
      ? 'acknowledged'
      : reply.httpStatus === 200 && reply.resultCode !== ''
        ? 'refused'
        : 'unanswered',
    resultCode: reply.resultCode,
    isTest: fields['testFlag'] === '1',
    ...Object.fromEntries(Object.entries(named).filter(([, value]) => value !== undefined)),
  };
}

function readInfo(value: unknown): InstanceInfo[] | undefined {
  if (!Array.isArray(value)) return undefined;
  return value.filter(isObject).flatMap((one) => {
    const instanceId = textOf(one, 'instanceId');
    if (instanceId === undefined) return [];
    const appInfo = one['appInfo'];
    return [isObject(appInfo) ? { instanceId, appInfo: readAppInfo(appInfo) } : { instanceId }];
  });
}

function readAppInfo(appInfo: Readonly<Record<string, unknown>>): AppInfo {
  const names = ['frontEndUrl', 'adminUrl', 'userName', 'password', 'memo'] as const;
  return Object.fromEntries(
    names.flatMap((name) => {
      const text = textOf(appInfo, name);
      return text === undefined ? [] : [[name, text]];
    }),
  );
}

function changeFirstDigit(hex: string): string {
  return (hex.startsWith('0') ? '1' : '0') + hex.slice(1);
}
