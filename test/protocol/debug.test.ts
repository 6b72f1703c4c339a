import { describe, expect, test } from 'vitest';
import { parseCallback, type Callback } from '../../protocol/saas-v2/callback.ts';
import { replyToTestCall } from '../../protocol/saas-v2/debug.ts';
import { accessDataSchema } from '../../protocol/saas-v2/reply.ts';

function readTestCall(body: Record<string, unknown>): Callback {
  const reading = parseCallback(Buffer.from(JSON.stringify({ ...body, testFlag: '1' })));
  if (!reading.ok) throw new Error(reading.problem);
  return reading.callback;
}

const create = {
  activity: 'newInstance',
  orderId: 'CS2211181819B4LVS',
  orderLineId: 'CS2211181819B4LVS-000001',
  businessId: 'b-1',
};

describe('a test call', () => {
  test('to create is answered with the same id for ever, for each order its own', () => {
    const reply = replyToTestCall(readTestCall(create));
    // Written out: saved debugging calls rely on it from release to release.
    expect(reply).toEqual({
      resultCode: '000000',
      resultMsg: 'success',
      instanceId: 'test-0846aaf72c68f33c4899c5b75c30cbcd',
    });
    expect(replyToTestCall(readTestCall({ ...create, businessId: 'b-2' }))).toEqual(reply);
    const other = replyToTestCall(readTestCall({ ...create, orderLineId: 'x' }));
    expect(other.instanceId).not.toBe(reply.instanceId);
    expect(other.instanceId?.length).toBeLessThanOrEqual(64);
  });

  test('to query shows access data for every id asked, known or not', () => {
    const reply = replyToTestCall(
      readTestCall({ activity: 'queryInstance', instanceId: 'i-1,anything,i-1' }),
    );
    expect(reply.resultCode).toBe('000000');
    expect(reply.info?.map(({ instanceId }) => instanceId)).toEqual(['i-1', 'anything']);
    for (const { appInfo } of reply.info ?? []) {
      expect(accessDataSchema.parse(appInfo)).toEqual(appInfo);
    }
  });

  test.each([
    {
      activity: 'refreshInstance',
      scene: 'RENEWAL',
      orderId: 'o',
      orderLineId: 'l',
      instanceId: 'i',
      expireTime: '20221124023618',
    },
    { activity: 'updateInstanceStatus', instanceId: 'i', status: 'FREEZE' },
    { activity: 'upgradeInstance', instanceId: 'i', orderId: 'o', orderLineId: 'l' },
    { activity: 'releaseInstance', instanceId: 'i' },
    { activity: 'changeInstanceCheck', instanceId: 'i', productInfo: {} },
  ])('to $activity is a success for any id', (body) => {
    expect(replyToTestCall(readTestCall(body))).toEqual({
      resultCode: '000000',
      resultMsg: 'success',
    });
  });
});
