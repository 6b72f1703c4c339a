import { type Context, Hono } from 'hono';
import { csrf } from 'hono/csrf';
import { etag } from 'hono/etag';
import { HTTPException } from 'hono/http-exception';
import type { Database } from '../../db/client.ts';
import { type Logger, describeError } from '../../runtime/logger.ts';
import { type BoardQueue, createBoard } from './bull-board.ts';
import { createControls } from './controls.tsx';
import { createLoginLimiter, type LoginLimits, loginLimits } from './login-limit.ts';
import { createLoginRoutes } from './login.tsx';
import { createPageHeaders } from './page-headers.ts';
import { renderPage } from './page.tsx';
import { paths } from './paths.ts';
import { createSessions, type OpsEnv, requireSession } from './session.ts';
import { stylesheet } from './styles.ts';
import type { Words } from './words.ts';

/**
 * All that operators see, under /ops; mount it at the root. Only the login page and the stylesheet
 * are there without a session.
 *
 * @param publicUrl where browsers reach us; its scheme decides the cookie's form
 */
export function createOps(options: {
  db: Database;
  queues: readonly BoardQueue[];
  publicUrl: string;
  log: Logger;
  limits?: LoginLimits;
}): Hono<OpsEnv> {
  const { db, queues, publicUrl, log, limits = loginLimits } = options;
  const isHttps = publicUrl.startsWith('https:');
  const publicOrigin = new URL(publicUrl).origin;
  const sessions = createSessions({ db, isHttps });
  const limiter = createLoginLimiter(db, limits);
  const app = new Hono<OpsEnv>();

  app.use(`${paths.root}/*`, createPageHeaders({ isHttps, hasBase: true }));
  app.use(
    `${paths.root}/*`,
    // Behind a proxy that ends TLS, what we are called by differs from what the browser knows.
    csrf({
      origin: (origin, c) => origin === publicOrigin || origin === new URL(c.req.url).origin,
    }),
  );
  app.get(paths.stylesheet, etag(), (c) =>
    c.body(stylesheet, 200, {
      'content-type': 'text/css; charset=utf-8',
      'cache-control': 'no-cache',
    }),
  );
  app.use(`${paths.root}/*`, async (c, next) => {
    await next();
    if (!c.req.path.startsWith(`${paths.queues}/static/`)) c.header('cache-control', 'no-store');
  });
  app.route('/', createLoginRoutes({ db, sessions, limiter, log }));

  app.use(`${paths.root}/*`, requireSession(sessions, paths.login));
  app.get(paths.root, (c) => c.redirect(paths.queues, 302));
  app.get(`${paths.root}/`, (c) => c.redirect(paths.queues, 302));
  app.route('/', createControls({ db, queues, log }));
  app.route('/', createBoard({ db, queues, log }));
  app.all(`${paths.root}/*`, (c) => renderFailure(c, 'notFound', 404));

  app.onError((error, c) => {
    if (error instanceof HTTPException) {
      if (error.status === 413) return renderFailure(c, 'tooLarge', 413);
      if (error.status === 403) return renderFailure(c, 'crossOrigin', 403);
      return error.getResponse();
    }
    log.error({ err: error }, 'ops.failed');
    return isStoreAway(error)
      ? renderFailure(c, 'unavailable', 503)
      : renderFailure(c, 'unexpected', 500);
  });
  return app;
}

function renderFailure(
  c: Context,
  kind: Exclude<keyof Words['failure'], 'heading'>,
  status: 403 | 404 | 413 | 500 | 503,
) {
  c.header('cache-control', 'no-store');
  const page = ({ failure }: Words) => ({
    heading: failure.heading,
    narrow: true,
    content: () => <p>{failure[kind]}</p>,
  });
  return renderPage(c, paths.stylesheet, page, status);
}

function isStoreAway(error: Error): boolean {
  const { code = '', message, cause } = describeError(error);
  const text = `${code} ${message} ${cause?.code ?? ''} ${cause?.message ?? ''}`;
  return /ECONN|EPIPE|ETIMEDOUT|57P0|\b08\d{3}|connection|timeout/i.test(text);
}
