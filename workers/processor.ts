import { UnrecoverableError } from 'bullmq';
import type { Logger } from 'pino';
import { type Failure, type ScheduleName, nextTry, schedules } from '../core/failure.ts';
import { type Fold, fold } from '../core/fold.ts';
import { stateAfter } from '../core/instance.ts';
import type { AccessData, ApplyOutcome, Assignment, Provisioner } from '../core/provisioner.ts';
import type { ApplyDurations } from '../db/apply-durations.ts';
import { type BegunAttempt, beginAttempt } from '../db/attempts.ts';
import { type Claim, claimDispatch, postponeDispatch } from '../db/claims.ts';
import type { Database } from '../db/client.ts';
import type { Keyring } from '../db/data-keys.ts';
import type { ProductRow } from '../db/products.ts';
import {
  type Settled,
  settleAlias,
  settleApplied,
  settleFailed,
  settlePending,
  settleRefused,
} from '../db/settle.ts';
import { RetryAt, lookQueue } from '../runtime/queues.ts';
import { causeOf, createContractAlerts } from './failure-cause.ts';
import type { FairShare } from './fair-share.ts';
import { holdLease } from './hold-lease.ts';

export type ProcessorOptions = {
  db: Database;
  keyring: Keyring;
  /** @returns undefined when there is no such product (any more) */
  findProduct: (productId: number) => Promise<ProductRow | undefined>;
  provisionerFor: (product: ProductRow) => Provisioner | Promise<Provisioner>;
  /** Who bought, as the marketplace's order says; null where that was never looked up. */
  findBuyer: (claim: Claim, product: ProductRow) => Promise<Assignment['buyer']>;
  fairShare: FairShare;
  durations: Pick<ApplyDurations, 'observe'>;
  /** Name of this process, for attempts. */
  worker: string;
  log: Logger;
  nowMs: () => number;
  random: () => number;
  timings: {
    leaseMs: number;
    leaseRenewMs: number;
    dueAgainMs: number;
    completionMs: number;
    retryScalePercent: number;
  };
  failpoint: (name: string) => Promise<void> | void;
};

/**
 * A job says "look at this instance". What it should be is the fold of its events; that is made
 * real, and recorded as real, under a fence. Whatever was re-sent, raced, stalled or lost, a further
 * look has the same outcome.
 *
 * @returns a processor for BullMQ: its result is for people; it throws `RetryAt` when Postgres holds
 *   a time for the next try, and `UnrecoverableError` for a dead letter
 */
export function createProcessor(options: ProcessorOptions) {
  const { db, keyring, fairShare, timings, log, failpoint } = options;
  const contractAlerts = createContractAlerts({ log, nowMs: options.nowMs });

  return async (job: { data: unknown }): Promise<string> => {
    const {
      instance: instanceId,
      dispatch,
      product: productId,
    } = lookQueue.payload.parse(job.data);
    const product = await options.findProduct(productId);
    if (!product) throw new UnrecoverableError(`there is no product number ${productId}`);
    const giveBack = fairShare.take(productId, product.inFlightMax);
    if (!giveBack) return postpone(instanceId, dispatch);
    try {
      const claim = await claimDispatch(db.pool, {
        instanceId,
        dispatch,
        leaseMs: timings.leaseMs,
      });
      // Also when the product's breaker is open and another of its instances is being tried.
      if (claim === 'nothing to do') return await postpone(instanceId, dispatch);
      return await look(claim, product);
    } finally {
      giveBack();
    }
  };

  async function postpone(instanceId: number, dispatch: number): Promise<string> {
    const delayMs = timings.dueAgainMs;
    const postponed = await postponeDispatch(db.pool, { instanceId, dispatch, delayMs });
    return postponed ? 'product at its limit, later' : 'nothing to do';
  }

  async function look(claim: Claim, product: ProductRow): Promise<string> {
    const lease = holdLease(options, claim);
    try {
      const folded = foldOf(claim);
      if (claim.aliasOf !== null) return await followOther(claim, claim.aliasOf, folded);
      const isNew = folded.canApply && (folded.generation > claim.applied || claim.putAgain);
      if (!isNew) return await settleAsItWas(claim, folded);
      // Nothing was ever begun: there is nothing to take away.
      if (!folded.desired.exists && !claim.everBegan) {
        return `nothing to release, ${await settleMade(claim, folded, undefined, undefined, undefined)}`;
      }
      return await apply(claim, product, folded, lease.signal);
    } finally {
      lease.letGo();
    }
  }

  async function followOther(claim: Claim, of: number, folded: Fold): Promise<string> {
    const result = await settleAlias(db, settledOf(claim, undefined), {
      of,
      generation: folded.generation,
      eventIds: claim.events.map(({ id }) => id),
      isReleased: folded.canApply && !folded.desired.exists,
      delayMs: timings.dueAgainMs,
      openEventsAtClaim: claim.openEvents,
    });
    log.info({ instance: claim.publicId, result }, 'alias.followed');
    return `an alias, ${result}`;
  }

  function settleMade(
    claim: Claim,
    folded: Fold,
    attempt: BegunAttempt | undefined,
    accessEnc: Buffer | undefined,
    againInMs: number | undefined,
  ): Promise<string> {
    return settleApplied(db, settledOf(claim, attempt), {
      generation: folded.generation,
      state: claim.state === 'refused' ? 'refused' : stateAfter(folded.desired),
      expiresAt: folded.desired.expiresAt,
      accessEnc,
      covered: folded.covered,
      moot: folded.moot,
      unresolved: folded.unresolved.length,
      againInMs,
    });
  }

  async function settleAsItWas(claim: Claim, folded: Fold): Promise<string> {
    const settled = settledOf(claim, undefined);
    const result = await settleApplied(db, settled, {
      generation: claim.applied,
      state: claim.state,
      expiresAt: folded.desired.expiresAt,
      accessEnc: undefined,
      // Nothing was made, so nothing counts as made but what was before.
      covered: folded.generation > claim.applied ? [] : folded.covered,
      moot: [],
      unresolved: claim.openEvents,
    });
    return `as it was, ${result}`;
  }

  async function apply(
    claim: Claim,
    product: ProductRow,
    folded: Fold,
    signal: AbortSignal,
  ): Promise<string> {
    const provisioner = await findProvisioner(product);
    const beganMs = options.nowMs();
    const attempt = await beginAttempt(db.pool, {
      fence: claim.fence,
      instanceId: claim.instanceId,
      productId: product.id,
      generation: folded.generation,
      no: claim.attempts + 1,
      worker: options.worker,
      target: provisioner.target,
    });
    await failpoint('worker.before-effect');
    const outcome = await applySafely(provisioner, claim, product, folded, signal);
    await failpoint('worker.after-effect');
    const durationMs = options.nowMs() - beganMs;
    const settled = settledOf(claim, attempt);
    const { result, failure, retryInMs } = await settle(claim, folded, settled, outcome);
    const outcomeName = failure && outcome.kind !== 'stale' ? failure.class : outcome.kind;
    options.durations.observe({ productId: product.id, outcome: outcomeName, durationMs });
    const line = {
      product: product.key,
      instance: claim.publicId,
      generation: folded.generation,
      attempt: claim.attempts + 1,
      fence: claim.fence,
      target: provisioner.target,
      changes: folded.changes.map((change) => change.kind).join('+'),
      callbacks: claim.callbackIds,
      outcome: outcomeName,
      cause: failure?.cause,
      httpStatus: failure?.httpStatus,
      result,
      retryInMs,
      durationMs,
    };
    if (outcomeName === 'applied' || outcomeName === 'pending') log.info(line, 'apply.attempted');
    else log.warn(line, 'apply.attempted');
    if (result === 'dead' && failure?.class === 'contract') {
      const { product: key, instance, target } = line;
      contractAlerts.raise({ product: key, instance, target, cause: causeOf(claim, failure) });
    }
    // Where newer events came, the dispatcher hands the instance over anew.
    if (result === 'failing' && retryInMs !== undefined) throw new RetryAt(retryInMs);
    if (result === 'dead')
      throw new UnrecoverableError(`dead letter: ${failure?.cause ?? 'unknown'}`);
    return `${outcomeName}, ${result}`;
  }

  /** One that cannot be set up is a failure of this instance, not of the worker. */
  async function findProvisioner(product: ProductRow): Promise<Provisioner> {
    try {
      return await options.provisionerFor(product);
    } catch (error) {
      log.error({ err: error, product: product.key }, 'provisioner.not_set_up');
      const cause = 'the provisioner cannot be set up, see the log';
      const failure: Failure = { class: 'transient', cause };
      return { target: 'none', apply: async () => ({ kind: 'failed', failure }) };
    }
  }

  async function settle(
    claim: Claim,
    folded: Fold,
    settled: Settled,
    outcome: ApplyOutcome,
  ): Promise<{ result: string; failure?: Failure; retryInMs?: number | undefined }> {
    switch (outcome.kind) {
      case 'applied': {
        const accessEnc = outcome.access && (await sealAccess(claim, outcome.access));
        return {
          result: await settleMade(claim, folded, settled.attempt, accessEnc, outcome.againInMs),
        };
      }
      case 'refused': {
        const { resultCode } = outcome;
        return { result: await settleRefused(db, settled, { resultCode }) };
      }
      case 'pending':
        return settleTakenOn(claim, folded, settled);
      case 'stale':
        return settleFailure(
          claim,
          settled,
          { class: 'contract', cause: 'a newer generation than ours is there already' },
          'stale',
        );
      case 'failed':
        return settleFailure(claim, settled, outcome.failure);
    }
  }

  /** Waits for the completion call, and asks again now and then, as long as it would try at all. */
  async function settleTakenOn(
    claim: Claim,
    folded: Fold,
    settled: Settled,
  ): Promise<{ result: string; failure?: Failure; retryInMs?: number | undefined }> {
    const httpStatus = 202;
    if (claim.ageMs + timings.completionMs > schedules[scheduleOf(claim)].deadAfterMs) {
      const cause = 'backend answered 202 and never completed';
      return settleFailure(claim, settled, { class: 'contract', cause, httpStatus });
    }
    const result = await settlePending(db, settled, {
      generation: folded.generation,
      delayMs: timings.completionMs,
      httpStatus,
      openEventsAtClaim: claim.openEvents,
    });
    return { result };
  }

  async function settleFailure(
    claim: Claim,
    settled: Settled,
    failure: Failure,
    attemptClass: string = failure.class,
  ): Promise<{ result: string; failure: Failure; retryInMs: number | undefined }> {
    const next = nextTry(failure, {
      schedule: scheduleOf(claim),
      attempts: claim.attempts + 1,
      ageMs: claim.ageMs,
      random: options.random(),
      scale: timings.retryScalePercent / 100,
    });
    const retryInMs = next === 'dead' ? undefined : next.retryInMs;
    const { said } = failure;
    const result = await settleFailed(db, settled, {
      class: attemptClass,
      cause: causeOf(claim, failure),
      httpStatus: failure.httpStatus,
      saidEnc: said === undefined ? undefined : await sealSaid(claim, said),
      retryInMs,
      isTransient: failure.class === 'transient',
      openEventsAtClaim: claim.openEvents,
    });
    return { result, failure, retryInMs };
  }

  async function applySafely(
    provisioner: Provisioner,
    claim: Claim,
    product: ProductRow,
    folded: Fold,
    signal: AbortSignal,
  ): Promise<ApplyOutcome> {
    try {
      return await provisioner.apply(
        {
          instanceId: claim.instanceId,
          publicId: claim.publicId,
          product: { id: product.id, key: product.key },
          generation: folded.generation,
          desired: folded.desired,
          changes: folded.changes,
          everBegan: claim.everBegan,
          buyer: folded.desired.exists ? await options.findBuyer(claim, product) : null,
        },
        signal,
      );
    } catch (error) {
      log.error({ err: error, instance: claim.publicId }, 'provisioner.threw');
      return {
        kind: 'failed',
        failure: { class: 'transient', cause: 'unexpected error, see the log' },
      };
    }
  }

  function sealAccess(claim: Claim, access: AccessData): Promise<Buffer> {
    const scope = `product/${claim.productId}`;
    return keyring.seal(scope, JSON.stringify(access), `instances/access_enc/${claim.instanceId}`);
  }

  function sealSaid(claim: Claim, said: string): Promise<Buffer> {
    return keyring.seal(`product/${claim.productId}`, said, `attempts/said_enc/${claim.fence}`);
  }
}

/**
 * What is to be made of an instance. One that was refused is to be gone, whatever its events say: a
 * worker that woke late may have made it after the marketplace was told that it will not be.
 */
function foldOf(claim: Claim): Fold {
  const folded = fold(claim.events);
  if (claim.state !== 'refused') return folded;
  return { ...folded, canApply: true, desired: { ...folded.desired, exists: false } };
}

export function settledOf(claim: Claim, attempt: BegunAttempt | undefined): Settled {
  const { instanceId, productId, queue, fence } = claim;
  return { instanceId, productId, queue, fence, attempt };
}

/** A purchase is refunded by the marketplace after a while; what else was acknowledged is ours for good. */
export function scheduleOf(claim: Claim): ScheduleName {
  const isCreating = claim.events.some(
    (event) => event.kind === 'created' && event.appliedAt === null,
  );
  const isEnding = claim.events.some(
    ({ kind, appliedAt }) => (kind === 'released' || kind === 'refused') && appliedAt === null,
  );
  return isCreating && !isEnding ? 'create' : 'acknowledged';
}
