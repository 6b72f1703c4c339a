import { expect, test } from 'vitest';
import { lookUpNeeded } from '../../core/events.ts';
import { stateAfter } from '../../core/instance.ts';

const bare = { expiresAt: null, trial: null, plan: null };

test.each([
  [{ exists: true, frozen: false }, 'active'],
  [{ exists: true, frozen: true }, 'frozen'],
  [{ exists: false, frozen: false }, 'released'],
  [{ exists: false, frozen: true }, 'released'],
])('after %j an instance is %s', (facets, state) => {
  expect(stateAfter({ ...bare, ...facets })).toBe(state);
});

test.each([
  ['created', null, true, 'all'],
  ['created', null, false, 'none'],
  ['upgraded', null, true, 'all'],
  // Without the order API an upgrade stays open: nobody could say to what.
  ['upgraded', null, false, 'all'],
  ['renewed', 'RENEWAL', true, 'none'],
  ['renewed', 'UNSUBSCRIBE_RENEWAL_PERIOD', true, 'none'],
  ['renewed', 'TRIAL_TO_FORMAL', true, 'plan'],
  ['renewed', 'RENEWAL_CHANGE', false, 'plan'],
  ['renewed', null, true, 'none'],
  ['frozen', null, true, 'none'],
  ['expired', null, true, 'none'],
  ['unfrozen', null, true, 'none'],
  ['released', null, true, 'none'],
] as const)('of %s %s (orders can be queried: %s) is looked up: %s', (kind, scene, can, what) => {
  expect(lookUpNeeded(kind, scene, can)).toBe(what);
});
