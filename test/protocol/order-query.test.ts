import { describe, expect, test } from 'vitest';
import {
  findOrderLine,
  findOrderedProduct,
  meaningOfOrderError,
  orderQueryUrls,
  readOrderReply,
} from '../../protocol/open-api/order-query.ts';

const line = {
  orderLineId: 'CS1-000001',
  chargingMode: 'PERIOD',
  expireTime: '20230726155959',
  periodType: 'year',
  periodNumber: 1,
  productInfo: [{ productId: 'OFFI1', skuCode: 'sku', linearValue: 10, productName: 'n' }],
};
const orderInfo = {
  orderId: 'CS1',
  orderType: 'NEW',
  createTime: '20220726064736',
  orderLine: [line],
  buyerInfo: { customerId: 'c', customerName: '张三', userId: null },
};
const write = (info: unknown) =>
  JSON.stringify({ resultCode: 'MKT.0000', resultMsg: 'ok', orderInfo: info });

function readOrder(info: unknown) {
  const read = readOrderReply(write(info));
  if (read.kind !== 'order') throw new Error(`no order: ${JSON.stringify(read)}`);
  return read.order;
}

describe('the address', () => {
  test('asks for the whole order, at the second host only where the first one is the Chinese default', () => {
    const path = '/api/mkp-openapi-public/global/v1/order/query?orderId=CS%2F1%20x';
    const ask = (base: string) => orderQueryUrls(base, 'CS/1 x').map((url) => url.href);
    expect(ask('https://mkt.myhuaweicloud.com')).toEqual([
      `https://mkt.myhuaweicloud.com${path}`,
      `https://mkt.myhuaweicloud.cn${path}`,
    ]);
    expect(ask('https://mkt-intl.myhuaweicloud.com/')).toEqual([
      `https://mkt-intl.myhuaweicloud.com${path}`,
    ]);
    expect(ask('http://127.0.0.1:1/x')).toEqual([`http://127.0.0.1:1/x${path}`]);
  });
});

describe('an order', () => {
  test('is read with its lines, products and buyer', () => {
    expect(readOrder(orderInfo)).toEqual({
      orderId: 'CS1',
      orderType: 'NEW',
      lines: [
        {
          orderLineId: 'CS1-000001',
          chargingMode: 'PERIOD',
          expiresAt: new Date('2023-07-26T15:59:59Z'),
          period: { type: 'year', number: 1 },
          products: [{ productId: 'OFFI1', skuCode: 'sku', quantity: 10 }],
        },
      ],
      buyer: { customerId: 'c', customerName: '张三' },
    });
  });

  test.each<[string, object, object]>([
    ['fields that nobody listed', { extra: { a: 1 }, extendParams: [{}] }, {}],
    ['a product as an object', { productInfo: line.productInfo[0] }, {}],
    ['a product as a string of JSON', { productInfo: JSON.stringify(line.productInfo) }, {}],
    [
      'numbers as strings',
      { periodNumber: '1', productInfo: [{ ...line.productInfo[0], linearValue: '10' }] },
      {},
    ],
  ])('is the same with %s', (_, change) => {
    expect(readOrder({ ...orderInfo, more: 1, orderLine: [{ ...line, ...change }] })).toEqual(
      readOrder(orderInfo),
    );
  });

  test('leaves out what cannot be read, and keeps the rest', () => {
    const odd = { ...line, expireTime: 'soon', periodNumber: 'many', productInfo: 'none' };
    expect(readOrder({ ...orderInfo, orderLine: [odd], buyerInfo: 'nobody' })).toMatchObject({
      lines: [{ orderLineId: 'CS1-000001', expiresAt: null, period: null, products: [] }],
      buyer: null,
    });
  });

  test('of several lines and products gives the one that is named', () => {
    const order = readOrder({
      ...orderInfo,
      orderLine: [
        line,
        {
          ...line,
          orderLineId: 'CS1-000002',
          productInfo: [{ productId: 'B' }, { productId: 'C' }],
        },
      ],
    });
    const second = findOrderLine(order, 'CS1-000002');
    expect(second?.orderLineId).toBe('CS1-000002');
    expect(second && findOrderedProduct(second, null)?.productId).toBe('B');
    expect(second && findOrderedProduct(second, 'C')?.productId).toBe('C');
    expect(findOrderLine(order, 'CS1-000003')).toBeUndefined();
    expect(findOrderLine(order, null)).toBeUndefined();
  });
});

describe('no order', () => {
  test.each<[string, string, object]>([
    ['HTML', '<html>', { kind: 'nonsense' }],
    ['nothing', '', { kind: 'nonsense' }],
    ['a list', '[]', { kind: 'nonsense' }],
    ['no code', '{}', { kind: 'nonsense' }],
    ['a code of another form', '{"resultCode":"oops"}', { kind: 'nonsense' }],
    ['an order without lines', write({ ...orderInfo, orderLine: [] }), { kind: 'nonsense' }],
    ['a NUL in a name', write({ ...orderInfo, orderType: 'a\0' }), { kind: 'nonsense' }],
    ['success without an order', '{"resultCode":"MKT.0000"}', { kind: 'error', code: 'MKT.9001' }],
    ['an error', '{"resultCode":"MKT.0250","resultMsg":"x"}', { kind: 'error', code: 'MKT.0250' }],
    ["the gateway's error", '{"error_code":"APIGW.0301"}', { kind: 'error', code: 'APIGW.0301' }],
  ])('%s', (_, body, expected) => {
    expect(readOrderReply(body)).toMatchObject(expected);
  });

  test('the older prefix means the same', () => {
    for (const number of ['0250', '0150', '0151', '0154', '0101', '9001', '0100', '0999', '7777']) {
      expect(meaningOfOrderError(`CBC.${number}`)).toBe(meaningOfOrderError(`MKT.${number}`));
    }
  });
});
