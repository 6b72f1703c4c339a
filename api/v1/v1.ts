import { Hono } from 'hono';
import { bodyLimit } from 'hono/body-limit';
import type { Database } from '../../db/client.ts';
import type { Keyring } from '../../db/data-keys.ts';
import type { Logger } from '../../runtime/logger.ts';
import { answerFailure, answerNotFound, answerProblem } from './answers.ts';
import { type AuthenticationLimits, type V1Env, authenticate } from './authenticate.ts';
import { createCompletionRoutes } from './completions.ts';
import { createDeadLetterRoutes } from './dead-letters.ts';
import { createReadRoutes } from './reads.ts';

const bodySizeBytesMax = 64 * 1_024;

/** What sellers' programs call, under /v1; mount it at the root. Nothing of it is there without a key. */
export function createV1(options: {
  db: Database;
  keyring: Keyring;
  log: Logger;
  nowMs: () => number;
  limits?: AuthenticationLimits;
}): Hono<V1Env> {
  const { db, keyring, log, nowMs, limits } = options;
  const app = new Hono<V1Env>();
  app.use('/v1/*', authenticate({ db: db.pool, log, ...(limits ? { limits } : {}) }));
  app.use(
    '/v1/*',
    bodyLimit({
      maxSize: bodySizeBytesMax,
      onError: (c) =>
        answerProblem(c, 413, { error: 'too-large', message: 'the body is more than 64 KiB' }),
    }),
  );
  app.route('/', createReadRoutes({ db, keyring }));
  app.route('/', createCompletionRoutes({ db, keyring, log }));
  app.route('/', createDeadLetterRoutes({ db, keyring, now: () => new Date(nowMs()) }));
  app.all('/v1/*', (c) => answerNotFound(c));
  app.onError((error, c) => answerFailure(c, error, log));
  return app;
}
