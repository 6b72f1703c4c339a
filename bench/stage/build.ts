import { execFile } from 'node:child_process';
import { cp, mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const run = promisify(execFile);
export const projectDir = fileURLToPath(new URL('../..', import.meta.url));

/**
 * Compiles the project and the peers to JavaScript in a folder of the bench's own: production runs
 * no TypeScript loader, and `dist/` may be older than the sources. Types are checked elsewhere.
 */
export async function buildInto(outDir: string): Promise<void> {
  await mkdir(outDir, { recursive: true });
  const at = (path: string): string => join(projectDir, path);
  const config = join(outDir, 'tsconfig.json');
  await writeFile(
    config,
    JSON.stringify({
      extends: at('tsconfig.build.json'),
      compilerOptions: {
        rootDir: projectDir,
        outDir,
        noCheck: true,
        typeRoots: [at('node_modules/@types')],
      },
      include: ['protocol', 'core', 'db', 'operations', 'api', 'workers', 'runtime', 'simulator']
        .concat('cli', 'bench')
        .map(at),
    }),
  );
  try {
    await run(process.execPath, [at('node_modules/typescript/bin/tsc'), '-p', config]);
  } catch (error) {
    const said = (error as { stdout?: string }).stdout ?? String(error);
    throw new Error(`The project could not be compiled:\n${said}`, { cause: error });
  }
  await cp(at('db/migrations'), join(outDir, 'db/migrations'), { recursive: true });
  await symlink(at('node_modules'), join(outDir, 'node_modules'), 'junction');
  const { type, version } = JSON.parse(await readFile(at('package.json'), 'utf8')) as {
    type: string;
    version: string;
  };
  await writeFile(join(outDir, 'package.json'), JSON.stringify({ type, version }));
}
