import type { Failure } from './failure.ts';
import type { Change, DesiredState } from './fold.ts';

export const provisionerNames = ['postgres-schema', 'http', 'module', 'manual'] as const;
export type ProvisionerName = (typeof provisionerNames)[number];

/** What a buyer is told to use the product; lengths are the marketplace's. */
export type AccessData = {
  frontEndUrl: string;
  adminUrl?: string;
  userName?: string;
  password?: string;
  memo?: string;
};

/** One state of one instance to be made real. */
export type Assignment = {
  /** Internal number; never shown. */
  instanceId: number;
  /** The id that the marketplace and the seller know. */
  publicId: string;
  product: { id: number; key: string };
  generation: number;
  desired: DesiredState;
  changes: readonly Change[];
  /** False when no attempt was ever begun: then there is nothing out there to take away. */
  everBegan: boolean;
  /**
   * Who bought, in the marketplace's names; personal data, known only where orders can be queried.
   * No part of the desired state: the same generation may come with another one.
   */
  buyer?: Readonly<Record<string, string>> | null | undefined;
};

/**
 * - applied: the state is real; `access` where it changed or came to be. `againInMs` where a part of
 *   it is due later (a tenant's data outlives its release for a while): the same is asked again then.
 * - pending: it was taken on and is being made; a completion call will say how it ended.
 * - stale: something newer is real already.
 * - refused: it will never be made, and the marketplace is to hear this code.
 */
export type ApplyOutcome =
  | { kind: 'applied'; access?: AccessData; againInMs?: number }
  | { kind: 'pending' }
  | { kind: 'stale' }
  | { kind: 'refused'; resultCode: string; message: string }
  | { kind: 'failed'; failure: Failure };

/**
 * Makes desired states real. Called again with the same generation it must have the same effect as
 * once, and with an older one none: workers die, stall and wake at any point.
 */
export type Provisioner = {
  /** For attempts and logs: where the effect goes, without secrets. */
  target: string;
  apply(assignment: Assignment, signal: AbortSignal): Promise<ApplyOutcome>;
};
