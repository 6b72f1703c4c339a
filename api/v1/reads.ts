import { Hono } from 'hono';
import { z } from 'zod';
import { instanceStates } from '../../core/instance.ts';
import type { Database } from '../../db/client.ts';
import type { Keyring } from '../../db/data-keys.ts';
import {
  findInstance,
  listEvents,
  listInstances,
  listInstancesOfOrder,
} from '../../db/v1-reads.ts';
import { readAccess } from '../../operations/read-access.ts';
import { answer, answerInvalid, answerNotFound, check } from './answers.ts';
import { type V1Env, allow } from './authenticate.ts';

const pageLimitDefault = 100;
const pageLimitMax = 500;

const pageRules = {
  limit: z
    .string()
    .refine((text) => /^[1-9]\d{0,3}$/.test(text), 'must be a number')
    .transform(Number)
    .refine((limit) => limit <= pageLimitMax, `must be ${pageLimitMax} at most`)
    .optional(),
  cursor: z
    .string()
    .max(256)
    .transform((text) => Buffer.from(text, 'base64url').toString('utf8'))
    .refine((text) => text !== '' && !text.includes('\0'), 'must be the next of a page before')
    .optional(),
};

const instancesQuery = z.object({ ...pageRules, state: z.enum(instanceStates).optional() });

const eventsQuery = z.object({
  ...pageRules,
  cursor: pageRules.cursor
    .refine((text) => /^\d{0,15}$/.test(text ?? ''), 'must be the next of a page before')
    .transform((text) => Number(text ?? 0)),
});

/** What a seller's programs read of their own product, under /v1. */
export function createReadRoutes(options: { db: Database; keyring: Keyring }): Hono<V1Env> {
  const { db, keyring } = options;
  const app = new Hono<V1Env>();

  app.get('/v1/instances', allow('instances:read'), async (c) => {
    const query = check(instancesQuery, c.req.query());
    if ('problems' in query) return answerInvalid(c, query.problems);
    const { cursor, state, limit = pageLimitDefault } = query.value;
    const { productId } = c.get('caller');
    // One more than shown tells whether there is a next page.
    const found = await listInstances(db.pool, productId, {
      after: cursor,
      state,
      limit: limit + 1,
    });
    const instances = found.slice(0, limit);
    const last = instances.at(-1);
    const next = found.length > limit && last ? toCursor(last.instanceId) : null;
    return answer(c, { instances, next });
  });

  app.get('/v1/instances/:id', allow('instances:read'), async (c) => {
    const id = c.req.param('id');
    const instance = await findInstance(db.pool, c.get('caller').productId, id);
    return instance ? answer(c, instance) : answerNotFound(c);
  });

  app.get('/v1/instances/:id/events', allow('instances:read'), async (c) => {
    const query = check(eventsQuery, c.req.query());
    if ('problems' in query) return answerInvalid(c, query.problems);
    const { cursor, limit = pageLimitDefault } = query.value;
    const found = await listEvents(
      db.pool,
      { productId: c.get('caller').productId, publicId: c.req.param('id') },
      { after: cursor, limit: limit + 1 },
    );
    if (!found) return answerNotFound(c);
    const events = found.slice(0, limit);
    const last = events.at(-1);
    const next = found.length > limit && last ? toCursor(String(last.id)) : null;
    return answer(c, { events, next });
  });

  app.get('/v1/instances/:id/access', allow('access:read'), async (c) => {
    const { productId, product, actor } = c.get('caller');
    const instanceId = c.req.param('id');
    const outcome = await readAccess(
      { db, keyring, actor },
      { product, productId, publicId: instanceId },
    );
    if (outcome.kind !== 'read') return answerNotFound(c);
    return answer(c, { instanceId, appInfo: outcome.access });
  });

  app.get('/v1/orders/:orderId', allow('orders:read'), async (c) => {
    const orderId = c.req.param('orderId');
    const instances = await listInstancesOfOrder(db.pool, c.get('caller').productId, orderId);
    return instances.length > 0 ? answer(c, { orderId, instances }) : answerNotFound(c);
  });

  return app;
}

function toCursor(text: string): string {
  return Buffer.from(text).toString('base64url');
}
