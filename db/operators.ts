import { asc, eq, sql } from 'drizzle-orm';
import type { Orm } from './client.ts';
import { operators, sessions } from './schema.ts';

type Reader = { orm: Orm };

export type OperatorRow = typeof operators.$inferSelect;

export async function findOperator(db: Reader, name: string): Promise<OperatorRow | undefined> {
  const rows = await db.orm.select().from(operators).where(eq(operators.name, name));
  return rows[0];
}

/** Names only: nobody needs to list hashes. */
export async function listOperators(
  db: Reader,
): Promise<Pick<OperatorRow, 'id' | 'name' | 'createdAt' | 'passwordSetAt'>[]> {
  return db.orm
    .select({
      id: operators.id,
      name: operators.name,
      createdAt: operators.createdAt,
      passwordSetAt: operators.passwordSetAt,
    })
    .from(operators)
    .orderBy(asc(operators.name));
}

/** Makes the operator where there is none of this name. */
export async function savePasswordHash(
  tx: Reader,
  name: string,
  passwordHash: string,
): Promise<{ operatorId: number; isNew: boolean }> {
  const rows = await tx.orm
    .insert(operators)
    .values({ name, passwordHash })
    .onConflictDoUpdate({
      target: operators.name,
      set: { passwordHash, passwordSetAt: sql`now()` },
    })
    // xmax is 0 on a row that this statement inserted.
    .returning({ operatorId: operators.id, isNew: sql<boolean>`xmax = 0` });
  const row = rows[0];
  if (!row) throw new Error('an operator was neither inserted nor updated');
  return row;
}

/** @returns how many sessions ended */
export async function endSessions(tx: Reader, operatorId: number): Promise<number> {
  const ended = await tx.orm
    .delete(sessions)
    .where(eq(sessions.operatorId, operatorId))
    .returning({ id: sessions.operatorId });
  return ended.length;
}
