import type { Keyring } from './data-keys.ts';
import type { ProductRow } from './products.ts';

/** AAD of each of the two places in which a product's webhook secrets stand. */
export const webhookSecretAad = {
  current: (productId: number) => `products/http_secret_enc/${productId}`,
  next: (productId: number) => `products/http_secret_next_enc/${productId}`,
};

/**
 * The secrets that sign calls to a seller's backend: one, or two while he changes from one to the
 * other, the older one first.
 *
 * @throws SecretsError when one cannot be opened
 */
export async function openWebhookSecrets(
  keyring: Pick<Keyring, 'open'>,
  product: Pick<ProductRow, 'id' | 'httpSecretEnc' | 'httpSecretNextEnc'>,
): Promise<string[]> {
  const { id, httpSecretEnc, httpSecretNextEnc } = product;
  const sealed = [
    ...(httpSecretEnc ? [{ value: httpSecretEnc, aad: webhookSecretAad.current(id) }] : []),
    ...(httpSecretNextEnc ? [{ value: httpSecretNextEnc, aad: webhookSecretAad.next(id) }] : []),
  ];
  const opened = await Promise.all(sealed.map(({ value, aad }) => keyring.open(value, aad)));
  return opened.map((secret) => secret.toString('utf8'));
}
