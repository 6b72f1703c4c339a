import { Command } from '@commander-js/extra-typings';
import type { RedriveScope } from '../../operations/redrive.ts';
import { CommandFailure, unknownProduct } from '../failure.ts';

export function deadLetterCommand() {
  const command = new Command('dead-letter').description(
    'dead letters: instances whose attempts ended without success',
  );
  command.addCommand(listCommand());
  command.addCommand(redriveCommand());
  return command;
}

function listCommand() {
  return new Command('list')
    .description('list dead letters and count them by cause')
    .option('--product <key>', 'only of this product')
    .option('--order <id>', 'only of this order')
    .option('--json', 'print nothing but JSON')
    .addHelpText('after', '\nExample:\n  $ npx latchkey dead-letter list --product shop')
    .action(async (options) => {
      const { withContext } = await import('../context.ts');
      const { countDeadLetters, listDeadLetters } = await import('../../db/dead-letters.ts');
      const { findProduct, readProducts } = await import('../../db/products.ts');
      const { print, tableOf } = await import('../output.ts');
      await withContext(async ({ db }) => {
        const { product, order } = options;
        if (product !== undefined && !(await findProduct(db, product))) {
          const known = await readProducts(db);
          throw unknownProduct(
            product,
            known.map((each) => each.key),
          );
        }
        const [causes, deadLetters] = await Promise.all([
          countDeadLetters(db, { product, order }),
          listDeadLetters(db, { product, order }),
        ]);
        const total = causes.reduce((sum, each) => sum + each.count, 0);
        print({ total, causes, deadLetters }, options, () =>
          total === 0
            ? 'Nothing is dead.'
            : [
                tableOf(
                  ['product', 'cause', 'count'],
                  causes.map((each) => [each.product, each.cause, each.count]),
                ),
                tableOf(
                  ['product', 'order', 'instance', 'cause', 'attempts', 'since', 'open'],
                  deadLetters.map((each) => [
                    each.product,
                    each.orderId,
                    each.instanceId,
                    each.cause,
                    each.attempts,
                    each.since,
                    each.kinds.join(', '),
                  ]),
                ),
                ...(deadLetters.length < total
                  ? [
                      `The first ${deadLetters.length} of ${total}; --product and --order narrow it.`,
                    ]
                  : []),
                'Once the cause is gone:',
                '  npx latchkey dead-letter redrive --order ORDER --reason TEXT',
              ].join('\n'),
        );
      });
    });
}

function redriveCommand() {
  return new Command('redrive')
    .description('make dead letters due again, with their attempts counted afresh')
    .option('--product <key>', 'those of this product')
    .option('--order <id>', 'those of this order')
    .option('--all', 'all of them')
    .requiredOption('--reason <text>', 'why it will work now, for the audit')
    .option('--json', 'print nothing but JSON')
    .addHelpText(
      'after',
      '\nExample:\n  $ npx latchkey dead-letter redrive --product shop --reason "backend is up again"',
    )
    .action(async (options) => {
      const scope = scopeOf(options);
      const { withContext } = await import('../context.ts');
      const { redrive } = await import('../../operations/redrive.ts');
      const { print, tableOf } = await import('../output.ts');
      await withContext(async ({ db, actor }) => {
        const outcome = await redrive({ db, actor }, { scope, reason: options.reason });
        switch (outcome.kind) {
          case 'reason-missing':
            throw new CommandFailure('--reason is empty.', {
              next: 'Say in a few words why it will work now; the audit keeps it.',
              exitCode: 2,
            });
          case 'unknown-product':
            throw unknownProduct(options.product ?? '', outcome.known);
          case 'nothing-dead':
          case 'redriven': {
            const instances = outcome.kind === 'redriven' ? outcome.instances : [];
            const orders = [...new Set(instances.map((each) => each.orderId))];
            print({ redriven: instances.length, orders, instances }, options, () =>
              instances.length === 0
                ? 'Nothing of this is dead.'
                : [
                    tableOf(
                      ['product', 'order', 'instance', 'was dead of'],
                      instances.map((each) => [
                        each.product,
                        each.orderId,
                        each.instanceId,
                        each.cause,
                      ]),
                    ),
                    `${instances.length} due again. See how it goes:`,
                    `  npx latchkey order show ${orders[0] ?? 'ORDER'}`,
                  ].join('\n'),
            );
          }
        }
      });
    });
}

function scopeOf(options: {
  product?: string | undefined;
  order?: string | undefined;
  all?: true | undefined;
}): RedriveScope {
  const { product, order, all } = options;
  const next = 'npx latchkey dead-letter redrive --help';
  if (all === true) {
    if (product === undefined && order === undefined) return { all };
    throw new CommandFailure('--all goes neither with --product nor with --order.', {
      next,
      exitCode: 2,
    });
  }
  if (product !== undefined) return { product, order };
  if (order !== undefined) return { order };
  throw new CommandFailure('Say which dead letters: --product, --order or --all.', {
    next,
    exitCode: 2,
  });
}
