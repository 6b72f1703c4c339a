import { Command, InvalidArgumentError, Option } from '@commander-js/extra-typings';
import { skippableKinds } from '../../core/events.ts';
import { CommandFailure } from '../failure.ts';
import { type Report, reportOf, scopeOf } from './dead-letter-scope.ts';

// What an operator does to dead letters. Every verb takes the same scope, counts on request, and
// says why in the audit.

export function redriveCommand() {
  return actCommand('redrive')
    .description('make dead letters due again, with their attempts counted afresh')
    .addHelpText('after', exampleOf('redrive --product shop --reason "backend is up again"'))
    .action(async (options) => {
      const scope = scopeOf(options, 'redrive');
      const { withContext } = await import('../context.ts');
      const { redrive } = await import('../../operations/redrive.ts');
      await withContext(async ({ db, actor }) => {
        const outcome = await redrive({ db, actor }, { scope, ...askedOf(options) });
        const report = reportOf(
          outcome.kind === 'redriven'
            ? { kind: 'done', instances: outcome.instances, unfit: [] }
            : outcome.kind === 'counted'
              ? { ...outcome, unfit: [] }
              : outcome,
          options,
        );
        await printReport({ redriven: report.dryRun ? 0 : report.count, ...report }, options, {
          done: 'due again. See how it goes:',
          next: `npx latchkey order show ${report.orders[0] ?? 'ORDER'}`,
        });
      });
    });
}

export function skipCommand() {
  return actCommand('skip')
    .description('take an open event out: the instance becomes what it is without it')
    .option('--event <id>', 'this event (dead-letter show names them)', readEventId)
    .addOption(new Option('--kind <kind>', 'the open events of this kind').choices(skippableKinds))
    .addHelpText('after', exampleOf('skip --order CS1 --kind frozen --reason "frozen by mistake"'))
    .action(async (options) => {
      const scope = scopeOf(options, 'skip');
      const choice = { eventId: options.event, kind: options.kind };
      const { withContext } = await import('../context.ts');
      const { skipEvent } = await import('../../operations/skip-event.ts');
      await withContext(async ({ db, actor }) => {
        const asked = { scope, choice, ...askedOf(options) };
        const report = reportOf(await skipEvent({ db, actor }, asked), options);
        await printReport(report, options, {
          done: 'due again without the event. See how it goes:',
          next: `npx latchkey order show ${report.orders[0] ?? 'ORDER'}`,
        });
      });
    });
}

export function resolveCommand() {
  return actCommand('resolve')
    .description('record that what is open was made real by hand')
    .option('--delivered', 'the order was delivered by hand: the marketplace gets access data')
    .option('--access-stdin', 'read the access data from standard input, as JSON')
    .addHelpText(
      'after',
      [
        '',
        'Examples:',
        '  $ npx latchkey dead-letter resolve --order CS2 --reason "prolonged in the back office"',
        `  $ echo '{"frontEndUrl":"https://shop.example.com","userName":"ann","password":"…"}' | \\`,
        '      npx latchkey dead-letter resolve --order CS1 --delivered --access-stdin --reason "set up by Li"',
      ].join('\n'),
    )
    .action(async (options) => {
      const scope = scopeOf(options, 'resolve');
      if (options.delivered !== options.accessStdin) {
        throw new CommandFailure('--delivered and --access-stdin go together.', {
          next: 'npx latchkey dead-letter resolve --help',
          exitCode: 2,
        });
      }
      const accessText = options.accessStdin ? await readAccessText() : undefined;
      const { withContext } = await import('../context.ts');
      const { resolveDeadLetter, resolveDelivered } =
        await import('../../operations/resolve-dead-letter.ts');
      await withContext(async ({ db, actor, keyring }) => {
        const asked = { scope, ...askedOf(options) };
        const outcome =
          accessText === undefined
            ? await resolveDeadLetter({ db, actor }, asked)
            : await resolveDelivered(
                { db, actor, keyring: await keyring() },
                { ...asked, accessText },
              );
        if (outcome.kind === 'bad-access') {
          throw new CommandFailure(`The access data on standard input: ${outcome.problem}.`, {
            next: 'npx latchkey dead-letter resolve --help',
            exitCode: 2,
          });
        }
        if (outcome.kind === 'several') {
          throw new CommandFailure(
            `${outcome.count} dead letters are meant, and access data belongs to one.`,
            { next: 'name the order (and the product) whose buyer it is for', exitCode: 2 },
          );
        }
        const report = reportOf(outcome, options);
        await printReport(report, options, {
          done: 'settled by hand. What the marketplace is answered:',
          next: `npx latchkey order show ${report.orders[0] ?? 'ORDER'}`,
        });
      });
    });
}

export function refuseCommand() {
  return actCommand('refuse')
    .description('refuse purchases that were never made, with a code for the marketplace')
    .requiredOption('--code <0001xx>', 'what re-sends are answered, like 000106 for sold out')
    .addHelpText('after', exampleOf('refuse --order CS1 --code 000106 --reason "no more seats"'))
    .action(async (options) => {
      const scope = scopeOf(options, 'refuse');
      const { withContext } = await import('../context.ts');
      const { refuseInstance } = await import('../../operations/refuse-instance.ts');
      const { resultMessages, isCreateRefusalCode } =
        await import('../../protocol/result-codes.ts');
      await withContext(async ({ db, actor }) => {
        const asked = { scope, resultCode: options.code, ...askedOf(options) };
        const outcome = await refuseInstance({ db, actor }, asked);
        if (outcome.kind === 'bad-code') {
          const codes = Object.entries(resultMessages)
            .filter(([code]) => isCreateRefusalCode(code))
            .map(([code, words]) => `${code} ${words}`);
          throw new CommandFailure(`--code "${options.code}" does not refuse a purchase.`, {
            next: `one of: ${codes.join('; ')}`,
            exitCode: 2,
          });
        }
        const report = reportOf(outcome, options);
        await printReport({ code: options.code, ...report }, options, {
          done: `refused; re-sends are answered ${options.code}. See how it goes:`,
          next: `npx latchkey order show ${report.orders[0] ?? 'ORDER'}`,
        });
      });
    });
}

function actCommand(verb: string) {
  return new Command(verb)
    .option('--product <key>', 'those of this product')
    .option('--order <id>', 'those of this order')
    .option('--cause <fingerprint>', 'those that died of this (dead-letter list names them)')
    .option('--all', 'all of them')
    .option('--dry-run', 'only count')
    .option('--reason <text>', 'why, for the audit; demanded by all but a dry run', '')
    .option('--json', 'print nothing but JSON');
}

function askedOf(options: { reason: string; dryRun?: true | undefined }) {
  return { reason: options.reason, isDryRun: options.dryRun === true };
}

function exampleOf(line: string): string {
  return `\nExample:\n  $ npx latchkey dead-letter ${line}`;
}

async function readAccessText(): Promise<string> {
  const { readSecretFromStdin } = await import('../stdin.ts');
  return readSecretFromStdin(
    'access data',
    'npx latchkey dead-letter resolve --order ORDER --delivered --access-stdin --reason TEXT < access.json',
  );
}

function readEventId(text: string): number {
  if (!/^[1-9]\d{0,14}$/.test(text)) throw new InvalidArgumentError('It is a number.');
  return Number(text);
}

async function printReport<R extends Report>(
  report: R,
  options: { json?: true | undefined },
  words: { done: string; next: string },
): Promise<void> {
  const { print, tableOf } = await import('../output.ts');
  print(report, options, () => {
    const lines: string[] = [];
    if (report.instances.length > 0) {
      lines.push(
        tableOf(
          ['product', 'order', 'instance', 'was dead of'],
          report.instances.map((each) => [each.product, each.orderId, each.instanceId, each.cause]),
        ),
      );
    }
    if (report.unfit.length > 0) {
      lines.push(
        'Left as they are:',
        tableOf(
          ['product', 'order', 'why'],
          report.unfit.map((each) => [each.product, each.orderId, each.why]),
        ),
      );
    }
    if (report.dryRun) lines.push(`${report.count} would be; nothing was done.`);
    else if (report.count === 0) lines.push('Nothing of this is dead.');
    else lines.push(`${report.count} ${words.done}`, `  ${words.next}`);
    return lines.join('\n');
  });
}
