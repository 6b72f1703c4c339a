import type { Logger } from '../runtime/logger.ts';
import { type Role, type Supervisor, startSupervisor } from '../runtime/supervisor.ts';

/** Starts api, dispatcher and workers, each as a process that is started again when it ends. */
export function startRoles(options: {
  log: Logger;
  shutdownMs: number;
  env: Record<string, string>;
  workerArguments?: readonly string[];
  outputFd?: number;
  /** Called once, when all have said that they are ready; `port` is that of the api. */
  onReady: (port: number | undefined) => void;
}): Supervisor {
  const { log, shutdownMs, env, workerArguments = [], outputFd, onReady } = options;
  const roles: Role[] = [
    { name: 'api', args: ['start', 'api'] },
    { name: 'dispatcher', args: ['start', 'dispatcher'] },
    { name: 'workers', args: ['start', 'workers', ...workerArguments] },
  ];
  const waiting = new Set(roles.map((role) => role.name));
  let port: number | undefined;
  return startSupervisor({
    module: new URL(import.meta.url.replace(/start-roles\.([jt]s)$/, 'main.$1')),
    roles,
    log,
    shutdownMs,
    env,
    ...(outputFd === undefined ? {} : { outputFd }),
    onMessage(role, message) {
      if (!isReady(message)) return;
      port = message.port ?? port;
      if (waiting.delete(role) && waiting.size === 0) onReady(port);
    },
  });
}

function isReady(message: unknown): message is { kind: 'ready'; port?: number } {
  return (
    typeof message === 'object' && message !== null && 'kind' in message && message.kind === 'ready'
  );
}
