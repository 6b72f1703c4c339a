import { randomBytes } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import type { Database } from '../db/client.ts';
import type { Keyring } from '../db/data-keys.ts';
import { type ProductRow, findProduct, readProducts } from '../db/products.ts';
import { openWebhookSecrets } from '../db/webhook-secrets.ts';
import { type AccessData, accessDataSchema } from '../protocol/saas-v2/reply.ts';
import { addressOfInstance, parseBackendBase } from '../runtime/backend-address.ts';
import { type Outbound, type OutboundResult, signWebhook } from '../runtime/outbound.ts';

// Tells a seller whether his backend keeps the contract (docs/provisioning-api.md), before a buyer
// finds out: it is called as the workers call it, about instances that nobody bought, which are
// deleted in the end. What it answers is judged and never repeated: it may hold passwords.

export type BackendCheckName =
  | 'first-put'
  | 'same-put-twice'
  | 'newer-generation'
  | 'older-generation'
  | 'delete-twice'
  | 'delete-unknown'
  | 'put-after-delete'
  | 'either-secret'
  | 'bad-signature'
  | 'stale-timestamp'
  | 'change-check'
  | 'in-time';

export type BackendCheck = {
  name: BackendCheckName;
  ok: boolean;
  /** What the backend did, in words without anything of its answers. */
  seen: string;
};

export type CheckBackendOutcome =
  | { kind: 'checked'; ok: boolean; checks: BackendCheck[] }
  | { kind: 'unknown-product'; known: string[] }
  /** Only the provisioner http calls a backend. */
  | { kind: 'not-http'; provisioner: string };

type Tools = {
  outbound: Pick<Outbound, 'call'>;
  nowMs: () => number;
  /** Makes the ids of the instances that are thrown away. */
  createId: () => string;
};

/** Calls the backend of a product; some tens of calls, one after the other. */
export async function checkBackend(
  context: Tools & { db: Database; keyring: Pick<Keyring, 'open'> },
  wanted: { product: string },
): Promise<CheckBackendOutcome> {
  const product = await findProduct(context.db, wanted.product);
  if (!product) {
    const products = await readProducts(context.db);
    return { kind: 'unknown-product', known: products.map((each) => each.key) };
  }
  const { provisioner } = product;
  if (provisioner !== 'http') return { kind: 'not-http', provisioner };
  const secrets = await openWebhookSecrets(context.keyring, product);
  const checks = await runChecks(createProbe(context, product, secrets), product);
  return { kind: 'checked', ok: checks.every(({ ok }) => ok), checks };
}

type Finding = Pick<BackendCheck, 'ok' | 'seen'>;

/** What came back of one call; 0 stands for no answer. */
type Said = { status: number; body: string; failure?: string };

async function runChecks(probe: Probe, product: ProductRow): Promise<BackendCheck[]> {
  const done: BackendCheck[] = [];
  for (const { name, run } of checks) {
    if (name === 'change-check' && product.changeRule !== 'ask') continue;
    const finding = probe.isDeaf()
      ? { ok: false, seen: 'not tried, because nothing answered before' }
      : await run(probe);
    done.push({ name, ...finding });
  }
  await probe.cleanUp();
  return done;
}

const checks: readonly { name: BackendCheckName; run: (probe: Probe) => Promise<Finding> }[] = [
  {
    name: 'first-put',
    run: async (probe) => {
      const said = await probe.put(probe.newId(), 1);
      if (said.status === 202) return hit('PUT was answered 202, to be completed by a call');
      if (said.status !== 200) return miss(`PUT ${wordsOf(said)}, expected 200`);
      const access = accessOf(said);
      return typeof access === 'string'
        ? miss(`PUT was answered 200 ${access}`)
        : hit('PUT was answered 200 with appInfo as agreed');
    },
  },
  {
    name: 'same-put-twice',
    run: withInstance(async (probe, id, first) => {
      const again = await probe.put(id, 1);
      if (!isTaken(again)) return miss(`the same PUT again ${wordsOf(again)}, expected 200`);
      if (!first || again.status === 202) return hit('the same PUT twice was taken twice');
      return isDeepStrictEqual(accessOf(again), first)
        ? hit('the same PUT twice was answered the same')
        : miss('the same PUT twice was answered with other access data: made twice?');
    }),
  },
  {
    name: 'newer-generation',
    run: withInstance(async (probe, id, first) => {
      const frozen = await probe.put(id, 3, { frozen: true });
      if (!isTaken(frozen)) return miss(`a freeze ${wordsOf(frozen)}, expected 200`);
      if (!first || frozen.status === 202) return hit(`a freeze ${wordsOf(frozen)}`);
      const access = accessOf(frozen);
      if (access === 'without appInfo') return hit('a freeze was answered 200');
      if (typeof access === 'string') return miss(`a freeze was answered 200 ${access}`);
      return access.password === first.password
        ? hit('a freeze was answered 200, with the first password')
        : miss('a freeze was answered with another password, and the buyer has the first one');
    }),
  },
  {
    name: 'older-generation',
    run: withInstance(async (probe, id) => {
      const newer = await probe.put(id, 3);
      if (!isTaken(newer)) return miss(`a newer PUT ${wordsOf(newer)}, expected 200`);
      const put = await probe.put(id, 2);
      if (put.status !== 409) return miss(`an older PUT ${wordsOf(put)}, expected 409`);
      const gone = await probe.remove(id, 2);
      if (gone.status !== 409) return miss(`an older DELETE ${wordsOf(gone)}, expected 409`);
      return hit('an older PUT and an older DELETE were answered 409');
    }),
  },
  {
    name: 'delete-twice',
    run: withInstance(async (probe, id) => {
      const first = await probe.remove(id, 2);
      if (!isGone(first)) return miss(`DELETE ${wordsOf(first)}, expected 200, 204 or 404`);
      const second = await probe.remove(id, 2);
      if (!isGone(second)) {
        return miss(`the same DELETE again ${wordsOf(second)}, expected 200, 204 or 404`);
      }
      return hit(`DELETE was answered ${first.status}, and again ${second.status}`);
    }),
  },
  {
    name: 'delete-unknown',
    run: async (probe) => {
      const said = await probe.remove(probe.newId(), 1);
      const seen = `DELETE of an unknown instance ${wordsOf(said)}`;
      return isGone(said) ? hit(seen) : miss(`${seen}, expected 200, 204 or 404`);
    },
  },
  {
    name: 'put-after-delete',
    run: withInstance(async (probe, id) => {
      const gone = await probe.remove(id, 3);
      if (!isGone(gone)) return miss(`DELETE ${wordsOf(gone)}, expected 200, 204 or 404`);
      const late = await probe.put(id, 2);
      const seen = `a PUT older than the DELETE ${wordsOf(late)}`;
      return late.status === 409 ? hit(seen) : miss(`${seen}, expected 409: it came back to life`);
    }),
  },
  {
    name: 'either-secret',
    run: async (probe) => {
      const [one, two] = probe.secrets;
      const stranger = createSecret();
      const tries: [string, readonly string[]][] = [
        ['two signatures of which the second one fits', [stranger, one ?? '']],
        ['two signatures of which the first one fits', [one ?? '', stranger]],
        ...(two === undefined
          ? []
          : ([
              ['the old secret alone', [one ?? '']],
              ['the new secret alone', [two]],
            ] as [string, readonly string[]][])),
      ];
      for (const [what, secrets] of tries) {
        const said = await probe.put(probe.newId(), 1, {}, { secrets });
        if (!isTaken(said)) return miss(`a PUT with ${what} ${wordsOf(said)}, expected 200`);
      }
      return hit(`accepted: ${tries.map(([what]) => what).join('; ')}`);
    },
  },
  {
    name: 'bad-signature',
    run: async (probe) => {
      const stranger = { secrets: [createSecret()] };
      const tries: [string, () => Promise<Said>][] = [
        ['a PUT signed by a stranger', () => probe.put(probe.newId(), 1, {}, stranger)],
        ['a DELETE signed by a stranger', () => probe.remove(probe.newId(), 1, stranger)],
        [
          'a PUT changed after it was signed',
          () => probe.put(probe.newId(), 1, {}, { isTampered: true }),
        ],
        ['a PUT without a signature', () => probe.put(probe.newId(), 1, {}, { secrets: [] })],
      ];
      for (const [what, call] of tries) {
        const said = await call();
        if (!isRefused(said)) return miss(`${what} ${wordsOf(said)}, expected 401`);
      }
      return hit(`refused: ${tries.map(([what]) => what).join('; ')}`);
    },
  },
  {
    name: 'stale-timestamp',
    run: async (probe) => {
      for (const minutes of [-10, 10]) {
        const said = await probe.put(probe.newId(), 1, {}, { shiftMs: minutes * 60_000 });
        if (isRefused(said)) continue;
        const when = minutes < 0 ? '10 minutes old' : '10 minutes ahead';
        return miss(`a PUT with a timestamp ${when} ${wordsOf(said)}, expected 401`);
      }
      return hit('timestamps 10 minutes old and 10 minutes ahead were refused');
    },
  },
  {
    name: 'change-check',
    run: withInstance(async (probe, id) => {
      const said = await probe.ask(id);
      if (said.status !== 200) return miss(`the question ${wordsOf(said)}, expected 200`);
      return typeof parseObject(said.body)?.['allow'] === 'boolean'
        ? hit('the question was answered with a verdict')
        : miss('the question was answered 200 without {"allow": true or false}');
    }),
  },
  {
    name: 'in-time',
    run: async (probe) => {
      const { slowestMs, late } = probe.timing();
      if (late > 0) return miss(`${late} calls were not answered in ${limitMs / 1_000} s`);
      return hit(`the slowest answer took ${Math.round(slowestMs)} ms of ${limitMs}`);
    },
  },
];

/** Checks that need an instance that was made; one that cannot be made is what was seen. */
function withInstance(
  run: (probe: Probe, id: string, access: AccessData | undefined) => Promise<Finding>,
): (probe: Probe) => Promise<Finding> {
  return async (probe) => {
    const id = probe.newId();
    const made = await probe.put(id, 1);
    if (made.status === 202) return run(probe, id, undefined);
    if (made.status !== 200) return miss(`the first PUT ${wordsOf(made)}, expected 200`);
    const access = accessOf(made);
    if (typeof access === 'string') return miss(`the first PUT was answered 200 ${access}`);
    return run(probe, id, access);
  };
}

const limitMs = 10_000;
/** A buyer waits for it, and the marketplace for both. */
const askLimitMs = 2_000;

type Signing = {
  /** Those of the product when absent; none leaves the headers out. */
  secrets?: readonly string[];
  isTampered?: boolean;
  shiftMs?: number;
};

type Probe = ReturnType<typeof createProbe>;

function createProbe(tools: Tools, product: ProductRow, secrets: readonly string[]) {
  const { outbound, nowMs, createId } = tools;
  const base = parseBackendBase(product.httpUrl ?? '');
  const used: string[] = [];
  let slowestMs = 0;
  let late = 0;
  let answered = 0;
  let unanswered = 0;

  async function send(
    method: 'PUT' | 'DELETE' | 'POST',
    id: string,
    at: { behind?: string; generation?: number; key: string; body: string; limitMs: number },
    signing: Signing,
  ): Promise<Said> {
    const url = base && addressOfInstance(base, id, at.behind);
    if (!url) return { status: 0, body: '', failure: 'there is no usable address' };
    if (method === 'DELETE') url.searchParams.set('generation', String(at.generation));
    const signers = signing.secrets ?? secrets;
    const beganMs = nowMs();
    const signedAt = new Date(beganMs + (signing.shiftMs ?? 0));
    // One more blank is the same JSON, and other bytes.
    const sent = signing.isTampered ? `${at.body} ` : at.body;
    const result = await outbound.call({
      method,
      url: url.href,
      headers: {
        ...(signers.length === 0 ? {} : signWebhook(signers, at.key, signedAt, at.body)),
        'Idempotency-Key': at.key,
        ...(at.body === '' ? {} : { 'Content-Type': 'application/json' }),
      },
      ...(at.body === '' ? {} : { body: sent }),
      totalTimeoutMs: at.limitMs,
    });
    slowestMs = Math.max(slowestMs, nowMs() - beganMs);
    return count(result);
  }

  function count(result: OutboundResult): Said {
    if (result.kind === 'answered') {
      answered += 1;
      return { status: result.status, body: result.body };
    }
    unanswered += 1;
    if (result.kind === 'refused-address') {
      return { status: 0, body: '', failure: 'its address is private: set OUTBOUND_ALLOWED_CIDRS' };
    }
    if (result.reason === 'timeout') late += 1;
    return { status: 0, body: '', failure: result.reason };
  }

  async function put(
    id: string,
    generation: number,
    desired: { frozen?: boolean } = {},
    signing: Signing = {},
  ): Promise<Said> {
    const order = `check-${id}`;
    const body = JSON.stringify({
      instanceId: id,
      product: product.key,
      generation,
      desired: {
        exists: true,
        frozen: desired.frozen ?? false,
        expiresAt: null,
        trial: null,
        plan: null,
      },
      changes: [
        {
          kind: generation === 1 ? 'created' : desired.frozen ? 'frozen' : 'renewed',
          scene: generation === 1 || desired.frozen ? null : 'RENEWAL',
          orderId: desired.frozen ? null : order,
          orderLineId: desired.frozen ? null : `${order}-1`,
          acceptedAt: new Date(nowMs()).toISOString(),
        },
      ],
    });
    return send('PUT', id, { key: `${id}:${generation}`, body, limitMs }, signing);
  }

  async function remove(id: string, generation: number, signing: Signing = {}): Promise<Said> {
    return send(
      'DELETE',
      id,
      { generation, key: `${id}:${generation}`, body: '', limitMs },
      signing,
    );
  }

  return {
    secrets,
    put,
    remove,
    ask(id: string): Promise<Said> {
      const body = JSON.stringify({
        instanceId: id,
        target: { productId: 'check', skuCode: 'check', quantity: 2 },
        current: { exists: true, frozen: false, expiresAt: null, trial: null, plan: null },
      });
      const at = { behind: '/check', key: `check:${id}`, body, limitMs: askLimitMs };
      return send('POST', id, at, {});
    },
    newId(): string {
      const id = createId();
      used.push(id);
      return id;
    },
    /** Nothing ever answered, so that nothing is learnt by going on. */
    isDeaf: () => answered === 0 && unanswered > 0,
    timing: () => ({ slowestMs, late }),
    /** Newer than all that was sent before. */
    async cleanUp(): Promise<void> {
      if (answered === 0) return;
      for (const id of used) await remove(id, 1_000);
    },
  };
}

function createSecret(): string {
  return `whsec_${randomBytes(32).toString('base64')}`;
}

function hit(seen: string): Finding {
  return { ok: true, seen };
}

function miss(seen: string): Finding {
  return { ok: false, seen };
}

function wordsOf({ status, failure }: Said): string {
  return status === 0
    ? `was not answered (${failure ?? 'unknown'})`
    : `was answered ${String(status)}`;
}

/** 202: a backend may take its time, and say by a call of its own how it ended. */
function isTaken({ status }: Said): boolean {
  return status === 200 || status === 202;
}

function isGone({ status }: Said): boolean {
  return status === 200 || status === 204 || status === 404;
}

/** 401 is meant; others that say "not like this" do no harm. */
function isRefused({ status }: Said): boolean {
  return status >= 400 && status <= 403;
}

/** @returns what is wrong with it, in words that repeat nothing of it */
function accessOf({ body }: Said): AccessData | string {
  const said = parseObject(body);
  if (!said) return 'without JSON';
  const appInfo = said['appInfo'];
  if (appInfo === undefined || appInfo === null) return 'without appInfo';
  const parsed = accessDataSchema.safeParse(appInfo);
  if (parsed.success) return parsed.data;
  const fields = parsed.error.issues.map((issue) => issue.path.join('.') || 'the whole');
  return `with appInfo not as agreed: ${[...new Set(fields)].join(', ')}`;
}

function parseObject(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null
      ? (value as Record<string, unknown>)
      : undefined;
  } catch {
    return undefined;
  }
}
