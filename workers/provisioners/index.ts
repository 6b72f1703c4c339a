import type { Provisioner } from '../../core/provisioner.ts';
import type { Keyring } from '../../db/data-keys.ts';
import type { ProductRow } from '../../db/products.ts';
import type { TenantsDatabase } from '../../db/tenants.ts';
import { openWebhookSecrets } from '../../db/webhook-secrets.ts';
import type { Outbound } from '../../runtime/outbound.ts';
import { createHttpProvisioner } from './http.ts';
import { createManualProvisioner } from './manual.ts';
import { createModuleProvisioner } from './module.ts';
import { createPostgresSchemaProvisioner } from './postgres-schema.ts';

/** What a provisioner is chosen and made by. */
export type ProvisionedProduct = Pick<
  ProductRow,
  | 'id'
  | 'key'
  | 'provisioner'
  | 'httpUrl'
  | 'httpSecretEnc'
  | 'httpSecretNextEnc'
  | 'frontEndUrl'
  | 'modulePath'
  | 'releaseGraceDays'
>;

export type ProvisionersOptions = {
  keyring: Keyring;
  outbound: Outbound;
  tenants: TenantsDatabase;
  /** Our own address, without a slash at its end. */
  publicUrl: string;
  now: () => Date;
};

/**
 * Gives each product its provisioner, made once and again when its row changed. Applying throws when
 * a secret cannot be opened.
 */
export function createProvisioners(
  options: ProvisionersOptions,
): (product: ProvisionedProduct) => Provisioner {
  const made = new Map<number, { from: string; provisioner: Provisioner }>();
  return (product) => {
    const from = describe(product);
    const known = made.get(product.id);
    if (known?.from === from) return known.provisioner;
    const provisioner = createProvisioner(options, product);
    made.set(product.id, { from, provisioner });
    return provisioner;
  };
}

function createProvisioner(options: ProvisionersOptions, product: ProvisionedProduct): Provisioner {
  switch (product.provisioner) {
    case 'http':
      return createHttpProvisioner({
        outbound: options.outbound,
        baseUrl: product.httpUrl ?? '',
        secrets: () => openWebhookSecrets(options.keyring, product),
        now: options.now,
      });
    case 'postgres-schema': {
      const template = product.frontEndUrl ?? `${options.publicUrl}/tenants/{instanceId}`;
      return createPostgresSchemaProvisioner({
        tenants: options.tenants,
        keyring: options.keyring,
        frontEndUrlFor: (_product, publicId) => fillFrontEndUrl(template, publicId),
        releaseGraceMs: product.releaseGraceDays * dayMs,
      });
    }
    case 'module':
      return createModuleProvisioner({ path: product.modulePath ?? '' });
    case 'manual':
      return createManualProvisioner();
  }
}

const dayMs = 86_400_000;

/** Puts the marketplace's instance id into a template like `https://app.example/t/{instanceId}`. */
export function fillFrontEndUrl(template: string, publicId: string): string {
  return template.replaceAll('{instanceId}', () => encodeURIComponent(publicId));
}

function describe(product: ProvisionedProduct): string {
  const { provisioner, httpUrl, frontEndUrl, modulePath, releaseGraceDays } = product;
  const secrets = [product.httpSecretEnc, product.httpSecretNextEnc].map((each) =>
    each?.toString('base64'),
  );
  return JSON.stringify([
    provisioner,
    httpUrl,
    ...secrets,
    frontEndUrl,
    modulePath,
    releaseGraceDays,
  ]);
}
