import { expect, onTestFinished, test } from 'vitest';
import { createMarketplace, type Marketplace, type Reply } from '../../simulator/marketplace.ts';
import { formatPurchases, playPurchases } from '../../simulator/purchases.ts';
import { createFakeReceiver, type FakeReceiver } from './fake-receiver.ts';

const timing = { retryEveryMs: 5, deadlineMs: 5_000 };
const order = { orderId: 'CS1', orderLineId: 'CS1-000001' };

async function openMarket(
  more: {
    clock?: () => number;
    random?: (size: number) => Uint8Array;
    replyTimeoutMs?: number;
  } = {},
): Promise<{ market: Marketplace; receiver: FakeReceiver }> {
  const receiver = await createFakeReceiver({});
  const market = createMarketplace({ ...receiver, ...more });
  onTestFinished(async () => {
    market.close();
    await receiver.close();
  });
  return { market, receiver };
}

test('a callback goes out sorted and compact, with time and nonce from outside and capitals in the hex', async () => {
  const at = Date.now();
  const { market, receiver } = await openMarket({
    clock: () => at,
    random: (size) => new Uint8Array(size).fill(0xab),
  });
  const { call } = await market.newInstance({ ...order, businessId: 'b-1' });
  expect(call.body).toBe(
    '{"activity":"newInstance","businessId":"b-1","orderId":"CS1","orderLineId":"CS1-000001"}',
  );
  expect(call.query).toMatch(
    new RegExp(`^signature=[0-9A-F]{64}&timestamp=${at}&nonce=${'AB'.repeat(32)}$`),
  );
  expect(receiver.calls.map((one) => one.rawBody)).toEqual([call.body]);
});

test('every kind of call arrives with the documented names', async () => {
  const { market, receiver } = await openMarket();
  const { instanceId = '' } = await market.newInstance(order);
  await market.queryInstance([instanceId, 'other']);
  await market.refreshInstance({
    ...order,
    instanceId,
    scene: 'RENEWAL',
    expireTime: '20990101000000',
  });
  await market.updateInstanceStatus(instanceId, 'FREEZE');
  await market.upgradeInstance({ ...order, instanceId });
  await market.changeInstanceCheck(instanceId, { skuCode: 's', productId: 'p' });
  await market.releaseInstance(instanceId);
  const sent = receiver.calls.map(({ body }) => body);
  expect(sent.map((body) => body['activity'])).toEqual([
    'newInstance',
    'queryInstance',
    'refreshInstance',
    'updateInstanceStatus',
    'upgradeInstance',
    'changeInstanceCheck',
    'releaseInstance',
  ]);
  expect(sent[1]).toEqual({ activity: 'queryInstance', instanceId: `${instanceId},other` });
  expect(sent[2]).toEqual({
    activity: 'refreshInstance',
    ...order,
    instanceId,
    scene: 'RENEWAL',
    expireTime: '20990101000000',
  });
  expect(sent[3]).toMatchObject({ status: 'FREEZE' });
  expect(sent[5]).toMatchObject({ productInfo: { skuCode: 's', productId: 'p' } });
});

test('a purchase is sent under new business ids until it is acknowledged, then polled until it is ready', async () => {
  const { market, receiver } = await openMarket();
  receiver.answerAll({ status: 200, body: '{"resultCode":"000005"}' });
  const buying = market.buy(order, timing);
  await expect.poll(() => market.ledger.count('refused')).toBeGreaterThan(2);
  receiver.answerAll({ status: 503, body: 'busy' });
  await expect.poll(() => market.ledger.count('unanswered')).toBeGreaterThan(1);
  receiver.answerAll(undefined);
  const result = await buying;
  expect(result).toMatchObject({
    outcome: 'ready',
    instanceId: receiver.calls[0]?.body['businessId'],
    info: { appInfo: { userName: 'u' } },
  });
  expect(result.calls).toBeGreaterThan(4);
  await market.newInstance(order);
  const businessIds = receiver.calls.flatMap(({ body }) => body['businessId'] ?? []);
  expect(new Set(businessIds).size).toBe(2);
});

test('a purchase that is never acknowledged, or never ready, ends at its deadline with the last code', async () => {
  const { market, receiver } = await openMarket();
  const short = { retryEveryMs: 5, deadlineMs: 40 };
  receiver.answerAll({ status: 200, body: '{"resultCode":"000005"}' });
  expect(await market.buy(order, short)).toMatchObject({
    outcome: 'not acknowledged',
    resultCode: '000005',
  });
  receiver.answerAll({ status: 200, body: '{"resultCode":"000004","instanceId":"i-1"}' });
  expect(await market.buy(order, short)).toMatchObject({ outcome: 'not ready', instanceId: 'i-1' });
});

test('a replay carries the very same bytes and query', async () => {
  const { market, receiver } = await openMarket();
  const first = await market.newInstance(order);
  const again = await market.replay(first.call);
  expect(again.call).toBe(first.call);
  expect(again.resultCode).toBe('000001');
  expect(receiver.calls).toHaveLength(1);
});

test.each(['signature', 'body', 'timestamp', 'nonce', 'other key'] as const)(
  'a call with its %s changed is no longer well signed, and is still a whole request',
  async (tamper) => {
    const { market, receiver } = await openMarket();
    const reply = await market.send({ activity: 'newInstance', ...order }, { tamper });
    expect(reply.resultCode).toBe('000001');
    expect(JSON.parse(reply.call.body)).toMatchObject({ activity: 'newInstance' });
    expect(receiver.calls).toEqual([]);
  },
);

test('a stale call is well signed, and an unsigned one has no signature at all', async () => {
  const { market } = await openMarket();
  const stale = await market.send({ activity: 'x' }, { tamper: 'stale' });
  expect(stale.resultCode).toBe('000002');
  const unsigned = await market.send({ activity: 'x' }, { tamper: 'unsigned' });
  expect(unsigned.call.query).toMatch(/^timestamp=\d{13}&nonce=/);
  expect(unsigned.resultCode).toBe('000002');
});

test('the answer is read whole: code, Body-Sign, capitals, duration', async () => {
  const { market, receiver } = await openMarket();
  const reply = await market.newInstance(order);
  expect(reply).toMatchObject({ httpStatus: 200, resultCode: '000004', bodySignOk: true });
  expect(reply.rawHeaders).toContain('Body-Sign');
  expect(reply.durationMs).toBeGreaterThan(0);
  receiver.answerAll({ status: 200, body: 'not json' });
  const nonsense = await market.newInstance(order);
  expect(nonsense).toMatchObject({ httpStatus: 200, resultCode: '', rawBody: 'not json' });
});

test('no answer is an answer of its own, and leaves the ledger undecided', async () => {
  const { market, receiver } = await openMarket();
  await receiver.close();
  const reply: Reply = await market.newInstance(order);
  expect(reply).toMatchObject({ httpStatus: 0, resultCode: '', bodySignOk: false });
  expect(reply.failure).toMatch(/ECONN/);
  expect(market.ledger.count('unanswered')).toBe(1);
  expect(market.ledger.instanceIds()).toEqual([]);
});

test('the ledger folds what was acknowledged, in order, and nothing else', async () => {
  const { market, receiver } = await openMarket();
  const { instanceId = '' } = await market.newInstance(order);
  const state = (): unknown => market.ledger.expectedState(instanceId);
  expect(state()).toEqual({ exists: true, frozen: false, expiresAt: null, refusedWith: null });
  await market.updateInstanceStatus(instanceId, 'FREEZE');
  const renew = (expireTime: string): Promise<Reply> =>
    market.refreshInstance({ ...order, instanceId, scene: 'RENEWAL', expireTime });
  await renew('20990102030405678');
  await renew('20970102030405');
  expect(state()).toMatchObject({ frozen: true, expiresAt: '2097-01-02T03:04:05.000Z' });
  receiver.answerAll({ status: 200, body: '{"resultCode":"000005"}' });
  await market.updateInstanceStatus(instanceId, 'UNFREEZE');
  await market.releaseInstance(instanceId);
  expect(state()).toMatchObject({ exists: true, frozen: true });
  receiver.answerAll(undefined);
  await market.send({ activity: 'releaseInstance', instanceId, testFlag: '1' });
  expect(state()).toMatchObject({ exists: true });
  await market.releaseInstance(instanceId);
  await market.updateInstanceStatus(instanceId, 'UNFREEZE');
  expect(state()).toMatchObject({ exists: false, frozen: true });
  expect(market.ledger.expectedState('nobody')).toMatchObject({ exists: false });
});

test('the ledger holds a refusal for good against the id first given', async () => {
  const { market, receiver } = await openMarket();
  const { instanceId = '' } = await market.newInstance(order);
  receiver.answerAll({ status: 200, body: '{"resultCode":"000106"}' });
  await market.newInstance(order);
  expect(market.ledger.expectedState(instanceId)).toMatchObject({
    exists: false,
    refusedWith: '000106',
  });
});

test('the ledger tells of an order with two ids and of an id with two orders', async () => {
  const { market, receiver } = await openMarket();
  const answerId = (instanceId: string): void =>
    receiver.answerAll({ status: 200, body: JSON.stringify({ resultCode: '000000', instanceId }) });
  answerId('i-1');
  await market.newInstance(order);
  expect(market.ledger.problems()).toEqual([]);
  await market.newInstance({ ...order, orderLineId: 'CS1-000002' });
  answerId('i-2');
  await market.newInstance(order);
  expect(market.ledger.problems()).toEqual([
    'order CS1/CS1-000001 was given 2 ids',
    'id i-1 was given to 2 orders',
  ]);
});

test('a run of purchases tells how each ended, without access data', async () => {
  const { market } = await openMarket();
  const result = await playPurchases(market, { orders: 3, timing, clock: Date.now });
  expect(result.ok).toBe(true);
  expect(result.lines.map((line) => line.outcome)).toEqual(['ready', 'ready', 'ready']);
  expect(formatPurchases(result)).toContain('3 of 3 ready: all well');
  expect(JSON.stringify(result)).not.toContain('password');
});
