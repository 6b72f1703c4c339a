import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Database, createDatabase } from '../../db/client.ts';
import { createKeyring } from '../../db/data-keys.ts';
import { type MasterKey, keyIdOf, loadMasterKey } from '../../runtime/secrets.ts';
import { type TestDatabase, createTestDatabase } from '../servers/database.ts';

let database: TestDatabase;
let db: Database;
const masterKey = newMasterKey();

beforeAll(async () => {
  database = await createTestDatabase();
  db = createDatabase({ url: database.url, applicationName: 'test', poolMax: 8 });
});
afterAll(async () => {
  await db.close();
  await database.drop();
});

test('processes that meet a new scope at once get one key', async () => {
  const keyrings = Array.from({ length: 8 }, () => createKeyring({ db, masterKey }));
  const keys = await Promise.all(keyrings.map((keyring) => keyring.dataKey('product/1')));
  expect(new Set(keys.map(({ id, key }) => `${id} ${key.toString('hex')}`)).size).toBe(1);
  expect(keys[0]?.key).toHaveLength(32);
});

test('another process opens what one has sealed, in its place only', async () => {
  const sealed = await createKeyring({ db, masterKey }).seal('product/2', '你好', 'a/b/1');
  const other = createKeyring({ db, masterKey });
  expect((await other.open(sealed, 'a/b/1')).toString()).toBe('你好');
  await expect(other.open(sealed, 'a/b/2')).rejects.toThrow('changed or moved');
});

test('scopes have keys of their own, and dropping one closes what it sealed', async () => {
  const keyring = createKeyring({ db, masterKey });
  const [kept, dropped] = await Promise.all([
    keyring.seal('product/3', 'kept', 'x'),
    keyring.seal('product/3/2026-11', 'dropped', 'x'),
  ]);
  expect(keyIdOf(kept)).not.toBe(keyIdOf(dropped));
  await db.pool.query(`delete from data_keys where scope = 'product/3/2026-11'`);
  const later = createKeyring({ db, masterKey });
  await expect(later.open(dropped, 'x')).rejects.toThrow('is gone');
  expect((await later.open(kept, 'x')).toString()).toBe('kept');
});

test('a wrong master key names itself and the right one by id', async () => {
  const { id } = await createKeyring({ db, masterKey }).dataKey('product/4');
  const wrong = newMasterKey();
  const message =
    `data key ${id} was wrapped by master key ${masterKey.id}, ` +
    `but LATCHKEY_MASTER_KEY is ${wrong.id}`;
  await expect(createKeyring({ db, masterKey: wrong }).dataKey('product/4')).rejects.toThrow(
    message,
  );
});

test('a failure of the database is not remembered', async () => {
  let isDown = true;
  const flaky = {
    ...db,
    pool: new Proxy(db.pool, {
      get: (pool, name) => {
        if (name === 'query' && isDown) return () => Promise.reject(new Error('down'));
        const value: unknown = Reflect.get(pool, name);
        return typeof value === 'function' ? value.bind(pool) : value;
      },
    }),
  };
  const keyring = createKeyring({ db: flaky, masterKey });
  await expect(keyring.dataKey('product/5')).rejects.toThrow('down');
  isDown = false;
  expect((await keyring.dataKey('product/5')).key).toHaveLength(32);
});

test('the table holds neither keys nor what they sealed in the clear', async () => {
  const { key } = await createKeyring({ db, masterKey }).dataKey('product/6');
  const { rows } = await db.pool.query<{ row: string }>(
    `select encode(wrapped, 'hex') || master_key_id || scope as row from data_keys`,
  );
  const dump = rows.map(({ row }) => row).join();
  expect(dump).not.toContain(key.toString('hex'));
  expect(dump).not.toContain(masterKey.key.toString('hex'));
});

function newMasterKey(): MasterKey {
  const text = randomBytes(32).toString('base64');
  return loadMasterKey({ masterKey: text, dataDir: '/nowhere', isProduction: true }).masterKey;
}
