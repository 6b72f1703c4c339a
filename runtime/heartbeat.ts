import { statSync, unlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const everyMs = 5_000;
/** Several beats may be late on a busy machine. */
export const heartbeatAgeMaxMs = 45_000;

/**
 * Processes that serve no HTTP show that they are alive by a file that they keep touching, for a
 * container's health check. It beats only while `isWell` says so: a loop that hangs stops it.
 */
export function startHeartbeat(role: string, isWell: () => boolean): { stop(): void } {
  const path = pathOf(role);
  const beat = (): void => {
    try {
      if (isWell()) writeFileSync(path, String(process.pid));
    } catch {
      // No place to write: the check then says so.
    }
  };
  beat();
  const timer = setInterval(beat, everyMs);
  timer.unref();
  return {
    stop() {
      clearInterval(timer);
      try {
        unlinkSync(path);
      } catch {
        // It may never have been written.
      }
    },
  };
}

/** @returns milliseconds since the last beat of a role on this machine, undefined without any */
export function readHeartbeatAgeMs(role: string, nowMs: number): number | undefined {
  try {
    return nowMs - statSync(pathOf(role)).mtimeMs;
  } catch {
    return undefined;
  }
}

function pathOf(role: string): string {
  return join(tmpdir(), `latchkey-${role}.alive`);
}
