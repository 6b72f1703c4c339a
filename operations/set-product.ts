import { writeAudit } from '../db/audit.ts';
import { makeLookUpsDue } from '../db/look-ups.ts';
import {
  type ProductRow,
  lockProduct,
  readActiveKeys,
  readProducts,
  updateProduct,
} from '../db/products.ts';
import type { Actor } from './actor.ts';

export type SetProductOutcome =
  /** `lookUpsDue`: instances that waited for the marketplace's order and go on now. */
  | { kind: 'set'; product: ProductRow; lookUpsDue: number; hasAccessKey: boolean }
  | { kind: 'unknown-product'; known: string[] }
  | { kind: 'invalid'; problem: string };

/**
 * Connects a product to the marketplace's API, from which a purchase's plan, period and buyer are
 * read, or takes the connection away: then a purchase stands for itself.
 *
 * @param wanted.openApiUrl null for none
 */
export async function setProduct(
  { db, actor }: Actor,
  wanted: { product: string; openApiUrl: string | null },
): Promise<SetProductOutcome> {
  const problem = wanted.openApiUrl === null ? undefined : findProblem(wanted.openApiUrl);
  if (problem !== undefined) return { kind: 'invalid', problem };
  const openApiUrl = wanted.openApiUrl?.replace(/\/+$/, '') ?? null;
  return db.transaction(async (tx): Promise<SetProductOutcome> => {
    const product = await lockProduct(tx, wanted.product);
    if (!product) {
      const products = await readProducts(tx);
      return { kind: 'unknown-product', known: products.map((each) => each.key) };
    }
    const set = await updateProduct(tx, product.id, { openApiUrl });
    const keys = await readActiveKeys(tx, product.id);
    const hasAccessKey = keys.some((key) => key.class === 'open-api');
    const canAsk = openApiUrl !== null && hasAccessKey;
    const isOff = openApiUrl === null;
    const lookUpsDue =
      canAsk || isOff ? await makeLookUpsDue(tx, product.id, isOff ? 'all' : 'parked') : 0;
    await writeAudit(tx, {
      actor,
      act: 'product.set',
      subject: `product/${product.key}`,
      detail: { openApiUrl, before: product.openApiUrl, lookUpsDue },
    });
    return { kind: 'set', product: set, lookUpsDue, hasAccessKey };
  });
}

function findProblem(text: string): string | undefined {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (!url || text.length > 500 || /\s/.test(text)) {
    return 'must be an address like https://mkt.myhuaweicloud.com';
  }
  const isLoopback = /^(?:127(?:\.\d+){3}|localhost|\[::1\])$/.test(url.hostname);
  if (url.protocol !== 'https:' && !(url.protocol === 'http:' && isLoopback)) {
    return 'must begin with https:// (http:// is for a simulator on this machine)';
  }
  if (url.username !== '' || url.password !== '' || text.includes('?') || text.includes('#')) {
    return 'must have no user, query and fragment';
  }
  // The signature covers the path as it is written, and the gateway would encode it once more.
  if (!/^[\w./~-]*$/.test(url.pathname)) return 'must have a path of plain letters and digits';
  return undefined;
}
