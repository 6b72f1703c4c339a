import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createOutbound, type Outbound, type OutboundResult } from '../../runtime/outbound.ts';
import { type OpenApi, type OpenApiMode, createOpenApi } from '../../simulator/open-api.ts';
import { mockOrders } from '../../simulator/mock-orders.ts';
import { createMarketplaceClient } from '../../workers/marketplace-client.ts';

const secretKey = 'made-up-secret-key';
let api: OpenApi;
let outbound: Outbound;
let baseUrl: string;

beforeEach(async () => {
  api = createOpenApi({ keys: { AK: secretKey } });
  baseUrl = await api.listen();
  outbound = createOutbound({ allowedCidrs: ['127.0.0.0/8'] });
});

afterEach(async () => {
  await outbound.close();
  await api.close();
});

function ask(
  orderId = 'MOCKPERIODYEARNEW',
  at: { secretKey?: string; now?: Date; accessKeyId?: string } = {},
) {
  const client = createMarketplaceClient({
    outbound,
    now: () => at.now ?? new Date(),
    totalTimeoutMs: 300,
  });
  const access = {
    baseUrl,
    accessKeyId: at.accessKeyId ?? 'AK',
    secretKey: at.secretKey ?? secretKey,
  };
  return client.queryOrder(access, orderId, new AbortController().signal);
}

test.each(mockOrders.map(({ orderId }) => orderId))(
  'the mock order %s is found, signed as the simulator checks by itself',
  async (orderId) => {
    expect(await ask(orderId)).toMatchObject({ kind: 'found', order: { orderId } });
    expect(api.calls).toMatchObject([{ orderId, accessKeyId: 'AK', isSigned: true, status: 200 }]);
  },
);

test('an order id of any characters is signed as it is sent', async () => {
  const ids = ['CS 1+2', "CS/云~*'()!", 'a&b=c%20'];
  for (const id of ids) {
    expect(await ask(id)).toMatchObject({ failure: { concerns: 'order' } });
  }
  expect(api.calls.map(({ orderId, isSigned }) => [orderId, isSigned])).toEqual(
    ids.map((id) => [id, true]),
  );
});

const transient = { class: 'transient', concerns: 'api' };
const key = { class: 'permanent', concerns: 'api' };

describe('each failure is in its class, with a cause that a person can act on', () => {
  test.each<[string, OpenApiMode, object]>([
    ['503', { kind: 'fail', status: 503 }, { ...transient, cause: 'marketplace answered 503' }],
    [
      'an internal error',
      { kind: 'fail', status: 500, code: 'MKT.0999' },
      { ...transient, cause: 'marketplace is out of order (MKT.0999)' },
    ],
    [
      'no right',
      { kind: 'fail', status: 401, code: 'MKT.0151' },
      { ...key, cause: 'marketplace refuses the access key (MKT.0151): check AK and SK' },
    ],
    [
      '401 without a code',
      { kind: 'fail', status: 401 },
      { ...key, cause: 'marketplace refuses the access key (401): check AK and SK' },
    ],
    ['a key error under 200', { kind: 'error under 200', code: 'CBC.0154' }, key],
    [
      'an unknown error under 200',
      { kind: 'error under 200', code: 'MKT.7777' },
      { ...transient, endsAs: 'contract' },
    ],
    [
      'a page in HTML',
      { kind: 'html' },
      {
        ...transient,
        endsAs: 'contract',
        cause: 'marketplace answered with nonsense: it is not JSON',
      },
    ],
    [
      'a page in HTML with 502',
      { kind: 'html', status: 502 },
      { ...transient, cause: 'marketplace answered 502' },
    ],
    ['another order', { kind: 'other order' }, { ...transient, endsAs: 'contract' }],
    ['no answer', { kind: 'hang' }, { ...transient, cause: 'marketplace did not answer in 0.3 s' }],
    [
      'a body that drips',
      { kind: 'slow body' },
      { ...transient, cause: 'marketplace did not answer in 0.3 s' },
    ],
    [
      'a cut connection',
      { kind: 'cut' },
      { ...transient, cause: 'marketplace closed the connection' },
    ],
  ])('%s', async (_, mode, failure) => {
    api.setMode(mode);
    expect(await ask()).toMatchObject({ kind: 'failed', failure });
  });

  test('a wrong SK, and an AK that is not there', async () => {
    const refused = {
      kind: 'failed',
      failure: {
        ...key,
        cause: 'marketplace refuses the access key (APIGW.0301): check AK and SK',
      },
    };
    expect(await ask(undefined, { secretKey: 'another' })).toMatchObject(refused);
    expect(await ask(undefined, { accessKeyId: 'OTHER' })).toMatchObject(refused);
  });

  test('a clock that is off', async () => {
    expect(await ask(undefined, { now: new Date(Date.now() - 3_600_000) })).toMatchObject({
      failure: { ...transient, cause: expect.stringContaining('clock here') },
    });
  });

  test('an order that is not there (yet)', async () => {
    expect(await ask('CSUNKNOWN')).toMatchObject({
      failure: {
        class: 'transient',
        concerns: 'order',
        cause: 'marketplace does not know the order (MKT.0101)',
      },
    });
  });

  test.each<OpenApiMode>([
    { kind: 'fail', status: 406, code: 'MKT.0250' },
    { kind: 'fail', status: 406 },
    { kind: 'fail', status: 429, code: 'APIGW.0308' },
    { kind: 'error under 200', code: 'CBC.0250' },
  ])('too many calls are no failure: %o', async (mode) => {
    api.setMode(mode);
    expect(await ask()).toMatchObject({ kind: 'over the limit' });
  });

  test('no failure holds the secret key', async () => {
    const outcome = await ask(undefined, { secretKey: 'another-secret' });
    expect(JSON.stringify(outcome)).not.toContain('another-secret');
  });
});

describe('the fallback host', () => {
  function clientOf(...results: OutboundResult[]) {
    const asked: string[] = [];
    const client = createMarketplaceClient({
      now: () => new Date(),
      outbound: {
        call: async ({ url }) => {
          asked.push(new URL(url).host);
          return results.shift() ?? { kind: 'failed', reason: 'cancelled' };
        },
      },
    });
    const access = { baseUrl: 'https://mkt.myhuaweicloud.com', accessKeyId: 'AK', secretKey };
    return { asked, ask: () => client.queryOrder(access, 'CS1', new AbortController().signal) };
  }

  test.each(['connect', 'dns', 'tls'] as const)('is asked after %s', async (reason) => {
    const { asked, ask: askIt } = clientOf(
      { kind: 'failed', reason },
      { kind: 'answered', status: 503, headers: {}, body: '' },
    );
    expect(await askIt()).toMatchObject({ failure: { cause: 'marketplace answered 503' } });
    expect(asked).toEqual(['mkt.myhuaweicloud.com', 'mkt.myhuaweicloud.cn']);
  });

  test.each(['timeout', 'reset'] as const)(
    'is not asked after %s: the call may have counted already',
    async (reason) => {
      const { asked, ask: askIt } = clientOf({ kind: 'failed', reason });
      expect(await askIt()).toMatchObject({ failure: { class: 'transient' } });
      expect(asked).toEqual(['mkt.myhuaweicloud.com']);
    },
  );
});
