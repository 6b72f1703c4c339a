import { Argument, Command } from '@commander-js/extra-typings';
import { heartbeatAgeMaxMs, readHeartbeatAgeMs } from '../../runtime/heartbeat.ts';
import { CommandFailure } from '../failure.ts';

export function aliveCommand() {
  return new Command('alive')
    .description(
      'Tell whether a process of this machine that serves no HTTP is alive (for health checks).',
    )
    .addArgument(new Argument('<role>').choices(['dispatcher', 'workers'] as const))
    .addHelpText('after', '\nExample:\n  $ npx latchkey alive workers')
    .action((role) => {
      const ageMs = readHeartbeatAgeMs(role, Date.now());
      if (ageMs === undefined || ageMs > heartbeatAgeMaxMs) {
        const when = ageMs === undefined ? 'never' : `${Math.round(ageMs / 1_000)} seconds ago`;
        throw new CommandFailure(`The process "${role}" last gave a sign of life ${when}.`, {
          next: `restart it: npx latchkey start ${role}`,
        });
      }
      process.stdout.write(`${role} alive\n`);
    });
}
