import type { Failure, FailureClass } from '../../core/failure.ts';
import type { AccessData, ApplyOutcome, Assignment, Provisioner } from '../../core/provisioner.ts';
import { isCreateRefusalCode } from '../../protocol/result-codes.ts';
import { accessDataSchema } from '../../protocol/saas-v2/reply.ts';
import {
  type Outbound,
  type OutboundFailure,
  type OutboundResult,
  isWebhookSecret,
  signWebhook,
} from '../../runtime/outbound.ts';

// The seller's backend makes it real: PUT with the whole desired state, DELETE when it is released.
// At least once, fenced by the generation: the backend answers 409 to an older one.

export type HttpProvisionerOptions = {
  outbound: Outbound;
  /** Base address; `/instances/{id}` is put behind its path. */
  baseUrl: string;
  /** `whsec_` and base64; each one signs. Asked for at each call, so that none is kept here. */
  secrets: readonly string[] | (() => Promise<readonly string[]>);
  now: () => Date;
  totalTimeoutMs?: number;
};

type Answer = Extract<OutboundResult, { kind: 'answered' }>;

export function createHttpProvisioner(options: HttpProvisionerOptions): Provisioner {
  const base = parseBase(options.baseUrl);
  const totalTimeoutMs = options.totalTimeoutMs ?? 10_000;
  return {
    target: base ? `${base.origin}${base.pathname}`.replace(/\/+$/, '') : 'no address',
    apply: async (assignment, signal) => {
      if (!assignment.desired.exists && !assignment.everBegan) return { kind: 'applied' };
      if (!base) return failed('permanent', 'the product has no usable address of a backend');
      const secrets =
        typeof options.secrets === 'function' ? await options.secrets() : options.secrets;
      if (secrets.length === 0 || !secrets.every(isWebhookSecret)) {
        return failed('permanent', 'the webhook secret is not whsec_ and base64');
      }
      // A URL takes these for "here" and "up", however they are encoded.
      if (assignment.publicId === '.' || assignment.publicId === '..') {
        return failed('permanent', 'the instance id cannot stand in an address');
      }
      const result = await options.outbound.call({
        ...buildRequest(base, secrets, options.now(), assignment),
        totalTimeoutMs,
        signal,
      });
      switch (result.kind) {
        case 'refused-address':
          return failed('permanent', 'address is private: set OUTBOUND_ALLOWED_CIDRS');
        case 'failed':
          return failWithoutAnswer(result.reason, totalTimeoutMs);
        case 'answered':
          return readAnswer(result, assignment, options.now());
      }
    },
  };
}

function parseBase(text: string): URL | undefined {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  return url && /^https?:$/.test(url.protocol) ? url : undefined;
}

function buildRequest(
  base: URL,
  secrets: readonly string[],
  at: Date,
  assignment: Assignment,
): { method: 'PUT' | 'DELETE'; url: string; headers: Record<string, string>; body?: string } {
  const { publicId, generation, desired, product, changes, buyer } = assignment;
  const url = new URL(base);
  const id = encodeURIComponent(publicId);
  url.pathname = `${base.pathname.replace(/\/+$/, '')}/instances/${id}`;
  // A header carries printable ASCII only; an id of anything else stands in it as it does in the path.
  const key = `${/^[\x21-\x7e]+$/.test(publicId) ? publicId : id}:${generation}`;
  if (!desired.exists) {
    url.searchParams.set('generation', String(generation));
    const headers = { ...signWebhook(secrets, key, at, ''), 'Idempotency-Key': key };
    return { method: 'DELETE', url: url.href, headers };
  }
  const body = JSON.stringify({
    instanceId: publicId,
    product: product.key,
    generation,
    desired,
    changes,
    ...(buyer ? { buyer } : {}),
  });
  const headers = {
    ...signWebhook(secrets, key, at, body),
    'Idempotency-Key': key,
    'Content-Type': 'application/json',
  };
  return { method: 'PUT', url: url.href, headers, body };
}

function readAnswer(answer: Answer, assignment: Assignment, now: Date): ApplyOutcome {
  const { status } = answer;
  const about = {
    httpStatus: status,
    ...(answer.body ? { said: answer.body.slice(0, 2_000) } : {}),
  };
  const fail = (kind: FailureClass, cause: string, more: Partial<Failure> = {}) =>
    failed(kind, cause, { ...about, ...more });

  if (!assignment.desired.exists && [200, 204, 404].includes(status)) return { kind: 'applied' };
  if (assignment.desired.exists && status === 200) {
    const access = readAccess(answer.body, isCreate(assignment));
    if (access === 'nonsense') {
      return fail('contract', 'backend answered 200 without access data as agreed');
    }
    return access === 'as it was' ? { kind: 'applied' } : { kind: 'applied', access };
  }
  if (status === 409) return { kind: 'stale' };
  // What is dropped is final and told to nobody, so a DELETE has nothing to complete later.
  if (status === 202 && assignment.desired.exists) return { kind: 'pending' };
  if (status === 422 && isCreate(assignment)) {
    const refusal = readRefusal(answer.body);
    if (refusal) return refusal;
  }
  if (status >= 500 || status === 408 || status === 425 || status === 429) {
    return fail('transient', `backend answered ${status}`, readRetryAfter(answer, now));
  }
  if (status >= 400) return fail('permanent', `backend answered ${status}`);
  if (status >= 300)
    return fail('permanent', `backend answered ${status}: redirects are not followed`);
  return fail('contract', `backend answered ${status}`);
}

/** True while the instance was never made: only then may it be refused, or must say how it is used. */
function isCreate({ desired, changes }: Assignment): boolean {
  return desired.exists && changes.some(({ kind }) => kind === 'created');
}

/** `{}` says that nothing changed, which only an instance that exists already can say. */
function readAccess(body: string, isNeeded: boolean): AccessData | 'as it was' | 'nonsense' {
  const said = parseObject(body);
  if (said === undefined) return 'nonsense';
  const appInfo = said['appInfo'];
  if (appInfo === undefined || appInfo === null) return isNeeded ? 'nonsense' : 'as it was';
  const parsed = accessDataSchema.safeParse(appInfo);
  if (!parsed.success) return 'nonsense';
  const { frontEndUrl, ...optional } = parsed.data;
  const present = Object.entries(optional).filter(([, value]) => value !== undefined);
  return { frontEndUrl, ...Object.fromEntries(present) };
}

function readRefusal(body: string): ApplyOutcome | undefined {
  const said = parseObject(body);
  const resultCode = said?.['resultCode'];
  if (typeof resultCode !== 'string' || !isCreateRefusalCode(resultCode)) return undefined;
  const message = said?.['message'];
  return {
    kind: 'refused',
    resultCode,
    message:
      typeof message === 'string' && message ? message.slice(0, 255) : 'refused by the backend',
  };
}

function parseObject(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    const isObject = typeof value === 'object' && value !== null && !Array.isArray(value);
    return isObject ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}

/** A longer wait is taken for a mistake: it would park the instance beyond its retries. */
const retryAfterMsMax = 3_600_000;

/** Seconds or an HTTP date (RFC 9110 §10.2.3). */
function readRetryAfter(answer: Answer, now: Date): { retryAfterMs?: number } {
  const text = answer.headers['retry-after']?.trim() ?? '';
  const isSeconds = /^\d{1,9}$/.test(text);
  const waitMs = isSeconds ? Number(text) * 1_000 : Date.parse(text) - now.getTime();
  if (!Number.isFinite(waitMs) || waitMs <= 0) return {};
  return { retryAfterMs: Math.min(waitMs, retryAfterMsMax) };
}

function failWithoutAnswer(reason: OutboundFailure, totalTimeoutMs: number): ApplyOutcome {
  const words: Record<OutboundFailure, [FailureClass, string]> = {
    connect: ['transient', 'backend cannot be connected to'],
    dns: ['transient', 'backend name does not resolve'],
    tls: ['transient', 'backend certificate or TLS is not usable'],
    timeout: ['transient', `backend did not answer in ${totalTimeoutMs / 1_000} s`],
    reset: ['transient', 'backend closed the connection'],
    cancelled: ['transient', 'the call was cancelled here'],
    'too-large': ['contract', 'backend answered more than 1 MiB'],
    protocol: ['contract', 'backend does not speak HTTP'],
  };
  return failed(...words[reason]);
}

function failed(kind: FailureClass, cause: string, more: Partial<Failure> = {}): ApplyOutcome {
  return { kind: 'failed', failure: { class: kind, cause, ...more } };
}
