import type { Assignment } from '../core/provisioner.ts';
import type { Claim } from '../db/claims.ts';
import type { Database } from '../db/client.ts';
import type { Keyring } from '../db/data-keys.ts';
import { findOrderReply } from '../db/orders.ts';
import { type ProductRow, readActiveKeys } from '../db/products.ts';
import { readOrderReply } from '../protocol/open-api/order-query.ts';
import type { OpenApiAccess } from './marketplace-client.ts';

/** What of a product's orders is sealed in the database: the key to ask with, and who bought. */
export function createOrderAccess({ db, keyring }: { db: Database; keyring: Keyring }) {
  return {
    /**
     * The newest active access key, with the address to use it at.
     *
     * @returns undefined while the product is not connected to the marketplace's API
     * @throws SecretsError when the key cannot be opened
     */
    findAccess: async (product: ProductRow): Promise<OpenApiAccess | undefined> => {
      if (product.openApiUrl === null) return undefined;
      const keys = await readActiveKeys(db, product.id);
      const key = keys.findLast((each) => each.class === 'open-api');
      if (!key?.accessKeyId) return undefined;
      const secret = await keyring.open(key.secretEnc, `product_keys/secret_enc/${key.id}`);
      return {
        baseUrl: product.openApiUrl,
        accessKeyId: key.accessKeyId,
        secretKey: secret.toString('utf8'),
      };
    },

    /** @returns who bought the instance, null where its order was never looked up */
    findBuyer: async (claim: Claim, product: ProductRow): Promise<Assignment['buyer']> => {
      const orderId = claim.events.find(({ kind }) => kind === 'created')?.orderId ?? null;
      // The other provisioners tell nobody, so they need not ask.
      if (product.openApiUrl === null || product.provisioner === 'postgres-schema') return null;
      if (orderId === null) return null;
      const kept = await findOrderReply(
        { db: db.pool, keyring },
        { productId: product.id, orderId },
      );
      const reply = kept === undefined ? undefined : readOrderReply(kept);
      return reply?.kind === 'order' ? reply.order.buyer : null;
    },
  };
}
