import { environmentWith, settings } from '../../runtime/config.ts';

/** Short enough to watch; the proportions are those of production. */
const timings: Record<string, string> = {
  TIMING_LEASE_MS: '2000',
  TIMING_LEASE_RENEW_MS: '500',
  TIMING_SWEEP_MS: '250',
  TIMING_HANDED_GRACE_MS: '500',
  TIMING_DUE_AGAIN_MS: '100',
  TIMING_RETRY_SCALE_PERCENT: '2',
  TIMING_STALLED_MS: '500',
  TIMING_LOCK_MS: '2000',
  TIMING_SHUTDOWN_MS: '8000',
};

/** The environment of the demo's processes: of our settings, none is the user's own. */
export function demoEnvironment(demo: {
  dataDir: string;
  databaseUrl: string;
  port: number;
  publicUrl: string;
}): Record<string, string> {
  // An empty one counts as absent.
  const none = Object.fromEntries(settings.map(({ name }) => [name, '']));
  return environmentWith({
    ...none,
    ...timings,
    NODE_ENV: 'development',
    HOST: '127.0.0.1',
    PORT: String(demo.port),
    PUBLIC_URL: demo.publicUrl,
    LATCHKEY_DATA_DIR: demo.dataDir,
    DATABASE_URL: demo.databaseUrl,
    // The seller's backend of the demo listens there.
    OUTBOUND_ALLOWED_CIDRS: '127.0.0.0/8',
  });
}

/** Whether a command that a user types would look for another database than that of a folder. */
export function namesAnotherDatabase(): boolean {
  return (environmentWith({})['DATABASE_URL'] ?? '') !== '';
}
