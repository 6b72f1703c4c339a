import { createDatabase } from '../db/client.ts';
import { type QueueName, queueNames } from '../core/instance.ts';
import type { Config } from '../runtime/config.ts';
import type { Failpoints } from '../runtime/failpoints.ts';
import type { Logger } from '../runtime/logger.ts';
import { startHeartbeat } from '../runtime/heartbeat.ts';
import { createQueueBackend } from '../runtime/queue-backend.ts';
import { type LookPayload, lookQueue } from '../runtime/queues.ts';
import { startDispatcher } from './dispatcher.ts';
import { startUpkeep } from './upkeep.ts';

/** Starts what hands over and what heals, in a process of its own; inside the api it costs a fifth. */
export async function startDispatching(options: {
  config: Config;
  databaseUrl: string;
  log: Logger;
  failpoint: Failpoints;
}): Promise<{ close(): Promise<void> }> {
  const { config, databaseUrl, log, failpoint } = options;
  const { timings } = config;
  const db = createDatabase({
    url: databaseUrl,
    applicationName: 'latchkey dispatcher',
    poolMax: 4,
    onIdleError: (error) => log.warn({ err: error }, 'database.connection_lost'),
  });
  const backend = createQueueBackend({
    redisUrl: config.REDIS_URL,
    databaseUrl,
    prefix: config.QUEUE_PREFIX,
    poolMax: 4,
    log,
  });
  await backend.prepare();
  const queues = queueNames.map((name: QueueName) => ({
    name,
    queue: backend.createQueue<LookPayload>(name, { jobOptions: lookQueue.jobOptions }),
  }));
  const dispatchers = queues.map(({ name, queue }) =>
    startDispatcher({
      db: db.pool,
      queueName: name,
      queue,
      log,
      pollMs: timings.pollMs,
      windowMax: timings.windowMax,
      failpoint,
    }),
  );
  const upkeep = startUpkeep({
    db,
    queues,
    log,
    sweepMs: timings.sweepMs,
    handedGraceMs: timings.handedGraceMs,
  });
  const heartbeat = startHeartbeat('dispatcher', () => dispatchers.every((one) => one.isTurning()));
  log.info({ queues: queueNames, queueBackend: backend.kind }, 'dispatcher.started');

  return {
    async close() {
      heartbeat.stop();
      await Promise.allSettled([...dispatchers.map((one) => one.stop()), upkeep.stop()]);
      await Promise.allSettled([backend.close(), db.close()]);
    },
  };
}
