import { type Context, Hono } from 'hono';
import { z } from 'zod';
import { skippableKinds } from '../../core/events.ts';
import type { Database } from '../../db/client.ts';
import type { Keyring } from '../../db/data-keys.ts';
import { countDeadLetters, listDeadLetters } from '../../db/dead-letters.ts';
import type { ActOutcome, DeadLetterScope } from '../../operations/act-on-dead-letters.ts';
import { redrive } from '../../operations/redrive.ts';
import { refuseInstance } from '../../operations/refuse-instance.ts';
import { resolveDeadLetter, resolveDelivered } from '../../operations/resolve-dead-letter.ts';
import { showDeadLetter } from '../../operations/show-dead-letter.ts';
import { skipEvent } from '../../operations/skip-event.ts';
import {
  answer,
  answerInvalid,
  answerNotFound,
  answerProblem,
  check,
  readBody,
} from './answers.ts';
import { type Caller, type V1Env, allow } from './authenticate.ts';

const text = z.string().min(1).max(200);

const listQuery = z.object({ order: text.optional(), cause: text.optional() });

const actRules = {
  order: text.optional(),
  cause: text.optional(),
  /** All of the product. */
  all: z.literal(true).optional(),
  reason: z.string().max(1_000).default(''),
  dryRun: z.boolean().default(false),
};

// Strict: a misspelt `dryRun` must not do what it was to count.
const redriveBody = z.strictObject(actRules).superRefine(needsScope);
const skipBody = z
  .strictObject({
    ...actRules,
    event: z.number().int().positive().optional(),
    kind: z.enum(skippableKinds).optional(),
  })
  .superRefine(needsScope);
const resolveBody = z
  .strictObject({ ...actRules, appInfo: z.record(z.string(), z.unknown()).optional() })
  .superRefine(needsScope);
const refuseBody = z.strictObject({ ...actRules, code: text }).superRefine(needsScope);

type Asked = { order?: string | undefined; cause?: string | undefined; all?: true | undefined };

function needsScope(asked: Asked, context: z.RefinementCtx): void {
  const named = asked.order !== undefined || asked.cause !== undefined;
  if (named !== (asked.all === true)) return;
  context.addIssue({ code: 'custom', message: 'needs order, cause or both, or else all' });
}

/** The same verbs that operators have, each for the dead letters of the key's product alone. */
export function createDeadLetterRoutes(options: {
  db: Database;
  keyring: Keyring;
  now: () => Date;
}): Hono<V1Env> {
  const { db, keyring, now } = options;
  const app = new Hono<V1Env>();
  const actorOf = (c: Context<V1Env>) => ({ db, actor: c.get('caller').actor });

  app.get('/v1/dead-letters', allow('dead-letters:read'), async (c) => {
    const query = check(listQuery, c.req.query());
    if ('problems' in query) return answerInvalid(c, query.problems);
    const filter = { ...query.value, product: c.get('caller').product };
    const [causes, deadLetters] = await Promise.all([
      countDeadLetters(db, filter),
      listDeadLetters(db, filter),
    ]);
    const total = causes.reduce((sum, each) => sum + each.count, 0);
    return answer(c, { total, causes, deadLetters });
  });

  app.get('/v1/dead-letters/:orderId', allow('dead-letters:read'), async (c) => {
    const orderId = c.req.param('orderId');
    const shown = await showDeadLetter(actorOf(c), { order: orderId, now: now() });
    const deadLetters = shown.filter(({ product }) => product === c.get('caller').product);
    return deadLetters.length > 0 ? answer(c, { orderId, deadLetters }) : answerNotFound(c);
  });

  app.post('/v1/dead-letters/redrive', allow('dead-letters:write'), async (c) => {
    const body = await readBody(c, redriveBody);
    if ('problems' in body) return answerInvalid(c, body.problems);
    const outcome = await redrive(actorOf(c), wantedOf(c.get('caller'), body.value));
    switch (outcome.kind) {
      case 'redriven':
        return answerAct(c, { kind: 'done', instances: outcome.instances, unfit: [] });
      case 'counted':
        return answerAct(c, { ...outcome, unfit: [] });
      case 'nothing-dead':
      case 'unknown-product':
      case 'reason-missing':
        return answerAct(c, outcome);
    }
  });

  app.post('/v1/dead-letters/skip', allow('dead-letters:write'), async (c) => {
    const body = await readBody(c, skipBody);
    if ('problems' in body) return answerInvalid(c, body.problems);
    const { event: eventId, kind } = body.value;
    const wanted = wantedOf(c.get('caller'), body.value);
    return answerAct(c, await skipEvent(actorOf(c), { ...wanted, choice: { eventId, kind } }));
  });

  app.post('/v1/dead-letters/resolve', allow('dead-letters:write'), async (c) => {
    const body = await readBody(c, resolveBody);
    if ('problems' in body) return answerInvalid(c, body.problems);
    const wanted = wantedOf(c.get('caller'), body.value);
    const { appInfo } = body.value;
    if (appInfo === undefined) return answerAct(c, await resolveDeadLetter(actorOf(c), wanted));
    const outcome = await resolveDelivered(
      { ...actorOf(c), keyring },
      { ...wanted, accessText: JSON.stringify(appInfo) },
    );
    switch (outcome.kind) {
      case 'bad-access':
        return answerInvalid(c, [`appInfo: ${outcome.problem}`]);
      case 'several':
        return answerInvalid(c, [`appInfo: belongs to one, and ${outcome.count} are meant`]);
      case 'done':
      case 'counted':
      case 'nothing-dead':
      case 'nothing-fits':
      case 'reason-missing':
      case 'unknown-product':
        return answerAct(c, outcome);
    }
  });

  app.post('/v1/dead-letters/refuse', allow('dead-letters:write'), async (c) => {
    const body = await readBody(c, refuseBody);
    if ('problems' in body) return answerInvalid(c, body.problems);
    const wanted = { ...wantedOf(c.get('caller'), body.value), resultCode: body.value.code };
    const outcome = await refuseInstance(actorOf(c), wanted);
    if (outcome.kind !== 'bad-code') return answerAct(c, outcome);
    return answerInvalid(c, ['code: must be a code of 000100 to 000107']);
  });

  return app;
}

function wantedOf(
  { product }: Caller,
  asked: Asked & { reason: string; dryRun: boolean },
): { scope: DeadLetterScope; reason: string; isDryRun: boolean } {
  const { order, cause, reason, dryRun } = asked;
  return { scope: { product, order, cause }, reason, isDryRun: dryRun };
}

function answerAct(c: Context, outcome: ActOutcome): Response {
  switch (outcome.kind) {
    case 'done': {
      const { instances, unfit } = outcome;
      return answer(c, { count: instances.length, dryRun: false, instances, unfit });
    }
    case 'counted': {
      const { count, unfit } = outcome;
      return answer(c, { count, dryRun: true, instances: [], unfit });
    }
    case 'nothing-dead':
      return answer(c, { count: 0, dryRun: false, instances: [], unfit: [] });
    case 'nothing-fits':
      return answerProblem(c, 409, {
        error: 'nothing-fits',
        message: 'there are dead letters, but this can be done to none of them',
        unfit: outcome.unfit,
      });
    case 'reason-missing':
      return answerInvalid(c, ['reason: is required; the audit keeps it']);
    // The key's product is there, or the key would not be known.
    case 'unknown-product':
      return answerNotFound(c);
  }
}
