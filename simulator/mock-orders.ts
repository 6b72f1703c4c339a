// The marketplace's nine orders for debugging, and the form of an order as its API prints it.

export type MockOrderLine = {
  readonly orderLineId: string;
  readonly chargingMode: 'PERIOD' | 'ONE_TIME' | 'ON_DEMAND' | 'ON_DEMAND_PKG';
  /** UTC, `yyyyMMddHHmmss`. */
  readonly expireTime?: string;
  readonly periodType?: string;
  readonly periodNumber?: number;
  readonly productInfo: readonly {
    readonly productId: string;
    readonly skuCode: string;
    readonly linearValue?: number;
    readonly productName?: string;
  }[];
};

export type MockOrder = {
  readonly orderId: string;
  readonly orderType: 'NEW' | 'TRIAL' | 'TRIAL_TO_FORMAL' | 'UNSUBSCRIBE' | 'RENEW' | 'CHANGE';
  readonly createTime: string;
  readonly orderLine: readonly MockOrderLine[];
  readonly buyerInfo?: Readonly<Record<string, string>>;
};

const product = {
  productId: 'OFFI0000000000001',
  skuCode: '6a7f2c3e-0d6d-4f0f-9b43-1c4c2d1f0a01',
  linearValue: 10,
  productName: 'Demo,standard,10',
};

const year = { chargingMode: 'PERIOD', periodType: 'year', periodNumber: 1 } as const;
const month = { chargingMode: 'PERIOD', periodType: 'month', periodNumber: 1 } as const;
const day = { chargingMode: 'PERIOD', periodType: 'day', periodNumber: 7 } as const;

/** An order of one line; what is not said is a new purchase for a year. */
export function createOrder(
  orderId: string,
  order: Partial<Omit<MockOrder, 'orderId' | 'orderLine'>> & {
    readonly line?: Partial<MockOrderLine>;
    readonly productId?: string;
  } = {},
): MockOrder {
  const { line, productId, ...said } = order;
  return {
    orderId,
    orderType: 'NEW',
    createTime: '20261101064736',
    orderLine: [
      {
        orderLineId: `${orderId}-000001`,
        ...year,
        expireTime: '20271101155959',
        productInfo: [{ ...product, productId: productId ?? product.productId }],
        ...line,
      },
    ],
    buyerInfo: {
      customerId: `customer-of-${orderId}`,
      customerName: '示例公司',
      mobilePhone: '13800000000',
      email: 'buyer@example.com',
    },
    ...said,
  };
}

/** As the documentation names them, MONTY included; the real API also wants a real key for them. */
export const mockOrders: readonly MockOrder[] = [
  createOrder('MOCKPERIODYEARNEW'),
  createOrder('MOCKONETIMENEW', { line: { chargingMode: 'ONE_TIME' } }),
  createOrder('MOCKONDEMAND', { line: { chargingMode: 'ON_DEMAND' } }),
  createOrder('MOCKONDEMANDPKG', { line: { chargingMode: 'ON_DEMAND_PKG' } }),
  createOrder('MOCKPERIODDAYTRIAL', {
    orderType: 'TRIAL',
    line: { ...day, expireTime: '20261108155959' },
  }),
  createOrder('MOCKMONTYTRIALTOFORMAL', { orderType: 'TRIAL_TO_FORMAL', line: month }),
  createOrder('MOCKMONTYUNSUBSCRIBE', { orderType: 'UNSUBSCRIBE', line: month }),
  createOrder('MOCKMONTYRENEW', { orderType: 'RENEW', line: month }),
  createOrder('MOCKMONTYCHANGE', { orderType: 'CHANGE', line: month }),
];
