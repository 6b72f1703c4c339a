import type { IncomingMessage, ServerResponse } from 'node:http';
import type { HttpBindings } from '@hono/node-server';
import { RESPONSE_ALREADY_SENT } from '@hono/node-server/utils/response';
import type { Context } from 'hono';
import type { Logger } from 'pino';
import { type Callback, parseCallback } from '../../protocol/saas-v2/callback.ts';
import { type Reply, refusal } from '../../protocol/saas-v2/reply.ts';
import {
  type SignatureParameters,
  isWithinWindow,
  readSignatureParameters,
  verifySignature,
} from '../../protocol/saas-v2/signature.ts';
import type { Metrics } from '../metrics.ts';
import { type Accept, type Acceptance, type VerifiedCall } from './accept.ts';
import { writeReply } from './answer.ts';
import { createCallbackId } from './callback-id.ts';
import type { KnownProduct, ProductKeys } from './product-keys.ts';
import { readBody } from './read-call.ts';
import type { Refusals } from './refusals.ts';
import type { ReplyLog } from './reply-log.ts';

export type ReceiverOptions = {
  products: ProductKeys;
  accept: Accept;
  replyLog: ReplyLog;
  refusals: Refusals;
  metrics: Metrics;
  log: Logger;
  nowMs: () => number;
  ackBudgetMs: number;
};

/** Kept back of the budget for writing the answer. */
const reserveMs = 150;

type Answered = {
  outcome: string;
  reply: Reply;
  /** Why it was refused, for operators; only what a stranger may know is in the reply. */
  reason?: string;
  activity?: string;
  orderId?: string | undefined;
  publicId?: string | undefined;
  instanceIds?: readonly number[];
  secret?: string;
  httpStatus?: number;
  mustClose?: boolean;
  allow?: string;
};

/**
 * Answers the marketplace. The order of the checks is fixed, so that each wrong call has one exact
 * answer: product, method, size, signature parameters, window, signature, JSON, activity, fields,
 * replay. HTTP 200 for every POST to a known product, since the marketplace takes anything else for
 * a failure of the server (saas-v2.md §3).
 */
export function createReceiver(options: ReceiverOptions) {
  const { products, accept, replyLog, refusals, metrics, log, nowMs, ackBudgetMs } = options;

  return async (c: Context<{ Bindings: HttpBindings }>): Promise<Response> => {
    const { incoming, outgoing } = c.env;
    const beganMs = nowMs();
    const id = createCallbackId(beganMs);
    const productKey = c.req.param('productKey') ?? '';
    const product = await findProduct(productKey);
    // Hono makes the answer to HEAD itself, from what GET would answer.
    if (incoming.method === 'HEAD') {
      return product === undefined ? c.body(null, 404) : c.body(null, 405, { allow: 'POST' });
    }
    const answered = await answerCall(product, incoming, id, beganMs);
    finish(outgoing, answered, { id, beganMs, product });
    return RESPONSE_ALREADY_SENT;
  };

  async function findProduct(
    productKey: string,
  ): Promise<KnownProduct | undefined | 'unavailable'> {
    const known = products.find(productKey);
    if (typeof known === 'object') return known;
    // It may have been added a moment ago.
    await products.refresh();
    return products.find(productKey);
  }

  async function answerCall(
    product: KnownProduct | undefined | 'unavailable',
    incoming: IncomingMessage,
    id: string,
    beganMs: number,
  ): Promise<Answered> {
    if (product === undefined) {
      return {
        ...refused('000002', 'there is no product at this address'),
        httpStatus: 404,
        mustClose: true,
      };
    }
    if (incoming.method !== 'POST') {
      const problem = 'this address takes POST, the interface SaaS V2.0 (saas-v2)';
      return { ...refused('000002', problem), httpStatus: 405, allow: 'POST', mustClose: true };
    }
    if (product === 'unavailable') return notStored();
    const read = await readBody(incoming);
    if (!read.ok) return { ...refused('000002', read.problem), mustClose: read.mustClose };
    const parameters = readSignatureParameters(queryOf(incoming));
    if (!parameters.ok) return refused('000002', parameters.problem);
    if (!isWithinWindow(parameters.signedAt, new Date(nowMs()))) {
      const said = 'timestamp is more than 60 seconds away from the time here';
      return { ...refused('000002', said), reason: describeDistance(parameters.signedAt, nowMs()) };
    }
    const verified = await verify(product, parameters, read.body);
    if (!verified.ok) return refused('000001', verified.reason);
    const { key } = verified;
    const parsed = parseCallback(read.body);
    if (!parsed.ok) return { ...refused('000002', parsed.problem), secret: key.secret };
    const { callback } = parsed;
    const accepted = await acceptSafely(
      {
        id,
        product: verified.product,
        keyId: key.id,
        signedAt: parameters.signedAt,
        signature: parameters.signatureBytes,
        body: read.body,
        deadlineMs: beganMs + ackBudgetMs - reserveMs,
      },
      callback,
    );
    // Bytes that were here before tell of the clock that they were signed by, and of a delay.
    if (accepted.kind !== 'replay') {
      metrics.clockCompared({ skewMs: beganMs - parameters.signedAt.getTime() });
    }
    return {
      ...answerTo(accepted),
      activity: callback.activity,
      orderId: orderIdOf(callback),
      publicId: 'instanceId' in callback ? callback.instanceId : undefined,
      secret: key.secret,
    };
  }

  /** The unexpected is answered like an outage: with HTTP 200, in time, to be sent again. */
  async function acceptSafely(call: VerifiedCall, callback: Callback): Promise<Acceptance> {
    try {
      return await accept(call, callback);
    } catch (error) {
      log.error({ err: error, callback: call.id }, 'callback.failed');
      return { kind: 'not stored' };
    }
  }

  /** Tries once more with keys read anew: one may have been added a moment ago. */
  async function verify(product: KnownProduct, parameters: SignatureParameters, body: Buffer) {
    const first = verifySignature({ parameters, body, keys: product.signingKeys });
    if (first.verified) {
      return { ok: true as const, product, key: { id: first.keyId, secret: first.secret } };
    }
    if (!(await products.refresh())) return { ok: false as const, reason: first.reason };
    const now = products.find(product.key);
    if (typeof now !== 'object' || haveSameKeys(now, product)) {
      return { ok: false as const, reason: first.reason };
    }
    const second = verifySignature({ parameters, body, keys: now.signingKeys });
    return second.verified
      ? { ok: true as const, product: now, key: { id: second.keyId, secret: second.secret } }
      : { ok: false as const, reason: second.reason };
  }

  function finish(
    outgoing: ServerResponse,
    answered: Answered,
    call: {
      id: string;
      beganMs: number;
      product: KnownProduct | undefined | 'unavailable';
    },
  ): void {
    const { reply, outcome, activity = 'none' } = answered;
    const body = writeReply(outgoing, reply, answered);
    const at = new Date(nowMs());
    const durationMs = at.getTime() - call.beganMs;
    const product = typeof call.product === 'object' ? call.product : undefined;
    const { resultCode } = reply;
    metrics.callbackAnswered({ product: product?.key, activity, result: resultCode });
    metrics.acknowledged({ activity, durationMs });
    // Of verified calls only: this one pages people.
    if (outcome === 'not stored' && answered.secret !== undefined)
      metrics.refusedUnstored({ product: product?.key, activity });
    if (product && outcome === 'refused') {
      refusals.record({ productId: product.id, resultCode, reason: answered.reason ?? outcome });
    }
    replyLog.record({
      instanceIds: answered.instanceIds ?? [],
      activity,
      resultCode,
      body,
      at,
    });
    const line = {
      callback: call.id,
      product: product?.key,
      activity,
      order: answered.orderId,
      instance: answered.publicId ?? reply.instanceId,
      outcome,
      resultCode,
      reason: answered.reason,
      durationMs,
    };
    if (outcome === 'not stored') log.error(line, 'callback.answered');
    else log.info(line, 'callback.answered');
  }
}

/** For the seller: which way to look. Not to the millisecond, so that many such calls stay one line. */
function describeDistance(signedAt: Date, nowMs: number): string {
  const seconds = Math.round(Math.abs(nowMs - signedAt.getTime()) / 1_000);
  const side = signedAt.getTime() < nowMs ? 'before' : 'after';
  const distance =
    seconds < 120 ? `${seconds} s` : seconds < 7_200 ? `${Math.round(seconds / 60)} min` : 'hours';
  return `signed ${distance} ${side} the time here, and at most 60 s are taken`;
}

/** A renewal and an upgrade have orders of their own. */
function orderIdOf(callback: Callback): string | undefined {
  if ('orderId' in callback) return callback.orderId;
  return 'event' in callback && 'orderId' in callback.event ? callback.event.orderId : undefined;
}

function answerTo(accepted: Acceptance): Answered {
  switch (accepted.kind) {
    case 'answered':
      return accepted;
    case 'replay':
      return refused('000001', 'these signed bytes were here before');
    case 'not stored':
      return notStored();
  }
}

/** Who cannot sign is told nothing beside that: not how many keys there are, nor what was tried. */
function refused(resultCode: '000001' | '000002', reason: string): Answered {
  const reply = resultCode === '000001' ? refusal(resultCode) : refusal(resultCode, reason);
  return { outcome: 'refused', reason, reply };
}

function notStored(): Answered {
  return {
    outcome: 'not stored',
    reply: refusal('000005', 'could not be stored now, send it again'),
  };
}

function haveSameKeys(one: KnownProduct, other: KnownProduct): boolean {
  const idsOf = (product: KnownProduct) => product.signingKeys.map(({ id }) => id).join();
  return idsOf(one) === idsOf(other);
}

function queryOf(incoming: IncomingMessage): string {
  const url = incoming.url ?? '';
  const at = url.indexOf('?');
  return at < 0 ? '' : url.slice(at + 1);
}
