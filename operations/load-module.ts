import { statSync } from 'node:fs';
import { isAbsolute } from 'node:path';
import { pathToFileURL } from 'node:url';

/** A seller's own code that makes instances real; see docs/examples/module.mjs. */
type SellerModule = {
  apply: (wish: unknown, call: { signal: AbortSignal }) => unknown;
  release: (wish: unknown, call: { signal: AbortSignal }) => unknown;
};

export type ModuleLoading =
  | { kind: 'loaded'; module: SellerModule }
  | { kind: 'invalid'; problem: string };

/** Loads an ES module once for the process, as Node does: a changed file counts after a restart. */
export async function loadSellerModule(path: string): Promise<ModuleLoading> {
  if (!isAbsolute(path)) return { kind: 'invalid', problem: 'must be an absolute path' };
  if (!statSync(path, { throwIfNoEntry: false })?.isFile()) {
    return { kind: 'invalid', problem: 'is not there, or no file' };
  }
  let loaded: Record<string, unknown>;
  try {
    loaded = (await import(pathToFileURL(path).href)) as Record<string, unknown>;
  } catch {
    return { kind: 'invalid', problem: 'cannot be loaded as an ES module: try node with it' };
  }
  const { apply, release } = loaded;
  if (typeof apply !== 'function' || typeof release !== 'function') {
    return { kind: 'invalid', problem: 'must export the functions apply and release' };
  }
  return { kind: 'loaded', module: { apply, release } as unknown as SellerModule };
}
