import { randomBytes } from 'node:crypto';
import { type Database, createDatabase } from '../../db/client.ts';
import { createKeyring } from '../../db/data-keys.ts';
import { addKey } from '../../operations/add-key.ts';
import { addProduct } from '../../operations/add-product.ts';
import { setPassword } from '../../operations/set-password.ts';
import { loadMasterKey } from '../../runtime/secrets.ts';

type ProductAddress = { callbackUrl: string; accessKey: string };

export type DemoAccounts = {
  tenants: ProductAddress;
  backend: ProductAddress;
  operator: { name: string; password: string };
};

export function openDemoDatabase(url: string): Database {
  return createDatabase({ url, applicationName: 'latchkey demo', poolMax: 2 });
}

/** Registers the two products and an operator, with the same verbs as the command line. */
export async function addDemoAccounts(
  db: Database,
  demo: {
    dataDir: string;
    publicUrl: string;
    actor: string;
    backendUrl: string;
    backendSecret: string;
  },
): Promise<DemoAccounts> {
  const { masterKey } = loadMasterKey({ dataDir: demo.dataDir, isProduction: false });
  const context = { db, keyring: createKeyring({ db, masterKey }), actor: demo.actor };

  async function register(product: Parameters<typeof addProduct>[1]): Promise<ProductAddress> {
    const added = await addProduct(context, product);
    if (added.kind !== 'added') throw new Error(`the product was not added: ${added.kind}`);
    const accessKey = randomBytes(24).toString('base64url');
    const key = await addKey(context, { product: product.key, class: 'base', secret: accessKey });
    if (key.kind !== 'added') throw new Error(`the key was not added: ${key.kind}`);
    return { callbackUrl: `${demo.publicUrl}/callbacks/${product.key}`, accessKey };
  }

  const tenants = await register({
    key: 'tenants',
    name: 'A database for each buyer',
    provisioner: 'postgres-schema',
  });
  const backend = await register({
    key: 'backend',
    name: 'A product with a backend of its own',
    provisioner: 'http',
    httpUrl: demo.backendUrl,
    httpSecret: demo.backendSecret,
  });
  const operator = { name: 'demo', password: randomBytes(12).toString('base64url') };
  const set = await setPassword({ db, actor: demo.actor }, operator);
  if (set.kind !== 'set') throw new Error(`the operator was not made: ${set.problem}`);
  return { tenants, backend, operator };
}
