import { desc } from 'drizzle-orm';
import type { Orm } from './client.ts';
import { audit } from './schema.ts';

/** One act of a person; `detail` never holds a secret. */
export type AuditEntry = {
  /** `cli:{user of the system}`, or the name of an operator. */
  actor: string;
  /** `noun.past_participle`. */
  act: string;
  /** What it was done to, like `product/shop`. */
  subject: string;
  reason?: string | undefined;
  detail?: Record<string, unknown>;
};

export type AuditRow = typeof audit.$inferSelect;

/** Call it in the transaction of the act: nothing is done without a trace, nothing is claimed undone. */
export async function writeAudit(tx: { orm: Orm }, entry: AuditEntry): Promise<void> {
  await tx.orm.insert(audit).values(entry);
}

/** The newest entries first. */
export async function readAudit(db: { orm: Orm }, limit = 100): Promise<AuditRow[]> {
  return db.orm.select().from(audit).orderBy(desc(audit.id)).limit(limit);
}
