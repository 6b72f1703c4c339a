import type { DesiredState } from './fold.ts';

/** What an instance is, as the marketplace and operators are told. */
export const instanceStates = ['pending', 'active', 'frozen', 'released', 'refused'] as const;
export type InstanceState = (typeof instanceStates)[number];

/** What the accepted status events ask for; later callbacks are judged by it. */
const wantedStates = ['serving', 'expired', 'frozen', 'released'] as const;
export type WantedState = (typeof wantedStates)[number];

/** Where an instance with open work stands on its way to being applied. */
const dispatchStates = ['due', 'handed', 'failing', 'dead', 'timed'] as const;
export type DispatchState = (typeof dispatchStates)[number];

/** The rooms of work; an instance is in one at a time. */
export const queueNames = ['provisioning', 'order-lookup'] as const;
export type QueueName = (typeof queueNames)[number];

/** The state that an instance has once this desired state was applied. */
export function stateAfter(desired: DesiredState): Exclude<InstanceState, 'pending' | 'refused'> {
  if (!desired.exists) return 'released';
  return desired.frozen ? 'frozen' : 'active';
}
