import { Argument, Command } from '@commander-js/extra-typings';
import { heartbeatAgeMaxMs, readHeartbeatAgeMs } from '../../runtime/heartbeat.ts';
import { CommandFailure } from '../failure.ts';
import { print } from '../output.ts';

export function aliveCommand() {
  return new Command('alive')
    .description(
      'Tell whether a process of this machine that serves no HTTP is alive (for health checks).',
    )
    .addArgument(new Argument('<role>').choices(['dispatcher', 'workers'] as const))
    .option('--json', 'print nothing but JSON')
    .addHelpText('after', '\nExample:\n  $ npx latchkey alive workers')
    .action((role, options) => {
      const ageMs = readHeartbeatAgeMs(role, Date.now());
      if (ageMs === undefined || ageMs > heartbeatAgeMaxMs) {
        const when = ageMs === undefined ? 'never' : `${Math.round(ageMs / 1_000)} seconds ago`;
        throw new CommandFailure(`The process "${role}" last gave a sign of life ${when}.`, {
          next: `restart it: npx latchkey start ${role}`,
        });
      }
      print({ role, ageMs: Math.round(ageMs) }, options, () => `${role} alive`);
    });
}
