import { Command, InvalidArgumentError, Option } from '@commander-js/extra-typings';
import { keyClasses } from '../../db/key-classes.ts';
import { CommandFailure, unknownProduct } from '../failure.ts';

export function keyCommand() {
  const command = new Command('key').description('keys: what the marketplace signs callbacks with');
  command.addCommand(addCommand());
  command.addCommand(listCommand());
  command.addCommand(retireCommand());
  return command;
}

function addCommand() {
  return new Command('add')
    .description('add a key; the others stay active')
    .argument('<product>', 'key of the product')
    .addOption(
      new Option('--class <class>', 'class of interface that the key is bound to')
        .choices(keyClasses)
        .makeOptionMandatory(),
    )
    .option(
      '--id <ak>',
      'open-api: the access key id (AK); its secret (SK) comes by --secret-stdin',
    )
    .option('--secret-stdin', 'read the secret from standard input')
    .option('--json', 'print nothing but JSON')
    .addHelpText(
      'after',
      [
        '',
        'Examples:',
        '  $ printf %s "$KEY" | npx latchkey key add shop --class base --secret-stdin',
        '  $ printf %s "$SK" | npx latchkey key add shop --class open-api --id "$AK" --secret-stdin',
      ].join('\n'),
    )
    .action(async (productKey, options) => {
      const { readSecretFromStdin } = await import('../stdin.ts');
      const example = `printf %s "$KEY" | npx latchkey key add ${productKey} --class ${options.class} --secret-stdin`;
      if (!options.secretStdin) {
        throw new CommandFailure('The secret of the key is missing; it comes by --secret-stdin.', {
          next: example,
          exitCode: 2,
        });
      }
      const secret = await readSecretFromStdin('secret', example);
      const { withContext } = await import('../context.ts');
      const { addKey } = await import('../../operations/add-key.ts');
      const { print } = await import('../output.ts');
      await withContext(async ({ db, actor, keyring }) => {
        const outcome = await addKey(
          { db, actor, keyring: await keyring() },
          { product: productKey, class: options.class, accessKeyId: options.id, secret },
        );
        switch (outcome.kind) {
          case 'invalid':
            throw new CommandFailure(`The secret ${outcome.problem}.`, {
              next: 'Copy the key once more from the marketplace.',
              exitCode: 2,
            });
          case 'invalid-id':
            throw new CommandFailure(`--id ${outcome.problem}.`, {
              next: 'npx latchkey key add --help',
              exitCode: 2,
            });
          case 'unknown-product':
            throw unknownProduct(productKey, outcome.known);
          case 'known-secret':
            throw new CommandFailure(
              `This secret is active already: key ${outcome.key.id}, class ${outcome.key.class}.`,
              { next: `npx latchkey key list ${productKey}` },
            );
          case 'too-many':
            throw new CommandFailure(
              `The product ${productKey} has ${outcome.activeKeys} active keys, which is the most.`,
              { next: `npx latchkey key retire ${productKey} KEY_ID` },
            );
          case 'added': {
            const { id, class: keyClass, accessKeyId, createdAt, retiredAt } = outcome.key;
            const { activeKeys } = outcome;
            const key = {
              id,
              product: productKey,
              class: keyClass,
              ...(accessKeyId === null ? {} : { accessKeyId }),
              createdAt,
              retiredAt,
              activeKeys,
            };
            print(key, options, () =>
              [
                `Added key ${id} (${keyClass}) to ${productKey}; ${activeKeys} active.`,
                ...(keyClass === 'open-api'
                  ? [
                      'Orders are looked up with it once the address is set:',
                      `  npx latchkey product set ${productKey} --open-api-url https://mkt.myhuaweicloud.com`,
                    ]
                  : activeKeys > 1
                    ? [
                        'Once the marketplace signs with it, retire the old one:',
                        `  npx latchkey key retire ${productKey} KEY_ID`,
                      ]
                    : ['Next, check the installation:', '  npx latchkey doctor']),
              ].join('\n'),
            );
          }
        }
      });
    });
}

function listCommand() {
  return new Command('list')
    .description("list a product's keys, without their secrets")
    .argument('<product>', 'key of the product')
    .option('--json', 'print nothing but JSON')
    .addHelpText('after', '\nExample:\n  $ npx latchkey key list shop')
    .action(async (productKey, options) => {
      const { withContext } = await import('../context.ts');
      const { findProduct, listKeys, readProducts } = await import('../../db/products.ts');
      const { print, tableOf } = await import('../output.ts');
      await withContext(async ({ db }) => {
        const product = await findProduct(db, productKey);
        if (!product) {
          const known = await readProducts(db);
          throw unknownProduct(
            productKey,
            known.map((each) => each.key),
          );
        }
        const keys = (await listKeys(db, product.id)).map(
          ({ id, class: keyClass, createdAt, retiredAt }) => ({
            id,
            class: keyClass,
            createdAt,
            retiredAt,
          }),
        );
        print({ product: productKey, keys }, options, () =>
          keys.length === 0
            ? `No keys yet. Next:\n  printf %s "$KEY" | npx latchkey key add ${productKey} --class base --secret-stdin`
            : tableOf(
                ['id', 'class', 'added', 'retired'],
                keys.map((each) => [each.id, each.class, each.createdAt, each.retiredAt]),
              ),
        );
      });
    });
}

function retireCommand() {
  return new Command('retire')
    .description('end a key: what is signed with it is refused from now on')
    .argument('<product>', 'key of the product')
    .argument('<key-id>', 'number of the key, as key list shows it', parseKeyId)
    .option('--force', 'retire the last active key too')
    .option('--reason <text>', 'why, for the audit')
    .option('--json', 'print nothing but JSON')
    .addHelpText(
      'after',
      '\nExample:\n  $ npx latchkey key retire shop 3 --reason "changed yearly"',
    )
    .action(async (productKey, keyId, options) => {
      const { withContext } = await import('../context.ts');
      const { retireProductKey } = await import('../../operations/retire-key.ts');
      const { print, showTime } = await import('../output.ts');
      await withContext(async ({ db, actor }) => {
        const outcome = await retireProductKey(
          { db, actor },
          {
            product: productKey,
            keyId,
            reason: options.reason,
            force: options.force === true,
          },
        );
        switch (outcome.kind) {
          case 'unknown-product':
            throw unknownProduct(productKey, outcome.known);
          case 'unknown-key':
            throw new CommandFailure(
              `The product ${productKey} has no key ${keyId}. Active: ${outcome.active.join(', ') || 'none'}.`,
              { next: `npx latchkey key list ${productKey}` },
            );
          case 'already-retired':
            throw new CommandFailure(
              `Key ${keyId} was retired on ${showTime(outcome.key.retiredAt)} already.`,
              { next: `npx latchkey key list ${productKey}` },
            );
          case 'last-key':
            throw new CommandFailure(
              `Key ${keyId} is the last active key of ${productKey}; without it every callback is refused.`,
              { next: 'Add the new key first, or say --force.' },
            );
          case 'retired': {
            const { id, class: keyClass, createdAt, retiredAt } = outcome.key;
            const { activeKeys } = outcome;
            const key = {
              id,
              product: productKey,
              class: keyClass,
              createdAt,
              retiredAt,
              activeKeys,
            };
            print(
              key,
              options,
              () => `Retired key ${id} (${keyClass}) of ${productKey}; ${activeKeys} active.`,
            );
          }
        }
      });
    });
}

function parseKeyId(text: string): number {
  if (!/^[1-9]\d{0,8}$/.test(text)) throw new InvalidArgumentError('A key is named by its number.');
  return Number(text);
}
