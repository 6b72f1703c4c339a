import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createDatabase } from '../../db/client.ts';
import { deleteExpiredRefusals } from '../../db/refusals.ts';
import { addKey } from '../../operations/add-key.ts';
import { createMarketplace } from '../../simulator/marketplace.ts';
import { type TestDatabase, createTestDatabase } from '../servers/database.ts';
import { queueStore } from '../servers/queue-store.ts';
import { type Process, type System, type TestProduct, createSystem } from '../servers/system.ts';
import { until } from '../servers/until.ts';
import { runCli } from './cli-run.ts';
import { openOperator, send } from './receiver-call.ts';

let database: TestDatabase;
let system: System;
let api: Process;
let product: TestProduct;

beforeAll(async () => {
  database = await createTestDatabase();
  const { env } = queueStore(database.url);
  system = createSystem({ databaseUrl: database.url, tenantsUrl: database.tenantsUrl, env });
  product = await system.addProduct();
  const operator = openOperator(database.url, system.masterKey);
  await addKey(operator, { product: product.key, class: 'base', secret: 'the-second-key' });
  await operator.db.close();
  api = await system.startApi();
});

afterAll(async () => {
  await system?.stop();
  await database?.drop();
});

type Refusals = {
  activeKeys: number;
  refusals: { resultCode: string; reason: string; times: number }[];
};

async function readRefusals(): Promise<Refusals> {
  const { code, out, err } = await runCli(['product', 'refusals', product.key, '--json'], {
    env: system.env,
  });
  expect({ code, err }).toEqual({ code: 0, err: '' });
  return JSON.parse(out) as Refusals;
}

describe('refused calls', () => {
  test('are shown with a reason that says where to look, and nothing of it goes to the caller', async () => {
    const call = { port: api.port, productKey: product.key, accessKey: 'another-key' };
    const answers = [
      await send({ ...call, body: '{"activity":"queryInstance","instanceId":"i"}' }),
      await send({ ...call, body: '{"activity":"queryInstance","instanceId":"i"}' }),
      await send({ ...call, body: 'no json' }),
      await send({ ...call, body: `{"memo":"${'x'.repeat(17_000)}"}` }),
    ];
    for (const answer of answers) {
      expect(answer.resultCode).toBe('000001');
      expect(answer.raw.toString()).not.toMatch(/keys|raw|sorted/);
    }
    for (const behindMs of [75_000, -600_000]) {
      const market = createMarketplace({
        callbackUrl: product.callbackUrl(api),
        accessKey: product.accessKey,
        clock: () => Date.now() - behindMs,
      });
      expect(await market.queryInstance('i')).toMatchObject({
        resultCode: '000002',
        resultMsg: 'timestamp is more than 60 seconds away from the time here',
      });
      market.close();
    }
    const wanted = [
      ['000001', 'signed with none of your 2 keys; body forms tried: raw, sorted', 2],
      [
        '000001',
        'signed with none of your 2 keys; body forms tried: raw (no sorted one: the body is no JSON object)',
        1,
      ],
      [
        '000001',
        'signed with none of your 2 keys; body forms tried: raw (no sorted one: the body is longer than 16 KiB)',
        1,
      ],
      ['000002', 'signed 75 s before the time here, and at most 60 s are taken', 1],
      ['000002', 'signed 10 min after the time here, and at most 60 s are taken', 1],
    ] as const;
    await until(
      async () =>
        (await system.sql`select sum(times)::int as times from refusals`)[0]?.['times'] as number,
      6,
    );
    const { activeKeys, refusals } = await readRefusals();
    expect(activeKeys).toBe(2);
    for (const [resultCode, reason, times] of wanted) {
      expect(refusals).toContainEqual(
        expect.objectContaining({ resultCode, reason, times }) as object,
      );
    }
    expect(refusals).toHaveLength(wanted.length);
  });

  test('are forgotten after seven days, however many there are', async () => {
    await system.sql`insert into refusals (product_id, at, result_code, reason)
      select 1, now() - interval '7 days 1 minute', '000001', 'old' from generate_series(1, 25000)`;
    await system.sql`insert into refusals (product_id, at, result_code, reason)
      values (1, now() - interval '6 days 23 hours', '000001', 'young')`;
    const db = createDatabase({ url: database.url, applicationName: 'test', poolMax: 1 });
    expect(await deleteExpiredRefusals(db.pool)).toBe(25_000);
    await db.close();
    const left =
      await system.sql`select distinct reason from refusals where reason in ('old', 'young')`;
    expect(left.map((row) => row['reason'])).toEqual(['young']);
  });

  test('of a product that is not there are asked for in vain', async () => {
    const run = await runCli(['product', 'refusals', 'nobody'], { env: system.env });
    expect(run).toMatchObject({ code: 1, err: expect.stringContaining(product.key) as string });
  });
});
