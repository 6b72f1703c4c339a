import { createHash, randomBytes } from 'node:crypto';
import type { Context, MiddlewareHandler } from 'hono';
import { deleteCookie, getCookie, setCookie } from 'hono/cookie';
import { writeAudit } from '../../db/audit.ts';
import type { Database } from '../../db/client.ts';
import type { OperatorRow } from '../../db/operators.ts';
import {
  type SessionOperator,
  deleteExpiredLogins,
  deleteSession,
  findSession,
  insertSession,
} from '../../db/sessions.ts';

const tokenSizeBytes = 32;
const lifetimeMs = 12 * 3_600_000;

/** What handlers behind `requireSession` find in the context. */
export type OpsEnv = { Variables: { operator: SessionOperator } };

export type Sessions = {
  /**
   * @param operator as it was when its password was verified; when that was changed meanwhile, no
   *   session begins
   */
  begin(c: Context, operator: OperatorRow): Promise<'begun' | 'password changed'>;
  current(c: Context): Promise<SessionOperator | undefined>;
  end(c: Context): Promise<void>;
};

/**
 * Sessions in a cookie that only the browser and, as a hash, our table know.
 *
 * @param isHttps whether browsers reach us by TLS; only then can the cookie be `__Host-` and Secure
 */
export function createSessions(options: {
  db: Database;
  isHttps: boolean;
  random?: (sizeBytes: number) => Buffer;
}): Sessions {
  const { db, isHttps, random = randomBytes } = options;
  const cookie = {
    httpOnly: true,
    sameSite: 'Strict',
    path: '/',
    secure: isHttps,
    ...(isHttps ? { prefix: 'host' as const } : {}),
  } as const;
  const tokenOf = (c: Context): string | undefined =>
    isHttps ? getCookie(c, 'latchkey', 'host') : getCookie(c, 'latchkey');

  const forget = async (c: Context): Promise<void> => {
    const token = tokenOf(c);
    if (token !== undefined) await deleteSession(db.pool, hashOf(token));
  };

  return {
    async begin(c, operator) {
      await forget(c);
      const token = random(tokenSizeBytes).toString('base64url');
      const begun = await db.transaction(async (tx) => {
        const isInserted = await insertSession(tx, {
          tokenHash: hashOf(token),
          operatorId: operator.id,
          passwordHash: operator.passwordHash,
          lifetimeMs,
        });
        if (!isInserted) return false;
        await writeAudit(tx, {
          actor: operator.name,
          act: 'operator.logged_in',
          subject: `operator/${operator.name}`,
        });
        await deleteExpiredLogins(tx);
        return true;
      });
      if (!begun) return 'password changed';
      setCookie(c, 'latchkey', token, { ...cookie, maxAge: lifetimeMs / 1_000 });
      return 'begun';
    },
    async current(c) {
      const token = tokenOf(c);
      return token === undefined ? undefined : findSession(db.pool, hashOf(token));
    },
    async end(c) {
      await forget(c);
      deleteCookie(c, 'latchkey', cookie);
    },
  };
}

/** Sends people to the login page and tells programs so. */
export function requireSession(sessions: Sessions, loginPath: string): MiddlewareHandler<OpsEnv> {
  return async (c, next) => {
    const operator = await sessions.current(c);
    if (!operator) {
      const isPage = c.req.method === 'GET' && (c.req.header('accept') ?? '').includes('text/html');
      if (isPage) return c.redirect(loginPath, 302);
      // Bull Board shows the message of such a body.
      const message = `Log in at ${loginPath}`;
      return c.json({ error: { key: 'ERRORS.FORBIDDEN' }, message }, 401);
    }
    c.set('operator', operator);
    return next();
  };
}

function hashOf(token: string): Buffer {
  return createHash('sha256').update(token).digest();
}
