import { writeAudit } from '../db/audit.ts';
import { type ProductRow, lockProduct, readProducts, updateProduct } from '../db/products.ts';
import type { Actor } from './actor.ts';

/** How a product answers and ends; each may be left out and stays what it is. */
export type ProductRules = {
  /** What a buyer who wants to change is answered; `ask` asks the seller's backend. */
  changeRule?: ProductRow['changeRule'] | undefined;
  /** What he is answered when the backend does not say it in time. */
  checkOnFailure?: ProductRow['checkOnFailure'] | undefined;
  /** Only for postgres-schema: days between a release and the loss of what the tenant holds. */
  releaseGraceDays?: number | undefined;
};

export type SetProductRulesOutcome =
  | { kind: 'set'; product: ProductRow }
  | { kind: 'unknown-product'; known: string[] }
  | InvalidRules;

export type InvalidRules = { kind: 'invalid'; field: keyof ProductRules; problem: string };

const releaseGraceDaysMax = 3_650;

/** @returns undefined when a product of this provisioner can have these rules */
export function findRulesProblem(
  provisioner: ProductRow['provisioner'],
  rules: ProductRules,
): InvalidRules | undefined {
  const { changeRule, checkOnFailure, releaseGraceDays } = rules;
  const invalid = (field: keyof ProductRules, problem: string): InvalidRules => ({
    kind: 'invalid',
    field,
    problem,
  });
  if (changeRule === 'ask' && provisioner !== 'http') {
    return invalid(
      'changeRule',
      'ask belongs to the provisioner http only: there is nobody to ask',
    );
  }
  if (checkOnFailure !== undefined && provisioner !== 'http') {
    return invalid('checkOnFailure', 'belongs to the provisioner http only');
  }
  if (releaseGraceDays === undefined) return undefined;
  if (provisioner !== 'postgres-schema') {
    return invalid('releaseGraceDays', 'belongs to the provisioner postgres-schema only');
  }
  const isFit =
    Number.isInteger(releaseGraceDays) &&
    releaseGraceDays >= 0 &&
    releaseGraceDays <= releaseGraceDaysMax;
  return isFit
    ? undefined
    : invalid('releaseGraceDays', `must be a whole number from 0 to ${releaseGraceDaysMax}`);
}

/** Changes rules of a product; what was released before keeps the time that it was given. */
export async function setProductRules(
  { db, actor }: Actor,
  wanted: { product: string; rules: ProductRules },
): Promise<SetProductRulesOutcome> {
  return db.transaction(async (tx): Promise<SetProductRulesOutcome> => {
    const product = await lockProduct(tx, wanted.product);
    if (!product) {
      const products = await readProducts(tx);
      return { kind: 'unknown-product', known: products.map((each) => each.key) };
    }
    const invalid = findRulesProblem(product.provisioner, wanted.rules);
    if (invalid) return invalid;
    const { changeRule, checkOnFailure, releaseGraceDays } = product;
    const rules = definedOf(wanted.rules);
    const set = await updateProduct(tx, product.id, rules);
    await writeAudit(tx, {
      actor,
      act: 'product.set',
      subject: `product/${product.key}`,
      detail: { ...rules, before: { changeRule, checkOnFailure, releaseGraceDays } },
    });
    return { kind: 'set', product: set };
  });
}

/** A column that is left out stays; one that is undefined too, but says so to nobody. */
export function definedOf(rules: ProductRules) {
  const { changeRule, checkOnFailure, releaseGraceDays } = rules;
  return {
    ...(changeRule === undefined ? {} : { changeRule }),
    ...(checkOnFailure === undefined ? {} : { checkOnFailure }),
    ...(releaseGraceDays === undefined ? {} : { releaseGraceDays }),
  };
}
