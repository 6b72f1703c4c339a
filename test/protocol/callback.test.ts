import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parseCallback, type Callback } from '../../protocol/saas-v2/callback.ts';
import vectors from '../fixtures/vectors.json' with { type: 'json' };

function parse(body: unknown) {
  return parseCallback(Buffer.from(typeof body === 'string' ? body : JSON.stringify(body)));
}

function read(body: unknown): Callback {
  const reading = parse(body);
  if (!reading.ok) throw new Error(reading.problem);
  return reading.callback;
}

const order = { orderId: 'CS1', orderLineId: 'CS1-000001' };
const create = { activity: 'newInstance', ...order, businessId: 'b-1' };
const query = { activity: 'queryInstance', instanceId: 'i-1' };
const refresh = {
  activity: 'refreshInstance',
  scene: 'RENEWAL',
  ...order,
  instanceId: 'i-1',
  expireTime: '20221124023618',
};
const status = { activity: 'updateInstanceStatus', instanceId: 'i-1', status: 'FREEZE' };
const upgrade = { activity: 'upgradeInstance', instanceId: 'i-1', ...order };
const release = { activity: 'releaseInstance', instanceId: 'i-1' };
const check = {
  activity: 'changeInstanceCheck',
  instanceId: 'i-1',
  productInfo: { productId: 'p', skuCode: 's', linearValue: 10 },
};
const everyBody = [create, query, refresh, status, upgrade, release, check];

describe('a body becomes the project’s own words', () => {
  test.each<[string, unknown, Callback]>([
    [
      'newInstance',
      create,
      {
        activity: 'newInstance',
        isTest: false,
        orderKey: 'CS1/CS1-000001',
        orderId: 'CS1',
        orderLineId: 'CS1-000001',
        proposedId: 'b-1',
      },
    ],
    [
      'queryInstance',
      { ...query, instanceId: 'i-1, i-2 ,i-1' },
      { activity: 'queryInstance', isTest: false, instanceIds: ['i-1', 'i-2', 'i-1'] },
    ],
    [
      'refreshInstance',
      { ...refresh, productId: 'OFFI1', expireTime: '20221124023618256' },
      {
        activity: 'refreshInstance',
        isTest: false,
        instanceId: 'i-1',
        event: {
          kind: 'renewed',
          scene: 'RENEWAL',
          orderId: 'CS1',
          orderLineId: 'CS1-000001',
          dedupKey: 'renew/RENEWAL/CS1/CS1-000001',
          expiresAt: new Date('2022-11-24T02:36:18.256Z'),
          productId: 'OFFI1',
        },
      },
    ],
    [
      'FREEZE',
      status,
      {
        activity: 'updateInstanceStatus',
        isTest: false,
        instanceId: 'i-1',
        event: { kind: 'frozen', dedupKey: null },
      },
    ],
    [
      'UNFREEZE',
      { ...status, status: 'UNFREEZE' },
      {
        activity: 'updateInstanceStatus',
        isTest: false,
        instanceId: 'i-1',
        event: { kind: 'unfrozen', dedupKey: null },
      },
    ],
    [
      'upgradeInstance',
      upgrade,
      {
        activity: 'upgradeInstance',
        isTest: false,
        instanceId: 'i-1',
        event: {
          kind: 'upgraded',
          orderId: 'CS1',
          orderLineId: 'CS1-000001',
          dedupKey: 'upgrade/CS1/CS1-000001',
        },
      },
    ],
    [
      'releaseInstance',
      release,
      {
        activity: 'releaseInstance',
        isTest: false,
        instanceId: 'i-1',
        event: { kind: 'released', dedupKey: 'released' },
      },
    ],
    [
      'releaseInstance with its order',
      { ...release, ...order },
      {
        activity: 'releaseInstance',
        isTest: false,
        instanceId: 'i-1',
        event: { kind: 'released', dedupKey: 'released', ...order },
      },
    ],
    [
      'changeInstanceCheck',
      check,
      {
        activity: 'changeInstanceCheck',
        isTest: false,
        instanceId: 'i-1',
        target: { productId: 'p', skuCode: 's', quantity: 10 },
      },
    ],
  ])('%s', (_name, body, callback) => {
    expect(parse(body)).toStrictEqual({ ok: true, callback });
  });

  test.each(['TRIAL_TO_FORMAL', 'RENEWAL', 'UNSUBSCRIBE_RENEWAL_PERIOD', 'RENEWAL_CHANGE'])(
    'the scene %s is part of the dedup key: a refund may carry the renewal’s own order',
    (scene) => {
      expect(read({ ...refresh, scene })).toMatchObject({
        event: { scene, dedupKey: `renew/${scene}/CS1/CS1-000001` },
      });
    },
  );

  test('fields that are null or, where optional, empty are no fields', () => {
    expect(read({ ...release, orderId: null, orderLineId: '' })).toStrictEqual(read(release));
    expect(read({ ...refresh, productId: null })).toStrictEqual(read(refresh));
    expect(read({ ...refresh, productId: '' })).toStrictEqual(read(refresh));
  });

  test('unknown fields are accepted and dropped, also __proto__ and constructor', () => {
    for (const body of everyBody) {
      const text = JSON.stringify(body).replace(
        '{',
        '{"__proto__":{"isTest":true,"testFlag":"1"},"constructor":{"x":1},"encryptType":[[1]],',
      );
      expect(parse(text)).toStrictEqual(parse(body));
    }
    expect(({} as { testFlag?: unknown }).testFlag).toBeUndefined();
  });

  test('of doubled keys the last wins', () => {
    expect(
      read('{"activity":"releaseInstance","instanceId":"i-1","instanceId":"i-2","orderId":null}'),
    ).toMatchObject({ instanceId: 'i-2' });
    expect(
      read('{"activity":"nothing","activity":"releaseInstance","instanceId":7,"instanceId":"i-1"}'),
    ).toStrictEqual(read(release));
    expect(parse('{"activity":"releaseInstance","instanceId":"i-1","instanceId":null}')).toEqual({
      ok: false,
      problem: 'instanceId is missing',
    });
  });

  test.each(vectors.saasV2)(
    'the vector $body is read alike as it came and in its sorted form',
    ({ body, canonical }) => {
      expect(parse(body)).toStrictEqual(parse(canonical));
    },
  );
});

describe('test calls', () => {
  test.each(['1', 1])('testFlag %j marks one', (testFlag) => {
    for (const body of everyBody) expect(read({ ...body, testFlag }).isTest).toBe(true);
  });

  test.each(['0', 0, '', null, undefined])('testFlag %j marks a real call', (testFlag) => {
    for (const body of everyBody) expect(read({ ...body, testFlag }).isTest).toBe(false);
  });

  test.each(['2', 2, ' 1', '01', true, false, [], {}, 1.5, 'true'])(
    'testFlag %j is refused: neither guess would be safe',
    (testFlag) => {
      for (const body of everyBody) {
        expect(parse({ ...body, testFlag })).toEqual({
          ok: false,
          problem: 'testFlag is neither 0 nor 1',
        });
      }
    },
  );
});

describe('what a buyer wants to change to', () => {
  const wanted = { productId: 'p', skuCode: 's', quantity: 10 };
  test.each([
    ['an object', { productId: 'p', skuCode: 's', linearValue: 10 }, wanted],
    ['a quantity as text', { productId: 'p', skuCode: 's', linearValue: '10' }, wanted],
    ['an object as text', '{"productId":"p","skuCode":"s","linearValue":10}', wanted],
    ['a list', [{ productId: 'p', skuCode: 's', linearValue: 10 }], wanted],
    ['a list as text', '[{"productId":"p"}]', { productId: 'p' }],
    ['nothing known', { a: null, b: [1.5, true] }, {}],
    ['nulls', { productId: null, skuCode: '', linearValue: null }, {}],
    ['an empty quantity', { linearValue: '' }, {}],
    ['zero', { linearValue: 0 }, { quantity: 0 }],
    ['a fraction', { linearValue: '2.5' }, { quantity: 2.5 }],
  ])('may come as %s', (_name, productInfo, target) => {
    expect(read({ ...check, productInfo })).toStrictEqual({
      activity: 'changeInstanceCheck',
      isTest: false,
      instanceId: 'i-1',
      target,
    });
  });

  const unreadable = 'productInfo is neither an object nor one written as a string';
  test.each([
    ['missing', undefined, 'productInfo is missing'],
    ['null', null, 'productInfo is missing'],
    ['a number', 7, unreadable],
    ['text that is no JSON', 'sku=s', unreadable],
    ['the empty text', '', unreadable],
    ['text of a number', '7', unreadable],
    ['text with a NUL inside', '{"productId":"\\u0000"}', unreadable],
    ['text with half of a pair inside', '{"productId":"\\ud800"}', unreadable],
    ['text that is too deep', `${'['.repeat(40)}${']'.repeat(40)}`, unreadable],
    ['a list of numbers', [7], unreadable],
    [
      'an id too long',
      { productId: 'p'.repeat(65) },
      'productInfo.productId is longer than 64 characters',
    ],
    ['an id that is a number', { skuCode: 7 }, 'productInfo.skuCode is not a string'],
    ['a negative quantity', { linearValue: -1 }, 'productInfo.linearValue is not a quantity'],
    ['a quantity in words', { linearValue: 'ten' }, 'productInfo.linearValue is not a quantity'],
    [
      'a quantity with an exponent',
      { linearValue: '1e5' },
      'productInfo.linearValue is not a quantity',
    ],
  ])('is refused as %s', (_name, productInfo, problem) => {
    expect(parse({ ...check, productInfo })).toEqual({ ok: false, problem });
  });
});

describe('bad bodies are refused by field and rule, in the order JSON, activity, fields', () => {
  const long = 'x'.repeat(65);
  test.each<[unknown, string]>([
    ['', 'the body is not JSON'],
    ['activity=newInstance', 'the body is not JSON'],
    ['{"activity":"newInstance",}', 'the body is not JSON'],
    ["{'activity':'newInstance'}", 'the body is not JSON'],
    ['{"activity":"newInstance"}{}', 'the body is not JSON'],
    ['{"activity":"a\tb"}', 'the body is not JSON'],
    ['\ufeff{}', 'the body is not JSON'],
    ['{"a":NaN}', 'the body is not JSON'],
    ['[]', 'the body is not a JSON object'],
    ['null', 'the body is not a JSON object'],
    ['"newInstance"', 'the body is not a JSON object'],
    ['7', 'the body is not a JSON object'],
    [`{"a":${'['.repeat(32)}${']'.repeat(32)}}`, 'the body is nested deeper than 32 levels'],
    ['{"activity":"new\\u0000"}', 'the body contains a NUL character'],
    ['{"x\\u0000":1}', 'the body contains a NUL character'],
    ['{"x":[{"y":"\\u0000"}]}', 'the body contains a NUL character'],
    ['{"x":"\\u0000","x":"y"}', 'the body contains a NUL character'],
    ['{"x":"\\ud83d"}', 'the body contains half of a surrogate pair'],
    ['{"x":"\\ude00\\ud83d"}', 'the body contains half of a surrogate pair'],
    ['{}', 'activity is missing'],
    [{ activity: null }, 'activity is missing'],
    [{ activity: 7 }, 'activity is not a string'],
    [{ activity: ['newInstance'] }, 'activity is not a string'],
    [{ activity: '' }, 'activity is not one of saas-v2'],
    [{ activity: 'newinstance' }, 'activity is not one of saas-v2'],
    [{ activity: 'toString' }, 'activity is not one of saas-v2'],
    [{ activity: '__proto__' }, 'activity is not one of saas-v2'],
    [
      { activity: 'expireInstance' },
      'activity is of the old interface (saas-v1); this product speaks saas-v2',
    ],
    [
      { activity: 'instanceStatus' },
      'activity is of the old interface (saas-v1); this product speaks saas-v2',
    ],
    [
      { activity: 'upgrade' },
      'activity is of the old interface (saas-v1); this product speaks saas-v2',
    ],
    [
      { activity: 'getLicense' },
      'activity is of the licence interface (license-v1); this product speaks saas-v2',
    ],
    [{ ...create, orderId: undefined }, 'orderId is missing'],
    [{ ...create, orderId: null }, 'orderId is missing'],
    [{ ...create, orderId: '' }, 'orderId is empty'],
    [{ ...create, orderId: 7 }, 'orderId is not a string'],
    [{ ...create, orderId: {} }, 'orderId is not a string'],
    [{ ...create, orderId: long }, 'orderId is longer than 64 characters'],
    [{ ...create, orderLineId: long }, 'orderLineId is longer than 64 characters'],
    [{ ...create, orderLineId: '' }, 'orderLineId is empty'],
    [{ ...create, businessId: long }, 'businessId is longer than 64 characters'],
    [{ ...create, businessId: undefined }, 'businessId is missing'],
    [{ ...query, instanceId: undefined }, 'instanceId is missing'],
    [{ ...query, instanceId: ['i-1'] }, 'instanceId is not a string'],
    [{ ...query, instanceId: '' }, 'instanceId has no id'],
    [{ ...query, instanceId: ' , ,' }, 'instanceId has no id'],
    [{ ...query, instanceId: `i-1,${long}` }, 'instanceId has an id longer than 64 characters'],
    [{ ...query, instanceId: Array(101).fill('i').join(',') }, 'instanceId has more than 100 ids'],
    [{ ...refresh, scene: undefined }, 'scene is missing'],
    [{ ...refresh, scene: 'renewal' }, 'scene is not a known scene'],
    [{ ...refresh, scene: 7 }, 'scene is not a known scene'],
    [{ ...refresh, orderId: undefined }, 'orderId is missing'],
    [{ ...refresh, orderLineId: undefined }, 'orderLineId is missing'],
    [{ ...refresh, instanceId: undefined }, 'instanceId is missing'],
    [{ ...refresh, productId: long }, 'productId is longer than 64 characters'],
    [{ ...refresh, productId: 7 }, 'productId is not a string'],
    [{ ...refresh, expireTime: undefined }, 'expireTime is missing'],
    [{ ...refresh, expireTime: '' }, 'expireTime is empty'],
    [{ ...refresh, expireTime: 20_221_124_023_618 }, 'expireTime is not a string'],
    [
      { ...refresh, expireTime: '20230230000000' },
      'expireTime is not a UTC time of 14 or 17 digits',
    ],
    [{ ...refresh, expireTime: '20221124' }, 'expireTime is not a UTC time of 14 or 17 digits'],
    [{ ...refresh, expireTime: '0'.repeat(21) }, 'expireTime is longer than 20 characters'],
    [{ ...status, instanceId: '' }, 'instanceId is empty'],
    [{ ...status, status: undefined }, 'status is missing'],
    [{ ...status, status: 'NORMAL' }, 'status is neither FREEZE nor UNFREEZE'],
    [{ ...status, status: 'freeze' }, 'status is neither FREEZE nor UNFREEZE'],
    [{ ...upgrade, orderId: undefined }, 'orderId is missing'],
    [{ ...upgrade, orderLineId: undefined }, 'orderLineId is missing'],
    [{ ...upgrade, instanceId: long }, 'instanceId is longer than 64 characters'],
    [{ ...release, instanceId: undefined }, 'instanceId is missing'],
    [{ ...release, orderId: long }, 'orderId is longer than 64 characters'],
    [{ ...release, orderLineId: 7 }, 'orderLineId is not a string'],
  ])('%j: %s', (body, problem) => {
    expect(parse(body)).toEqual({ ok: false, problem });
  });

  test('bytes that are not UTF-8', () => {
    const body = Buffer.from('{"activity":"newInstance","orderId":"é"}', 'latin1');
    expect(parseCallback(body)).toEqual({ ok: false, problem: 'the body is not UTF-8' });
    const surrogate = Buffer.from([0x7b, 0x22, 0xed, 0xa0, 0x80, 0x22, 0x3a, 0x31, 0x7d]);
    expect(parseCallback(surrogate)).toEqual({ ok: false, problem: 'the body is not UTF-8' });
  });

  test('100 ids of 64 characters are taken', () => {
    const ids = Array.from({ length: 100 }, (_, at) => String(at).padStart(64, 'i'));
    expect(read({ ...query, instanceId: ids.join(',') })).toMatchObject({ instanceIds: ids });
  });

  test('64 characters are the longest, as Java counts them', () => {
    expect(parse({ ...create, orderId: '😀'.repeat(32) }).ok).toBe(true);
    expect(parse({ ...create, orderId: '😀'.repeat(33) }).ok).toBe(false);
  });

  test('no problem quotes the body, and no body throws', () => {
    const secret = 'zQ7';
    const anyValue = fc.oneof(
      fc.constant(secret),
      fc.constant(secret.repeat(40)),
      fc.constant(`${secret}\0`),
      fc.json().map((text) => [secret, text]),
      fc.integer(),
      fc.constant({ [secret]: secret }),
    );
    const anyBrokenBody = fc
      .tuple(
        fc.constantFrom(...everyBody),
        fc.constantFrom(
          'activity',
          'orderId',
          'orderLineId',
          'businessId',
          'instanceId',
          'scene',
          'expireTime',
          'status',
          'productId',
          'productInfo',
          'testFlag',
        ),
        anyValue,
        fc.boolean(),
      )
      .map(([body, name, value, isCut]) => {
        const text = JSON.stringify({ ...body, [name]: value });
        return isCut ? text.slice(0, -1) : text;
      });
    fc.assert(
      fc.property(anyBrokenBody, (text) => {
        const reading = parse(text);
        if (!reading.ok) {
          expect(reading.problem).not.toContain(secret);
          expect(reading.problem.length).toBeLessThanOrEqual(255);
        }
      }),
      { numRuns: 1000 },
    );
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
        expect(parseCallback(Buffer.from(bytes)).ok).toBe(false);
      }),
    );
  });
});

describe('keys', () => {
  const part = fc.string({
    unit: fc.constantFrom('/', '%', '2', 'F', '5', 'a', '\\', '-'),
    minLength: 1,
    maxLength: 6,
  });
  const anyOrder = fc.record({ orderId: part, orderLineId: part });

  function keyOf(body: unknown): string {
    const callback = read(body);
    if (callback.activity === 'newInstance') return callback.orderKey;
    if ('event' in callback && callback.event.dedupKey !== null) return callback.event.dedupKey;
    throw new Error('this body has no key');
  }

  test('two orders share an order key, a renewal’s or an upgrade’s only if they are the same', () => {
    fc.assert(
      fc.property(anyOrder, anyOrder, (a, b) => {
        const isSame = a.orderId === b.orderId && a.orderLineId === b.orderLineId;
        for (const body of [create, refresh, upgrade]) {
          expect(keyOf({ ...body, ...a }) === keyOf({ ...body, ...b })).toBe(isSame);
        }
      }),
      { numRuns: 2000 },
    );
  });

  test('events of different kinds or scenes never share a dedup key', () => {
    fc.assert(
      fc.property(anyOrder, anyOrder, (a, b) => {
        const renewals = [
          { ...refresh, ...a },
          { ...refresh, ...b, scene: 'UNSUBSCRIBE_RENEWAL_PERIOD' },
        ];
        const keys = [...renewals, { ...upgrade, ...a }, release].map(keyOf);
        expect(new Set(keys).size).toBe(4);
      }),
    );
  });

  test('the slash of an order line id does not read as the mark between the parts', () => {
    expect(keyOf({ ...create, orderId: 'a', orderLineId: 'b/c' })).toBe('a/b%2Fc');
    expect(keyOf({ ...create, orderId: 'a/b', orderLineId: 'c' })).toBe('a%2Fb/c');
    expect(keyOf({ ...create, orderId: 'a%2Fb', orderLineId: 'c' })).toBe('a%252Fb/c');
  });

  test('a re-send that names another business id has the same order key', () => {
    expect(keyOf({ ...create, businessId: 'b-2' })).toBe(keyOf(create));
  });
});
