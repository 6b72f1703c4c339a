import { type InstanceEvent, findSkipped } from './events.ts';
import type { WantedState } from './instance.ts';

/**
 * What the status events ask for, all told, in the order of acceptance: the state that later
 * callbacks are judged by. Callbacks move it one by one as they are accepted; after an operator's
 * act it is made anew from all that still counts, or the next FREEZE would be taken for a duplicate.
 */
export function wantedAfter(events: readonly InstanceEvent[]): WantedState {
  const skipped = findSkipped(events);
  let isFrozen = false;
  let isExpired = false;
  for (const event of events) {
    if (skipped.has(event.id)) continue;
    switch (event.kind) {
      case 'released':
      case 'refused':
        return 'released';
      case 'frozen':
        isFrozen = true;
        break;
      case 'expired':
        isExpired = true;
        break;
      case 'unfrozen':
        isFrozen = false;
        isExpired = false;
        break;
      case 'renewed':
        if (event.expiresAt > event.acceptedAt) isExpired = false;
        break;
      case 'created':
      case 'upgraded':
      case 'skipped':
      case 'resolved':
      case 'imported':
        break;
    }
  }
  if (isFrozen) return 'frozen';
  return isExpired ? 'expired' : 'serving';
}
