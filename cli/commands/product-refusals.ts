import { Command } from '@commander-js/extra-typings';
import { unknownProduct } from '../failure.ts';

const kindsMax = 50;

export function refusalsCommand() {
  return new Command('refusals')
    .description('show which calls were refused in the last seven days, and why')
    .argument('<key>', 'key of the product')
    .option('--json', 'print nothing but JSON')
    .addHelpText(
      'after',
      [
        '',
        'A sample: equal refusals are counted together, and the calls themselves are not kept.',
        '',
        'Example:',
        '  $ npx latchkey product refusals shop',
      ].join('\n'),
    )
    .action(async (key, options) => {
      const { withContext } = await import('../context.ts');
      const { findProduct, readActiveKeys, readProducts } = await import('../../db/products.ts');
      const { readRefusals } = await import('../../db/refusals.ts');
      const { print, showTime, tableOf } = await import('../output.ts');
      await withContext(async ({ db }) => {
        const product = await findProduct(db, key);
        if (!product) {
          const known = await readProducts(db);
          throw unknownProduct(
            key,
            known.map((each) => each.key),
          );
        }
        const keys = await readActiveKeys(db, product.id);
        const activeKeys = keys.filter((each) => each.class === 'base').length;
        const refusals = await readRefusals(db.pool, product.id, kindsMax);
        print({ product: key, activeKeys, refusals }, options, () =>
          refusals.length === 0
            ? `No call of ${key} was refused in the last seven days. Active keys: ${activeKeys}.`
            : [
                tableOf(
                  ['last', 'first', 'times', 'answered', 'why'],
                  refusals.map((each) => [
                    showTime(each.lastAt),
                    showTime(each.firstAt),
                    each.times,
                    each.resultCode,
                    each.reason,
                  ]),
                ),
                `Active keys: ${activeKeys}.`,
              ].join('\n'),
        );
      });
    });
}
