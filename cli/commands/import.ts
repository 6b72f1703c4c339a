import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { Command } from '@commander-js/extra-typings';
import type { ImportCounts } from '../../operations/import-instances.ts';
import { CommandFailure, unknownProduct } from '../failure.ts';
import { CsvError, readCsv } from '../read-csv.ts';

export function importCommand() {
  return new Command('import')
    .description('take over instances that buyers have already')
    .argument('<file>', 'CSV in UTF-8; the first line names the columns')
    .requiredOption('--product <key>', 'the product that they were bought of')
    .option('--dry-run', 'say what would be done, and which rows do not fit; write nothing')
    .option('--skip-bad', 'leave rows out that do not fit, instead of writing nothing')
    .option('--json', 'print nothing but JSON')
    .addHelpText(
      'after',
      [
        '',
        'Columns: instance_id, order_id, order_line_id; and as far as known product_id, sku_code, quantity,',
        '  charging_mode, expires_at, state (active, frozen, released), front_end_url, admin_url, user_name,',
        '  password, memo, license, applied_orders (scene:orderId/orderLineId, with spaces between).',
        '',
        'Examples:',
        '  $ npx latchkey import instances.csv --product crm --dry-run',
        '  $ npx latchkey import instances.csv --product crm',
        '',
        'It may be run again: what is there already stays as it is. Exit code 1 when rows do not fit.',
      ].join('\n'),
    )
    .action(async (file, options) => {
      const isFile = await stat(file).then(
        (found) => found.isFile(),
        () => false,
      );
      if (!isFile) throw new CommandFailure(`There is no file "${file}".`, { exitCode: 2 });
      const { withContext } = await import('../context.ts');
      const { importInstances } = await import('../../operations/import-instances.ts');
      const { print } = await import('../output.ts');
      const dryRun = options.dryRun === true;
      await withContext(async ({ db, actor, keyring }) => {
        const outcome = await importInstances(
          { db, actor, keyring: await keyring() },
          {
            product: options.product,
            open: () => readCsv(createReadStream(file)),
            dryRun,
            skipBad: options.skipBad === true,
          },
        ).catch((error: unknown) => {
          if (!(error instanceof CsvError)) throw error;
          throw new CommandFailure(`${file}, ${error.message}.`, {
            next: 'Correct the file and run it again: what was written stays, and is not written twice.',
          });
        });
        switch (outcome.kind) {
          case 'unknown-product':
            throw unknownProduct(options.product, outcome.known);
          case 'wrong-provisioner':
            throw new CommandFailure(
              `Instances of ${options.product} are made by ${outcome.provisioner}, here and nowhere else.`,
              { next: 'Import into a product of the provisioner http, module or manual.' },
            );
          case 'bad-header':
            throw new CommandFailure(`${file}: ${outcome.problem}.`, {
              next: 'npx latchkey import --help',
              exitCode: 2,
            });
          case 'imported':
          case 'checked':
          case 'misfits': {
            const { kind, ...counts } = outcome;
            const ok = counts.misfits.length === 0 || options.skipBad === true;
            const isWritten = kind === 'imported';
            const shown = { ok, product: options.product, dryRun, written: isWritten, ...counts };
            print(shown, options, () => describe(counts, { isWritten, ok }));
            if (!ok) process.exitCode = 1;
          }
        }
      });
    });
}

function describe(counts: ImportCounts, how: { isWritten: boolean; ok: boolean }): string {
  const { rows, imported, alreadyThere, differing, misfits } = counts;
  return [
    ...misfits.map(({ line, reason }) => `line ${line}: ${reason}`),
    ...differing.map(
      ({ line, columns }) => `line ${line}: is there already, with another ${columns.join(', ')}`,
    ),
    `${rows} rows: ${imported} ${how.isWritten ? 'taken over' : 'would be taken over'}, ` +
      `${alreadyThere} there already, ${differing.length} there already and different (left as they are), ` +
      `${misfits.length} that do not fit.`,
    ...(how.ok
      ? []
      : ['Nothing was written. Correct these rows, or leave them out with --skip-bad.']),
  ].join('\n');
}
