import { Hono } from 'hono';
import { z } from 'zod';
import type { Database } from '../../db/client.ts';
import type { Keyring } from '../../db/data-keys.ts';
import { type Completion, completeInstance } from '../../operations/complete-instance.ts';
import { isCreateRefusalCode } from '../../protocol/result-codes.ts';
import { accessDataSchema } from '../../protocol/saas-v2/reply.ts';
import type { Logger } from '../../runtime/logger.ts';
import { answer, answerInvalid, answerNotFound, answerProblem, readBody } from './answers.ts';
import { type V1Env, allow } from './authenticate.ts';

const messageLengthMax = 2_000;

const completeBody = z.object({
  outcome: z.literal('complete'),
  appInfo: accessDataSchema.nullish(),
  license: z
    .unknown()
    .optional()
    .refine((value) => value === undefined || value === null, 'is not available yet'),
});

const failBody = z.object({
  outcome: z.literal('fail'),
  resultCode: z
    .string()
    .refine(isCreateRefusalCode, 'must be a code of 000100 to 000107')
    .nullish(),
  message: z
    .string()
    .transform((text) => text.slice(0, messageLengthMax))
    .nullish(),
});

const completionBody = z
  .discriminatedUnion('outcome', [completeBody, failBody])
  .transform((body): Completion => {
    if (body.outcome === 'fail') {
      const { resultCode, message } = body;
      return {
        outcome: 'fail',
        resultCode: resultCode ?? undefined,
        message: message ?? undefined,
      };
    }
    if (!body.appInfo) return { outcome: 'complete' };
    const { frontEndUrl, ...optional } = body.appInfo;
    const present = Object.entries(optional).filter(([, value]) => value !== undefined);
    return { outcome: 'complete', access: { frontEndUrl, ...Object.fromEntries(present) } };
  });

/** POST /v1/instances/{id}/generations/{g}/complete: how what was answered 202 has ended. */
export function createCompletionRoutes(options: {
  db: Database;
  keyring: Keyring;
  log: Logger;
}): Hono<V1Env> {
  const { db, keyring, log } = options;
  const app = new Hono<V1Env>();
  app.post(
    '/v1/instances/:id/generations/:generation/complete',
    allow('instances:complete'),
    async (c) => {
      const { productId, product } = c.get('caller');
      const publicId = c.req.param('id');
      const generation = readGeneration(c.req.param('generation'));
      if (generation === undefined) return answerInvalid(c, ['generation: must be a number']);
      const body = await readBody(c, completionBody);
      if ('problems' in body) return answerInvalid(c, body.problems);
      const completion = body.value;
      const outcome = await completeInstance(
        { db, keyring },
        { productId, publicId, generation, completion },
      );
      const line = { product, instance: publicId, generation, outcome: outcome.kind };
      log.info('left' in outcome ? { ...line, left: outcome.left } : line, 'completion.told');
      switch (outcome.kind) {
        case 'completed':
        case 'refused':
        case 'failed':
        case 'same-again':
          return answer(c, { instanceId: publicId, generation, result: outcome.kind });
        case 'unknown-instance':
          return answerNotFound(c);
        case 'other-generation':
          return answerProblem(c, 409, {
            error: 'other-generation',
            message: 'this generation is not the one that was asked for last',
            generation: outcome.generation,
          });
        case 'ended-otherwise':
          return answerProblem(c, 409, {
            error: 'ended-otherwise',
            message: 'this generation has ended before, in another way',
          });
        case 'access-missing':
          return answerInvalid(c, ['appInfo: is required until the instance was made once']);
      }
    },
  );
  return app;
}

function readGeneration(text: string): number | undefined {
  return /^[1-9]\d{0,8}$/.test(text) ? Number(text) : undefined;
}
