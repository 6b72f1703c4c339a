import type { DesiredState } from '../../core/fold.ts';
import type { ProductRow } from '../../db/products.ts';
import type { Callback } from '../../protocol/saas-v2/callback.ts';
import { addressOfInstance, parseBackendBase } from '../../runtime/backend-address.ts';
import { type Outbound, signWebhook } from '../../runtime/outbound.ts';

/** By what a product answers whether an instance may be changed. */
export type ChangeRule = Pick<
  ProductRow,
  'id' | 'changeRule' | 'checkOnFailure' | 'httpUrl' | 'httpSecretEnc' | 'httpSecretNextEnc'
>;

type ChangeQuestion = {
  /** Id of the callback; each question to a backend has one of its own. */
  id: string;
  rule: ChangeRule;
  /** Internal number; never shown. */
  instanceId: number;
  publicId: string;
  target: Extract<Callback, { activity: 'changeInstanceCheck' }>['target'];
  deadlineMs: number;
};

type ChangeAnswer = {
  /** The words are for the buyer, and the marketplace takes 255 characters of them. */
  verdict: 'allowed' | { refused: string };
  /** Why the backend could not say it itself, for operators. */
  reason?: string;
};

export type CheckChange = (question: ChangeQuestion) => Promise<ChangeAnswer>;

/** Whatever the budget leaves, a buyer does not wait longer for a backend. */
const askMsMax = 2_000;

const words = {
  refused: '该实例不支持变更 This instance cannot be changed.',
  noAnswer:
    '暂时无法确认变更，请稍后重试 The change cannot be confirmed now, please try again later.',
};

/** Answers by the product's own rule, which may be to ask the seller's backend. */
export function createCheckChange(options: {
  outbound: Pick<Outbound, 'call'>;
  /** What the instance is by now. */
  readCurrent: (instanceId: number) => Promise<DesiredState>;
  secretsOf: (rule: ChangeRule) => Promise<readonly string[]>;
  nowMs: () => number;
}): CheckChange {
  const { outbound, readCurrent, secretsOf, nowMs } = options;

  return async (question) => {
    const { rule, deadlineMs } = question;
    switch (rule.changeRule) {
      case 'allow':
        return { verdict: 'allowed' };
      case 'refuse':
        return { verdict: { refused: words.refused } };
      case 'ask': {
        const endsAtMs = Math.min(nowMs() + askMsMax, deadlineMs);
        const said = await within(endsAtMs - nowMs(), ask(question, endsAtMs));
        if (typeof said === 'object') return { verdict: said.verdict };
        const isAllowed = rule.checkOnFailure === 'allow';
        return { verdict: isAllowed ? 'allowed' : { refused: words.noAnswer }, reason: said };
      }
    }
  };

  /** @returns why nothing was said, in words without anything of the answer */
  async function ask(question: ChangeQuestion, endsAtMs: number): Promise<ChangeAnswer | string> {
    const { id, rule, instanceId, publicId, target } = question;
    const base = parseBackendBase(rule.httpUrl ?? '');
    const url = base && addressOfInstance(base, publicId, '/check');
    if (!url) return 'there is no address to ask at';
    const [current, secrets] = await Promise.all([readCurrent(instanceId), secretsOf(rule)]);
    const { productId = null, skuCode = null, quantity = null } = target;
    const wish = { productId, skuCode, quantity };
    const body = JSON.stringify({ instanceId: publicId, target: wish, current });
    const result = await outbound.call({
      method: 'POST',
      url: url.href,
      headers: {
        ...signWebhook(secrets, id, new Date(nowMs()), body),
        'Content-Type': 'application/json',
      },
      body,
      totalTimeoutMs: Math.max(1, endsAtMs - nowMs()),
    });
    switch (result.kind) {
      case 'refused-address':
        return 'the address of the backend is private: set OUTBOUND_ALLOWED_CIDRS';
      case 'failed':
        return `the backend was not reached (${result.reason})`;
      case 'answered':
        return result.status === 200
          ? (readVerdict(result.body) ?? 'the backend answered 200 without a verdict as agreed')
          : `the backend answered ${result.status}`;
    }
  }
}

function readVerdict(body: string): ChangeAnswer | undefined {
  const said = parseObject(body);
  const message = said?.['message'];
  switch (said?.['allow']) {
    case true:
      return { verdict: 'allowed' };
    case false:
      return {
        verdict: {
          refused: typeof message === 'string' && message.trim() ? message.trim() : words.refused,
        },
      };
    default:
      return undefined;
  }
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

/** An error is a failure like another: what was promised is an answer. */
async function within(
  timeoutMs: number,
  work: Promise<ChangeAnswer | string>,
): Promise<ChangeAnswer | string> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<string>((resolve) => {
    timer = setTimeout(() => resolve('the backend was not asked in time'), Math.max(0, timeoutMs));
  });
  try {
    return await Promise.race([work, late]);
  } catch {
    return 'the question could not be put together';
  } finally {
    clearTimeout(timer);
  }
}
