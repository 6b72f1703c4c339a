import type { Failure, FailureClass } from '../../core/failure.ts';
import type { ApplyOutcome, Assignment, Provisioner } from '../../core/provisioner.ts';
import { type ModuleLoading, loadSellerModule } from '../../operations/load-module.ts';
import { isCreateRefusalCode } from '../../protocol/result-codes.ts';
import { accessDataSchema } from '../../protocol/saas-v2/reply.ts';

// The seller's own code, in this process: no HTTP between it and the instance. Trusted as we are.

export type ModuleProvisionerOptions = {
  /** Absolute. */
  path: string;
  totalTimeoutMs?: number;
  load?: (path: string) => Promise<ModuleLoading>;
};

export function createModuleProvisioner(options: ModuleProvisionerOptions): Provisioner {
  const { path, totalTimeoutMs = 10_000, load = loadSellerModule } = options;
  let loading: Promise<ModuleLoading> | undefined;

  async function loadOnce(): Promise<ModuleLoading> {
    loading ??= load(path);
    const loaded = await loading;
    // What failed is tried again: the file may be there by then.
    if (loaded.kind === 'invalid') loading = undefined;
    return loaded;
  }

  return {
    target: `module ${path}`,
    apply: async (assignment, signal) => {
      const { desired, everBegan } = assignment;
      if (!desired.exists && !everBegan) return { kind: 'applied' };
      const loaded = await loadOnce();
      if (loaded.kind === 'invalid') return failed('transient', `the module ${loaded.problem}`);
      const { module } = loaded;
      const end = AbortSignal.any([signal, AbortSignal.timeout(totalTimeoutMs)]);
      const wish = wishOf(assignment);
      try {
        const answer = await Promise.race([
          (async () => (desired.exists ? module.apply : module.release)(wish, { signal: end }))(),
          rejectOnAbort(end),
        ]);
        return readAnswer(answer, assignment);
      } catch (error) {
        if (end.aborted && error === end.reason) {
          return signal.aborted
            ? failed('transient', 'the call was cancelled here')
            : failed('transient', `the module did not answer in ${totalTimeoutMs / 1_000} s`);
        }
        return readError(error, assignment);
      }
    },
  };
}

/** The same that the backend of the provisioner http is sent; a copy, so that nothing of ours changes. */
function wishOf({ publicId, generation, desired, product, changes, buyer }: Assignment): unknown {
  const { exists, frozen, trial } = desired;
  return {
    instanceId: publicId,
    product: product.key,
    generation,
    desired: {
      exists,
      frozen,
      expiresAt: desired.expiresAt?.toISOString() ?? null,
      trial,
      plan: desired.plan ? { ...desired.plan } : null,
    },
    changes: changes.map((change) => ({
      ...change,
      acceptedAt: change.acceptedAt.toISOString(),
    })),
    ...(buyer ? { buyer: { ...buyer } } : {}),
  };
}

function readAnswer(answer: unknown, assignment: Assignment): ApplyOutcome {
  const said = objectOf(answer);
  if (said?.['stale'] === true) return { kind: 'stale' };
  if (!assignment.desired.exists) return { kind: 'applied' };
  const appInfo = said?.['appInfo'];
  if (appInfo === undefined || appInfo === null) {
    return isCreate(assignment)
      ? failed('contract', 'the module gave no appInfo for a new instance')
      : { kind: 'applied' };
  }
  const parsed = accessDataSchema.safeParse(appInfo);
  if (!parsed.success) return failed('contract', 'the module gave no appInfo as agreed');
  const { frontEndUrl, ...optional } = parsed.data;
  const present = Object.entries(optional).filter(([, value]) => value !== undefined);
  return { kind: 'applied', access: { frontEndUrl, ...Object.fromEntries(present) } };
}

const classes: Record<FailureClass, true> = { permanent: true, transient: true, contract: true };

/** A longer wait is taken for a mistake: it would park the instance beyond its retries. */
const retryAfterMsMax = 3_600_000;

/** An error's own words may quote anything, so they are sealed; the cause names its kind alone. */
function readError(error: unknown, assignment: Assignment): ApplyOutcome {
  const said = objectOf(error) ?? {};
  const { class: kind, resultCode, code, retryAfterMs } = said;
  const message = typeof said['message'] === 'string' ? said['message'] : '';
  if (typeof resultCode === 'string' && isCreateRefusalCode(resultCode) && isCreate(assignment)) {
    return {
      kind: 'refused',
      resultCode,
      message: message.slice(0, 255) || 'refused by the module',
    };
  }
  const name = [code, said['name']].find(
    (text): text is string => typeof text === 'string' && /^\w{1,40}$/.test(text),
  );
  return failed(
    isFailureClass(kind) ? kind : 'transient',
    `the module threw ${name ?? 'an error'}`,
    {
      ...(message ? { said: message.slice(0, 2_000) } : {}),
      ...(typeof retryAfterMs === 'number' && retryAfterMs > 0
        ? { retryAfterMs: Math.min(retryAfterMs, retryAfterMsMax) }
        : {}),
    },
  );
}

function isFailureClass(kind: unknown): kind is FailureClass {
  return typeof kind === 'string' && Object.hasOwn(classes, kind);
}

function isCreate({ desired, changes }: Assignment): boolean {
  return desired.exists && changes.some(({ kind }) => kind === 'created');
}

function objectOf(value: unknown): Record<string, unknown> | undefined {
  return typeof value === 'object' && value !== null
    ? (value as Record<string, unknown>)
    : undefined;
}

function rejectOnAbort(signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => {
    const end = () => reject(signal.reason as Error);
    if (signal.aborted) end();
    else signal.addEventListener('abort', end, { once: true });
  });
}

function failed(kind: FailureClass, cause: string, more: Partial<Failure> = {}): ApplyOutcome {
  return { kind: 'failed', failure: { class: kind, cause, ...more } };
}
