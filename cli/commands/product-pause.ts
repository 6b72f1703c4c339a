import { Command } from '@commander-js/extra-typings';
import { CommandFailure, unknownProduct } from '../failure.ts';

// The whole of a product's work, stopped and let go on; the marketplace notices nothing of it.

export function pauseCommand() {
  return new Command('pause')
    .description('apply nothing of a product; callbacks are acknowledged and stored as ever')
    .argument('<key>', 'key of the product')
    .option('--reason <text>', 'why, for the audit', '')
    .option('--json', 'print nothing but JSON')
    .addHelpText('after', exampleOf('pause shop --reason "the backend is being moved"'))
    .action(async (key, options) => {
      const { withContext } = await import('../context.ts');
      const { pauseProduct } = await import('../../operations/pause-product.ts');
      const { print, showTime } = await import('../output.ts');
      await withContext(async ({ db, actor }) => {
        const wanted = { product: key, reason: options.reason };
        const outcome = await pauseProduct({ db, actor }, wanted);
        switch (outcome.kind) {
          case 'reason-missing':
            throw reasonMissing();
          case 'unknown-product':
            throw unknownProduct(key, outcome.known);
          case 'paused-before':
            throw new CommandFailure(
              `The product "${key}" is paused since ${showTime(outcome.pausedAt)}.`,
              { next: `npx latchkey product resume ${key} --reason TEXT` },
            );
          case 'paused': {
            const { product, pausedAt, inFlight } = outcome;
            print({ product, pausedAt, inFlight }, options, () =>
              [
                `Paused ${product}; ${inFlight} that had begun before end by themselves.`,
                'Purchases wait now, and the marketplace refunds what waits too long. To go on:',
                `  npx latchkey product resume ${product} --reason TEXT`,
              ].join('\n'),
            );
          }
        }
      });
    });
}

export function resumeCommand() {
  return new Command('resume')
    .description('go on with a paused product, with what came meanwhile at once')
    .argument('<key>', 'key of the product')
    .option('--reason <text>', 'why, for the audit', '')
    .option('--json', 'print nothing but JSON')
    .addHelpText('after', exampleOf('resume shop --reason "the backend has moved"'))
    .action(async (key, options) => {
      const { withContext } = await import('../context.ts');
      const { resumeProduct } = await import('../../operations/pause-product.ts');
      const { print } = await import('../output.ts');
      await withContext(async ({ db, actor }) => {
        const wanted = { product: key, reason: options.reason };
        const outcome = await resumeProduct({ db, actor }, wanted);
        switch (outcome.kind) {
          case 'reason-missing':
            throw reasonMissing();
          case 'unknown-product':
            throw unknownProduct(key, outcome.known);
          case 'not-paused':
            throw new CommandFailure(`The product "${key}" is not paused.`, {
              next: `npx latchkey product show ${key}`,
            });
          case 'resumed': {
            const { product, due } = outcome;
            print({ product, due }, options, () => `${product} goes on; ${due} instances are due.`);
          }
        }
      });
    });
}

function reasonMissing(): CommandFailure {
  return new CommandFailure('--reason is empty.', {
    next: 'Say why in a few words; the audit keeps it.',
    exitCode: 2,
  });
}

function exampleOf(line: string): string {
  return `\nExample:\n  $ npx latchkey product ${line}`;
}
