// A seller's own code that Latchkey loads instead of calling a backend: `product add --provisioner module
// --module /srv/latchkey/module.mjs`. It runs in the workers, with their rights; a changed file counts
// after their restart. Several workers may call it at once, and the same call may come twice.
import { randomBytes } from 'node:crypto';

// Put this in your database, and change row and tenant in one transaction: there may be several workers,
// and after a crash the generation must still be there to compare.
const rows = new Map(); // instance id → { generation, exists, desired, appInfo }

/**
 * Makes an instance what it should be, whether it is there or not.
 *
 * @param wish { instanceId, product, generation, desired: { frozen, expiresAt, trial, plan }, changes, buyer }
 * @param call { signal } is aborted when the time (10 s) is over
 * @returns { appInfo: { frontEndUrl, adminUrl, userName, password, memo } }, or { stale: true }
 * @throws anything. With `class` 'permanent' or 'contract' it is not tried again, with 'transient' or
 *   none it is, after `retryAfterMs` at the earliest. With a `resultCode` like '000106' a purchase is refused.
 */
export async function apply({ instanceId, generation, desired }) {
  const row = rows.get(instanceId);
  if (row && generation < row.generation) return { stale: true };
  if (row && !row.exists) {
    throw Object.assign(new Error('dropped before'), { class: 'permanent', code: 'DROPPED' });
  }
  // Here you make the tenant, or change it. The first password stays: the buyer may have it already.
  const appInfo = row?.appInfo ?? {
    frontEndUrl: `https://app.example.com/${encodeURIComponent(instanceId)}`,
    userName: 'admin',
    password: randomBytes(12).toString('base64url'),
    memo: 'Please change the password after the first login.',
  };
  rows.set(instanceId, { generation, exists: true, desired, appInfo });
  return { appInfo };
}

/** Takes it away, if it is there; the last call about an instance, though it may come twice. */
export async function release({ instanceId, generation }) {
  const row = rows.get(instanceId);
  if (row && generation < row.generation) return { stale: true };
  // Here you drop the tenant's data. The generation stays, so that a late apply cannot bring it back.
  rows.set(instanceId, { generation, exists: false });
}
