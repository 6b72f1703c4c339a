import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { Keyring } from '../../db/data-keys.ts';
import { accessDataSchema } from '../../protocol/saas-v2/reply.ts';
import type { OpenAccess } from './accept.ts';

/** Opens sealed access data for the marketplace, inside the budget of the call that asks for it. */
export function createOpenAccess(options: {
  keyring: Pick<Keyring, 'open'>;
  log: Pick<Logger, 'error'>;
  nowMs: () => number;
}): OpenAccess {
  const { keyring, log, nowMs } = options;

  return async (instanceId, accessEnc, deadlineMs) => {
    const opening = keyring
      .open(accessEnc, `instances/access_enc/${instanceId}`)
      .then((opened) => accessDataSchema.parse(JSON.parse(opened.toString('utf8'))))
      .catch((error: unknown) => {
        log.error({ err: error, instanceNumber: instanceId }, 'access.not_opened');
        return undefined;
      });
    const late = new AbortController();
    const leftMs = Math.max(0, deadlineMs - nowMs());
    const timeout = sleep(leftMs, undefined, { signal: late.signal }).catch(() => undefined);
    return Promise.race([opening, timeout]).finally(() => late.abort());
  };
}
