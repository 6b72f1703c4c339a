import { closeSync, openSync, writeSync } from 'node:fs';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export type DemoFolder = {
  /** The data directory of the whole system. */
  path: string;
  logPath: string;
  /** For the processes that write their log there. */
  logFd: number;
  writeLog: (line: string) => void;
  remove(): Promise<void>;
  /** Removes all but the logs, which hold no secret. */
  removeAllButLogs(): Promise<void>;
};

/** Makes a data directory that nothing else uses. */
export async function createDemoFolder(parent = tmpdir()): Promise<DemoFolder> {
  const path = await mkdtemp(join(parent, 'latchkey-demo-'));
  const logPath = join(path, 'latchkey.log');
  const logFd = openSync(logPath, 'a', 0o600);
  let isOpen = true;
  const close = (): void => {
    if (isOpen) closeSync(logFd);
    isOpen = false;
  };
  return {
    path,
    logPath,
    logFd,
    writeLog: (line) => {
      if (isOpen) writeSync(logFd, line);
    },
    async remove() {
      close();
      await rm(path, { recursive: true, force: true });
    },
    async removeAllButLogs() {
      close();
      for (const name of await readdir(path)) {
        if (!name.endsWith('.log')) await rm(join(path, name), { recursive: true, force: true });
      }
    },
  };
}
