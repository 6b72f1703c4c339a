/**
 * From a verified body to the project's own words: field names, lengths and enumerations of the
 * wire (saas-v2.md §2) end here.
 */
import { z } from 'zod';
import { findJsonTextProblem, parseJson, readJsonObject } from '../json-text.ts';
import { parseMarketplaceTime } from '../times.ts';

export const renewalScenes = [
  'TRIAL_TO_FORMAL',
  'RENEWAL',
  'UNSUBSCRIBE_RENEWAL_PERIOD',
  'RENEWAL_CHANGE',
] as const;

export type RenewalScene = (typeof renewalScenes)[number];

/**
 * One fact about an instance. The dedup key makes a fact the same however often it is sent; null
 * where only the order of arrival can tell a re-send from the next fact of its kind.
 */
export type AcceptedEvent =
  | {
      kind: 'renewed';
      scene: RenewalScene;
      orderId: string;
      orderLineId: string;
      /** `renew/{scene}/{orderId}/{orderLineId}`: a refund may carry the renewal's own order id. */
      dedupKey: string;
      expiresAt: Date;
      /** The new product, where the renewal changed it. */
      productId?: string;
    }
  | { kind: 'frozen' | 'unfrozen'; dedupKey: null }
  | { kind: 'upgraded'; orderId: string; orderLineId: string; dedupKey: string }
  | { kind: 'released'; orderId?: string; orderLineId?: string; dedupKey: 'released' };

/** What a buyer wants to change to, as far as the marketplace says. */
interface ChangeTarget {
  productId?: string;
  skuCode?: string;
  quantity?: number;
}

/** One callback. `isTest` is true for the marketplace's debugging calls. */
export type Callback =
  | {
      activity: 'newInstance';
      isTest: boolean;
      /** `{orderId}/{orderLineId}`: what makes a purchase the same. */
      orderKey: string;
      orderId: string;
      orderLineId: string;
      /** The id to give the instance if this call is the first for its order. */
      proposedId: string;
    }
  | { activity: 'queryInstance'; isTest: boolean; instanceIds: string[] }
  | { activity: 'changeInstanceCheck'; isTest: boolean; instanceId: string; target: ChangeTarget }
  | {
      activity: 'refreshInstance' | 'updateInstanceStatus' | 'upgradeInstance' | 'releaseInstance';
      isTest: boolean;
      instanceId: string;
      event: AcceptedEvent;
    };

export type CallbackReading = { ok: true; callback: Callback } | { ok: false; problem: string };

/**
 * Whether an id can be asked for by queryInstance, which takes a list separated by commas, and can
 * stand in addresses: visible ASCII without a comma.
 */
export function isAskableId(id: string): boolean {
  return /^[\x21-\x2b\x2d-\x7e]{1,64}$/.test(id);
}

/** Reads a verified body. A problem names a field and a rule and never quotes the body. */
export function parseCallback(body: Buffer): CallbackReading {
  const json = readJsonObject(body);
  if (!json.ok) return json;
  const activity = json.value['activity'];
  if (isAbsent(activity)) return refuse('activity is missing');
  if (typeof activity !== 'string') return refuse('activity is not a string');
  const read = readers.get(activity);
  if (read) return read(json.value);
  const otherFamily = activitiesOfOtherFamilies.get(activity);
  return otherFamily
    ? refuse(`activity is of ${otherFamily}; this product speaks saas-v2`)
    : refuse('activity is not one of saas-v2');
}

const activitiesOfOtherFamilies = new Map([
  ['expireInstance', 'the old interface (saas-v1)'],
  ['instanceStatus', 'the old interface (saas-v1)'],
  ['upgrade', 'the old interface (saas-v1)'],
  ['getLicense', 'the licence interface (license-v1)'],
  ['refreshLicense', 'the licence interface (license-v1)'],
  ['expireLicense', 'the licence interface (license-v1)'],
  ['releaseLicense', 'the licence interface (license-v1)'],
  ['refreshLicenseCode', 'the licence code interface (license-code)'],
  ['updateLicenseCodeStatus', 'the licence code interface (license-code)'],
  ['releaseLicenseCode', 'the licence code interface (license-code)'],
  ['getLicenseAsync', 'the online licence interface (online-license)'],
]);

const idLengthMax = 64;
const idsAtOnceMax = 100;

const requiredId = createRequiredText(idLengthMax);
const optionalId = z
  .string('is not a string')
  .refine((text) => text.length <= idLengthMax, `is longer than ${idLengthMax} characters`)
  .nullish()
  // Null and the empty string both say "none".
  .transform((text) => text || undefined);

// Absent in real calls today, "0" in older ones; a number in the sister interfaces. The empty string
// says as little as absence: a real purchase must not fail for it.
const testFlag = z
  .literal(['0', '1', 0, 1, ''], 'is neither 0 nor 1')
  .nullish()
  .transform((flag) => flag === '1' || flag === 1);

const expireTime = createRequiredText(20).transform((text, context) => {
  const expiresAt = parseMarketplaceTime(text);
  if (expiresAt) return expiresAt;
  context.addIssue({ code: 'custom', message: 'is not a UTC time of 14 or 17 digits' });
  return z.NEVER;
});

// The protocol's own length of 100 cannot hold the 100 ids that it allows.
const instanceIds = z
  .string({ error: describeMissingText })
  .transform((text) => text.split(',').flatMap((id) => id.trim() || []))
  .pipe(
    z
      .array(
        z
          .string()
          .refine(
            (id) => id.length <= idLengthMax,
            `has an id longer than ${idLengthMax} characters`,
          ),
      )
      .min(1, 'has no id')
      .max(idsAtOnceMax, `has more than ${idsAtOnceMax} ids`),
  );

// The page lists no fields and an object has been seen written as a string, so what is not known
// is left out; only what cannot be read at all is refused.
const productInfo = z
  .unknown()
  .transform(unwrapProductInfo)
  .pipe(
    z.object(
      {
        productId: optionalId,
        skuCode: optionalId,
        linearValue: z
          .union(
            [
              z.number().refine((quantity) => quantity >= 0, 'is not a quantity'),
              z
                .string()
                .regex(/^\d{1,12}(?:\.\d{1,4})?$/)
                .transform(Number),
              z.literal('').transform(() => undefined),
            ],
            'is not a quantity',
          )
          .nullish(),
      },
      {
        error: (issue) =>
          isAbsent(issue.input) ? 'is missing' : 'is neither an object nor one written as a string',
      },
    ),
  );

const readers = new Map([
  [
    'newInstance',
    createReader(
      z.object({
        orderId: requiredId,
        orderLineId: requiredId,
        businessId: requiredId,
        testFlag,
      }),
      ({ orderId, orderLineId, businessId, testFlag: isTest }) => ({
        activity: 'newInstance',
        isTest,
        orderKey: orderKeyOf({ orderId, orderLineId }),
        orderId,
        orderLineId,
        proposedId: businessId,
      }),
    ),
  ],
  [
    'queryInstance',
    createReader(z.object({ instanceId: instanceIds, testFlag }), (fields) => ({
      activity: 'queryInstance',
      isTest: fields.testFlag,
      instanceIds: fields.instanceId,
    })),
  ],
  [
    'changeInstanceCheck',
    createReader(z.object({ instanceId: requiredId, productInfo, testFlag }), (fields) => {
      const { productId, skuCode, linearValue: quantity } = fields.productInfo;
      return {
        activity: 'changeInstanceCheck',
        isTest: fields.testFlag,
        instanceId: fields.instanceId,
        target: {
          ...(productId === undefined ? {} : { productId }),
          ...(skuCode === undefined ? {} : { skuCode }),
          ...(quantity === undefined || quantity === null ? {} : { quantity }),
        },
      };
    }),
  ],
  [
    'refreshInstance',
    createReader(
      z.object({
        scene: z.enum(renewalScenes, {
          error: (issue) => (isAbsent(issue.input) ? 'is missing' : 'is not a known scene'),
        }),
        orderId: requiredId,
        orderLineId: requiredId,
        instanceId: requiredId,
        productId: optionalId,
        expireTime,
        testFlag,
      }),
      ({ scene, orderId, orderLineId, instanceId, productId, ...fields }) => ({
        activity: 'refreshInstance',
        isTest: fields.testFlag,
        instanceId,
        event: {
          kind: 'renewed',
          scene,
          orderId,
          orderLineId,
          dedupKey: renewalKeyOf({ scene, orderId, orderLineId }),
          expiresAt: fields.expireTime,
          ...(productId === undefined ? {} : { productId }),
        },
      }),
    ),
  ],
  [
    'updateInstanceStatus',
    createReader(
      z.object({
        instanceId: requiredId,
        status: z.enum(['FREEZE', 'UNFREEZE'], {
          error: (issue) =>
            isAbsent(issue.input) ? 'is missing' : 'is neither FREEZE nor UNFREEZE',
        }),
        testFlag,
      }),
      ({ instanceId, status, testFlag: isTest }) => ({
        activity: 'updateInstanceStatus',
        isTest,
        instanceId,
        event: { kind: status === 'FREEZE' ? 'frozen' : 'unfrozen', dedupKey: null },
      }),
    ),
  ],
  [
    'upgradeInstance',
    createReader(
      z.object({
        instanceId: requiredId,
        orderId: requiredId,
        orderLineId: requiredId,
        testFlag,
      }),
      ({ instanceId, orderId, orderLineId, testFlag: isTest }) => ({
        activity: 'upgradeInstance',
        isTest,
        instanceId,
        event: {
          kind: 'upgraded',
          orderId,
          orderLineId,
          dedupKey: upgradeKeyOf({ orderId, orderLineId }),
        },
      }),
    ),
  ],
  [
    'releaseInstance',
    createReader(
      z.object({
        instanceId: requiredId,
        orderId: optionalId,
        orderLineId: optionalId,
        testFlag,
      }),
      ({ instanceId, orderId, orderLineId, testFlag: isTest }) => ({
        activity: 'releaseInstance',
        isTest,
        instanceId,
        event: {
          kind: 'released',
          dedupKey: 'released',
          ...(orderId === undefined ? {} : { orderId }),
          ...(orderLineId === undefined ? {} : { orderLineId }),
        },
      }),
    ),
  ],
]);

function createReader<Fields>(
  schema: z.ZodType<Fields>,
  toCallback: (fields: Fields) => Callback,
): (body: Record<string, unknown>) => CallbackReading {
  const compiled = z.compile(schema);
  return (body) => {
    const result = compiled.safeParse(body);
    return result.success
      ? { ok: true, callback: toCallback(result.data) }
      : refuse(describeFirstIssue(result.error));
  };
}

/** Lengths are counted as Java and JavaScript count them; zod's own max counts a pair as one. */
function createRequiredText(lengthMax: number): z.ZodString {
  return z
    .string({ error: describeMissingText })
    .min(1, 'is empty')
    .refine((text) => text.length <= lengthMax, `is longer than ${lengthMax} characters`);
}

function describeMissingText(issue: { input?: unknown }): string {
  return isAbsent(issue.input) ? 'is missing' : 'is not a string';
}

/** The marketplace drops null fields before it signs, so null says as little as no field. */
function isAbsent(value: unknown): boolean {
  return value === undefined || value === null;
}

/** Every message of the schemas above is our own, in words that follow the field's name. */
function describeFirstIssue(error: z.ZodError): string {
  const [issue] = error.issues;
  if (!issue) return 'the body does not fit the schema';
  const field = issue.path.filter((step) => typeof step === 'string').join('.');
  return `${field} ${issue.message}`;
}

function unwrapProductInfo(value: unknown): unknown {
  let info = value;
  if (typeof info === 'string') {
    const parsed = parseJson(info);
    // As text it escaped the look at the body's own strings.
    info = parsed === undefined || findJsonTextProblem(info) !== undefined ? 'unreadable' : parsed;
  }
  // The order query calls a list by the same name.
  return Array.isArray(info) ? info[0] : info;
}

type OrderLineId = { orderId: string; orderLineId: string };

/** What makes a purchase the same, however often it is sent. */
export function orderKeyOf({ orderId, orderLineId }: OrderLineId): string {
  return joinKey(orderId, orderLineId);
}

/** What makes a renewal the same; with the scene, because a refund may carry the renewal's order. */
export function renewalKeyOf(renewal: OrderLineId & { scene: RenewalScene }): string {
  return joinKey('renew', renewal.scene, renewal.orderId, renewal.orderLineId);
}

/** What makes an upgrade the same. */
export function upgradeKeyOf({ orderId, orderLineId }: OrderLineId): string {
  return joinKey('upgrade', orderId, orderLineId);
}

/** Joins by "/"; a "/" inside a part is escaped, so that no two lists of parts share a key. */
function joinKey(...parts: string[]): string {
  return parts
    .map((part) => part.replace(/[%/]/g, (mark) => (mark === '%' ? '%25' : '%2F')))
    .join('/');
}

function refuse(problem: string): CallbackReading {
  return { ok: false, problem };
}
