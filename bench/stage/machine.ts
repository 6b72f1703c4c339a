import { open, rm, statfs } from 'node:fs/promises';
import { availableParallelism, cpus, loadavg, release, totalmem, type as system } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import type { Stage } from './stage.ts';

/** What a reader must know of where figures come from; names no machine and no path. */
export type Machine = {
  lines: readonly (readonly [name: string, value: string])[];
  warnings: readonly string[];
};

const tmpfs = 0x01021994;

export async function describeMachine(stage: Stage): Promise<Machine> {
  const client = new pg.Client({ connectionString: stage.postgresUrl });
  await client.connect();
  const shown = await client.query<{ server_version: string }>('show server_version');
  await client.end();
  const [cpu] = cpus();
  const fsyncMs = await measureSyncMs(stage.dir);
  const isMemory = (await statfs(stage.dir)).type === tmpfs;
  const [load = 0] = loadavg();
  const processors = availableParallelism();

  const warnings: string[] = [];
  if (isMemory)
    warnings.push('The temporary folder is in memory: commits cost nothing. Set TMPDIR to a disk.');
  if (load > processors / 2)
    warnings.push(`The machine is busy (load ${load.toFixed(1)} on ${processors} processors).`);
  if (!stage.redis)
    warnings.push('The queues are on POSTGRES, not on Redis: other figures than with Redis.');

  return {
    warnings,
    lines: [
      ['Processors', `${processors} × ${cpu?.model.trim() || 'unknown'}`],
      ['Memory', `${Math.round(totalmem() / 2 ** 30)} GiB`],
      ['System', `${system()} ${release()}`],
      ['Node', process.version],
      ['Postgres', `${shown.rows[0]?.server_version ?? 'unknown'}, fsync on, defaults else`],
      ['Redis', stage.redis ? `${stage.redis.version}, append-only file, everysec` : 'none'],
      ['Sync of 8 KiB', `${fsyncMs.toFixed(2)} ms (median)`],
      ['Load at the start', load.toFixed(1)],
    ],
  };
}

/** Every commit waits for this, so figures of two disks cannot be compared without it. */
async function measureSyncMs(dir: string): Promise<number> {
  const path = join(dir, 'sync-probe');
  const file = await open(path, 'w');
  const page = Buffer.alloc(8_192, 1);
  const times: number[] = [];
  try {
    for (let round = 0; round < 100; round += 1) {
      const fromMs = performance.now();
      await file.write(page, 0, page.length, round * page.length);
      await file.datasync();
      times.push(performance.now() - fromMs);
    }
  } finally {
    await file.close();
    await rm(path, { force: true });
  }
  return times.toSorted((a, b) => a - b)[50] ?? 0;
}
