import { writeAudit } from '../db/audit.ts';
import { findSealedAccess } from '../db/v1-reads.ts';
import { type AccessData, accessDataSchema } from '../protocol/saas-v2/reply.ts';
import type { KeyedActor } from './actor.ts';

export type ReadAccessOutcome =
  | { kind: 'read'; access: AccessData }
  /** It was never made, or is released or refused. */
  | { kind: 'no-access' }
  | { kind: 'unknown-instance' };

/** Opens what a buyer was given, and audits who did. */
export async function readAccess(
  { db, keyring, actor }: KeyedActor,
  wanted: { product: string; productId: number; publicId: string },
): Promise<ReadAccessOutcome> {
  const found = await findSealedAccess(db.pool, wanted);
  if (!found) return { kind: 'unknown-instance' };
  if (!found.accessEnc) return { kind: 'no-access' };
  const opened = await keyring.open(found.accessEnc, `instances/access_enc/${found.sealedFor}`);
  const access = accessDataSchema.parse(JSON.parse(opened.toString('utf8')));
  await writeAudit(db, {
    actor,
    act: 'access.read',
    subject: `product/${wanted.product}`,
    detail: { instanceId: wanted.publicId },
  });
  return { kind: 'read', access };
}
