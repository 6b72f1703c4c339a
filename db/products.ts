import { and, asc, eq, isNull, sql } from 'drizzle-orm';
import type { Orm, Queryable } from './client.ts';
import type { KeyClass } from './key-classes.ts';
import { productKeys, products } from './schema.ts';

/** A database or a transaction: what reads may run on. */
type Reader = { orm: Orm };

export type ProductRow = typeof products.$inferSelect;

/** A key as people see it: never with its secret. */
export type KeyRow = Pick<
  typeof productKeys.$inferSelect,
  'id' | 'productId' | 'class' | 'accessKeyId' | 'createdAt' | 'retiredAt'
>;

/** A key as a verifier needs it; the secret is sealed with AAD `product_keys/secret_enc/{id}`. */
export type ActiveKey = Pick<
  typeof productKeys.$inferSelect,
  'id' | 'productId' | 'class' | 'accessKeyId' | 'secretEnc'
>;

export async function readProducts(db: Reader): Promise<ProductRow[]> {
  return db.orm.select().from(products).orderBy(asc(products.id));
}

export async function findProduct(db: Reader, key: string): Promise<ProductRow | undefined> {
  const rows = await db.orm.select().from(products).where(eq(products.key, key));
  return rows[0];
}

/** Holds the product until the transaction ends, so that its keys are judged and changed by one. */
export async function lockProduct(tx: Reader, key: string): Promise<ProductRow | undefined> {
  const rows = await tx.orm.select().from(products).where(eq(products.key, key)).for('update');
  return rows[0];
}

/** Ids are drawn before the insert, because a sealed secret is bound to the id of its row. */
export async function drawProductId(db: Queryable): Promise<number> {
  return drawId(db, 'products');
}

/** @see drawProductId */
export async function drawKeyId(db: Queryable): Promise<number> {
  return drawId(db, 'product_keys');
}

/** @returns undefined when the product's key is taken */
export async function insertProduct(
  tx: Reader,
  product: typeof products.$inferInsert,
): Promise<ProductRow | undefined> {
  const rows = await tx.orm
    .insert(products)
    .values(product)
    .onConflictDoNothing({ target: products.key })
    .returning();
  return rows[0];
}

export async function updateProduct(
  tx: Reader,
  productId: number,
  change: Partial<typeof products.$inferInsert>,
): Promise<ProductRow> {
  const rows = await tx.orm
    .update(products)
    .set(change)
    .where(eq(products.id, productId))
    .returning();
  const row = rows[0];
  if (!row) throw new Error('the update of a product found nothing');
  return row;
}

export async function insertKey(
  tx: Reader,
  key: {
    id: number;
    productId: number;
    class: KeyClass;
    accessKeyId?: string | null;
    secretEnc: Buffer;
  },
): Promise<KeyRow> {
  const rows = await tx.orm.insert(productKeys).values(key).returning(keyColumns);
  const row = rows[0];
  if (!row) throw new Error('the insert of a key returned nothing');
  return row;
}

/** @returns undefined when there is no such active key */
export async function retireKey(tx: Reader, keyId: number): Promise<KeyRow | undefined> {
  const rows = await tx.orm
    .update(productKeys)
    .set({ retiredAt: sql`now()` })
    .where(and(eq(productKeys.id, keyId), isNull(productKeys.retiredAt)))
    .returning(keyColumns);
  return rows[0];
}

/** All keys of a product, retired ones too, oldest first. */
export async function listKeys(db: Reader, productId: number): Promise<KeyRow[]> {
  return db.orm
    .select(keyColumns)
    .from(productKeys)
    .where(eq(productKeys.productId, productId))
    .orderBy(asc(productKeys.id));
}

/** The keys that are in use now, by which callbacks are verified and the marketplace is called: of all products, or of one. */
export async function readActiveKeys(db: Reader, productId?: number): Promise<ActiveKey[]> {
  return db.orm
    .select({
      id: productKeys.id,
      productId: productKeys.productId,
      class: productKeys.class,
      accessKeyId: productKeys.accessKeyId,
      secretEnc: productKeys.secretEnc,
    })
    .from(productKeys)
    .where(
      and(
        isNull(productKeys.retiredAt),
        productId === undefined ? undefined : eq(productKeys.productId, productId),
      ),
    )
    .orderBy(asc(productKeys.id));
}

const keyColumns = {
  id: productKeys.id,
  productId: productKeys.productId,
  class: productKeys.class,
  accessKeyId: productKeys.accessKeyId,
  createdAt: productKeys.createdAt,
  retiredAt: productKeys.retiredAt,
};

async function drawId(db: Queryable, table: 'products' | 'product_keys'): Promise<number> {
  const { rows } = await db.query<{ id: number }>(
    `select nextval(pg_get_serial_sequence($1, 'id')) as id`,
    [table],
  );
  const id = rows[0]?.id;
  if (id === undefined) throw new Error(`no id for ${table}`);
  return Number(id);
}
