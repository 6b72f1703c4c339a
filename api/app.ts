import type { HttpBindings } from '@hono/node-server';
import { type Context, Hono } from 'hono';
import type { Logger } from 'pino';
import { describeError } from '../runtime/logger.ts';

type Handler = (c: Context<{ Bindings: HttpBindings }>) => Promise<Response>;

// oxlint-disable-next-line typescript/no-explicit-any -- routes of any environment can be mounted
type Mountable = Hono<any>;

/** The whole HTTP surface; every part is made elsewhere and only mounted here. */
export function createApp(parts: {
  receive: Handler;
  /** Each with its own full paths. */
  others: readonly Mountable[];
  log: Pick<Logger, 'error'>;
}): Hono<{ Bindings: HttpBindings }> {
  const app = new Hono<{ Bindings: HttpBindings }>();
  app.all('/callbacks/:productKey', parts.receive);
  for (const other of parts.others) app.route('/', other);
  app.notFound((c) => c.json({ error: 'there is nothing at this address' }, 404));
  // The one place where the unexpected is answered; the message stays here.
  app.onError((error, c) => {
    parts.log.error({ error: describeError(error), path: c.req.path }, 'request.failed');
    return c.json({ error: 'unexpected, see the log' }, 500);
  });
  return app;
}
