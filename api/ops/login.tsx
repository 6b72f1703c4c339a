import { randomBytes } from 'node:crypto';
import { type Context, Hono } from 'hono';
import { bodyLimit } from 'hono/body-limit';
import type { Database } from '../../db/client.ts';
import { type OperatorRow, findOperator, listOperators } from '../../db/operators.ts';
import {
  hashPassword,
  passwordSaltSizeBytes,
  verifyPassword,
} from '../../operations/password-hash.ts';
import type { Logger } from '../../runtime/logger.ts';
import { clientAddressOf } from './client-address.ts';
import type { LoginLimiter } from './login-limit.ts';
import { renderPage } from './page.tsx';
import { paths } from './paths.ts';
import type { Sessions } from './session.ts';
import type { Words } from './words.ts';

const bodySizeBytesMax = 8 * 1_024;
// Each check costs 32 MiB and a third of a second of a core that callbacks need.
const checksAtOnceMax = 2;

/** Log in and out. */
export function createLoginRoutes(options: {
  db: Database;
  sessions: Sessions;
  limiter: LoginLimiter;
  log: Logger;
}): Hono {
  const { db, sessions, limiter, log } = options;
  const checkPassword = createPasswordCheck(db);
  const app = new Hono();

  app.get(paths.login, async (c) => {
    if (await sessions.current(c)) return c.redirect(paths.queues, 302);
    const operators = await listOperators(db);
    return operators.length === 0 ? renderNoOperator(c) : renderLogin(c);
  });

  app.post(paths.login, bodyLimit({ maxSize: bodySizeBytesMax }), async (c) => {
    const { name, password } = await readForm(c);
    const address = clientAddressOf(c);
    const { waitMs } = await limiter.take(name, address);
    if (waitMs > 0) {
      log.warn({ clientIp: address }, 'login.limited');
      c.header('retry-after', String(Math.ceil(waitMs / 1_000)));
      const minutes = Math.ceil(waitMs / 60_000);
      return renderLogin(c, (words) => words.login.wait(minutes), 429);
    }
    const operator = await checkPassword(name, password);
    if (operator === 'busy') {
      c.header('retry-after', '1');
      return renderLogin(c, (words) => words.login.busy, 503);
    }
    if (operator === 'wrong') {
      log.warn({ clientIp: address }, 'login.refused');
      return renderLogin(c, (words) => words.login.wrong, 401);
    }
    if ((await sessions.begin(c, operator)) === 'password changed') {
      return renderLogin(c, (words) => words.login.changed, 401);
    }
    await limiter.forgive(name, address);
    log.info({ operator: operator.name, clientIp: address }, 'login.accepted');
    return c.redirect(paths.queues, 303);
  });

  app.post(paths.logout, async (c) => {
    await sessions.end(c);
    return c.redirect(paths.login, 303);
  });

  return app;
}

type PasswordCheck = (name: string, password: string) => Promise<OperatorRow | 'wrong' | 'busy'>;

/** A name that nobody has costs the same as a wrong password, so that names cannot be found out. */
function createPasswordCheck(db: Database): PasswordCheck {
  let decoy: Promise<string> | undefined;
  let running = 0;
  return async (name, password) => {
    if (running >= checksAtOnceMax) return 'busy';
    running += 1;
    try {
      decoy ??= hashPassword(randomBytes(16).toString('hex'), randomBytes(passwordSaltSizeBytes));
      const decoyHash = await decoy;
      const operator = await findOperator(db, name);
      const isRight = await verifyPassword(operator?.passwordHash ?? decoyHash, password);
      return operator && isRight ? operator : 'wrong';
    } finally {
      running -= 1;
    }
  };
}

async function readForm(c: Context): Promise<{ name: string; password: string }> {
  const form = await c.req.parseBody();
  const text = (field: string): string => {
    const value = form[field];
    return typeof value === 'string' ? value : '';
  };
  // NUL is no text to Postgres.
  return {
    name: text('name').trim().toLowerCase().replaceAll('\0', ''),
    password: text('password'),
  };
}

function renderLogin(
  c: Context,
  note?: (words: Words) => string,
  status: 200 | 401 | 429 | 503 = 200,
) {
  const page = (words: Words) => ({
    heading: words.login.heading,
    narrow: true,
    content: () => (
      <>
        {note ? (
          <p class="note" role="alert">
            {note(words)}
          </p>
        ) : null}
        <form method="post" action={paths.login}>
          <label for="name">{words.login.name}</label>
          <input
            id="name"
            name="name"
            autocomplete="username"
            autocapitalize="none"
            maxlength={63}
            required
            autofocus
          />
          <label for="password">{words.login.password}</label>
          <input
            id="password"
            name="password"
            type="password"
            autocomplete="current-password"
            required
          />
          <button class="wide">{words.login.submit}</button>
        </form>
      </>
    ),
  });
  return renderPage(c, paths.stylesheet, page, status);
}

function renderNoOperator(c: Context) {
  const page = ({ login }: Words) => ({
    heading: login.heading,
    content: () => (
      <>
        <p>{login.noOperator}</p>
        <pre>printf %s "$PASSWORD" | npx latchkey password set NAME --password-stdin</pre>
        <p class="soft">{login.noOperatorAfter}</p>
      </>
    ),
  });
  return renderPage(c, paths.stylesheet, page);
}
