import { lookUpNeeded } from '../../core/events.ts';
import type { EventDetail } from '../../db/accept-events.ts';
import type { AskedInstance } from '../../db/accept-queries.ts';
import { type AcceptedEvent, type Callback, isAskableId } from '../../protocol/saas-v2/callback.ts';
import { replyToTestCall } from '../../protocol/saas-v2/debug.ts';
import {
  type AccessData,
  type Reply,
  replyToChangeCheck,
  replyToEvent,
  replyToOrder,
  replyToQuery,
} from '../../protocol/saas-v2/reply.ts';
import { seal } from '../../runtime/secrets.ts';
import type { CheckChange } from './check-change.ts';
import type { Lanes } from './lanes.ts';
import type { KnownProduct } from './product-keys.ts';

/** A verified call: who signed what, when, and until when it must be answered. */
export type VerifiedCall = {
  id: string;
  product: KnownProduct;
  keyId: number;
  signedAt: Date;
  signature: Buffer;
  body: Buffer;
  deadlineMs: number;
};

export type Acceptance =
  | { kind: 'replay' | 'not stored' }
  | {
      kind: 'answered';
      /** For the log: accepted, duplicate, unknown, … */
      outcome: string;
      reply: Reply;
      /** For operators: why it was answered so, where that is not plain. */
      reason?: string;
      /** The instances that the reply speaks of. */
      instanceIds: readonly number[];
    };

/** @returns undefined when it cannot be opened, or not in time; the reason is in the log */
export type OpenAccess = (
  instanceId: number,
  accessEnc: Buffer,
  deadlineMs: number,
) => Promise<AccessData | undefined>;

export type Accept = (call: VerifiedCall, callback: Callback) => Promise<Acceptance>;

/** Stores a callback in its lane and finds the words to answer it with. */
export function createAccept(
  lanes: Lanes,
  openAccess: OpenAccess,
  createPublicId: () => string,
  checkChange: CheckChange,
): Accept {
  return async (call, callback) => {
    if (callback.isTest) return acceptTestCall(call, callback);
    switch (callback.activity) {
      case 'newInstance':
        return acceptOrder(call, callback);
      case 'queryInstance':
        return acceptQuery(call, callback);
      case 'changeInstanceCheck':
        return acceptChangeCheck(call, callback);
      case 'refreshInstance':
      case 'updateInstanceStatus':
      case 'upgradeInstance':
      case 'releaseInstance':
        return acceptEvent(call, callback);
    }
  };

  async function acceptOrder(
    call: VerifiedCall,
    callback: Extract<Callback, { activity: 'newInstance' }>,
  ): Promise<Acceptance> {
    const { orderKey, orderId, orderLineId, activity } = callback;
    // An id that nobody could ask for would never be shown to the buyer.
    const proposedId = isAskableId(callback.proposedId) ? callback.proposedId : createPublicId();
    const { ordersCanBeQueried } = call.product;
    const isResolved = lookUpNeeded('created', null, ordersCanBeQueried) === 'none';
    const stored = await lanes.orders.submit(
      { ...evidenceOf(call), activity, orderKey, orderId, orderLineId, proposedId, isResolved },
      call.deadlineMs,
    );
    if (stored === 'not stored') return { kind: stored };
    if (stored.kind === 'replay') return { kind: 'replay' };
    const reply = replyToOrder(stored, stored.publicId);
    return { kind: 'answered', outcome: stored.kind, reply, instanceIds: [stored.instanceId] };
  }

  async function acceptEvent(
    call: VerifiedCall,
    callback: Extract<Callback, { event: AcceptedEvent }>,
  ): Promise<Acceptance> {
    const { activity, instanceId: publicId, event } = callback;
    const { kind, dedupKey } = event;
    const scene = kind === 'renewed' ? event.scene : null;
    const stored = await lanes.events.submit(
      {
        ...evidenceOf(call),
        activity,
        publicId,
        kind,
        dedupKey,
        orderId: 'orderId' in event ? (event.orderId ?? null) : null,
        orderLineId: 'orderLineId' in event ? (event.orderLineId ?? null) : null,
        detail: detailOf(event),
        isResolved: lookUpNeeded(kind, scene, call.product.ordersCanBeQueried) === 'none',
      },
      call.deadlineMs,
    );
    if (stored === 'not stored') return { kind: stored };
    if (stored.kind === 'replay') return { kind: 'replay' };
    const reply = replyToEvent(stored.kind, kind);
    const instanceIds = 'instanceId' in stored ? [stored.instanceId] : [];
    return { kind: 'answered', outcome: stored.kind, reply, instanceIds };
  }

  async function acceptQuery(
    call: VerifiedCall,
    callback: Extract<Callback, { activity: 'queryInstance' }>,
  ): Promise<Acceptance> {
    const asked = await ask(call, callback.activity, callback.instanceIds);
    if ('kind' in asked) return asked;
    const rows = await Promise.all(
      asked.instances.map(async ({ publicId, state, accessEnc, sealedFor }) => {
        if (!accessEnc || !sealedFor) return { instanceId: publicId, state };
        const access = await openAccess(sealedFor, accessEnc, call.deadlineMs);
        // What cannot be opened now must not look ready without it, nor take the others with it.
        return access
          ? { instanceId: publicId, state, access }
          : { instanceId: publicId, state: 'pending' as const };
      }),
    );
    const reply = replyToQuery(rows);
    return { kind: 'answered', outcome: 'answered', reply, instanceIds: idsOf(asked.instances) };
  }

  async function acceptChangeCheck(
    call: VerifiedCall,
    callback: Extract<Callback, { activity: 'changeInstanceCheck' }>,
  ): Promise<Acceptance> {
    const asked = await ask(call, callback.activity, [callback.instanceId]);
    if ('kind' in asked) return asked;
    const [instance] = asked.instances;
    const serves = { pending: true, active: true, frozen: true, released: false, refused: false };
    const instanceIds = idsOf(asked.instances);
    const instanceId = instance?.instanceId;
    const isKnown =
      instance !== undefined && instance.state !== 'unknown' && serves[instance.state];
    if (!isKnown || typeof instanceId !== 'number') {
      const reply = replyToChangeCheck('unknown');
      return { kind: 'answered', outcome: 'unknown', reply, instanceIds };
    }
    const { verdict, reason } = await checkChange({
      id: call.id,
      rule: call.product.changeRule,
      instanceId,
      publicId: callback.instanceId,
      target: callback.target,
      deadlineMs: call.deadlineMs,
    });
    return {
      kind: 'answered',
      outcome: verdict === 'allowed' ? 'allowed' : 'change refused',
      reply: replyToChangeCheck(verdict),
      instanceIds,
      ...(reason === undefined ? {} : { reason }),
    };
  }

  async function acceptTestCall(call: VerifiedCall, callback: Callback): Promise<Acceptance> {
    const asked = await ask(call, callback.activity, []);
    if ('kind' in asked) return asked;
    return { kind: 'answered', outcome: 'test', reply: replyToTestCall(callback), instanceIds: [] };
  }

  async function ask(
    call: VerifiedCall,
    activity: string,
    publicIds: readonly string[],
  ): Promise<{ kind: 'replay' | 'not stored' } | { instances: readonly AskedInstance[] }> {
    const { id, product, signedAt, signature } = call;
    const stored = await lanes.queries.submit(
      { id, productId: product.id, signedAt, signature, activity, publicIds },
      call.deadlineMs,
    );
    if (stored === 'not stored') return { kind: stored };
    if (stored.kind === 'replay') return { kind: 'replay' };
    return { instances: stored.instances };
  }
}

function evidenceOf(call: VerifiedCall) {
  const { id, product, keyId, signedAt, signature } = call;
  return {
    id,
    productId: product.id,
    keyId,
    family: product.family,
    signedAt,
    signature,
    body: seal(product.evidenceKey, call.body, `callbacks/body/${id}`),
  };
}

function detailOf(event: AcceptedEvent): EventDetail {
  if (event.kind !== 'renewed') return {};
  const { scene, expiresAt, productId } = event;
  return {
    scene,
    expiresAt: expiresAt.toISOString(),
    ...(productId === undefined ? {} : { productId }),
  };
}

function idsOf(instances: readonly AskedInstance[]): number[] {
  return instances.flatMap(({ instanceId }) => instanceId ?? []);
}
