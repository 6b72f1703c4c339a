import type { Failure } from '../../core/failure.ts';
import type { AccessData, ApplyOutcome, Assignment, Provisioner } from '../../core/provisioner.ts';
import type { Keyring } from '../../db/data-keys.ts';
import {
  type TenantsDatabase,
  classifyTenantsError,
  createTenantPassword,
} from '../../db/tenants.ts';

// A tenant in Postgres: a schema, a role that may use only it, and a quota. Exactly once, because the
// generation is checked in the transaction that makes it.

export type PostgresSchemaProvisionerOptions = {
  tenants: TenantsDatabase;
  keyring: Keyring;
  /** Where buyers of this instance go. */
  frontEndUrlFor(product: Assignment['product'], publicId: string): string;
  /** How long what a tenant holds outlives its release; 0 when absent. */
  releaseGraceMs?: number;
};

export function createPostgresSchemaProvisioner(
  options: PostgresSchemaProvisionerOptions,
): Provisioner {
  const { tenants, keyring } = options;
  const { host, port, database } = tenants.address;
  return {
    target: `postgres://${host}:${port}/${database}`,
    apply: async (assignment, signal) => {
      const { instanceId, publicId, product, generation, desired } = assignment;
      if (!desired.exists && !assignment.everBegan) return { kind: 'applied' };
      if (signal.aborted)
        return failed({ class: 'transient', cause: 'the apply was cancelled here' });
      const frontEndUrl = options.frontEndUrlFor(product, publicId);
      // Longer than the marketplace takes; said before anything is made.
      if (frontEndUrl.length > 512) {
        return failed({
          class: 'permanent',
          cause: 'the front-end address is longer than 512 characters, shorten --front-end-url',
        });
      }
      const aad = `tenants/secret/${instanceId}`;
      try {
        const outcome = await tenants.apply(
          {
            instanceId,
            productKey: product.key,
            publicId,
            generation,
            desired: !desired.exists ? 'gone' : desired.frozen ? 'frozen' : 'serving',
            graceMs: options.releaseGraceMs ?? 0,
          },
          {
            sealed: await keyring.seal(`product/${product.id}`, createTenantPassword(), aad),
            open: async (sealed) => (await keyring.open(sealed, aad)).toString('utf8'),
          },
        );
        switch (outcome.kind) {
          case 'stale':
            return { kind: 'stale' };
          case 'leaving':
            return { kind: 'applied', againInMs: outcome.leftMs };
          case 'gone':
            return { kind: 'applied' };
          case 'gone before':
            return failed({ class: 'contract', cause: 'tenant was released before' });
          case 'ready':
            return {
              kind: 'applied',
              access: describeAccess(outcome, tenants.address, frontEndUrl),
            };
        }
      } catch (error) {
        const failure = classifyTenantsError(error);
        if (!failure) throw error;
        return failed(failure);
      }
    },
  };
}

function describeAccess(
  tenant: { role: string; password: string },
  { host, port, database }: TenantsDatabase['address'],
  frontEndUrl: string,
): AccessData {
  const memo =
    `PostgreSQL: host ${host}, port ${port}, database ${database}, schema ${tenant.role}. ` +
    `数据库地址 ${host}，端口 ${port}，数据库 ${database}，模式 ${tenant.role}。`;
  return { frontEndUrl, userName: tenant.role, password: tenant.password, memo };
}

function failed(failure: Failure): ApplyOutcome {
  return { kind: 'failed', failure };
}
