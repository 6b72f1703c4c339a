import { randomBytes, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createConnection } from 'node:net';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { addKey } from '../../operations/add-key.ts';
import { retireProductKey } from '../../operations/retire-key.ts';
import { bodySignValue } from '../../simulator/signing.ts';
import { type TestDatabase, createTestDatabase } from '../servers/database.ts';
import { queueStore } from '../servers/queue-store.ts';
import { type Process, type System, type TestProduct, createSystem } from '../servers/system.ts';
import { until } from '../servers/until.ts';
import {
  type Answer,
  type Call,
  openOperator,
  send,
  sendSigned,
  signCall,
} from './receiver-call.ts';

let database: TestDatabase;
let system: System;
let api: Process;
let product: TestProduct;
let other: TestProduct;
let operator: ReturnType<typeof openOperator>;
const retired = `key-${randomUUID()}`;
const kitKey = `key-${randomUUID()}`;

beforeAll(async () => {
  database = await createTestDatabase();
  const { env } = queueStore(database.url);
  system = createSystem({ databaseUrl: database.url, tenantsUrl: database.tenantsUrl, env });
  api = await system.startApi();
  [product, other] = await Promise.all([system.addProduct(), system.addProduct()]);
  operator = openOperator(database.url, system.masterKey);
  await addKey(operator, { product: product.key, class: 'kit', secret: kitKey });
  const added = await addKey(operator, { product: product.key, class: 'base', secret: retired });
  if (added.kind !== 'added') throw new Error(added.kind);
  const { id: keyId } = added.key;
  await retireProductKey(operator, { product: product.key, keyId, force: false });
  await until(async () => (await send(purchase({ accessKey: retired }))).resultCode, '000001');
});

afterAll(async () => {
  await system?.stop();
  await operator?.db.close();
  await database?.drop();
});

/** Stands in every call, and may stand in no answer that refuses it. */
const canary = 'canary-5d1f';

const orderId = () => `CS${randomBytes(5).toString('hex')}`;
const order = (more: Record<string, unknown> = {}) => ({
  activity: 'newInstance',
  businessId: randomUUID(),
  orderId: orderId(),
  orderLineId: `${canary}-1`,
  ...more,
});
const query = (instanceId: string) => ({ activity: 'queryInstance', instanceId, extra: canary });

type Change = Partial<Omit<Call, 'body'>> & { body?: Record<string, unknown> | string | Buffer };

function callOf({ body = order(), ...change }: Change): Call {
  return {
    port: api.port,
    productKey: product.key,
    accessKey: product.accessKey,
    body: typeof body === 'string' || Buffer.isBuffer(body) ? body : JSON.stringify(body),
    ...change,
  };
}
const purchase = (change: Change = {}) => callOf(change);

const raw = (fields: string) =>
  `{"activity":"newInstance","businessId":"${randomUUID()}","orderLineId":"1",${fields}}`;
const ago = (ms: number) => String(Date.now() - ms);
const without = (name: string) => (given: URLSearchParams) => {
  given.delete(name);
  return given;
};
const twice = (name: string) => (given: URLSearchParams) => {
  given.append(name, given.get(name) ?? '');
  return given;
};
const setTo = (name: string, value: string) => (given: URLSearchParams) => {
  given.set(name, value);
  return given;
};

// What the tables gain: a purchase one callback, instance, event and dispatch; a question one read.
const nothing = {};
const bought = { callbacks: 1, instances: 1, events: 1, dispatches: 1 };
const asked = { reads: 1 };

type Row = {
  name: string;
  call: () => Change;
  /** HTTP status, result code, words; whether the answer is signed is told by who refuses. */
  is: [status: number, code: string, message: string];
  isSigned: boolean;
  gains: Partial<Awaited<ReturnType<typeof countRows>>>;
};

/** Refused before anybody is known to have signed. */
const row = (
  name: string,
  code: string,
  message: string,
  call: () => Change,
  status = 200,
): Row => ({
  name,
  call,
  is: [status, code, message],
  isSigned: false,
  gains: nothing,
});
const refused = (name: string, message: string, call: () => Change) =>
  row(name, '000002', message, call);
const unknownSigner = (name: string, call: () => Change) =>
  row(name, '000001', 'authentication failed', call);
/** Refused after the signature was found good. */
const signed = (name: string, message: string, body: () => Change['body']): Row => ({
  ...refused(name, message, () => ({ body: body() ?? '' })),
  isSigned: true,
});
const accepted = (
  name: string,
  call: () => Change,
  code = '000004',
  gains: Row['gains'] = bought,
): Row => ({
  name,
  call,
  is: [200, code, ''],
  isSigned: true,
  gains,
});

const noProduct = 'there is no product at this address';
const onlyPost = 'this address takes POST, the interface SaaS V2.0 (saas-v2)';
const tooLarge = 'the body is larger than 64 KiB';
const notInWindow = 'timestamp is more than 60 seconds away from the time here';
const noMilliseconds = 'timestamp is not 13 digits of milliseconds';
const noHex = 'signature is not 64 hexadecimal digits';
const noNonce = 'nonce is not 1 to 128 visible characters';
const ofV1 = 'activity is of the old interface (saas-v1); this product speaks saas-v2';

// In the order of the checks.
const rows: Row[] = [
  row('unknown product', '000002', noProduct, () => ({ productKey: 'nobody' }), 404),
  row(
    'unknown product, by GET',
    '000002',
    noProduct,
    () => ({ productKey: 'x', method: 'GET' }),
    404,
  ),
  row(
    'a product whose name is no text',
    '000002',
    noProduct,
    () => ({ productKey: '%E0%A4%A' }),
    404,
  ),
  row('a product named NUL', '000002', noProduct, () => ({ productKey: '%00' }), 404),
  row('a product named __proto__', '000002', noProduct, () => ({ productKey: '__proto__' }), 404),
  ...['GET', 'PUT', 'DELETE', 'PATCH', 'OPTIONS'].map((method) =>
    row(method, '000002', onlyPost, () => ({ method }), 405),
  ),
  refused('64 KiB and a byte', tooLarge, () => ({ body: Buffer.alloc(65_537, 'x') })),
  refused('64 KiB and a byte, unsigned: size comes first', tooLarge, () => ({
    body: Buffer.alloc(65_537, 'x'),
    changeQuery: () => '',
  })),
  refused('64 KiB and a byte in chunks', tooLarge, () => ({
    body: Buffer.alloc(65_537, 'x'),
    isChunked: true,
  })),
  signed('64 KiB that are no JSON', 'the body is not JSON', () => Buffer.alloc(65_536, 'x')),

  refused('no query', 'signature is missing', () => ({ changeQuery: () => '' })),
  refused('no body and no query', 'signature is missing', () => ({
    body: '',
    changeQuery: () => '',
  })),
  ...['signature', 'timestamp', 'nonce'].flatMap((name) => [
    refused(`${name} missing`, `${name} is missing`, () => ({ changeQuery: without(name) })),
    refused(`${name} twice`, `${name} is given 2 times`, () => ({ changeQuery: twice(name) })),
  ]),
  refused('signature empty', noHex, () => ({ changeQuery: setTo('signature', '') })),
  refused('signature of 63 digits', noHex, () => ({
    changeQuery: setTo('signature', 'A'.repeat(63)),
  })),
  refused('signature not hexadecimal', noHex, () => ({
    changeQuery: setTo('signature', 'Z'.repeat(64)),
  })),
  refused('timestamp empty', noMilliseconds, () => ({ changeQuery: setTo('timestamp', '') })),
  refused('timestamp not a number', noMilliseconds, () => ({ timestamp: canary })),
  refused('timestamp in seconds', noMilliseconds, () => ({ timestamp: ago(0).slice(0, 10) })),
  refused('timestamp of 14 digits', noMilliseconds, () => ({ timestamp: `${ago(0)}0` })),
  refused('timestamp with a sign', noMilliseconds, () => ({ timestamp: `+${ago(0).slice(1)}` })),
  refused('timestamp in other digits', noMilliseconds, () => ({
    timestamp: '１７６４０００００００００',
  })),
  refused('timestamp of the protocol’s other form', noMilliseconds, () => ({
    timestamp: '20260101000000000',
  })),
  refused('nonce empty', noNonce, () => ({ nonce: '' })),
  refused('nonce too long', noNonce, () => ({ nonce: 'n'.repeat(129) })),
  refused('nonce with a NUL', noNonce, () => ({ nonce: 'a\0b' })),
  refused('61 seconds old', notInWindow, () => ({ timestamp: ago(61_000) })),
  refused('61 seconds ahead', notInWindow, () => ({ timestamp: ago(-61_000) })),
  refused('61 seconds old and signed by nobody', notInWindow, () => ({
    timestamp: ago(61_000),
    accessKey: 'nobody',
  })),
  refused('the year 2286', notInWindow, () => ({ timestamp: '9999999999999' })),
  refused('the year 1970', notInWindow, () => ({ timestamp: '0000000000000' })),

  unknownSigner('a wrong key', () => ({ accessKey: `key-${randomUUID()}` })),
  unknownSigner('a retired key', () => ({ accessKey: retired })),
  unknownSigner('another product’s key', () => ({ accessKey: other.accessKey })),
  unknownSigner('a key of another interface', () => ({ accessKey: kitKey })),
  unknownSigner('an empty key', () => ({ accessKey: '' })),
  unknownSigner('a changed body', () => ({
    changeBody: (body) => String(body).replace('"orderId":"CS', '"orderId":"CX'),
  })),
  unknownSigner('a body that was cut', () => ({ changeBody: (body) => String(body).slice(0, -1) })),
  unknownSigner('a body that was left out', () => ({ changeBody: () => '' })),
  unknownSigner('a changed nonce', () => ({ changeQuery: setTo('nonce', 'A'.repeat(64)) })),
  unknownSigner('a changed timestamp', () => ({
    changeQuery: (given) => setTo('timestamp', String(Number(given.get('timestamp')) + 1))(given),
  })),
  unknownSigner('a nonce that is no text', () => ({
    changeQuery: (given) => String(given).replace(/nonce=.*/, 'nonce=%zz%ff'),
  })),
  unknownSigner('digits moved from the timestamp to the nonce', () => ({
    nonce: '7',
    changeQuery: (given) => setTo('nonce', '77')(given),
  })),
  unknownSigner('not JSON, signed by nobody', () => ({ body: 'x', accessKey: 'nobody' })),

  signed('no body', 'the body is not JSON', () => ''),
  signed('not JSON', 'the body is not JSON', () => `{"activity":"newInstance",${canary}}`),
  signed('JSON with a comment', 'the body is not JSON', () => '{"activity":"newInstance"}//'),
  signed('a byte order mark', 'the body is not JSON', () => `\ufeff${JSON.stringify(order())}`),
  signed('not UTF-8', 'the body is not UTF-8', () =>
    Buffer.concat([Buffer.from('{"activity":"'), Buffer.from([0xff, 0xfe]), Buffer.from('"}')]),
  ),
  signed('Latin letters of another charset', 'the body is not UTF-8', () =>
    Buffer.from(raw('"orderId":"caf\u00e9"'), 'latin1'),
  ),
  ...['[]', '[{}]', '"newInstance"', 'null', '7', 'true'].map((text) =>
    signed(`the JSON ${text}`, 'the body is not a JSON object', () => text),
  ),
  signed('a NUL as an escape', 'the body contains a NUL character', () =>
    raw('"orderId":"a\\u0000"'),
  ),
  signed('a NUL in a name', 'the body contains a NUL character', () =>
    raw('"orderId":"a","x\\u0000":1'),
  ),
  signed('a NUL as a byte', 'the body is not JSON', () => raw('"orderId":"a\0"')),
  signed('half a surrogate pair', 'the body contains half of a surrogate pair', () =>
    raw('"orderId":"a\\ud800"'),
  ),
  signed('a pair the wrong way round', 'the body contains half of a surrogate pair', () =>
    raw('"orderId":"\\udc00\\ud800"'),
  ),
  signed('33 levels', 'the body is nested deeper than 32 levels', () =>
    raw(`"orderId":"a","x":${'['.repeat(32)}${']'.repeat(32)}`),
  ),
  signed('30,000 levels', 'the body is nested deeper than 32 levels', () =>
    raw(`"orderId":"a","x":${'['.repeat(30_000)}${']'.repeat(30_000)}`),
  ),

  signed('no activity', 'activity is missing', () => ({ orderId: canary })),
  signed('activity null', 'activity is missing', () => '{"activity":null}'),
  signed('activity a number', 'activity is not a string', () => ({ activity: 7 })),
  signed('activity of nobody', 'activity is not one of saas-v2', () => ({ activity: canary })),
  signed('activity in small letters', 'activity is not one of saas-v2', () => ({
    ...order(),
    activity: 'newinstance',
  })),
  ...['__proto__', 'constructor', 'toString'].map((activity) =>
    signed(`activity ${activity}`, 'activity is not one of saas-v2', () => ({ activity })),
  ),
  ...['expireInstance', 'instanceStatus', 'upgrade'].map((activity) =>
    signed(`${activity} of the old interface`, ofV1, () => ({ activity, instanceId: canary })),
  ),

  ...['orderId', 'orderLineId', 'businessId'].flatMap((name) => [
    signed(`${name} missing`, `${name} is missing`, () => order({ [name]: undefined })),
    signed(`${name} null`, `${name} is missing`, () => JSON.stringify(order({ [name]: null }))),
    signed(`${name} empty`, `${name} is empty`, () => order({ [name]: '' })),
    signed(`${name} a number`, `${name} is not a string`, () => order({ [name]: 7 })),
    signed(`${name} an object`, `${name} is not a string`, () => order({ [name]: {} })),
    signed(`${name} too long`, `${name} is longer than 64 characters`, () =>
      order({ [name]: canary.padEnd(65, 'x') }),
    ),
  ]),
  signed(
    'fields hidden under __proto__',
    'orderId is missing',
    () =>
      `{"activity":"newInstance","__proto__":{"orderId":"${canary}","orderLineId":"1","businessId":"1"}}`,
  ),
  signed('testFlag 2', 'testFlag is neither 0 nor 1', () => order({ testFlag: '2' })),
  signed('testFlag true', 'testFlag is neither 0 nor 1', () => order({ testFlag: true })),
  signed('101 ids', 'instanceId has more than 100 ids', () =>
    query(Array.from({ length: 101 }, (_, n) => `id-${n}`).join(',')),
  ),
  signed('no id', 'instanceId has no id', () => query(' , ,')),
  signed('an id too long', 'instanceId has an id longer than 64 characters', () =>
    query(`a,${'b'.repeat(65)}`),
  ),
  signed('status unknown', 'status is neither FREEZE nor UNFREEZE', () => ({
    activity: 'updateInstanceStatus',
    instanceId: canary,
    status: 'NORMAL',
  })),
  signed('status missing', 'status is missing', () => ({
    activity: 'updateInstanceStatus',
    instanceId: canary,
  })),
  signed('scene unknown', 'scene is not a known scene', () => renewal({ scene: 'GIFT' })),
  ...['', '2026', '20261301000000', '20260230000000', '2026-01-01T00:00', '1767225600000'].map(
    (time) =>
      signed(
        `expireTime "${time}"`,
        time === '' ? 'expireTime is empty' : 'expireTime is not a UTC time of 14 or 17 digits',
        () => renewal({ expireTime: time }),
      ),
  ),
  signed('a release of nothing', 'instanceId is missing', () => ({ activity: 'releaseInstance' })),
  signed('a check without a product', 'productInfo is missing', () => ({
    activity: 'changeInstanceCheck',
    instanceId: canary,
  })),

  accepted('no content type', () => ({ headers: { 'content-type': '' } })),
  accepted('text/plain', () => ({ headers: { 'content-type': 'text/plain' } })),
  accepted('another charset named', () => ({
    headers: { 'content-type': 'application/json;charset=gbk' },
  })),
  accepted('a body in chunks', () => ({ isChunked: true })),
  accepted('59 seconds old', () => ({ timestamp: ago(59_000) })),
  accepted('59 seconds ahead', () => ({ timestamp: ago(-59_000) })),
  accepted('a signature in small letters', () => ({
    changeQuery: (given) => setTo('signature', given.get('signature')?.toLowerCase() ?? '')(given),
  })),
  accepted('further parameters, once and twice', () => ({
    changeQuery: (given) => `a&b=%zz&${String(given)}&c=1&c=2&=`,
  })),
  accepted('unknown fields', () => ({ body: order({ unheardOf: { of: [canary, null, 1.5] } }) })),
  accepted('__proto__ beside the fields', () => ({
    body: raw(`"orderId":"${orderId()}","__proto__":{"activity":"releaseInstance"}`),
  })),
  accepted('32 levels', () => ({
    body: raw(`"orderId":"${orderId()}","x":${'['.repeat(31)}${']'.repeat(31)}`),
  })),
  accepted('ids of 64 letters', () => ({
    body: order({
      orderId: randomBytes(32).toString('hex'),
      businessId: randomBytes(32).toString('hex'),
    }),
  })),
  accepted('Chinese and emoji', () => ({ body: order({ orderId: `订单😀${orderId()}` }) })),
  accepted('a body that was printed with spaces', () => ({
    body: JSON.stringify(order(), null, 2),
  })),
  accepted(
    '100 ids that nobody has',
    () => ({ body: query(Array.from({ length: 100 }, () => randomUUID()).join(',')) }),
    '000003',
    asked,
  ),
  accepted(
    'ids that are SQL',
    () => ({ body: query(`a';drop table instances;--,%,\\`) }),
    '000003',
    asked,
  ),
  accepted(
    'an event of an id that nobody has',
    () => ({
      body: { activity: 'updateInstanceStatus', instanceId: randomUUID(), status: 'FREEZE' },
    }),
    '000003',
    { callbacks: 1 },
  ),
];

function renewal(more: Record<string, unknown>) {
  return {
    activity: 'refreshInstance',
    scene: 'RENEWAL',
    orderId: canary,
    orderLineId: canary,
    instanceId: canary,
    expireTime: '20300101000000',
    ...more,
  };
}

async function countRows() {
  const [counted] = await system.sql<
    { callbacks: number; reads: number; instances: number; events: number; dispatches: number }[]
  >`select (select count(*)::int from callbacks) as callbacks, (select count(*)::int from reads) as reads,
      (select count(*)::int from instances) as instances, (select count(*)::int from events) as events,
      (select count(*)::int from dispatches) as dispatches`;
  if (!counted) throw new Error('nothing was counted');
  return counted;
}

/** Nothing of the inside, and nothing of what was sent. */
function expectDiscreet(answer: Answer): void {
  const text = answer.raw.toString();
  expect(text).not.toContain(canary);
  expect(text).not.toMatch(/\.ts\b|node_modules|Error|\s{2}at |select |insert |postgres|key-/i);
}

describe('bad and odd input', () => {
  test.each(rows)('$name', async ({ call, is, isSigned, gains }) => {
    const before = await countRows();
    const answer = await send(purchase(call()));
    const [status, code, message] = is;
    expect([answer.httpStatus, answer.resultCode]).toEqual([status, code]);
    expect(answer.headers['content-type']).toBe('application/json');
    expect(answer.isSignedBy(product.accessKey)).toBe(isSigned);
    expect(answer.hasBodySign).toBe(isSigned);
    expect(answer.headers['allow']).toBe(status === 405 ? 'POST' : undefined);
    if (message !== '') {
      expect(answer.resultMsg).toBe(message);
      expect(answer.instanceId).toBeUndefined();
      expectDiscreet(answer);
    }
    const gained = new Map(Object.entries(gains));
    const expected = Object.entries(before).map(([table, n]) => [
      table,
      n + (gained.get(table) ?? 0),
    ]);
    expect(await countRows()).toEqual(Object.fromEntries(expected));
  });

  test('of doubled keys the last wins', async () => {
    const [first, last] = [orderId(), orderId()];
    const answer = await send(purchase({ body: raw(`"orderId":"${first}","orderId":"${last}"`) }));
    expect(answer.resultCode).toBe('000004');
    const found =
      await system.sql`select order_id from instances where order_id in (${first}, ${last})`;
    expect(found.map((each) => each['order_id'])).toEqual([last]);
  });

  test('a body of 50 MB in chunks is cut early', async () => {
    const socket = createConnection({ host: '127.0.0.1', port: api.port });
    socket.on('error', () => undefined);
    const closed = new Promise((resolve) => socket.once('close', resolve));
    let answer = '';
    socket.on('data', (data) => (answer += data.toString()));
    await once(socket, 'connect');
    socket.write(
      `POST /callbacks/${product.key} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n`,
    );
    const megabyte = Buffer.alloc(1_000_000, 'x');
    let written = 0;
    const isOpen = () => !socket.destroyed && socket.writable;
    while (written < 50 && isOpen()) {
      socket.write('f4240\r\n');
      socket.write(megabyte);
      if (!socket.write('\r\n')) {
        await Promise.race([new Promise((resolve) => socket.once('drain', resolve)), closed]);
      }
      written += 1;
    }
    await closed;
    expect(written).toBeLessThan(50);
    // Whoever sends on regardless may miss the answer; what was read of it is the right one.
    if (answer !== '') expect(answer).toContain(tooLarge);
  });
});

describe('the same signed bytes a second time', () => {
  test.each([
    ['a purchase', () => order(), '000004'],
    ['a question', () => query(randomUUID()), '000003'],
    [
      'a check',
      () => ({ activity: 'changeInstanceCheck', instanceId: 'x', productInfo: {} }),
      '000003',
    ],
    [
      'an event of an unknown instance',
      () => ({ activity: 'releaseInstance', instanceId: randomUUID() }),
      '000003',
    ],
    ['a test call', () => order({ testFlag: '1' }), '000000'],
  ])('%s: 000001, and nothing is stored', async (_, body, first) => {
    const call = signCall(purchase({ body: body() }));
    expect((await sendSigned(call)).resultCode).toBe(first);
    const before = await countRows();
    const again = await sendSigned(call);
    expect([again.httpStatus, again.resultCode, again.resultMsg]).toEqual([
      200,
      '000001',
      'authentication failed',
    ]);
    expect(again.instanceId).toBeUndefined();
    expect(await countRows()).toEqual(before);
  });

  test('an event of a known instance: 000001, and it counts once', async () => {
    const { instanceId } = await send(purchase());
    const call = signCall(
      purchase({ body: { activity: 'updateInstanceStatus', instanceId, status: 'FREEZE' } }),
    );
    expect((await sendSigned(call)).resultCode).toBe('000000');
    const before = await countRows();
    expect((await sendSigned(call)).resultCode).toBe('000001');
    expect(await countRows()).toEqual(before);
  });

  test('signed anew it is a re-send', async () => {
    const body = order();
    const first = await send(purchase({ body }));
    const again = await send(purchase({ body }));
    expect(again).toMatchObject({ resultCode: '000004', instanceId: first.instanceId });
  });
});

describe('test calls', () => {
  const test1 = { testFlag: '1' };
  const instanceId = 'of-yesterday';
  test.each<[string, Record<string, unknown>]>([
    ['newInstance', order({ orderId: 'CSTEST', ...test1 })],
    ['queryInstance', { ...query(instanceId), ...test1 }],
    ['refreshInstance', renewal({ ...test1 })],
    [
      'updateInstanceStatus',
      { activity: 'updateInstanceStatus', instanceId, status: 'FREEZE', ...test1 },
    ],
    [
      'upgradeInstance',
      { activity: 'upgradeInstance', instanceId, orderId: 'a', orderLineId: 'b', ...test1 },
    ],
    ['releaseInstance', { activity: 'releaseInstance', instanceId, ...test1 }],
    [
      'changeInstanceCheck',
      { activity: 'changeInstanceCheck', instanceId, productInfo: {}, ...test1 },
    ],
  ])('%s: 000000 for any id, the same each time, and no instance is touched', async (_, body) => {
    const before = await countRows();
    const first = await send(purchase({ body }));
    const again = await send(purchase({ body }));
    expect(first).toMatchObject({ httpStatus: 200, resultCode: '000000' });
    expect(again.raw.toString()).toBe(first.raw.toString());
    expect(first.isSignedBy(product.accessKey)).toBe(true);
    expect(await countRows()).toEqual({ ...before, reads: before.reads + 2 });
  });

  test('newInstance gives an id, queryInstance access data for each id asked', async () => {
    const bought = await send(purchase({ body: order({ orderId: 'CSTEST', ...test1 }) }));
    expect(bought.instanceId).toMatch(/^.{1,64}$/);
    const asked = await send(purchase({ body: { ...query('a,b'), ...test1 } }));
    const { info } = JSON.parse(asked.raw.toString()) as { info: Record<string, unknown>[] };
    expect(info.map((each) => each['instanceId'])).toEqual(['a', 'b']);
    expect(info[0]).toHaveProperty('appInfo.frontEndUrl');
  });

  test('badly signed they are refused like any other', async () => {
    const answer = await send(purchase({ body: order(test1), accessKey: 'nobody' }));
    expect(answer.resultCode).toBe('000001');
  });

  test.each(['0', 0])('testFlag %j is no test call', async (testFlag) => {
    const before = await countRows();
    await send(purchase({ body: order({ testFlag }) }));
    expect((await countRows()).instances).toBe(before.instances + 1);
  });
});

describe('keys', () => {
  test('Body-Sign stands on the wire with its capitals, over exactly the bytes sent', async () => {
    const call = signCall(purchase());
    const body = Buffer.from(call.sentBody);
    const socket = createConnection({ host: '127.0.0.1', port: api.port });
    socket.write(
      Buffer.concat([
        Buffer.from(
          `POST /callbacks/${product.key}?${call.query} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n` +
            `Content-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n`,
        ),
        body,
      ]),
    );
    const chunks: Buffer[] = [];
    socket.on('data', (data) => chunks.push(data));
    await once(socket, 'close');
    const wire = Buffer.concat(chunks).toString('latin1');
    const [head = '', sent = ''] = wire.split('\r\n\r\n');
    expect(head).toContain(`\r\nBody-Sign: ${bodySignValue(product.accessKey, sent)}`);
  });

  test('two active keys: each verifies, and is answered under itself', async () => {
    const { key: productKey, accessKey: first } = await system.addProduct();
    const second = `key-${randomUUID()}`;
    await addKey(operator, { product: productKey, class: 'base', secret: second });
    for (const [accessKey, foreign] of [
      [first, second],
      [second, first],
    ] as const) {
      const answer = await send(purchase({ productKey, accessKey }));
      expect(answer.resultCode).toBe('000004');
      expect(answer.isSignedBy(accessKey)).toBe(true);
      expect(answer.isSignedBy(foreign)).toBe(false);
    }
  });

  test('a new product and a new key work at once, a retired one is refused within two seconds', async () => {
    const fresh = await system.addProduct();
    const at = { productKey: fresh.key };
    expect((await send(purchase({ ...at, accessKey: fresh.accessKey }))).resultCode).toBe('000004');
    const second = `key-${randomUUID()}`;
    await addKey(operator, { product: fresh.key, class: 'base', secret: second });
    expect((await send(purchase({ ...at, accessKey: second }))).resultCode).toBe('000004');

    const keys = await system.sql<{ id: number }[]>`
      select k.id from product_keys k join products p on p.id = k.product_id
      where p.key = ${fresh.key} order by k.id`;
    await retireProductKey(operator, { product: fresh.key, keyId: keys[0]?.id ?? 0, force: false });
    await until(
      async () => (await send(purchase({ ...at, accessKey: fresh.accessKey }))).resultCode,
      '000001',
      { timeoutMs: 2_000 },
    );
    expect((await send(purchase({ ...at, accessKey: second }))).resultCode).toBe('000004');
  });
});

test('HEAD is answered like the other methods that are not taken, and nothing is written past the log', async () => {
  const address = `http://127.0.0.1:${api.port}/callbacks`;
  const known = await fetch(`${address}/${product.key}`, { method: 'HEAD' });
  expect([known.status, known.headers.get('allow')]).toEqual([405, 'POST']);
  expect((await fetch(`${address}/nobody`, { method: 'HEAD' })).status).toBe(404);
  expect(system.lines().filter((line) => !line.startsWith('{'))).toEqual([]);
});

test.each(['a,b', 'trailing ', ' ', '张三', 'tab\t'])(
  'the business id %j, which could never be asked for, is replaced by one that can',
  async (businessId) => {
    const order = { orderId: `CS${randomUUID()}`, orderLineId: '1' };
    const market = system.marketplace(product, api);
    const bought = await market.newInstance({ ...order, businessId });
    expect(bought).toMatchObject({ httpStatus: 200, resultCode: '000004' });
    expect(bought.instanceId).toMatch(/^[\x21-\x2b\x2d-\x7e]{1,64}$/);
    const asked = await market.queryInstance(bought.instanceId ?? '');
    expect(asked.resultCode).toBe('000004');
    const again = await market.newInstance({ ...order, businessId: 'another' });
    expect(again.instanceId).toBe(bought.instanceId);
  },
);
