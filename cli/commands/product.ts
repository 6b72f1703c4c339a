import { Command, Option } from '@commander-js/extra-typings';
import { provisionerNames } from '../../core/provisioner.ts';
import type { KeyRow, ProductRow } from '../../db/products.ts';
import type { NewProduct } from '../../operations/add-product.ts';
import { CommandFailure, unknownProduct } from '../failure.ts';
import { checkCommand } from './product-check.ts';
import { pauseCommand, resumeCommand } from './product-pause.ts';
import { refusalsCommand } from './product-refusals.ts';
import { rehearseCommand } from './product-rehearse.ts';
import {
  listRules,
  readDays,
  ruleOptionOf,
  rulesOf,
  setRules,
  showRules,
} from './product-rules.ts';
import { secretCommand } from './product-secret.ts';

export function productCommand() {
  const command = new Command('product').description(
    'products: what is sold through the marketplace',
  );
  command.addCommand(addCommand());
  command.addCommand(listCommand());
  command.addCommand(showCommand());
  command.addCommand(setCommand());
  command.addCommand(secretCommand());
  command.addCommand(checkCommand());
  command.addCommand(pauseCommand());
  command.addCommand(resumeCommand());
  command.addCommand(refusalsCommand());
  command.addCommand(rehearseCommand());
  return command;
}

function addCommand() {
  return new Command('add')
    .description('add a product and its address for the marketplace')
    .argument('<key>', 'name in the address: lower-case letters, digits and hyphens')
    .requiredOption('--name <name>', 'name for people')
    .addOption(
      new Option('--provisioner <how>', 'what makes purchases real')
        .choices(provisionerNames)
        .makeOptionMandatory(),
    )
    .option('--http-url <url>', 'http: base address of your backend')
    .option('--http-secret-stdin', 'http: read whsec_… from standard input; else one is made')
    .option('--front-end-url <template>', 'postgres-schema: where buyers go, with {instanceId}')
    .option('--module <path>', 'module: absolute path of your ES module')
    .addOption(
      new Option('--change-rule <rule>', 'what a buyer who wants to change is answered').choices([
        'allow',
        'refuse',
        'ask',
      ] as const),
    )
    .addOption(
      new Option(
        '--check-on-failure <answer>',
        'with ask: when your backend does not answer in 2 s',
      ).choices(['allow', 'refuse'] as const),
    )
    .option(
      '--release-grace-days <days>',
      'postgres-schema: how long data outlives a release (0: dropped at once)',
      readDays,
    )
    .option('--json', 'print nothing but JSON')
    .addHelpText(
      'after',
      [
        '',
        'Examples:',
        '  $ npx latchkey product add shop --name "My shop" --provisioner postgres-schema \\',
        '      --front-end-url "https://shop.example.com/t/{instanceId}"',
        '  $ printf %s "$WEBHOOK_SECRET" | npx latchkey product add crm --name CRM --provisioner http \\',
        '      --http-url https://crm.example.com/latchkey --http-secret-stdin',
      ].join('\n'),
    )
    .action(async (key, options) => {
      const { readSecretFromStdin } = await import('../stdin.ts');
      const httpSecret = options.httpSecretStdin
        ? await readSecretFromStdin(
            'webhook secret',
            `printf %s "$WEBHOOK_SECRET" | npx latchkey product add ${key} … --http-secret-stdin`,
          )
        : undefined;
      const { withContext } = await import('../context.ts');
      const { addProduct } = await import('../../operations/add-product.ts');
      const { print, listOf } = await import('../output.ts');
      await withContext(async ({ config, db, actor, keyring }) => {
        const { name, provisioner, httpUrl, frontEndUrl } = options;
        const wanted = {
          key,
          name,
          provisioner,
          httpUrl,
          httpSecret,
          frontEndUrl,
          modulePath: options.module,
          ...rulesOf(options),
        };
        const outcome = await addProduct({ db, actor, keyring: await keyring() }, wanted);
        switch (outcome.kind) {
          case 'invalid':
            throw new CommandFailure(`${optionOf[outcome.field]} ${outcome.problem}.`, {
              next: 'npx latchkey product add --help',
              exitCode: 2,
            });
          case 'exists':
            throw new CommandFailure(`The product "${outcome.key}" exists already.`, {
              next: `npx latchkey product show ${outcome.key}`,
            });
          case 'added': {
            const { product, generatedSecret } = outcome;
            const shown = {
              ...showProduct(product, config.PUBLIC_URL, 0),
              ...(generatedSecret === null ? {} : { generatedHttpSecret: generatedSecret }),
            };
            print(shown, options, () =>
              [
                `Added the product ${product.key}.`,
                '',
                listOf([
                  ['Address for the marketplace', shown.callbackUrl],
                  ...(generatedSecret === null
                    ? []
                    : ([['Webhook secret, shown this once', generatedSecret]] as const)),
                ]),
                '',
                'Next, the key that the marketplace signs with:',
                `  printf %s "$KEY" | npx latchkey key add ${product.key} --class base --secret-stdin`,
              ].join('\n'),
            );
          }
        }
      });
    });
}

function listCommand() {
  return new Command('list')
    .description('list all products')
    .option('--json', 'print nothing but JSON')
    .addHelpText('after', '\nExample:\n  $ npx latchkey product list --json')
    .action(async (options) => {
      const { withContext } = await import('../context.ts');
      const { readActiveKeys, readProducts } = await import('../../db/products.ts');
      const { print, tableOf } = await import('../output.ts');
      await withContext(async ({ config, db }) => {
        const [rows, keys] = await Promise.all([readProducts(db), readActiveKeys(db)]);
        const products = rows.map((row) =>
          showProduct(
            row,
            config.PUBLIC_URL,
            keys.filter((each) => each.productId === row.id).length,
          ),
        );
        print({ products }, options, () =>
          products.length === 0
            ? 'No products yet. Next:\n  npx latchkey product add KEY --name NAME --provisioner postgres-schema'
            : tableOf(
                ['key', 'name', 'provisioner', 'active keys', 'address for the marketplace'],
                products.map((each) => [
                  each.key,
                  each.name,
                  each.provisioner,
                  each.activeKeys,
                  each.callbackUrl,
                ]),
              ),
        );
      });
    });
}

function showCommand() {
  return new Command('show')
    .description('show one product with its keys')
    .argument('<key>', 'key of the product')
    .option('--json', 'print nothing but JSON')
    .addHelpText('after', '\nExample:\n  $ npx latchkey product show shop')
    .action(async (key, options) => {
      const { withContext } = await import('../context.ts');
      const { findProduct, listKeys, readProducts } = await import('../../db/products.ts');
      const { print, listOf, showTime } = await import('../output.ts');
      await withContext(async ({ config, db }) => {
        const row = await findProduct(db, key);
        if (!row) {
          const known = await readProducts(db);
          throw unknownProduct(
            key,
            known.map((each) => each.key),
          );
        }
        const keys = await listKeys(db, row.id);
        const active = keys.filter((each) => each.retiredAt === null);
        const product = {
          ...showProduct(row, config.PUBLIC_URL, active.length),
          keys: keys.map(showKey),
        };
        print(product, options, () =>
          listOf([
            ['Key', product.key],
            ['Name', product.name],
            ['Address for the marketplace', product.callbackUrl],
            ['Provisioner', product.provisioner],
            ['Backend', product.httpUrl ?? '–'],
            ['Front end', product.frontEndUrl ?? '–'],
            ...listRules(row),
            ['Orders are looked up at', product.openApiUrl ?? '–'],
            [
              'Active keys',
              active.map((each) => `${each.id} (${each.class})`).join(', ') || 'none',
            ],
            ['Paused since', showTime(product.pausedAt)],
            ['Added', showTime(product.createdAt)],
          ]),
        );
      });
    });
}

function setCommand() {
  return new Command('set')
    .description('change how a product works; it counts within a second')
    .argument('<key>', 'key of the product')
    .option('--open-api-url <url>', "address of the marketplace's API, to look orders up")
    .option('--no-open-api', 'look no orders up: purchases stand for themselves')
    .addOption(
      new Option('--change-rule <rule>', 'what a buyer who wants to change is answered').choices([
        'allow',
        'refuse',
        'ask',
      ] as const),
    )
    .addOption(
      new Option(
        '--check-on-failure <answer>',
        'with ask: when your backend does not answer in 2 s',
      ).choices(['allow', 'refuse'] as const),
    )
    .option(
      '--release-grace-days <days>',
      'postgres-schema: how long data outlives a release (0: dropped at once)',
      readDays,
    )
    .option('--json', 'print nothing but JSON')
    .addHelpText(
      'after',
      [
        '',
        'Examples:',
        '  $ npx latchkey product set shop --open-api-url https://mkt.myhuaweicloud.com',
        '  $ npx latchkey product set crm --change-rule ask --check-on-failure refuse',
      ].join('\n'),
    )
    .action(async (key, options) => {
      // Commander has --no-open-api make openApi false, and true without it.
      const isOff = !options.openApi;
      const rules = rulesOf(options);
      if (rules && !isOff && options.openApiUrl === undefined) return setRules(key, rules, options);
      if (rules || isOff === (options.openApiUrl !== undefined)) {
        throw new CommandFailure('Say one of --open-api-url URL, --no-open-api and the rules.', {
          next: 'npx latchkey product set --help',
          exitCode: 2,
        });
      }
      const { withContext } = await import('../context.ts');
      const { setProduct } = await import('../../operations/set-product.ts');
      const { print } = await import('../output.ts');
      await withContext(async ({ db, actor }) => {
        const outcome = await setProduct(
          { db, actor },
          { product: key, openApiUrl: options.openApiUrl ?? null },
        );
        switch (outcome.kind) {
          case 'unknown-product':
            throw unknownProduct(key, outcome.known);
          case 'invalid':
            throw new CommandFailure(`--open-api-url ${outcome.problem}.`, { exitCode: 2 });
          case 'set': {
            const { product, lookUpsDue, hasAccessKey } = outcome;
            const { openApiUrl } = product;
            const set = { product: key, openApiUrl, hasAccessKey, lookUpsDue };
            print(set, options, () =>
              [
                openApiUrl === null
                  ? `Orders of ${key} are not looked up.`
                  : `Orders of ${key} are looked up at ${openApiUrl}.`,
                ...(lookUpsDue > 0 ? [`Instances that waited and go on now: ${lookUpsDue}.`] : []),
                ...(openApiUrl !== null && !hasAccessKey
                  ? [
                      'Next, the access key (AK and SK) to ask with:',
                      `  printf %s "$SK" | npx latchkey key add ${key} --class open-api --id "$AK" --secret-stdin`,
                    ]
                  : []),
              ].join('\n'),
            );
          }
        }
      });
    });
}

const optionOf: Record<keyof NewProduct, string> = {
  key: 'The key of the product',
  name: '--name',
  provisioner: '--provisioner',
  httpUrl: '--http-url',
  httpSecret: 'The webhook secret',
  frontEndUrl: '--front-end-url',
  modulePath: '--module',
  ...ruleOptionOf,
};

function showProduct(row: ProductRow, publicUrl: string, activeKeys: number) {
  return {
    key: row.key,
    name: row.name,
    family: row.family,
    provisioner: row.provisioner,
    httpUrl: row.httpUrl,
    frontEndUrl: row.frontEndUrl,
    ...showRules(row),
    openApiUrl: row.openApiUrl,
    callbackUrl: `${publicUrl}/callbacks/${row.key}`,
    activeKeys,
    pausedAt: row.pausedAt,
    createdAt: row.createdAt,
  };
}

function showKey({ id, class: keyClass, createdAt, retiredAt }: KeyRow) {
  return { id, class: keyClass, createdAt, retiredAt };
}
