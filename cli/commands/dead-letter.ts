import { Command } from '@commander-js/extra-typings';
import type { ShownDeadLetter } from '../../operations/show-dead-letter.ts';
import { CommandFailure, unknownProduct } from '../failure.ts';
import { redriveCommand, refuseCommand, resolveCommand, skipCommand } from './dead-letter-acts.ts';

export function deadLetterCommand() {
  const command = new Command('dead-letter').description(
    'dead letters: instances whose attempts ended without success',
  );
  command.addCommand(listCommand());
  command.addCommand(showCommand());
  command.addCommand(redriveCommand());
  command.addCommand(skipCommand());
  command.addCommand(resolveCommand());
  command.addCommand(refuseCommand());
  return command;
}

function listCommand() {
  return new Command('list')
    .description('list dead letters and count them by cause')
    .option('--product <key>', 'only of this product')
    .option('--order <id>', 'only of this order')
    .option('--cause <fingerprint>', 'only those that died of this')
    .option('--json', 'print nothing but JSON')
    .addHelpText('after', '\nExample:\n  $ npx latchkey dead-letter list --product shop')
    .action(async (options) => {
      const { withContext } = await import('../context.ts');
      const { countDeadLetters, listDeadLetters } = await import('../../db/dead-letters.ts');
      const { findProduct, readProducts } = await import('../../db/products.ts');
      const { print, tableOf } = await import('../output.ts');
      await withContext(async ({ db }) => {
        const { product, order, cause } = options;
        if (product !== undefined && !(await findProduct(db, product))) {
          const known = await readProducts(db);
          throw unknownProduct(
            product,
            known.map((each) => each.key),
          );
        }
        const [causes, deadLetters] = await Promise.all([
          countDeadLetters(db, { product, order, cause }),
          listDeadLetters(db, { product, order, cause }),
        ]);
        const total = causes.reduce((sum, each) => sum + each.count, 0);
        print({ total, causes, deadLetters }, options, () =>
          total === 0
            ? 'Nothing is dead.'
            : [
                tableOf(
                  ['product', 'cause', 'fingerprint', 'count'],
                  causes.map((each) => [each.product, each.cause, each.fingerprint, each.count]),
                ),
                tableOf(
                  ['product', 'order', 'instance', 'cause', 'attempts', 'since', 'open'],
                  deadLetters.map((each) => [
                    each.product,
                    each.orderId,
                    each.instanceId,
                    each.cause,
                    each.attempts,
                    each.since,
                    each.kinds.join(', '),
                  ]),
                ),
                ...(deadLetters.length < total
                  ? [
                      `The first ${deadLetters.length} of ${total}; --product, --order and --cause narrow it.`,
                    ]
                  : []),
                'Why, and until when:',
                `  npx latchkey dead-letter show ${deadLetters[0]?.orderId ?? 'ORDER'}`,
                'Once the cause is gone:',
                `  npx latchkey dead-letter redrive --cause ${causes[0]?.fingerprint ?? 'FINGERPRINT'} --reason TEXT`,
              ].join('\n'),
        );
      });
    });
}

function showCommand() {
  return new Command('show')
    .description('why an order is dead, what was tried, and until when it can be saved')
    .argument('<order>', 'the order that made the instance, or one that changed it')
    .option('--said', 'open what was answered; the audit keeps who did')
    .option('--reason <text>', 'why it is opened, for the audit')
    .option('--json', 'print nothing but JSON')
    .addHelpText('after', '\nExample:\n  $ npx latchkey dead-letter show CS1 --said')
    .action(async (order, options) => {
      const { withContext } = await import('../context.ts');
      const { showDeadLetter } = await import('../../operations/show-dead-letter.ts');
      const { print } = await import('../output.ts');
      const said = options.said === true;
      await withContext(async ({ db, actor, keyring }) => {
        const shown = await showDeadLetter(
          { db, actor },
          {
            order,
            now: new Date(),
            said: said ? { keyring: await keyring(), reason: options.reason } : undefined,
          },
        );
        if (shown.length === 0) {
          throw new CommandFailure(`Nothing of order ${order} is dead.`, {
            next: `npx latchkey order show ${order}`,
          });
        }
        const texts = await Promise.all(shown.map(describe));
        print({ order, deadLetters: shown }, options, () => texts.join('\n\n'));
      });
    });
}

async function describe(letter: ShownDeadLetter): Promise<string> {
  const { listOf, showTime, tableOf } = await import('../output.ts');
  const { refund } = letter;
  return [
    listOf([
      ['Product', letter.isPaused ? `${letter.product} (paused)` : letter.product],
      ['Order', letter.orderId],
      ['Instance', `${letter.instanceId} (${letter.state})`],
      ['Cause', letter.cause ?? '–'],
      ['Fingerprint', letter.fingerprint],
      ['Dead since', showTime(letter.since)],
      ['The buyer is refunded', refund === null ? 'not for this' : showRefund(refund, showTime)],
      ...(refund === null ? [] : ([['Says who', refund.source]] as const)),
    ]),
    tableOf(
      ['event', 'kind', 'order', 'accepted', 'marketplace'],
      letter.events.map((event) => [
        event.id,
        event.scene === null ? event.kind : `${event.kind} (${event.scene})`,
        event.orderId,
        event.acceptedAt,
        event.outlook === null
          ? 'an operator decided it'
          : event.outlook.stopsAt === null
            ? 'does not send it again'
            : `re-sends until ${showTime(event.outlook.stopsAt)}`,
      ]),
    ),
    tableOf(
      ['try', 'kind', 'began', 'ms', 'target', 'outcome', 'answered'],
      letter.tries.map((attempt) => [
        attempt.no,
        attempt.kind,
        attempt.began,
        attempt.durationMs,
        attempt.target,
        [attempt.class ?? 'no end', attempt.httpStatus ?? ''].join(' ').trim(),
        attempt.said ?? (attempt.hasAnswer ? 'sealed; --said opens it' : null),
      ]),
    ),
  ].join('\n');
}

function showRefund(
  { at, inMs, assumed }: NonNullable<ShownDeadLetter['refund']>,
  showTime: (at: Date) => string,
): string {
  const minutes = Math.floor(inMs / 60_000);
  const left = inMs === 0 ? 'over' : `in ${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  return `${left}, at ${showTime(at)}${assumed ? ' (assumed)' : ''}`;
}
