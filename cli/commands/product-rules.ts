import { InvalidArgumentError } from '@commander-js/extra-typings';
import type { ProductRow } from '../../db/products.ts';
import type { ProductRules } from '../../operations/set-product-rules.ts';
import { CommandFailure, unknownProduct } from '../failure.ts';

export const ruleOptionOf: Record<keyof ProductRules, string> = {
  changeRule: '--change-rule',
  checkOnFailure: '--check-on-failure',
  releaseGraceDays: '--release-grace-days',
};

/** @returns the rules that were given; undefined when none was */
export function rulesOf(options: ProductRules): ProductRules | undefined {
  const { changeRule, checkOnFailure, releaseGraceDays } = options;
  const rules = { changeRule, checkOnFailure, releaseGraceDays };
  return Object.values(rules).some((rule) => rule !== undefined) ? rules : undefined;
}

export function readDays(text: string): number {
  if (!/^\d{1,4}$/.test(text)) throw new InvalidArgumentError('It is a whole number of days.');
  return Number(text);
}

export function showRules(row: ProductRow) {
  const { changeRule, checkOnFailure, releaseGraceDays, modulePath } = row;
  return { modulePath, changeRule, checkOnFailure, releaseGraceDays };
}

/** The lines for people; what means nothing to a product's provisioner is left out. */
export function listRules(row: ProductRow): (readonly [name: string, value: string])[] {
  const { provisioner, changeRule, checkOnFailure, releaseGraceDays, modulePath } = row;
  return [
    ...(modulePath === null ? [] : [['Module', modulePath] as const]),
    ['Changes', changeRule === 'ask' ? `ask, and ${checkOnFailure} without an answer` : changeRule],
    ...(provisioner === 'postgres-schema'
      ? [['Days kept after a release', String(releaseGraceDays)] as const]
      : []),
  ];
}

export async function setRules(
  key: string,
  rules: ProductRules,
  options: { json?: true | undefined },
): Promise<void> {
  const { withContext } = await import('../context.ts');
  const { setProductRules } = await import('../../operations/set-product-rules.ts');
  const { listOf, print } = await import('../output.ts');
  await withContext(async ({ db, actor }) => {
    const outcome = await setProductRules({ db, actor }, { product: key, rules });
    switch (outcome.kind) {
      case 'unknown-product':
        throw unknownProduct(key, outcome.known);
      case 'invalid':
        throw new CommandFailure(`${ruleOptionOf[outcome.field]} ${outcome.problem}.`, {
          next: `npx latchkey product show ${key}`,
          exitCode: 2,
        });
      case 'set': {
        const { product } = outcome;
        print({ product: key, ...showRules(product) }, options, () => listOf(listRules(product)));
      }
    }
  });
}
