import { describe, expect, test } from 'vitest';
import { until } from '../servers/until.ts';
import { proveLedger } from './prove.ts';
import { queueKinds } from './queue-kinds.ts';
import { openRig } from './rig.ts';
import { insist, purchase } from './trade.ts';

describe.each(queueKinds)('queues on %s', (kind) => {
  test('an event that comes during a back-off of an hour is applied at once, with all that waited', async () => {
    const rig = await openRig(kind, { env: { TIMING_RETRY_SCALE_PERCENT: '100' } });
    await rig.startAll();
    const { sql } = rig.system;
    rig.sellerBackend.setMode({ kind: 'throttle', retryAfterSeconds: 3_600, times: 1 });
    const instanceId = await purchase(rig.backend);
    await until(
      () =>
        sql`select state, retry_at > now() + interval '50 minutes' as "isFar" from dispatches`.then(
          (rows) => [...rows],
        ),
      [{ state: 'failing', isFar: true }],
    );
    await insist(rig.backend, { activity: 'updateInstanceStatus', instanceId, status: 'FREEZE' });
    const beganMs = performance.now();
    await until(() => rig.sellerBackend.instances.get(instanceId)?.desired['frozen'], true, {
      timeoutMs: 3_000,
      everyMs: 5,
    });
    const appliedMs = Math.round(performance.now() - beganMs);
    await proveLedger(rig, 'a new event during an hour of back-off', { appliedMs });
    // One call covered both facts.
    expect(rig.sellerBackend.requests.map(({ generation }) => generation)).toEqual([1, 2]);
  });
});
