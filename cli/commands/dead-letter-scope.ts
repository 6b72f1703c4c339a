import type {
  ActOutcome,
  DeadLetterScope,
  TouchedDeadLetter,
  UnfitDeadLetter,
} from '../../operations/act-on-dead-letters.ts';
import { CommandFailure, unknownProduct } from '../failure.ts';

/** Which dead letters a command line means. */
export type ScopeOptions = {
  product?: string | undefined;
  order?: string | undefined;
  cause?: string | undefined;
  all?: true | undefined;
  reason: string;
  dryRun?: true | undefined;
};

/** @param verb for the hint, like `redrive` */
export function scopeOf(options: ScopeOptions, verb: string): DeadLetterScope {
  const { product, order, cause, all, reason, dryRun } = options;
  const next = `npx latchkey dead-letter ${verb} --help`;
  if (reason.trim() === '' && dryRun !== true) {
    throw new CommandFailure('--reason is empty: say why in a few words, the audit keeps it.', {
      next,
      exitCode: 2,
    });
  }
  if (all === true) {
    if (product === undefined && order === undefined && cause === undefined) return { all };
    throw new CommandFailure('--all goes with none of --product, --order and --cause.', {
      next,
      exitCode: 2,
    });
  }
  if (product !== undefined) return { product, order, cause };
  if (order !== undefined) return { order, cause };
  if (cause !== undefined) return { cause };
  throw new CommandFailure('Say which dead letters: --product, --order, --cause or --all.', {
    next,
    exitCode: 2,
  });
}

/** What every verb prints; the numbers are counted from `instances`. */
export type Report = {
  /** In a dry run what would be, else what was. */
  count: number;
  dryRun: boolean;
  orders: string[];
  instances: TouchedDeadLetter[];
  unfit: UnfitDeadLetter[];
};

/** @throws CommandFailure where nothing was done because of how it was asked */
export function reportOf(outcome: ActOutcome, options: ScopeOptions): Report {
  const dryRun = options.dryRun === true;
  switch (outcome.kind) {
    case 'reason-missing':
      throw new CommandFailure('--reason is empty.', {
        next: 'Say why in a few words; the audit keeps it.',
        exitCode: 2,
      });
    case 'unknown-product':
      throw unknownProduct(options.product ?? '', outcome.known);
    case 'nothing-fits': {
      const [first] = outcome.unfit;
      const others = outcome.unfit.length - 1;
      throw new CommandFailure(
        `Order ${first?.orderId ?? ''}: ${first?.why ?? ''}.${others > 0 ? ` And ${others} more.` : ''}`,
        { next: `npx latchkey dead-letter show ${first?.orderId ?? 'ORDER'}` },
      );
    }
    case 'nothing-dead':
      return { count: 0, dryRun, orders: [], instances: [], unfit: [] };
    case 'counted':
      return { count: outcome.count, dryRun, orders: [], instances: [], unfit: outcome.unfit };
    case 'done': {
      const { instances, unfit } = outcome;
      const orders = [...new Set(instances.map((each) => each.orderId))];
      return { count: instances.length, dryRun, orders, instances, unfit };
    }
  }
}
