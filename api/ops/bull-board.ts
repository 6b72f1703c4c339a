import { resolve } from 'node:path';
import { BullMQAdapter } from '@bull-board/api/bullMQAdapter';
import { createBullBoard } from '@bull-board/api';
import { HonoAdapter } from '@bull-board/hono';
import { serveStatic } from '@hono/node-server/serve-static';
import { type Context, Hono } from 'hono';
import { HTTPException } from 'hono/http-exception';
import { timeout } from 'hono/timeout';
import type { Queue } from 'bullmq';
import type { Database } from '../../db/client.ts';
import type { Logger } from '../../runtime/logger.ts';
import { paths } from './paths.ts';
import { type PausableQueue, pauseQueue } from './pause-queue.ts';
import type { OpsEnv } from './session.ts';

/** A queue of either backend. */
export type BoardQueue = PausableQueue & Pick<Queue, 'getJobCounts'>;

// A page that polls must not pile up calls to a store that hangs.
const answerTimeoutMs = 5_000;
const api = `${paths.queues}/api/queues`;

/**
 * Bull Board, read-only but for pausing and resuming, which are ours and leave a trace. What may
 * write is refused before Bull Board sees it: a job only says "look", so that deleting or retrying
 * one by hand never does what it seems to.
 */
export function createBoard(options: {
  db: Database;
  queues: readonly BoardQueue[];
  log: Logger;
}): Hono<OpsEnv> {
  const { db, queues, log } = options;
  const app = new Hono<OpsEnv>();

  for (const [verb, isPaused] of [
    ['pause', true],
    ['resume', false],
  ] as const) {
    app.put(`${api}/${verb}`, async (c) => {
      const actor = c.get('operator').name;
      for (const queue of queues) await pauseQueue({ db, actor }, queue, isPaused);
      return c.json({});
    });
    app.put(`${api}/:queueName/${verb}`, async (c) => {
      const queue = queues.find((q) => q.name === c.req.param('queueName'));
      if (!queue) return c.json({ error: { key: 'ERRORS.QUEUE_NOT_FOUND' } }, 404);
      await pauseQueue({ db, actor: c.get('operator').name }, queue, isPaused);
      return c.json({});
    });
  }

  app.use(`${paths.queues}/*`, async (c, next) => {
    if (c.req.method !== 'GET' && c.req.method !== 'HEAD') return refuseWriting(c);
    await next();
    const type = c.res.headers.get('content-type') ?? '';
    if (type.startsWith('text/html')) c.res = await withoutStrangers(c.res);
    return undefined;
  });

  app.use(
    `${paths.queues}/api/*`,
    timeout(answerTimeoutMs, () => lateStore()),
  );
  app.route(paths.queues, createBullBoardApp(queues, log));
  return app;
}

const silent = {
  error: { key: 'ERRORS.INTERNAL_SERVER_ERROR' },
  message: 'The store of the queues did not answer.',
} as const;

function lateStore(): HTTPException {
  return new HTTPException(504, { res: Response.json(silent, { status: 504 }) });
}

function refuseWriting(c: Context): Response {
  const message =
    'The queues are read-only here, but for pause and resume. Use latchkey dead-letter redrive to run work again.';
  return c.json({ error: { key: 'ERRORS.QUEUE_READ_ONLY' }, message }, 405, {
    allow: 'GET, HEAD',
  });
}

function createBullBoardApp(queues: readonly BoardQueue[], log: Logger): Hono {
  // It hands over a root relative to the working directory, which may change.
  const serveFiles: typeof serveStatic = (given) =>
    serveStatic({ ...given, root: resolve(given?.root ?? '.') });
  const adapter = new QuietAdapter(serveFiles, log);
  adapter.setBasePath(paths.queues);
  createBullBoard({
    queues: queues.map(
      // Its type knows queues on Redis only; it runs on both.
      (queue) => new BullMQAdapter(queue as unknown as Queue, { readOnlyMode: true }),
    ),
    serverAdapter: adapter,
    options: {
      uiConfig: {
        boardTitle: 'Latchkey',
        hideDocsLink: true,
        // Its icon styles itself inline, and the store need not be Redis.
        hideRedisDetails: true,
        miscLinks: [{ text: 'Pause, resume, log out · 暂停、恢复、退出', url: paths.controls }],
      },
    },
  });
  return adapter.registerPlugin();
}

/** Says nothing of a failing store but that it fails; the log has the rest. */
class QuietAdapter extends HonoAdapter {
  private readonly log: Logger;

  constructor(files: ConstructorParameters<typeof HonoAdapter>[0], log: Logger) {
    super(files);
    this.log = log;
  }

  override setErrorHandler(): this {
    return super.setErrorHandler((error) => {
      this.log.warn({ err: error }, 'board.failed');
      return { status: 500, body: silent };
    });
  }
}

/** Its page links fonts from elsewhere and styles itself inline; our policy allows neither. */
async function withoutStrangers(page: Response): Promise<Response> {
  const html = (await page.text())
    .replace(/<link\b[^>]*\bhref="https?:[^>]*>/gi, '')
    .replace(/<style\b[^>]*>[\s\S]*?<\/style>/gi, '')
    .replace(/(<[a-z][^>]*?)\sstyle="[^"]*"/gi, '$1');
  const headers = new Headers(page.headers);
  headers.delete('content-length');
  return new Response(html, { status: page.status, headers });
}
