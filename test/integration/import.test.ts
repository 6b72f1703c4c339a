import { randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type SellerBackend, createSellerBackend } from '../../simulator/seller-backend.ts';
import type { Marketplace, Reply } from '../../simulator/marketplace.ts';
import { type TestDatabase, createTestDatabase } from '../servers/database.ts';
import { queueStore } from '../servers/queue-store.ts';
import { type System, type TestProduct, createSystem } from '../servers/system.ts';
import { until } from '../servers/until.ts';
import { runCli } from './cli-run.ts';

let database: TestDatabase;
let system: System;
let backend: SellerBackend;
let product: TestProduct;
let market: Marketplace;
let folder: string;
const httpSecret = `whsec_${randomBytes(24).toString('base64')}`;
const password = 'pass, with "quotes"';

beforeAll(async () => {
  database = await createTestDatabase();
  folder = await mkdtemp(join(tmpdir(), 'latchkey-import-'));
  const { env } = queueStore(database.url);
  system = createSystem({ databaseUrl: database.url, tenantsUrl: database.tenantsUrl, env });
  backend = createSellerBackend({ secrets: [httpSecret] });
  const httpUrl = await backend.listen();
  const [api] = await Promise.all([
    system.startApi(),
    system.startDispatcher(),
    system.startWorkers(),
  ]);
  product = await system.addProduct({ provisioner: 'http', httpUrl, httpSecret });
  market = system.marketplace(product, api);
});

afterAll(async () => {
  await system?.stop();
  await backend?.close();
  await database?.drop();
  await rm(folder, { recursive: true, force: true });
});

/** Calls again as the marketplace does when no answer came in time; any answer counts. */
async function answered(call: () => Promise<Reply>): Promise<Reply> {
  return until(call, (reply) => reply.httpStatus !== 0, { what: 'an answer' });
}

type Row = Record<string, string>;

type Shown = {
  ok: boolean;
  written: boolean;
  rows: number;
  imported: number;
  alreadyThere: number;
  differing: { line: number; columns: string[] }[];
  misfits: { line: number; reason: string }[];
};

function csvOf(rows: readonly Row[]): string {
  const columns = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  const quote = (text: string) => `"${text.replaceAll('"', '""')}"`;
  const lines = rows.map((row) => columns.map((column) => quote(row[column] ?? '')).join(','));
  return `\uFEFF${[columns.join(','), ...lines].join('\r\n')}\r\n`;
}

async function runImport(csv: string | readonly Row[], ...args: string[]) {
  const file = join(folder, `${randomBytes(4).toString('hex')}.csv`);
  await writeFile(file, typeof csv === 'string' ? csv : csvOf(csv));
  return runCli(['import', file, '--product', product.key, ...args], { env: system.env });
}

async function importJson(
  csv: string | readonly Row[],
  ...args: string[]
): Promise<Shown & { code: number | null }> {
  const { code, out, err } = await runImport(csv, '--json', ...args);
  expect(err).toBe('');
  return { code, ...(JSON.parse(out) as Shown) };
}

let last = 0;
function rowOf(more: Row = {}): Row & { instance_id: string; order_id: string } {
  const name = `${randomBytes(4).toString('hex')}-${(last += 1)}`;
  return {
    instance_id: `old-${name}`,
    order_id: `CS-${name}`,
    order_line_id: `CS-${name}-000001`,
    product_id: 'OFFI1',
    sku_code: 'gold',
    quantity: '5',
    charging_mode: 'PERIOD',
    expires_at: '20301231160000',
    front_end_url: `https://crm.example.com/${name}`,
    user_name: 'ann',
    password,
    memo: '欢迎\n使用',
    ...more,
  };
}

const expiryOf = async (instanceId: string) => {
  const [row] = await system.sql`select expires_at, applied from instances
    where public_id = ${instanceId}`;
  return row && { expiresAt: (row['expires_at'] as Date).toISOString(), applied: row['applied'] };
};

describe('after an import', () => {
  test('a renewal of an old customer is acknowledged and applied as generation 2, and his old one is a duplicate', async () => {
    const row = rowOf({ applied_orders: 'RENEWAL:CSOLD/CSOLD-000001 UPGRADE:CSUP/CSUP-000001' });
    expect(await importJson([row])).toMatchObject({ code: 0, ok: true, imported: 1 });
    const { instance_id: instanceId } = row;
    expect(await expiryOf(instanceId)).toEqual({
      expiresAt: '2030-12-31T16:00:00.000Z',
      applied: 1,
    });

    const old = await answered(() =>
      market.refreshInstance({
        instanceId,
        scene: 'RENEWAL',
        orderId: 'CSOLD',
        orderLineId: 'CSOLD-000001',
        expireTime: '20251231160000',
      }),
    );
    expect(old.resultCode).toBe('000000');
    const upgraded = await answered(() =>
      market.upgradeInstance({
        instanceId,
        orderId: 'CSUP',
        orderLineId: 'CSUP-000001',
      }),
    );
    expect(upgraded.resultCode).toBe('000000');
    const [open] = await system.sql`select count(*)::int as count from dispatches d
      join instances i on i.id = d.instance_id where i.public_id = ${instanceId}`;
    expect(open?.['count']).toBe(0);

    const renewed = await answered(() =>
      market.refreshInstance({
        instanceId,
        scene: 'RENEWAL',
        orderId: 'CSNEW',
        orderLineId: 'CSNEW-000001',
        expireTime: '20311231160000',
      }),
    );
    expect(renewed.resultCode).toBe('000000');
    await until(
      () => expiryOf(instanceId),
      (found) => found?.applied === 2 && found.expiresAt === '2031-12-31T16:00:00.000Z',
      { what: 'the renewal to be applied as generation 2' },
    );
    expect(backend.instances.get(instanceId)).toMatchObject({ generation: 2 });
  });

  test('a re-sent purchase gets the old id, and a query the access data', async () => {
    const row = rowOf();
    await importJson([row]);
    const { instance_id: instanceId, order_id: orderId } = row;
    const bought = await answered(() =>
      market.newInstance({ orderId, orderLineId: `${orderId}-000001` }),
    );
    expect(bought).toMatchObject({ resultCode: '000000', instanceId });
    const { info } = await answered(() => market.queryInstance(instanceId));
    expect(info).toEqual([
      {
        instanceId,
        appInfo: {
          frontEndUrl: row['front_end_url'],
          userName: 'ann',
          password,
          memo: '欢迎\n使用',
        },
      },
    ]);
  });

  test('a frozen one is unfrozen, a FREEZE of it is a duplicate, and a released one stays released', async () => {
    const frozen = rowOf({ state: 'frozen' });
    const released = rowOf({ state: 'released', front_end_url: '', password: '' });
    expect(await importJson([frozen, released])).toMatchObject({ imported: 2 });
    const again = await answered(() => market.updateInstanceStatus(frozen.instance_id, 'FREEZE'));
    expect(again.resultCode).toBe('000000');
    const [events] = await system.sql`select count(*)::int as count from events e
      join instances i on i.id = e.instance_id where i.public_id = ${frozen.instance_id}`;
    expect(events?.['count']).toBe(2);
    await answered(() => market.updateInstanceStatus(frozen.instance_id, 'UNFREEZE'));
    await until(
      () => system.sql`select state from instances where public_id = ${frozen.instance_id}`,
      ([found]) => found?.['state'] === 'active',
      { what: 'the instance to be unfrozen' },
    );
    expect((await answered(() => market.releaseInstance(released.instance_id))).resultCode).toBe(
      '000000',
    );
    expect(
      (await answered(() => market.updateInstanceStatus(released.instance_id, 'FREEZE')))
        .resultCode,
    ).toBe('000003');
  });

  test('no password and no access data stands in the database in clear', async () => {
    await importJson([rowOf()]);
    const [found] = await system.sql`select count(*)::int as count from instances i
      where position(${Buffer.from(password)} in coalesce(access_enc, ''::bytea)) > 0`;
    expect(found?.['count']).toBe(0);
  });
});

describe('rows', () => {
  test('that do not fit are all named by line and reason, repeat nothing, and stop the import', async () => {
    const good = rowOf();
    const standing = rowOf();
    await importJson([standing]);
    const bad: [Row, string][] = [
      [rowOf({ instance_id: '' }), 'instance_id is empty'],
      [rowOf({ order_id: 'x'.repeat(65) }), 'order_id is longer than 64 characters'],
      [rowOf({ front_end_url: '' }), 'front_end_url is empty, and the instance is not released'],
      [rowOf({ password: 'secret'.repeat(30) }), 'password is longer than 128 characters'],
      [rowOf({ state: 'gone' }), 'state is none of active, frozen, released'],
      [rowOf({ expires_at: '2030-01-01' }), 'expires_at is neither'],
      [rowOf({ expires_at: '' }), 'expires_at is empty, and charging_mode is PERIOD'],
      [rowOf({ quantity: 'many' }), 'quantity is not a number'],
      [rowOf({ charging_mode: 'GIFT' }), 'charging_mode is none of'],
      [rowOf({ license: 'L1' }), 'license belongs to licence products'],
      [rowOf({ applied_orders: 'RENEWAL-CS1' }), 'applied_orders is not a list'],
      [rowOf({ applied_orders: 'HOLIDAY:CS1/L1' }), 'applied_orders has a scene'],
      [{ ...rowOf(), instance_id: good.instance_id }, 'instance_id stands on line 2 already'],
      [
        { ...rowOf(), order_id: good.order_id, order_line_id: good['order_line_id'] ?? '' },
        'the order stands on line 2 already',
      ],
      [{ ...rowOf(), instance_id: standing.instance_id }, 'stands for another order already'],
      [{ ...standing, instance_id: 'another' }, 'the order has another instance_id already'],
    ];
    const rows = [good, ...bad.map(([row]) => row)];
    // Each memo has one line break, so each row takes two lines.
    const wanted = bad.map(([, reason], at) => ({
      line: 4 + 2 * at,
      reason: expect.stringContaining(reason) as string,
    }));
    for (const args of [['--dry-run'], []]) {
      const shown = await importJson(rows, ...args);
      expect(shown).toMatchObject({ code: 1, ok: false, written: false, misfits: wanted });
      expect(JSON.stringify(shown)).not.toContain('secret');
    }
    expect(await expiryOf(good.instance_id)).toBeUndefined();

    expect(await importJson(rows, '--skip-bad')).toMatchObject({
      code: 0,
      ok: true,
      written: true,
      imported: 1,
      misfits: wanted,
    });
    expect(await expiryOf(good.instance_id)).toBeDefined();
  });

  test('with too few fields, a misspelt column and a broken file are told apart', async () => {
    const header = 'instance_id,order_id,order_line_id,front_end_url';
    expect(await importJson(`${header}\na,b\n`)).toMatchObject({
      code: 1,
      misfits: [{ line: 2, reason: 'has 2 fields, not 4' }],
    });
    expect(await runImport(`${header},pasword\n`)).toMatchObject({
      code: 2,
      err: expect.stringContaining('a name that is no column') as string,
    });
    expect(await runImport('instance_id\n')).toMatchObject({
      code: 2,
      err: expect.stringContaining('has no order_id, order_line_id') as string,
    });
    expect(await runImport(`${header}\na,b,c,"d\n`)).toMatchObject({
      code: 1,
      err: expect.stringContaining('line 2: a quote is never closed') as string,
    });
  });

  test('are refused for a product whose instances are made here', async () => {
    const own = await system.addProduct();
    const file = join(folder, 'own.csv');
    await writeFile(file, csvOf([rowOf()]));
    const run = await runCli(['import', file, '--product', own.key], { env: system.env });
    expect(run).toMatchObject({
      code: 1,
      err: expect.stringContaining('postgres-schema') as string,
    });
  });
});

describe('an import that is run again', () => {
  test('writes nothing, says what is there, and names what differs', async () => {
    const rows = Array.from({ length: 1_300 }, () => rowOf());
    expect(await importJson(rows, '--dry-run')).toMatchObject({ written: false, imported: 1_300 });
    expect(await importJson(rows)).toMatchObject({ written: true, imported: 1_300 });
    const dump = () =>
      system.sql`select i.*, e.kind, e.dedup_key, e.detail, e.applied_at
        from instances i join events e on e.instance_id = i.id order by i.id, e.id`;
    const before = await dump();
    expect(await importJson(rows)).toMatchObject({
      code: 0,
      imported: 0,
      alreadyThere: 1_300,
      differing: [],
    });
    const changed = { ...rows[0], password: 'another one', state: 'frozen', quantity: '6' };
    expect(await importJson([changed, ...rows.slice(1)])).toMatchObject({
      code: 0,
      imported: 0,
      alreadyThere: 1_299,
      differing: [
        { line: 2, columns: ['state', 'product_id, sku_code or quantity', 'access data'] },
      ],
    });
    expect(await dump()).toEqual(before);
    const audits = await system.sql`select detail->>'instances' as count from audit
      where act = 'instances.imported' order by id desc limit 2`;
    expect(audits.map((row) => row['count'])).toEqual(['300', '1000']);
  });

  test('at the same time writes each instance once', async () => {
    const rows = Array.from({ length: 1_100 }, () => rowOf());
    const both = await Promise.all([importJson(rows), importJson(rows.toReversed())]);
    const imported = both.reduce((sum, each) => sum + each.imported, 0);
    const there = both.reduce((sum, each) => sum + each.alreadyThere, 0);
    expect({ imported, there }).toEqual({ imported: 1_100, there: 1_100 });
    const ids = rows.map((row) => row.instance_id);
    const [found] = await system.sql`select count(*)::int as count from events e
      join instances i on i.id = e.instance_id where i.public_id = any(${ids})`;
    expect(found?.['count']).toBe(1_100);
  });
});
