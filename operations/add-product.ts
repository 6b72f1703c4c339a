import { randomBytes } from 'node:crypto';
import type { ProvisionerName } from '../core/provisioner.ts';
import { writeAudit } from '../db/audit.ts';
import { type ProductRow, drawProductId, findProduct, insertProduct } from '../db/products.ts';
import { Undo } from '../db/client.ts';
import type { KeyedActor } from './actor.ts';
import { loadSellerModule } from './load-module.ts';
import { type ProductRules, definedOf, findRulesProblem } from './set-product-rules.ts';

export type NewProduct = ProductRules & {
  key: string;
  name: string;
  provisioner: ProvisionerName;
  /** Only for http: the base address of the seller's backend. */
  httpUrl?: string | undefined;
  /** Only for http: `whsec_` and base64 of at least 24 bytes; made when absent. */
  httpSecret?: string | undefined;
  /** Only for postgres-schema: where buyers go, with {instanceId}. */
  frontEndUrl?: string | undefined;
  /** Only for module: the absolute path of an ES module that exports apply and release. */
  modulePath?: string | undefined;
};

export type AddProductOutcome =
  /** `generatedSecret` is told this once and never again. */
  | { kind: 'added'; product: ProductRow; generatedSecret: string | null }
  | { kind: 'exists'; key: string }
  | { kind: 'invalid'; field: keyof NewProduct; problem: string };

/** Makes a product with its address for the marketplace; its keys are added apart. */
export async function addProduct(
  { db, keyring, actor }: KeyedActor,
  wanted: NewProduct,
  random: (sizeBytes: number) => Buffer = randomBytes,
): Promise<AddProductOutcome> {
  const invalid =
    findProblem(wanted) ??
    findRulesProblem(wanted.provisioner, wanted) ??
    (await findModuleProblem(wanted));
  if (invalid) return invalid;
  if (await findProduct(db, wanted.key)) return { kind: 'exists', key: wanted.key };

  const isHttp = wanted.provisioner === 'http';
  const generatedSecret =
    isHttp && wanted.httpSecret === undefined ? `whsec_${random(32).toString('base64')}` : null;
  const secret = wanted.httpSecret ?? generatedSecret;
  const id = await drawProductId(db.pool);
  // Before the transaction: the first seal of a product makes its data key on another connection.
  const httpSecretEnc =
    isHttp && secret !== null
      ? await keyring.seal(`product/${id}`, secret, `products/http_secret_enc/${id}`)
      : null;

  try {
    const product = await db.transaction(async (tx) => {
      const inserted = await insertProduct(tx, {
        id,
        key: wanted.key,
        name: wanted.name,
        provisioner: wanted.provisioner,
        httpUrl: wanted.httpUrl?.replace(/\/+$/, '') ?? null,
        httpSecretEnc,
        frontEndUrl: wanted.frontEndUrl ?? null,
        modulePath: wanted.modulePath ?? null,
        ...definedOf(wanted),
      });
      if (!inserted) throw new Undo('another one took the key meanwhile');
      const { key, name, provisioner, httpUrl, frontEndUrl, modulePath } = inserted;
      await writeAudit(tx, {
        actor,
        act: 'product.added',
        subject: `product/${key}`,
        detail: { name, provisioner, httpUrl, frontEndUrl, modulePath, ...definedOf(wanted) },
      });
      return inserted;
    });
    return { kind: 'added', product, generatedSecret };
  } catch (error) {
    if (error instanceof Undo) return { kind: 'exists', key: wanted.key };
    throw error;
  }
}

type Invalid = Extract<AddProductOutcome, { kind: 'invalid' }>;

function findProblem(wanted: NewProduct): Invalid | undefined {
  const invalid = (field: keyof NewProduct, problem: string): Invalid => ({
    kind: 'invalid',
    field,
    problem,
  });
  const { key, name, provisioner, httpUrl, httpSecret, frontEndUrl } = wanted;
  if (!/^[a-z0-9][a-z0-9-]{0,62}$/.test(key)) {
    return invalid(
      'key',
      'must be 1 to 63 lower-case letters, digits and hyphens and not begin with a hyphen, because it is part of an address',
    );
  }
  if (name.trim() === '' || name.length > 200 || hasControls(name)) {
    return invalid('name', 'must have 1 to 200 printable characters');
  }
  const stranger = foreignTo[provisioner].find((field) => wanted[field] !== undefined);
  if (stranger) return invalid(stranger, belongsTo[stranger]);
  if (frontEndUrl !== undefined && !isFrontEndTemplate(frontEndUrl)) {
    return invalid(
      'frontEndUrl',
      'must be an http or https address of at most 512 characters that contains {instanceId}',
    );
  }
  if (provisioner === 'module' && wanted.modulePath === undefined) {
    return invalid('modulePath', 'is required for the provisioner module: the path of your module');
  }
  if (provisioner !== 'http') return undefined;
  if (httpUrl === undefined) {
    return invalid('httpUrl', 'is required for the provisioner http: the address of your backend');
  }
  if (!isBaseUrl(httpUrl)) {
    return invalid(
      'httpUrl',
      'must be an http or https address without user, query and fragment, like https://backend.example.com/latchkey',
    );
  }
  if (httpSecret !== undefined && !isWebhookSecret(httpSecret)) {
    return invalid('httpSecret', 'must be whsec_ followed by base64 of at least 24 bytes');
  }
  return undefined;
}

type Setting = 'httpUrl' | 'httpSecret' | 'frontEndUrl' | 'modulePath';

/** What a provisioner has nothing to do with. */
const foreignTo: Record<ProvisionerName, readonly Setting[]> = {
  'postgres-schema': ['httpUrl', 'httpSecret', 'modulePath'],
  http: ['frontEndUrl', 'modulePath'],
  module: ['httpUrl', 'httpSecret', 'frontEndUrl'],
  manual: ['httpUrl', 'httpSecret', 'frontEndUrl', 'modulePath'],
};

const belongsTo: Record<Setting, string> = {
  httpUrl: 'belongs to the provisioner http only',
  httpSecret: 'belongs to the provisioner http only',
  frontEndUrl:
    'belongs to the provisioner postgres-schema only; with http the backend answers with it',
  modulePath: 'belongs to the provisioner module only',
};

async function findModuleProblem({ modulePath }: NewProduct): Promise<Invalid | undefined> {
  if (modulePath === undefined) return undefined;
  const loading = await loadSellerModule(modulePath);
  return loading.kind === 'loaded'
    ? undefined
    : { kind: 'invalid', field: 'modulePath', problem: loading.problem };
}

function parseHttpUrl(text: string): URL | undefined {
  if (!URL.canParse(text)) return undefined;
  const url = new URL(text);
  return url.protocol === 'http:' || url.protocol === 'https:' ? url : undefined;
}

/** Paths are appended to it, and it is shown to people: so no query, and no password. */
function isBaseUrl(text: string): boolean {
  const url = parseHttpUrl(text);
  if (!url || text.length > 2_000 || /\s/.test(text)) return false;
  return !text.includes('?') && !text.includes('#') && url.username === '' && url.password === '';
}

function isFrontEndTemplate(text: string): boolean {
  if (!text.includes('{instanceId}') || text.length > 512 || /\s/.test(text)) return false;
  const url = parseHttpUrl(text.replaceAll('{instanceId}', 'x'));
  return url !== undefined && url.password === '';
}

function isWebhookSecret(text: string): boolean {
  const encoded = /^whsec_([A-Za-z0-9+/]+={0,2})$/.exec(text)?.[1];
  if (encoded === undefined || encoded.length % 4 !== 0) return false;
  return Buffer.from(encoded, 'base64').length >= 24;
}

function hasControls(text: string): boolean {
  return /\p{Cc}/u.test(text);
}
