import { Command, InvalidArgumentError, Option } from '@commander-js/extra-typings';
import { apiScopes } from '../../db/api-scopes.ts';
import { CommandFailure, unknownProduct } from '../failure.ts';

export function apiKeyCommand() {
  const command = new Command('api-key').description(
    "keys with which a seller's programs call /v1 about one product",
  );
  command.addCommand(addCommand());
  command.addCommand(listCommand());
  command.addCommand(retireCommand());
  return command;
}

function addCommand() {
  return new Command('add')
    .description('make a key and show it, this once')
    .argument('<product>', 'key of the product')
    .addOption(
      new Option('--scope <scope...>', 'what it may do').choices(apiScopes).makeOptionMandatory(),
    )
    .option('--json', 'print nothing but JSON')
    .addHelpText(
      'after',
      '\nExample:\n  $ npx latchkey api-key add shop --scope instances:complete instances:read',
    )
    .action(async (productKey, options) => {
      const { withContext } = await import('../context.ts');
      const { addApiKey } = await import('../../operations/add-api-key.ts');
      const { print } = await import('../output.ts');
      await withContext(async ({ config, db, actor }) => {
        const outcome = await addApiKey(
          { db, actor },
          { product: productKey, scopes: options.scope },
        );
        switch (outcome.kind) {
          case 'no-scope':
            throw new CommandFailure('--scope names no scope.', {
              next: 'npx latchkey api-key add --help',
              exitCode: 2,
            });
          case 'unknown-product':
            throw unknownProduct(productKey, outcome.known);
          case 'too-many':
            throw new CommandFailure(
              `The product ${productKey} has ${outcome.active.length} active keys (${outcome.active.join(', ')}), which is the most.`,
              {
                next: `npx latchkey api-key retire ${productKey} ${outcome.active[0] ?? 'KEY_ID'}`,
              },
            );
          case 'added': {
            const { secret, activeKeys } = outcome;
            const { id, scopes, createdAt } = outcome.key;
            const key = { id, product: productKey, scopes, createdAt, activeKeys, key: secret };
            print(key, options, () =>
              [
                `Added API key ${id} to ${productKey}: ${scopes.join(', ')}.`,
                '',
                `  ${secret}`,
                '',
                'It is not stored and cannot be shown again. To use it:',
                `  curl -H "Authorization: Bearer $KEY" ${config.PUBLIC_URL}/v1/instances`,
              ].join('\n'),
            );
          }
        }
      });
    });
}

function listCommand() {
  return new Command('list')
    .description("list a product's API keys, without the keys themselves")
    .argument('<product>', 'key of the product')
    .option('--json', 'print nothing but JSON')
    .addHelpText('after', '\nExample:\n  $ npx latchkey api-key list shop')
    .action(async (productKey, options) => {
      const { withContext } = await import('../context.ts');
      const { listApiKeys } = await import('../../db/api-keys.ts');
      const { findProduct, readProducts } = await import('../../db/products.ts');
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
        const keys = await listApiKeys(db, product.id);
        print({ product: productKey, keys }, options, () =>
          keys.length === 0
            ? `No API keys yet. Next:\n  npx latchkey api-key add ${productKey} --scope instances:read`
            : tableOf(
                ['id', 'scopes', 'added', 'last used', 'retired'],
                keys.map((each) => [
                  each.id,
                  each.scopes.join(', '),
                  each.createdAt,
                  each.lastUsedAt,
                  each.retiredAt,
                ]),
              ),
        );
      });
    });
}

function retireCommand() {
  return new Command('retire')
    .description('end an API key: the next call with it is refused')
    .argument('<product>', 'key of the product')
    .argument('<key-id>', 'number of the key, as api-key list shows it', parseKeyId)
    .option('--reason <text>', 'why, for the audit')
    .option('--json', 'print nothing but JSON')
    .addHelpText(
      'after',
      '\nExample:\n  $ npx latchkey api-key retire shop 3 --reason "it was in a log"',
    )
    .action(async (productKey, keyId, options) => {
      const { withContext } = await import('../context.ts');
      const { retireProductApiKey } = await import('../../operations/retire-api-key.ts');
      const { print, showTime } = await import('../output.ts');
      await withContext(async ({ db, actor }) => {
        const outcome = await retireProductApiKey(
          { db, actor },
          { product: productKey, keyId, reason: options.reason },
        );
        switch (outcome.kind) {
          case 'unknown-product':
            throw unknownProduct(productKey, outcome.known);
          case 'unknown-key':
            throw new CommandFailure(
              `The product ${productKey} has no API key ${keyId}. Active: ${outcome.active.join(', ') || 'none'}.`,
              { next: `npx latchkey api-key list ${productKey}` },
            );
          case 'already-retired':
            throw new CommandFailure(
              `API key ${keyId} was retired on ${showTime(outcome.key.retiredAt)} already.`,
              { next: `npx latchkey api-key list ${productKey}` },
            );
          case 'retired': {
            const { id, scopes, createdAt, retiredAt } = outcome.key;
            const { activeKeys } = outcome;
            print(
              { id, product: productKey, scopes, createdAt, retiredAt, activeKeys },
              options,
              () => `Retired API key ${id} of ${productKey}; ${activeKeys} active.`,
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
