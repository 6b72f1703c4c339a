import { Argument, Command, InvalidArgumentError, Option } from '@commander-js/extra-typings';
import { type QueueName, queueNames } from '../../core/instance.ts';
import { CommandFailure } from '../failure.ts';

const roles = ['api', 'dispatcher', 'workers'] as const;
type Role = (typeof roles)[number];

export function startCommand() {
  return new Command('start')
    .description('Run the whole server, or one part of it as a process of its own.')
    .addArgument(new Argument('[role]', 'one part alone').choices(roles))
    .addOption(
      new Option('--queues <names>', 'queues that the workers take from, separated by commas')
        .argParser(parseQueues)
        .default(queueNames as readonly QueueName[], queueNames.join(',')),
    )
    .addOption(
      new Option(
        '--concurrency <number>',
        'instances that a worker process works on at once',
      ).argParser(parseConcurrency),
    )
    .addHelpText(
      'after',
      [
        '',
        'Without DATABASE_URL it starts an embedded Postgres in LATCHKEY_DATA_DIR.',
        '',
        'Examples:',
        '  $ npx latchkey start',
        '  $ npx latchkey start workers --queues provisioning --concurrency 32',
      ].join('\n'),
    )
    .action(async (role, options) => {
      if (role !== undefined && role !== 'workers' && options.concurrency !== undefined) {
        throw new CommandFailure(`--concurrency is for workers, not for ${role}.`, { exitCode: 2 });
      }
      if (role === undefined) {
        const { startAll } = await import('../start-all.ts');
        await startAll(options);
      } else {
        await startRole(role, options);
      }
    });
}

type Options = { queues: readonly QueueName[]; concurrency?: number | undefined };

async function startRole(role: Role, options: Options): Promise<void> {
  const { readProcess } = await import('../process-context.ts');
  const { runUntilSignal, tellSupervisor } = await import('../../runtime/process.ts');
  const context = await readProcess(role);
  const running = await runRole(role, context, options);
  runUntilSignal({
    log: context.log,
    close: () => running.close(),
    shutdownMs: context.config.timings.shutdownMs,
  });
  tellSupervisor({ kind: 'ready', port: running.port });
}

type Context = Awaited<ReturnType<typeof import('../process-context.ts').readProcess>>;

async function runRole(
  role: Role,
  context: Context,
  options: Options,
): Promise<{ close(): Promise<void>; port?: number }> {
  switch (role) {
    case 'api': {
      const { startApi } = await import('../../api/server.ts');
      const tenantServer = {
        ...serverOf(context.tenantsUrl),
        ...context.config.TENANTS_PUBLIC_ADDRESS,
      };
      return startApi({ ...context, tenantServer });
    }
    case 'dispatcher': {
      const { startDispatching } = await import('../../workers/start-dispatcher.ts');
      return startDispatching(context);
    }
    case 'workers': {
      const { startWorkers } = await import('../../workers/start-workers.ts');
      const concurrency = options.concurrency ?? context.config.WORKER_CONCURRENCY;
      return startWorkers({ ...context, queues: options.queues, concurrency });
    }
  }
}

/** Where buyers find their tenants, without user and password. */
function serverOf(url: string): { host: string; port: number; database: string } {
  const { hostname, port, pathname } = new URL(url);
  return { host: hostname, port: Number(port || 5432), database: pathname.slice(1) };
}

function parseQueues(text: string): readonly QueueName[] {
  return text.split(',').map((part) => {
    const name = queueNames.find((known) => known === part.trim());
    if (!name) throw new InvalidArgumentError(`Queues are ${queueNames.join(' and ')}.`);
    return name;
  });
}

function parseConcurrency(text: string): number {
  const number = Number(text);
  if (!Number.isInteger(number) || number < 1 || number > 1_000) {
    throw new InvalidArgumentError('A whole number from 1 to 1000.');
  }
  return number;
}
