import { randomBytes } from 'node:crypto';
import { writeAudit } from '../db/audit.ts';
import { endSessions, savePasswordHash } from '../db/operators.ts';
import type { Actor } from './actor.ts';
import { hashPassword, passwordSaltSizeBytes } from './password-hash.ts';

export type SetPasswordOutcome =
  | { kind: 'set'; operator: string; isNew: boolean; sessionsEnded: number }
  | { kind: 'invalid'; field: 'name' | 'password'; problem: string };

/** Sets an operator's password, making the operator on first use, and ends all sessions of that operator. */
export async function setPassword(
  { db, actor }: Actor,
  wanted: { name: string; password: string },
  random: (sizeBytes: number) => Buffer = randomBytes,
): Promise<SetPasswordOutcome> {
  const { name, password } = wanted;
  if (!/^[a-z0-9][a-z0-9._@-]{0,62}$/.test(name)) {
    const problem =
      'must be 1 to 63 lower-case letters, digits, dots, hyphens, underscores or @, beginning with a letter or digit';
    return { kind: 'invalid', field: 'name', problem };
  }
  const length = password.length;
  if (length < 10 || length > 200) {
    const problem = `must have 10 to 200 characters, not ${length}`;
    return { kind: 'invalid', field: 'password', problem };
  }
  const hash = await hashPassword(password, random(passwordSaltSizeBytes));
  return db.transaction(async (tx) => {
    const { operatorId, isNew } = await savePasswordHash(tx, name, hash);
    const sessionsEnded = await endSessions(tx, operatorId);
    await writeAudit(tx, {
      actor,
      act: 'operator.password_set',
      subject: `operator/${name}`,
      detail: { isNew, sessionsEnded },
    });
    return { kind: 'set', operator: name, isNew, sessionsEnded };
  });
}
