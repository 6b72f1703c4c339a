import { type CommandUnknownOpts, Command } from '@commander-js/extra-typings';
import { aliveCommand } from './commands/alive.ts';
import { apiKeyCommand } from './commands/api-key.ts';
import { deadLetterCommand } from './commands/dead-letter.ts';
import { demoCommand } from './commands/demo.ts';
import { doctorCommand } from './commands/doctor.ts';
import { importCommand } from './commands/import.ts';
import { keyCommand } from './commands/key.ts';
import { migrateCommand } from './commands/migrate.ts';
import { orderCommand } from './commands/order.ts';
import { passwordCommand } from './commands/password.ts';
import { productCommand } from './commands/product.ts';
import { startCommand } from './commands/start.ts';

/**
 * The whole command line. Each command imports what it needs only once it runs, so that help and
 * mistakes answer at once.
 *
 * @param options.isQuiet commander says nothing of a mistake; who catches it does
 * @returns a program whose `parseAsync` throws CommanderError for help and mistakes, and never ends
 *   the process
 */
export function createProgram(
  version: string,
  options: { isQuiet: boolean } = { isQuiet: false },
): Command {
  const program = new Command('latchkey')
    .description("The production interface for sellers on Huawei Cloud's marketplace.")
    .version(version)
    .addHelpText(
      'after',
      [
        '',
        'Example:',
        '  $ npx latchkey product add shop --name "My shop" --provisioner postgres-schema',
        '',
        'Exit codes: 0 done, 1 could not be done, 2 wrong command line or environment.',
      ].join('\n'),
    );
  program
    .addCommand(startCommand())
    .addCommand(demoCommand())
    .addCommand(migrateCommand())
    .addCommand(doctorCommand())
    .addCommand(productCommand())
    .addCommand(keyCommand())
    .addCommand(importCommand())
    .addCommand(apiKeyCommand())
    .addCommand(orderCommand())
    .addCommand(deadLetterCommand())
    .addCommand(passwordCommand())
    .addCommand(aliveCommand());
  answerMistakesHere(program, options.isQuiet);
  return program;
}

/** Commander ends the process by itself, with another kind of failure's code, unless told not to. */
function answerMistakesHere(command: CommandUnknownOpts, isQuiet: boolean): void {
  command.exitOverride();
  if (isQuiet) command.configureOutput({ writeErr: () => undefined });
  else command.showHelpAfterError(`(${pathOf(command)} --help shows how)`);
  for (const each of command.commands) answerMistakesHere(each, isQuiet);
}

function pathOf(command: CommandUnknownOpts): string {
  return command.parent ? `${pathOf(command.parent)} ${command.name()}` : command.name();
}
