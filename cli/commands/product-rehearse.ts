import { Command } from '@commander-js/extra-typings';
import { debugCasesOf } from '../../core/debug-cases.ts';
import { CommandFailure, unknownProduct } from '../failure.ts';

export function rehearseCommand() {
  return new Command('rehearse')
    .description("play the marketplace's debugging calls against the product's own address")
    .argument('<key>', 'key of the product')
    .option(
      '--url <address>',
      'another address than PUBLIC_URL gives, as you would enter it in the console',
    )
    .option('--json', 'print nothing but JSON')
    .addHelpText(
      'after',
      [
        '',
        'The calls carry testFlag 1: nothing is bought, no instance is made, no backend is called.',
        '',
        'Examples:',
        '  $ npx latchkey product rehearse shop',
        '  $ npx latchkey product rehearse shop --url https://saas.example.com/callbacks/shop',
        '',
        'Exit code 1 when a check fails; warnings alone do not count.',
      ].join('\n'),
    )
    .action(async (key, options) => {
      const { withContext } = await import('../context.ts');
      const { findProduct, readActiveKeys, readProducts } = await import('../../db/products.ts');
      const { rehearse } = await import('../rehearse.ts');
      const { print } = await import('../output.ts');
      const { describeCheck } = await import('./doctor.ts');
      await withContext(async ({ config, db, keyring }) => {
        const product = await findProduct(db, key);
        if (!product) {
          const known = await readProducts(db);
          throw unknownProduct(
            key,
            known.map((each) => each.key),
          );
        }
        const callbackUrl = readAddress(options.url ?? `${config.PUBLIC_URL}/callbacks/${key}`);
        const cases = debugCasesOf(product.family, product.charging);
        if (cases === undefined || product.family !== 'saas-v2') {
          throw new CommandFailure(`The family ${product.family} is not rehearsed yet.`);
        }
        const keys = await readActiveKeys(db, product.id);
        const newest = keys.findLast((each) => each.class === 'base');
        if (!newest) {
          throw new CommandFailure(`The product ${key} has no active key to sign with.`, {
            next: `printf %s "$KEY" | npx latchkey key add ${key} --class base --secret-stdin`,
          });
        }
        const ring = await keyring();
        const place = `product_keys/secret_enc/${newest.id}`;
        const secret = await ring.open(newest.secretEnc, place);
        const checks = await rehearse({
          callbackUrl,
          accessKey: secret.toString('utf8'),
          cases,
          now: Date.now,
        });
        const nameWidth = Math.max(...checks.map(({ name }) => name.length));
        const failed = checks.filter((each) => each.status === 'fail').length;
        const warned = checks.filter((each) => each.status === 'warn').length;
        const shown = {
          ok: failed === 0,
          product: key,
          callbackUrl,
          keyId: newest.id,
          failed,
          warned,
          checks,
        };
        print(shown, options, () =>
          [
            `${callbackUrl}, signed with key ${newest.id}`,
            '',
            ...checks.map((each) => describeCheck(each, nameWidth)),
            '',
            failed === 0
              ? 'The address is ready to be debugged in the console.'
              : `${failed} failed, ${warned} warned.`,
          ].join('\n'),
        );
        if (failed > 0) process.exitCode = 1;
      });
    });
}

function readAddress(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url?.protocol !== 'https:' && url?.protocol !== 'http:') {
    throw new CommandFailure('--url must be an address that begins with https:// or http://.', {
      next: 'npx latchkey product rehearse --help',
      exitCode: 2,
    });
  }
  return text;
}
