/**
 * The marketplace's own record of an order (saas-v2.md §8): callbacks of SaaS V2.0 say only its id.
 * The documented tables are not whole, so what is not known is let through and what is odd is left out.
 */
import { z } from 'zod';
import { findJsonTextProblem, parseJson } from '../json-text.ts';
import { parseMarketplaceTime } from '../times.ts';

/** The bought thing in one order line. */
export type OrderedProduct = {
  productId: string | null;
  skuCode: string | null;
  /** Of the linear attribute. */
  quantity: number | null;
};

export type OrderLine = {
  orderLineId: string;
  /** ON_DEMAND, ONE_TIME, PERIOD or ON_DEMAND_PKG, as far as documented. */
  chargingMode: string | null;
  expiresAt: Date | null;
  period: { type: string; number: number } | null;
  products: OrderedProduct[];
};

export type Order = {
  orderId: string;
  /** NEW, TRIAL, TRIAL_TO_FORMAL, UNSUBSCRIBE, RENEW or CHANGE, as far as documented. */
  orderType: string | null;
  lines: OrderLine[];
  /** As the marketplace says it: personal data. */
  buyer: Buyer | null;
};

/** Names like customerId, customerName, userName, mobilePhone, email; each may be absent. */
type Buyer = Record<string, string>;

export type OrderReply =
  | { kind: 'order'; order: Order }
  /** An error, in its own body or under HTTP 200: like `MKT.0250` or `CBC.0250`. */
  | { kind: 'error'; code: string }
  /** Nothing that the interface could have said, like a page in HTML. */
  | { kind: 'nonsense'; problem: string };

/** Where the marketplace for Chinese sellers also answers when the first name cannot be reached. */
const fallbackHosts: Readonly<Record<string, string>> = {
  'mkt.myhuaweicloud.com': 'mkt.myhuaweicloud.cn',
};

/**
 * The addresses at which to ask for an order, the first one first. The whole order is asked for and
 * not one line, so that one answer serves all its lines.
 *
 * @param base of the marketplace's API, like `https://mkt.myhuaweicloud.com`
 */
export function orderQueryUrls(base: string, orderId: string): [URL, ...URL[]] {
  const url = new URL(base);
  url.pathname = `${url.pathname.replace(/\/+$/, '')}/api/mkp-openapi-public/global/v1/order/query`;
  // Not by searchParams: it writes a space as +, which the gateway need not read as one.
  url.search = `orderId=${encodeURIComponent(orderId)}`;
  const fallback = fallbackHosts[url.host];
  if (fallback === undefined) return [url];
  const second = new URL(url);
  second.host = fallback;
  return [url, second];
}

const odd = () => null;
const text = z
  .string()
  .transform((value) => value || null)
  .nullish()
  .transform((value) => value ?? null);
const lenientText = z.union([text, z.number().transform(String)]).catch(odd);

const amount = z
  .union([
    z.number(),
    z
      .string()
      .regex(/^\d{1,12}(?:\.\d{1,4})?$/)
      .transform(Number),
  ])
  .nullish()
  .transform((value) => value ?? null)
  .catch(odd);

const product = z
  .looseObject({ productId: lenientText, skuCode: lenientText, linearValue: amount })
  .transform(({ productId, skuCode, linearValue }) => ({
    productId,
    skuCode,
    quantity: linearValue,
  }));

// A list in the examples; a sister interface sends one object, and that has been seen as a string.
const products = z
  .unknown()
  .optional()
  .transform((value) => (typeof value === 'string' ? (parseJson(value) ?? []) : (value ?? [])))
  .transform((value) => (Array.isArray(value) ? value : [value]))
  .pipe(z.array(product))
  .catch([]);

const line = z
  .looseObject({
    orderLineId: z.string().min(1),
    chargingMode: lenientText,
    expireTime: lenientText,
    periodType: lenientText,
    periodNumber: amount,
    productInfo: products,
  })
  .transform((found): OrderLine => {
    const { periodType, periodNumber, expireTime } = found;
    return {
      orderLineId: found.orderLineId,
      chargingMode: found.chargingMode,
      expiresAt: expireTime === null ? null : (parseMarketplaceTime(expireTime) ?? null),
      period:
        periodType === null || periodNumber === null
          ? null
          : { type: periodType, number: periodNumber },
      products: found.productInfo,
    };
  });

const buyer = z
  .record(z.string(), z.unknown())
  .transform((found): Buyer | null => {
    const said = Object.entries(found).filter(
      (field): field is [string, string] => typeof field[1] === 'string' && field[1] !== '',
    );
    return said.length === 0 ? null : Object.fromEntries(said);
  })
  .nullish()
  .transform((value) => value ?? null)
  .catch(odd);

const orderInfo = z.looseObject({
  orderId: z.string().min(1),
  orderType: lenientText,
  orderLine: z.array(line).min(1),
  buyerInfo: buyer,
});

const reply = z.looseObject({
  // The order page's names, and those that the gateway and the usage interface use for errors.
  resultCode: lenientText,
  error_code: lenientText,
  orderInfo: z.unknown().optional(),
});

/** Reads an answer's body, whatever HTTP status it came with. Problems never quote it. */
export function readOrderReply(body: string): OrderReply {
  const json = parseJson(body);
  if (json === undefined) return { kind: 'nonsense', problem: 'is not JSON' };
  const problem = findJsonTextProblem(body);
  if (problem !== undefined) return { kind: 'nonsense', problem };
  const read = reply.safeParse(json);
  if (!read.success) return { kind: 'nonsense', problem: 'is no JSON object' };
  const code = read.data.resultCode ?? read.data.error_code;
  if (code === null) return { kind: 'nonsense', problem: 'has no result code' };
  if (code !== 'MKT.0000' && code !== 'CBC.0000') {
    return /^[A-Z]{2,10}\.\d{1,8}$/.test(code)
      ? { kind: 'error', code }
      : { kind: 'nonsense', problem: 'has a result code of another form' };
  }
  if (read.data.orderInfo === undefined || read.data.orderInfo === null) {
    // The order is optional in the table: a success without it says that there is none.
    return { kind: 'error', code: noSuchOrder };
  }
  const info = orderInfo.safeParse(read.data.orderInfo);
  if (!info.success) {
    const field = info.error.issues[0]?.path.join('.') ?? '';
    return { kind: 'nonsense', problem: `has no readable orderInfo.${field}` };
  }
  const { orderId, orderType, orderLine: lines, buyerInfo } = info.data;
  return { kind: 'order', order: { orderId, orderType, lines, buyer: buyerInfo } };
}

/** "Instance id not found" in the table of codes: nearest to what a missing order is. */
const noSuchOrder = 'MKT.9001';

export type OrderErrorMeaning =
  | 'over the limit'
  | 'access key refused'
  | 'order unknown'
  | 'request refused'
  | 'out of order'
  | 'not documented';

/** What an error code says; older copies of the page name the same numbers CBC instead of MKT. */
export function meaningOfOrderError(code: string): OrderErrorMeaning {
  if (code === 'APIGW.0308') return 'over the limit';
  if (code.startsWith('APIGW.02')) return 'out of order';
  if (code.startsWith('APIGW.')) return 'access key refused';
  const number = /^(?:MKT|CBC)\.(\d{4})$/.exec(code)?.[1] ?? '';
  return meanings.get(number) ?? 'not documented';
}

const meanings = new Map<string, OrderErrorMeaning>([
  ['0250', 'over the limit'],
  ['0150', 'access key refused'],
  ['0151', 'access key refused'],
  ['0154', 'access key refused'],
  ['0102', 'access key refused'],
  // "Invalid parameter: unknown, missing": what an order id is called that is not there (yet).
  ['0101', 'order unknown'],
  ['9001', 'order unknown'],
  ['0100', 'request refused'],
  ['0199', 'request refused'],
  ['0999', 'out of order'],
]);

/**
 * The line that an event speaks of.
 *
 * @param orderLineId null where the event names none: then an order of one line is clear
 */
export function findOrderLine(order: Order, orderLineId: string | null): OrderLine | undefined {
  if (orderLineId !== null) return order.lines.find((each) => each.orderLineId === orderLineId);
  return order.lines.length === 1 ? order.lines[0] : undefined;
}

/** The product of a line: the one that the event names, else the first. */
export function findOrderedProduct(
  { products: bought }: OrderLine,
  productId: string | null,
): OrderedProduct | undefined {
  return bought.find((each) => productId !== null && each.productId === productId) ?? bought[0];
}
