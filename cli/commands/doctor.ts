import { styleText } from 'node:util';
import { Command } from '@commander-js/extra-typings';
import type { Check, CheckStatus } from '../../operations/diagnose.ts';

export function doctorCommand() {
  return new Command('doctor')
    .description('check all that can be checked before the marketplace does; changes nothing')
    .option('--json', 'print nothing but JSON')
    .addHelpText(
      'after',
      '\nExample:\n  $ npx latchkey doctor\n\nExit code 1 when a check fails; warnings alone do not count.',
    )
    .action(async (options) => {
      const { ConfigError, readConfig } = await import('../../runtime/config.ts');
      const { diagnose } = await import('../../operations/diagnose.ts');
      const { examineInstallation } = await import('../examine.ts');
      const { print } = await import('../output.ts');

      let checks: Check[];
      try {
        const config = readConfig();
        const environment = {
          name: 'environment',
          status: 'ok',
          says: 'usable',
          next: null,
        } as const;
        checks = [environment, ...diagnose(await examineInstallation(config))];
      } catch (error) {
        if (!(error instanceof ConfigError)) throw error;
        checks = [
          {
            name: 'environment',
            status: 'fail',
            says: error.message,
            next: 'Correct it and run npx latchkey doctor again.',
          },
        ];
      }
      const failed = checks.filter((each) => each.status === 'fail').length;
      const warned = checks.filter((each) => each.status === 'warn').length;
      print({ ok: failed === 0, failed, warned, checks }, options, () =>
        [
          ...checks.map((each) => describeCheck(each)),
          '',
          `${failed} failed, ${warned} warned.`,
        ].join('\n'),
      );
      if (failed > 0) process.exitCode = 1;
    });
}

const colourOf = { ok: 'green', warn: 'yellow', fail: 'red' } as const satisfies Record<
  CheckStatus,
  string
>;

/** One check for people, in two lines where there is something to do. */
export function describeCheck({ name, status, says, next }: Check, nameWidth = 17): string {
  // One format: of an array of formats Node 20 honours neither pipes nor NO_COLOR.
  const mark = styleText(colourOf[status], status.padEnd(4), { stream: process.stdout });
  const line = `${mark}  ${name.padEnd(nameWidth)}  ${says}`;
  return next === null ? line : `${line}\n${' '.repeat(nameWidth + 8)}→ ${next}`;
}
