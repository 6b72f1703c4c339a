/**
 * The marketplace replays a seller's saved debugging calls every morning and afternoon and takes a
 * product off sale after five days of failures (saas-v2.md §9), so they are answered from
 * themselves alone: no instance, no database, the same for ever.
 */
import { createHash } from 'node:crypto';
import type { Callback } from './callback.ts';
import { refusal, replyToQuery, type AccessData, type Reply } from './reply.ts';

const cannedAccess: AccessData = {
  frontEndUrl: 'https://www.example.com/',
  adminUrl: 'https://www.example.com/admin',
  userName: 'test-user',
  password: 'test-password',
  memo: 'Test call: no instance stands behind this access data.',
};

/** Answers a verified callback whose `isTest` is true. */
export function replyToTestCall(callback: Callback): Reply {
  switch (callback.activity) {
    case 'newInstance':
      return { ...refusal('000000'), instanceId: deriveTestId(callback.orderKey) };
    case 'queryInstance':
      return replyToQuery(
        callback.instanceIds.map((instanceId) => ({
          instanceId,
          state: 'active',
          access: cannedAccess,
        })),
      );
    case 'changeInstanceCheck':
    case 'refreshInstance':
    case 'updateInstanceStatus':
    case 'upgradeInstance':
    case 'releaseInstance':
      return refusal('000000');
  }
}

/** Changing this changes what saved debugging calls are answered. */
function deriveTestId(orderKey: string): string {
  return `test-${createHash('sha256').update(orderKey).digest('hex').slice(0, 32)}`;
}
