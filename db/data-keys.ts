import {
  type DataKey,
  type MasterKey,
  SecretsError,
  type WrappedDataKey,
  createDataKeyBytes,
  keyIdOf,
  open,
  seal,
  unwrapDataKey,
  wrapDataKey,
} from '../runtime/secrets.ts';
import type { Database } from './client.ts';

/**
 * Data keys by what they are for: `product/{productId}` for secrets and access data,
 * `product/{productId}/{yyyy-mm}` for evidence, so that a month can be forgotten by dropping its key.
 */
export type Keyring = {
  /** The key of a scope; made on first use, the same one for all processes. */
  dataKey(scope: string): Promise<DataKey>;
  /** @param aad where the value will stand: table/column/id */
  seal(scope: string, plain: Buffer | string, aad: string): Promise<Buffer>;
  /** @throws SecretsError when the key is gone, or the value was changed or moved */
  open(sealed: Buffer, aad: string): Promise<Buffer>;
};

type Row = WrappedDataKey & { scope: string };

/**
 * Opens the keys in data_keys with the master key and keeps them in memory.
 *
 * Asks the pool for a connection the first time that a key is used: ask before a transaction, not
 * inside one.
 */
export function createKeyring(options: { db: Database; masterKey: MasterKey }): Keyring {
  const { db, masterKey } = options;
  const byScope = new Map<string, Promise<DataKey>>();
  const byId = new Map<number, Promise<DataKey>>();

  const dataKey = (scope: string) => remember(byScope, scope, () => findOrMake(scope));

  async function findOrMake(scope: string): Promise<DataKey> {
    const row = (await readRow(scope)) ?? (await makeRow(scope));
    return unwrapDataKey(masterKey, row, scope);
  }

  async function makeRow(scope: string): Promise<Row> {
    const wrapped = wrapDataKey(masterKey, createDataKeyBytes(), scope);
    // Two processes may meet a new scope at once: the first row stands, both use it. A process with
    // another master key makes none: what it sealed the others could not open.
    await db.pool.query(
      `insert into data_keys (scope, wrapped, master_key_id)
       select $1, $2, $3 where not exists (select from data_keys where master_key_id <> $3)
       on conflict (scope) do nothing`,
      [scope, wrapped, masterKey.id],
    );
    const row = await readRow(scope);
    if (!row) {
      throw new SecretsError(
        `the database's keys were wrapped by another master key, LATCHKEY_MASTER_KEY is ${masterKey.id}`,
      );
    }
    return row;
  }

  async function readRow(scope: string): Promise<Row | undefined> {
    const { rows } = await db.pool.query<Row>(`${selectRow} where scope = $1`, [scope]);
    return rows[0];
  }

  async function findById(id: number): Promise<DataKey> {
    const { rows } = await db.pool.query<Row>(`${selectRow} where id = $1`, [id]);
    const row = rows[0];
    if (!row) throw new SecretsError(`data key ${id} is gone: what it sealed cannot be read again`);
    return unwrapDataKey(masterKey, row, row.scope);
  }

  return {
    dataKey,
    seal: async (scope, plain, aad) => seal(await dataKey(scope), plain, aad),
    open: async (sealed, aad) => {
      const id = keyIdOf(sealed);
      return open(await remember(byId, id, () => findById(id)), sealed, aad);
    },
  };
}

const selectRow = `select id, scope, wrapped, master_key_id as "masterKeyId" from data_keys`;

/** A failure is not remembered: the next call tries again. */
function remember<K, V>(cache: Map<K, Promise<V>>, key: K, make: () => Promise<V>): Promise<V> {
  const known = cache.get(key);
  if (known) return known;
  const made = make();
  cache.set(key, made);
  made.catch(() => cache.delete(key));
  return made;
}
