import { and, asc, eq, isNull, sql } from 'drizzle-orm';
import { type ApiScope, isApiScope } from './api-scopes.ts';
import type { Orm, Queryable } from './client.ts';
import { apiKeys } from './schema.ts';

type Reader = { orm: Orm };

/** A key as people see it; the key itself is known to the seller's program alone. */
export type ApiKeyRow = {
  id: number;
  scopes: ApiScope[];
  createdAt: Date;
  retiredAt: Date | null;
  /** To the minute. */
  lastUsedAt: Date | null;
};

/** All keys of a product, retired ones too, oldest first. */
export async function listApiKeys(db: Reader, productId: number): Promise<ApiKeyRow[]> {
  const rows = await db.orm
    .select(columns)
    .from(apiKeys)
    .where(eq(apiKeys.productId, productId))
    .orderBy(asc(apiKeys.id));
  return rows.map(toRow);
}

/** @param key.hash SHA-256 of the key */
export async function insertApiKey(
  tx: Reader,
  key: { productId: number; scopes: readonly ApiScope[]; hash: Buffer },
): Promise<ApiKeyRow> {
  const rows = await tx.orm
    .insert(apiKeys)
    .values({ ...key, scopes: [...key.scopes] })
    .returning(columns);
  const [row] = rows;
  if (!row) throw new Error('the insert of an api key returned nothing');
  return toRow(row);
}

/** @returns undefined when there is no such active key */
export async function retireApiKey(tx: Reader, keyId: number): Promise<ApiKeyRow | undefined> {
  const rows = await tx.orm
    .update(apiKeys)
    .set({ retiredAt: sql`now()` })
    .where(and(eq(apiKeys.id, keyId), isNull(apiKeys.retiredAt)))
    .returning(columns);
  const [row] = rows;
  return row && toRow(row);
}

/** An active key, with all that a request with it needs to know. */
export type KnownApiKey = {
  id: number;
  productId: number;
  /** Key of the product. */
  product: string;
  scopes: ApiScope[];
  hash: Buffer;
};

export async function findApiKey(db: Queryable, hash: Buffer): Promise<KnownApiKey | undefined> {
  const { rows } = await db.query<Omit<KnownApiKey, 'scopes'> & { scopes: string[] }>({
    name: 'api_keys.find',
    text: `select k.id, k.product_id as "productId", p.key as product, k.scopes, k.hash
      from api_keys k join products p on p.id = k.product_id where k.hash = $1 and k.retired_at is null`,
    values: [hash],
  });
  const [row] = rows;
  return row && { ...row, scopes: row.scopes.filter(isApiScope) };
}

/** Written at most once a minute for each key. */
export async function noteApiKeyUse(db: Queryable, keyId: number): Promise<void> {
  await db.query({
    name: 'api_keys.note_use',
    text: `update api_keys set last_used_at = now()
      where id = $1 and (last_used_at is null or last_used_at < now() - interval '1 minute')`,
    values: [keyId],
  });
}

const columns = {
  id: apiKeys.id,
  scopes: apiKeys.scopes,
  createdAt: apiKeys.createdAt,
  retiredAt: apiKeys.retiredAt,
  lastUsedAt: apiKeys.lastUsedAt,
};

function toRow(row: Omit<ApiKeyRow, 'scopes'> & { scopes: string[] }): ApiKeyRow {
  return { ...row, scopes: row.scopes.filter(isApiScope) };
}
