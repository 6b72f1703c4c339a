import { writeCause } from '../core/cause.ts';
import { fold } from '../core/fold.ts';
import type { AccessData } from '../core/provisioner.ts';
import {
  type HeldCompletion,
  type LastCall,
  findInstanceNumber,
  foldAt,
  holdForCompletion,
  writeCompleted,
  writeCompletedFailure,
  writeCompletedRefusal,
} from '../db/completions.ts';
import type { KeyedActor } from './actor.ts';

/** How what the backend took on has ended. */
export type Completion =
  | { outcome: 'complete'; access?: AccessData | undefined }
  | {
      outcome: 'fail';
      /** One of the 0001xx codes; refuses a purchase that was never made. */
      resultCode?: string | undefined;
      /** For operators; sealed. */
      message?: string | undefined;
    };

export type CompleteOutcome =
  /** `left` due: something newer is to be made now. */
  | { kind: 'completed' | 'refused'; left: 'idle' | 'due' }
  | { kind: 'failed'; left: 'dead' | 'due' }
  /** It was told before. */
  | { kind: 'same-again' }
  | { kind: 'unknown-instance' }
  /** `generation`: the one that was last asked of the backend; null when none was. */
  | { kind: 'other-generation'; generation: number | null }
  /** This generation has ended before, in another way. */
  | { kind: 'ended-otherwise' }
  | { kind: 'access-missing' };

/**
 * Settles what a backend took on with 202, as if it had answered so at once: the instance, its events
 * and its dispatch in one transaction. Only the generation that was last asked of it counts.
 */
export async function completeInstance(
  { db, keyring }: Omit<KeyedActor, 'actor'>,
  wanted: { productId: number; publicId: string; generation: number; completion: Completion },
): Promise<CompleteOutcome> {
  const { productId, publicId, completion } = wanted;
  const instanceId = await findInstanceNumber(db.pool, { productId, publicId });
  if (instanceId === undefined) return { kind: 'unknown-instance' };
  // Sealed before the transaction, because the keyring has connections of its own.
  const scope = `product/${productId}`;
  const access = completion.outcome === 'complete' ? completion.access : undefined;
  const accessEnc =
    access &&
    (await keyring.seal(scope, JSON.stringify(access), `instances/access_enc/${instanceId}`));
  const sealSaid = await createSealer({ keyring, scope, completion });

  return db.transaction(async (tx): Promise<CompleteOutcome> => {
    const held = await holdForCompletion(tx, instanceId);
    if (!held) return { kind: 'unknown-instance' };
    const before = findEarlierEnd(held, wanted);
    if (before) return before;
    const { lastCall } = held;
    if (lastCall?.generation !== wanted.generation) {
      return { kind: 'other-generation', generation: lastCall?.generation ?? null };
    }
    const folded = foldAt(held.events, lastCall);
    if (!folded) return { kind: 'other-generation', generation: fold(held.events).generation };
    const called = { ...held, lastCall };
    if (completion.outcome === 'complete') {
      const isNeeded = held.state === 'pending' && folded.desired.exists && !held.hasAccess;
      if (isNeeded && !accessEnc) return { kind: 'access-missing' };
      return { kind: 'completed', left: await writeCompleted(tx, called, { folded, accessEnc }) };
    }
    const { resultCode } = completion;
    if (resultCode !== undefined && isNeverMade(held)) {
      return { kind: 'refused', left: await writeCompletedRefusal(tx, called, { resultCode }) };
    }
    return {
      kind: 'failed',
      left: await writeCompletedFailure(tx, called, {
        cause: causeOf(held),
        saidEnc: await sealSaid(lastCall),
        isNewer: fold(held.events).generation > lastCall.generation,
      }),
    };
  });
}

/** What was told before is told again after a lost answer; it must not count twice. */
function findEarlierEnd(
  held: HeldCompletion,
  { generation, completion }: { generation: number; completion: Completion },
): CompleteOutcome | undefined {
  const isLast = held.lastCall?.generation === generation;
  if (held.state === 'refused' && isLast) {
    const isSame = completion.outcome === 'fail' && completion.resultCode === held.resultCode;
    return { kind: isSame ? 'same-again' : 'ended-otherwise' };
  }
  if (held.applied > 0 && held.applied === generation) {
    return { kind: completion.outcome === 'fail' ? 'ended-otherwise' : 'same-again' };
  }
  // A person may have settled it by hand meanwhile.
  if (held.applied > generation) return { kind: 'other-generation', generation: held.applied };
  const isDead = held.dispatch?.state === 'dead' && held.lastCall?.class === 'permanent';
  if (isLast && isDead && completion.outcome === 'fail') return { kind: 'same-again' };
  return undefined;
}

function isNeverMade({ state, applied, events }: HeldCompletion): boolean {
  const isOpen = events.some(({ kind, appliedAt }) => kind === 'created' && appliedAt === null);
  return state === 'pending' && applied === 0 && isOpen;
}

function causeOf({ productId, events }: HeldCompletion): string {
  const open = events.filter(({ appliedAt }) => appliedAt === null);
  return writeCause({
    product: productId,
    kinds: open.map(({ kind }) => kind),
    class: 'permanent',
    message: 'backend reported by a completion that it failed',
  });
}

/** Asks the keyring once now, so that inside the transaction it needs no connection. */
async function createSealer(options: {
  keyring: KeyedActor['keyring'];
  scope: string;
  completion: Completion;
}): Promise<(call: LastCall) => Promise<Buffer | undefined>> {
  const { keyring, scope, completion } = options;
  const said = completion.outcome === 'fail' ? completion.message : undefined;
  if (!said) return async () => undefined;
  await keyring.dataKey(scope);
  return ({ fence }) => keyring.seal(scope, said, `attempts/said_enc/${fence}`);
}
