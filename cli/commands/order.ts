import { Command } from '@commander-js/extra-typings';
import type { InstanceHistory } from '../../db/order-history.ts';
import { CommandFailure } from '../failure.ts';

export function orderCommand() {
  const command = new Command('order').description('orders: what happened to a purchase');
  command.addCommand(showCommand());
  return command;
}

function showCommand() {
  return new Command('show')
    .description('show all that is known of an order: events, attempts, answers')
    .argument('<order-id>', "the marketplace's order id; that of a renewal works too")
    .option('--json', 'print nothing but JSON')
    .addHelpText('after', '\nExample:\n  $ npx latchkey order show CS2211181819B2PAI')
    .action(async (orderId, options) => {
      const { withContext } = await import('../context.ts');
      const { readOrderHistory } = await import('../../db/order-history.ts');
      const output = await import('../output.ts');
      await withContext(async ({ db }) => {
        const history = await readOrderHistory(db, orderId);
        if (history.instances.length === 0) {
          throw new CommandFailure(`No callback has named the order ${orderId}.`, {
            next: 'Check the number; refused callbacks leave no order: npx latchkey doctor',
          });
        }
        output.print(history, options, ({ instances }) =>
          instances.map((each) => describeInstance(each, output)).join('\n\n'),
        );
      });
    });
}

type Output = typeof import('../output.ts');

function describeInstance(
  instance: InstanceHistory,
  { listOf, showTime, tableOf }: Output,
): string {
  const { dispatch } = instance;
  const line = instance.orderLineId === null ? '' : ` / ${instance.orderLineId}`;
  const open =
    dispatch === null
      ? 'nothing'
      : [
          `${dispatch.openEvents} event${dispatch.openEvents === 1 ? '' : 's'}, ${dispatch.state} in ${dispatch.queue}`,
          ...(dispatch.attempts > 0 ? [`attempts ${dispatch.attempts}`] : []),
          ...(dispatch.cause === null ? [] : [dispatch.cause]),
          ...(dispatch.retryAt === null ? [] : [`again at ${showTime(dispatch.retryAt)}`]),
        ].join(', ');
  const parts = [
    listOf([
      ['Product', instance.product],
      ['Order', `${instance.orderId}${line}`],
      ['Instance', instance.instanceId],
      [
        'State',
        `${instance.state}${instance.resultCode === null ? '' : ` (${instance.resultCode})`}`,
      ],
      ['Generation applied', String(instance.generationApplied)],
      ['Expires', showTime(instance.expiresAt)],
      ['Open', open],
    ]),
    tableOf(
      ['event', 'scene', 'order', 'accepted', 'resolved', 'applied', 'outcome'],
      instance.events.map((each) => [
        each.kind,
        each.scene,
        each.orderId,
        each.acceptedAt,
        each.resolvedAt,
        each.appliedAt,
        each.outcome,
      ]),
    ),
  ];
  if (instance.attempts.length > 0) {
    parts.push(
      tableOf(
        ['attempt', 'kind', 'began', 'ended', 'outcome', 'HTTP', 'target', 'again at'],
        instance.attempts.map((each) => [
          each.no,
          each.kind,
          each.began,
          each.ended,
          each.class ?? 'running',
          each.httpStatus,
          each.target,
          each.retryAt,
        ]),
      ),
    );
  }
  if (instance.replies.length > 0) {
    parts.push(
      tableOf(
        ['answered', 'code', 'first', 'last', 'times'],
        instance.replies.map((each) => [
          each.activity,
          each.resultCode,
          each.firstAt,
          each.lastAt,
          each.times,
        ]),
      ),
    );
  }
  return parts.join('\n');
}
