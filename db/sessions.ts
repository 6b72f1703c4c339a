import { lte, sql } from 'drizzle-orm';
import type { Orm, Queryable } from './client.ts';
import { loginAttempts, sessions } from './schema.ts';

/** Who is logged in. */
export type SessionOperator = { id: number; name: string };

/**
 * Locks the operator, so that a change of the password that runs at the same moment either waits
 * and then ends this session, or came first and leaves no row here.
 *
 * @param passwordHash the one that was just verified
 * @returns false when the password was changed meanwhile
 */
export async function insertSession(
  db: { orm: Orm },
  session: { tokenHash: Buffer; operatorId: number; passwordHash: string; lifetimeMs: number },
): Promise<boolean> {
  const { tokenHash, operatorId, passwordHash, lifetimeMs } = session;
  const { rowCount } = await db.orm.execute(sql`
    insert into sessions (token_hash, operator_id, expires_at)
    select ${tokenHash}, o.id, now() + make_interval(secs => ${lifetimeMs / 1_000})
    from operators o where o.id = ${operatorId} and o.password_hash = ${passwordHash}
    for share of o`);
  return rowCount === 1;
}

/** The operator of a session that is not over. */
export async function findSession(
  db: Queryable,
  tokenHash: Buffer,
): Promise<SessionOperator | undefined> {
  const { rows } = await db.query<SessionOperator>(
    `select o.id, o.name from sessions s join operators o on o.id = s.operator_id
     where s.token_hash = $1 and s.expires_at > now()`,
    [tokenHash],
  );
  return rows[0];
}

export async function deleteSession(db: Queryable, tokenHash: Buffer): Promise<void> {
  await db.query('delete from sessions where token_hash = $1', [tokenHash]);
}

/** Forgets sessions that are over and attempts that no longer count. */
export async function deleteExpiredLogins(db: { orm: Orm }): Promise<void> {
  await db.orm.delete(sessions).where(lte(sessions.expiresAt, sql`now()`));
  await db.orm.delete(loginAttempts).where(lte(loginAttempts.expire, sql`now()`));
}
