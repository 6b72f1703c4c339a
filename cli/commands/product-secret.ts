import { Command, Option } from '@commander-js/extra-typings';
import { CommandFailure, unknownProduct } from '../failure.ts';

// A seller's backend changes its webhook secret without a call that it cannot verify.

export function secretCommand() {
  const command = new Command('secret').description(
    'webhook secrets: what signs the calls to your backend',
  );
  command.addCommand(addCommand());
  command.addCommand(retireCommand());
  return command;
}

function addCommand() {
  return new Command('add')
    .description('add the second secret: from now on both sign each call')
    .argument('<key>', 'key of the product')
    .option('--secret-stdin', 'read whsec_… from standard input; else one is made and shown once')
    .option('--json', 'print nothing but JSON')
    .addHelpText(
      'after',
      '\nExample:\n  $ printf %s "$WEBHOOK_SECRET" | npx latchkey product secret add crm --secret-stdin',
    )
    .action(async (key, options) => {
      const { readSecretFromStdin } = await import('../stdin.ts');
      const secret = options.secretStdin
        ? await readSecretFromStdin(
            'webhook secret',
            `printf %s "$WEBHOOK_SECRET" | npx latchkey product secret add ${key} --secret-stdin`,
          )
        : undefined;
      const { withContext } = await import('../context.ts');
      const { addWebhookSecret } = await import('../../operations/rotate-webhook-secret.ts');
      const { print } = await import('../output.ts');
      await withContext(async ({ db, actor, keyring }) => {
        const context = { db, actor, keyring: await keyring() };
        const outcome = await addWebhookSecret(context, { product: key, secret });
        switch (outcome.kind) {
          case 'unknown-product':
            throw unknownProduct(key, outcome.known);
          case 'not-http':
            throw notHttp(key, outcome.provisioner);
          case 'changed-meanwhile':
            throw changedMeanwhile(key);
          case 'invalid':
            throw new CommandFailure(`The webhook secret ${outcome.problem}.`, {
              next: `npx latchkey product secret add ${key}`,
              exitCode: 2,
            });
          case 'same-secret':
            throw new CommandFailure(`This secret signs already.`, {
              next: `npx latchkey product secret add ${key}`,
            });
          case 'two-already':
            throw new CommandFailure(`The product ${key} has two secrets, which is the most.`, {
              next: `npx latchkey product secret retire ${key} --which old`,
            });
          case 'added': {
            const { generatedSecret } = outcome;
            const shown = {
              product: key,
              ...(generatedSecret === null ? {} : { generatedHttpSecret: generatedSecret }),
            };
            print(shown, options, () =>
              [
                ...(generatedSecret === null
                  ? []
                  : [`Webhook secret, shown this once  ${generatedSecret}`, '']),
                `Both secrets of ${key} sign now. Put this one into your backend beside the old one, then:`,
                `  npx latchkey product check ${key}`,
                `  npx latchkey product secret retire ${key} --which old`,
              ].join('\n'),
            );
          }
        }
      });
    });
}

function retireCommand() {
  return new Command('retire')
    .description('end one of two secrets: the other one signs alone')
    .argument('<key>', 'key of the product')
    .addOption(
      new Option('--which <secret>', 'the one that was there first, or the one added')
        .choices(['old', 'new'] as const)
        .makeOptionMandatory(),
    )
    .option('--json', 'print nothing but JSON')
    .addHelpText('after', '\nExample:\n  $ npx latchkey product secret retire crm --which old')
    .action(async (key, options) => {
      const { withContext } = await import('../context.ts');
      const { retireWebhookSecret } = await import('../../operations/rotate-webhook-secret.ts');
      const { print } = await import('../output.ts');
      await withContext(async ({ db, actor, keyring }) => {
        const context = { db, actor, keyring: await keyring() };
        const outcome = await retireWebhookSecret(context, { product: key, which: options.which });
        switch (outcome.kind) {
          case 'unknown-product':
            throw unknownProduct(key, outcome.known);
          case 'not-http':
            throw notHttp(key, outcome.provisioner);
          case 'changed-meanwhile':
            throw changedMeanwhile(key);
          case 'only-one':
            throw new CommandFailure(`The product ${key} has one secret alone.`, {
              next: `npx latchkey product secret add ${key}`,
            });
          case 'retired': {
            const { product, which } = outcome;
            print({ product, retired: which }, options, () =>
              [
                `Retired the ${which} secret of ${product}. See that your backend knows the other one:`,
                `  npx latchkey product check ${product}`,
              ].join('\n'),
            );
          }
        }
      });
    });
}

function notHttp(key: string, provisioner: string): CommandFailure {
  return new CommandFailure(
    `The product "${key}" calls no backend: its provisioner is ${provisioner}.`,
    { next: `npx latchkey product show ${key}` },
  );
}

function changedMeanwhile(key: string): CommandFailure {
  return new CommandFailure(`Somebody else changed the secrets of "${key}" just now.`, {
    next: 'run the same command again',
  });
}
