import { randomBytes } from 'node:crypto';
import { expect } from 'vitest';
import { createDatabase } from '../../db/client.ts';
import { createKeyring } from '../../db/data-keys.ts';
import { addKey } from '../../operations/add-key.ts';
import { setProduct } from '../../operations/set-product.ts';
import { loadMasterKey } from '../../runtime/secrets.ts';
import { type OpenApi, createOpenApi } from '../../simulator/open-api.ts';
import { type SellerBackend, createSellerBackend } from '../../simulator/seller-backend.ts';
import type { Marketplace } from '../../simulator/marketplace.ts';
import type { Process, System, TestProduct } from '../servers/system.ts';
import { until } from '../servers/until.ts';

/** A product of its own with all that it talks to: nothing of it is shared with another test. */
export type Rig = {
  product: TestProduct;
  market: Marketplace;
  backend: SellerBackend;
  openApi: OpenApi;
  openApiUrl: string;
  secretKey: string;
  /** Buys and returns the instance's id, without waiting for it. */
  buy(orderId: string, orderLineId?: string): Promise<string>;
  /** Waits until the backend has it so. */
  untilThere(instanceId: string, like: object): Promise<void>;
  close(): Promise<void>;
};

export async function createRig(
  system: System,
  api: Process,
  options: { isConnected?: boolean; secretKey?: string; clock?: () => number } = {},
): Promise<Rig> {
  const httpSecret = `whsec_${randomBytes(32).toString('base64')}`;
  const backend = createSellerBackend({ secrets: [httpSecret] });
  const httpUrl = await backend.listen();
  const product = await system.addProduct({ provisioner: 'http', httpUrl, httpSecret });
  const accessKeyId = `AK${randomBytes(6).toString('hex').toUpperCase()}`;
  const secretKey = `sk-${randomBytes(16).toString('hex')}`;
  const openApi = createOpenApi({
    keys: { [accessKeyId]: secretKey },
    ...(options.clock ? { clock: options.clock } : {}),
  });
  const openApiUrl = await openApi.listen();
  if (options.isConnected !== false) {
    await connect(system, product.key, openApiUrl, accessKeyId, options.secretKey ?? secretKey);
  }
  const market = system.marketplace(product, api);
  // The receiver reads products each second.
  if (options.isConnected !== false) await new Promise((resolve) => setTimeout(resolve, 1_300));
  return {
    product,
    market,
    backend,
    openApi,
    openApiUrl,
    secretKey,
    async buy(orderId, orderLineId = `${orderId}-000001`) {
      const reply = await market.newInstance({ orderId, orderLineId });
      if (reply.instanceId === undefined) throw new Error(`not bought: ${reply.rawBody}`);
      return reply.instanceId;
    },
    async untilThere(instanceId, like) {
      await until(
        () => backend.instances.get(instanceId),
        (found) => {
          expect(found).toMatchObject(like);
          return true;
        },
        { timeoutMs: 20_000, what: `${instanceId} at the backend` },
      );
    },
    async close() {
      await Promise.all([backend.close(), openApi.close()]);
    },
  };
}

async function connect(
  system: System,
  product: string,
  openApiUrl: string,
  accessKeyId: string,
  secret: string,
): Promise<void> {
  await withOperations(system, async (context) => {
    const added = await addKey(context, { product, class: 'open-api', accessKeyId, secret });
    if (added.kind !== 'added') throw new Error(`key not added: ${added.kind}`);
    const set = await setProduct(context, { product, openApiUrl });
    if (set.kind !== 'set') throw new Error(`product not set: ${JSON.stringify(set)}`);
  });
}

type Context = Parameters<typeof addKey>[0];

export async function withOperations(
  system: System,
  work: (context: Context) => Promise<void>,
): Promise<void> {
  const url = system.env['DATABASE_URL'] ?? '';
  const db = createDatabase({ url, applicationName: 'test', poolMax: 2 });
  try {
    const { masterKey } = loadMasterKey({
      masterKey: system.masterKey,
      dataDir: '/nonexistent',
      isProduction: false,
    });
    await work({ db, keyring: createKeyring({ db, masterKey }), actor: 'test' });
  } finally {
    await db.close();
  }
}

/** What stands in the database of an instance; the dispatch is undefined once nothing is left. */
export async function readLife(system: System, publicId: string) {
  const [row] = await system.sql`
    select i.id, i.state, i.alias_of as "aliasOf", i.public_id as "publicId", d.queue, d.state as dispatch, d.cause, d.attempts,
      (extract(epoch from d.due_at - now()) * 1000)::float8 as "dueInMs",
      (select json_agg(json_build_object('kind', e.kind, 'outcome', e.outcome, 'isResolved', e.resolved_at is not null) order by e.id)
        from events e where e.instance_id = i.id) as events,
      (select json_agg(json_build_object('kind', a.kind, 'class', a.class, 'status', a.http_status, 'no', a.no) order by a.began)
        from attempts a where a.instance_id = i.id) as attempts_made
    from instances i left join dispatches d on d.instance_id = i.id where i.public_id = ${publicId}`;
  return row;
}
