import { Command } from '@commander-js/extra-typings';
import { CommandFailure } from '../failure.ts';

export function passwordCommand() {
  const command = new Command('password').description('passwords of operators');
  command.addCommand(setCommand());
  return command;
}

function setCommand() {
  return new Command('set')
    .description("set an operator's password, making the operator on first use")
    .argument('<name>', 'name of the operator')
    .option('--password-stdin', 'read the password from standard input')
    .option('--json', 'print nothing but JSON')
    .addHelpText(
      'after',
      '\nExample:\n  $ printf %s "$PASSWORD" | npx latchkey password set ann --password-stdin',
    )
    .action(async (name, options) => {
      const { readSecretFromStdin } = await import('../stdin.ts');
      const example = `printf %s "$PASSWORD" | npx latchkey password set ${name} --password-stdin`;
      if (!options.passwordStdin) {
        throw new CommandFailure('The password is missing; it comes by --password-stdin.', {
          next: example,
          exitCode: 2,
        });
      }
      const password = await readSecretFromStdin('password', example);
      const { withContext } = await import('../context.ts');
      const { setPassword } = await import('../../operations/set-password.ts');
      const { print } = await import('../output.ts');
      await withContext(async ({ config, db, actor }) => {
        const outcome = await setPassword({ db, actor }, { name, password });
        if (outcome.kind === 'invalid') {
          const what = outcome.field === 'name' ? 'The name' : 'The password';
          throw new CommandFailure(`${what} ${outcome.problem}.`, { next: example, exitCode: 2 });
        }
        const { operator, isNew, sessionsEnded } = outcome;
        print({ operator, isNew, sessionsEnded }, options, () =>
          [
            isNew
              ? `Made the operator ${operator} with this password.`
              : `Changed the password of ${operator}; ${sessionsEnded} of their sessions ended.`,
            `Log in at ${config.PUBLIC_URL}/ops`,
          ].join('\n'),
        );
      });
    });
}
