import { expect, onTestFinished, test } from 'vitest';
import { createSellerBackend, type SellerBackend } from '../../simulator/seller-backend.ts';
import { callBackend, type SignedCallOptions } from './signed-call.ts';

const secret = `whsec_${Buffer.from('one secret of thirty-two bytes!!').toString('base64')}`;
const other = `whsec_${Buffer.from('another one of thirty-two bytes!').toString('base64')}`;

type Call = (
  method: 'PUT' | 'DELETE',
  generation: number,
  more?: Partial<SignedCallOptions>,
) => Promise<Response>;

async function openBackend(): Promise<{ backend: SellerBackend; call: Call }> {
  const backend = createSellerBackend({ secrets: [secret, other] });
  const url = await backend.listen();
  onTestFinished(() => backend.close());
  return {
    backend,
    call: (method, generation, more = {}) =>
      callBackend({ url, secret, method, instanceId: 'i-1', generation, ...more }),
  };
}

test('the same generation twice makes one instance and gives the same access data', async () => {
  const { backend, call } = await openBackend();
  const first = await call('PUT', 1);
  expect(first.status).toBe(200);
  const body = await first.json();
  expect(body).toMatchObject({ appInfo: { userName: expect.stringMatching(/^admin-/) } });
  expect(await (await call('PUT', 1)).json()).toEqual(body);
  expect(await (await call('PUT', 2, { secret: other })).json()).toEqual(body);
  expect(backend.instances.get('i-1')).toMatchObject({ created: 1, generation: 2, exists: true });
  expect(backend.problems).toEqual([]);
});

test('an older generation is answered 409 and changes nothing, also after a delete', async () => {
  const { backend, call } = await openBackend();
  await call('PUT', 3, { desired: { exists: true, frozen: true } });
  expect((await call('PUT', 2)).status).toBe(409);
  expect((await call('DELETE', 2)).status).toBe(409);
  expect(backend.instances.get('i-1')?.desired).toEqual({ exists: true, frozen: true });
  expect((await call('DELETE', 4)).status).toBe(204);
  expect((await call('DELETE', 4)).status).toBe(404);
  expect((await call('PUT', 3)).status).toBe(409);
  expect((await call('PUT', 4)).status).toBe(409);
  expect(backend.instances.get('i-1')).toMatchObject({ created: 1, deleted: 1, exists: false });
});

test('a delete of what was never made is remembered against a late put', async () => {
  const { backend, call } = await openBackend();
  expect((await call('DELETE', 2)).status).toBe(404);
  expect((await call('PUT', 1)).status).toBe(409);
  expect(backend.instances.get('i-1')).toMatchObject({ created: 0, deleted: 0 });
});

test('a wrong secret, changed bytes and an old signature are answered 401 and do nothing', async () => {
  const { backend, call } = await openBackend();
  const stranger = `whsec_${Buffer.from('a stranger').toString('base64')}`;
  expect((await call('PUT', 1, { secret: stranger })).status).toBe(401);
  expect((await call('PUT', 1, { bodySent: '{"generation":1}' })).status).toBe(400);
  expect(
    (await call('PUT', 1, { bodySent: '{"instanceId":"i-1","generation":1,"desired":{}}' })).status,
  ).toBe(401);
  expect((await call('PUT', 1, { at: new Date(Date.now() - 600_000) })).status).toBe(401);
  expect(backend.instances.size).toBe(0);
  expect(backend.requests).toEqual([]);
});

test('modes are played through in their order, then it is well again', async () => {
  const { backend, call } = await openBackend();
  backend.setMode(
    { kind: 'fail', times: 2 },
    { kind: 'throttle', retryAfterSeconds: 7, times: 1 },
    { kind: 'nonsense', times: 1 },
    { kind: 'reset', times: 1 },
    { kind: 'lost answer', times: 1 },
  );
  expect((await call('PUT', 1)).status).toBe(500);
  expect((await call('PUT', 1)).status).toBe(500);
  const throttled = await call('PUT', 1);
  expect([throttled.status, throttled.headers.get('retry-after')]).toEqual([429, '7']);
  expect(await (await call('PUT', 1)).text()).toContain('<html>');
  await expect(call('PUT', 1)).rejects.toThrow();
  expect(backend.instances.size).toBe(0);
  await expect(call('PUT', 1)).rejects.toThrow();
  expect(backend.instances.get('i-1')?.created).toBe(1);
  expect((await call('PUT', 1)).status).toBe(200);
  expect(backend.instances.get('i-1')?.created).toBe(1);
  expect(backend.requests.map((one) => one.status)).toEqual([500, 500, 429, 200, 0, 0, 200]);
});

test('a hanging backend never answers, a late one does its work at once', async () => {
  const { backend, call } = await openBackend();
  backend.setMode({ kind: 'hang', times: 1 }, { kind: 'late', delayMs: 60_000, times: 1 });
  const hanging = call('PUT', 1).catch((error: unknown) => error);
  await expect.poll(() => backend.requests.length).toBe(1);
  const late = call('PUT', 1).catch((error: unknown) => error);
  await expect.poll(() => backend.instances.get('i-1')?.created).toBe(1);
  await backend.close();
  expect(await hanging).toBeInstanceOf(Error);
  expect(await late).toBeInstanceOf(Error);
});

test('an order is refused until it is accepted, also when a later change no longer names it', async () => {
  const { backend, call } = await openBackend();
  backend.refuseOrder('o-1', { status: 422, resultCode: '000106' });
  backend.refuseOrder('o-2', { status: 400 });
  const soldOut = await call('PUT', 1, { orderId: 'o-1' });
  expect([soldOut.status, await soldOut.json()]).toEqual([422, { resultCode: '000106' }]);
  const broken = await call('PUT', 1, { orderId: 'o-2', instanceId: 'i-2' });
  expect([broken.status, await broken.json()]).toEqual([400, { error: 'refused' }]);
  expect(backend.instances.size).toBe(0);
  backend.acceptOrder('o-2');
  expect((await call('PUT', 1, { orderId: 'o-2', instanceId: 'i-2' })).status).toBe(200);
  backend.refuseOrder('o-2', { status: 400 });
  expect((await call('PUT', 2, { orderId: 'o-3', instanceId: 'i-2' })).status).toBe(400);
});

test('one generation with two meanings is a breach that is reported', async () => {
  const { backend, call } = await openBackend();
  await call('PUT', 1);
  await call('PUT', 1, { desired: { exists: true, frozen: true } });
  expect(backend.problems).toEqual(['i-1: generation 1 came with two meanings']);
});
