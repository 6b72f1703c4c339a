import { Command } from '@commander-js/extra-typings';
import { CommandFailure, unknownProduct } from '../failure.ts';

export function checkCommand() {
  return new Command('check')
    .description('see whether your backend keeps the contract, by calls about made-up instances')
    .argument('<key>', 'key of the product')
    .option('--json', 'print nothing but JSON')
    .addHelpText('after', '\nExample:\n  $ npx latchkey product check crm')
    .action(async (key, options) => {
      const { randomUUID } = await import('node:crypto');
      const { withContext } = await import('../context.ts');
      const { checkBackend } = await import('../../operations/check-backend.ts');
      const { createOutbound } = await import('../../runtime/outbound.ts');
      const { print, tableOf } = await import('../output.ts');
      await withContext(async ({ config, db, keyring }) => {
        const outbound = createOutbound({ allowedCidrs: [...config.OUTBOUND_ALLOWED_CIDRS] });
        try {
          const outcome = await checkBackend(
            {
              db,
              keyring: await keyring(),
              outbound,
              nowMs: Date.now,
              createId: () => `latchkey-check-${randomUUID()}`,
            },
            { product: key },
          );
          switch (outcome.kind) {
            case 'unknown-product':
              throw unknownProduct(key, outcome.known);
            case 'not-http':
              throw new CommandFailure(
                `The product "${key}" calls no backend: its provisioner is ${outcome.provisioner}.`,
                { next: `npx latchkey product show ${key}` },
              );
            case 'checked': {
              const { ok, checks } = outcome;
              print({ product: key, ok, checks }, options, () =>
                [
                  tableOf(
                    ['check', '', 'what was seen'],
                    checks.map((check) => [check.name, check.ok ? 'ok' : 'FAILED', check.seen]),
                  ),
                  ok
                    ? 'The backend keeps the contract.'
                    : 'The backend breaks the contract: docs/provisioning-api.md says what is agreed.',
                ].join('\n'),
              );
              if (!ok) process.exitCode = 1;
            }
          }
        } finally {
          await outbound.close();
        }
      });
    });
}
