/** From the project's own words to what the marketplace is answered (saas-v2.md §2, data-path.md §1). */
import { z } from 'zod';
import { isCreateRefusalCode, resultMessages, type ResultCode } from '../result-codes.ts';
import type { AcceptedEvent } from './callback.ts';

// Lengths are counted as Java and JavaScript count them; zod's own max counts a pair as one. What is
// refused on the way in, NUL and half of a surrogate pair, is not handed on either.
const boundedText = (lengthMax: number) =>
  z
    .string()
    .refine((text) => text.length <= lengthMax, `longer than ${lengthMax} characters`)
    .refine((text) => !/[\0\ud800-\udfff]/u.test(text), 'holds NUL or half of a surrogate pair');

/** Null and the empty string, which many languages write for "none", are taken as none. */
const optionalField = (lengthMax: number) =>
  boundedText(lengthMax)
    .nullish()
    .transform((text) => text || undefined);

/** What a buyer needs to use an instance, within the lengths that the marketplace takes. */
export const accessDataSchema = z.object({
  frontEndUrl: boundedText(512).min(1),
  adminUrl: optionalField(512),
  userName: optionalField(128),
  password: optionalField(128),
  memo: optionalField(1024),
});

export interface AccessData {
  frontEndUrl: string;
  adminUrl?: string | undefined;
  userName?: string | undefined;
  password?: string | undefined;
  memo?: string | undefined;
}

interface InstanceInfo {
  instanceId: string;
  appInfo?: AccessData;
}

export interface Reply {
  resultCode: ResultCode;
  resultMsg: string;
  instanceId?: string;
  info?: InstanceInfo[];
}

const resultMsgLengthMax = 255;

type AnsweredState = 'pending' | 'active' | 'frozen' | 'released' | 'refused';

/**
 * To newInstance. A release does not take back what was said of the order, so a released instance
 * is still 000000. A refusal without a code of its own is 000104.
 */
export function replyToOrder(
  order: { state: AnsweredState; resultCode?: string | null },
  instanceId: string,
): Reply {
  const codes: Record<AnsweredState, ResultCode> = {
    pending: '000004',
    active: '000000',
    frozen: '000000',
    released: '000000',
    refused:
      order.resultCode && isCreateRefusalCode(order.resultCode) ? order.resultCode : '000104',
  };
  return { ...refusal(codes[order.state]), instanceId };
}

const isShownToBuyer: Record<AnsweredState | 'unknown', boolean> = {
  pending: false,
  active: true,
  frozen: true,
  released: false,
  refused: false,
  unknown: false,
};

/** To queryInstance: rows in the order asked; an id that was asked twice is answered once. */
export function replyToQuery(
  rows: readonly {
    instanceId: string;
    state: AnsweredState | 'unknown';
    access?: AccessData | undefined;
  }[],
): Reply {
  const info = new Map<string, InstanceInfo>();
  for (const { instanceId, state, access } of rows) {
    if (!isShownToBuyer[state] || info.has(instanceId)) continue;
    info.set(instanceId, { instanceId, ...(access ? { appInfo: access } : {}) });
  }
  if (info.size > 0) return { ...refusal('000000'), info: [...info.values()] };
  return refusal(rows.some(({ state }) => state === 'pending') ? '000004' : '000003');
}

/**
 * To the activities that tell a fact. `released` says that the instance had been released or
 * refused before: a further release is then done already, anything else comes too late.
 */
export function replyToEvent(
  outcome: 'accepted' | 'duplicate' | 'unknown' | 'released',
  kind: AcceptedEvent['kind'],
): Reply {
  switch (outcome) {
    case 'accepted':
    case 'duplicate':
      return refusal('000000');
    case 'unknown':
      return refusal('000003');
    case 'released':
      return refusal(kind === 'released' ? '000000' : '000003');
  }
}

/** To changeInstanceCheck; the rule's own words tell the buyer why a change is refused. */
export function replyToChangeCheck(verdict: 'allowed' | 'unknown' | { refused: string }): Reply {
  if (verdict === 'allowed') return refusal('000000');
  if (verdict === 'unknown') return refusal('000003');
  return refusal('000005', verdict.refused);
}

/** A bare code, with the table's words or others, cut to the 255 characters that are taken. */
export function refusal(code: ResultCode, message: string = resultMessages[code]): Reply {
  return { resultCode: code, resultMsg: cutText(message, resultMsgLengthMax) };
}

/**
 * The exact text to send, ASCII alone: the protocol asks that Chinese in memo be sent as \uXXXX
 * (saas-v2.md §2.2), and what holds for one field harms no other.
 */
export function serializeReply(reply: Reply): string {
  const { resultCode, resultMsg, instanceId, info } = reply;
  const text = JSON.stringify({ resultCode, resultMsg, instanceId, info: info?.map(orderFields) });
  return text.replace(
    /[\u0080-\uffff]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

/** Names each field, so that nothing that rides along in access data is ever sent. */
function orderFields({ instanceId, appInfo }: InstanceInfo): InstanceInfo {
  if (!appInfo) return { instanceId };
  const { frontEndUrl, adminUrl, userName, password, memo } = appInfo;
  return { instanceId, appInfo: { frontEndUrl, adminUrl, userName, password, memo } };
}

function cutText(text: string, lengthMax: number): string {
  if (text.length <= lengthMax) return text;
  const cut = text.slice(0, lengthMax);
  // A pair that straddles the edge goes whole.
  return /[\ud800-\udbff]$/.test(cut) ? cut.slice(0, -1) : cut;
}
