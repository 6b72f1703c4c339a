import { SQL, getTableName, is } from 'drizzle-orm';
import { PgDialect, PgTable, getTableConfig } from 'drizzle-orm/pg-core';
import postgres from 'postgres';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import * as schema from '../../db/schema.ts';
import { type TestDatabase, createTestDatabase } from '../servers/database.ts';

// db/schema.ts is what queries are typed by; the migrations are what the database is. Partitions,
// fillfactor and autovacuum are written by hand, so only a comparison tells whether both agree.

let database: TestDatabase;
let sql: postgres.Sql;

beforeAll(async () => {
  database = await createTestDatabase();
  sql = postgres(database.url, { max: 1, onnotice: () => undefined });
});

afterAll(async () => {
  await sql?.end();
  await database?.drop();
});

const tables = Object.values(schema).flatMap((each): PgTable[] =>
  is(each, PgTable) ? [each] : [],
);
const dialect = new PgDialect();

const plain = (text: string) =>
  text
    .toLowerCase()
    .replaceAll(/::text|[()"]/g, '')
    .replaceAll(/\s+/g, ' ')
    .trim();

const textOf = (expression: SQL) => plain(dialect.sqlToQuery(expression).sql);

function defaultOf(value: unknown): string | null {
  if (value === undefined) return null;
  if (is(value, SQL)) return textOf(value);
  return typeof value === 'string' ? `'${value}'` : JSON.stringify(value);
}

/** What the schema says of a table, in the words of the catalogue. */
function describeSchema(table: PgTable) {
  const config = getTableConfig(table);
  const columns = config.columns.map((column) => {
    const type = column.getSQLType();
    const serial = { serial: 'integer', bigserial: 'bigint' }[type];
    return {
      name: column.name,
      type: serial ?? type,
      notNull: column.notNull,
      default: serial === undefined ? defaultOf(column.default) : 'its sequence',
    };
  });
  const inline = config.columns.filter(({ primary }) => primary).map(({ name }) => [name]);
  const primaryKeys = config.primaryKeys.map((key) => key.columns.map(({ name }) => name));
  const uniques = [
    ...config.columns
      .filter(({ isUnique }) => isUnique)
      .map((column) => `${column.uniqueName ?? ''} (${column.name})`),
    ...config.uniqueConstraints.map(
      (unique) =>
        `${unique.getName() ?? ''} (${unique.columns.map(({ name }) => name).join(', ')})`,
    ),
  ];
  const indexes = config.indexes.map(({ config: index }) => ({
    name: index.name,
    unique: index.unique,
    columns: index.columns.map((column) => ('name' in column ? column.name : '(expression)')),
    where: index.where === undefined ? null : textOf(index.where),
  }));
  const foreignKeys = config.foreignKeys.map((key) => {
    const { columns: own, foreignTable, foreignColumns } = key.reference();
    const names = (list: readonly { name: string }[]) => list.map(({ name }) => name).join(', ');
    return `(${names(own)}) to ${getTableName(foreignTable)} (${names(foreignColumns)})`;
  });
  return {
    columns: columns.toSorted((a, b) => (a.name < b.name ? -1 : 1)),
    primaryKey: [...inline, ...primaryKeys],
    uniques: uniques.toSorted(),
    indexes: indexes.toSorted((a, b) => ((a.name ?? '') < (b.name ?? '') ? -1 : 1)),
    foreignKeys: foreignKeys.toSorted(),
  };
}

/** What the database says of it. */
async function describeDatabase(name: string) {
  const columns = await sql<
    { name: string; type: string; notNull: boolean; default: string | null }[]
  >`select a.attname as name, format_type(a.atttypid, a.atttypmod) as type, a.attnotnull as "notNull",
      pg_get_expr(d.adbin, d.adrelid) as default
    from pg_attribute a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
    where a.attrelid = ${name}::regclass and a.attnum > 0 and not a.attisdropped`;
  const constraints = await sql<
    {
      type: 'p' | 'u' | 'f';
      name: string;
      columns: string[];
      target: string | null;
      targetColumns: string[] | null;
    }[]
  >`select c.contype as type, c.conname as name, c.confrelid::regclass::text as target,
      array(select a.attname::text from unnest(c.conkey) with ordinality k(n, at)
        join pg_attribute a on a.attrelid = c.conrelid and a.attnum = k.n order by k.at) as columns,
      array(select a.attname::text from unnest(c.confkey) with ordinality k(n, at)
        join pg_attribute a on a.attrelid = c.confrelid and a.attnum = k.n order by k.at) as "targetColumns"
    from pg_constraint c where c.conrelid = ${name}::regclass and c.contype in ('p', 'u', 'f', 'c')`;
  const indexes = await sql<
    { name: string; unique: boolean; columns: string[]; where: string | null }[]
  >`select i.indexrelid::regclass::text as name, i.indisunique as unique,
      array(select pg_get_indexdef(i.indexrelid, k.n, true) from generate_series(1, i.indnkeyatts) k(n)) as columns,
      pg_get_expr(i.indpred, i.indrelid) as where
    from pg_index i where i.indrelid = ${name}::regclass
      and not exists (select from pg_constraint c where c.conindid = i.indexrelid and c.contype in ('p', 'u'))`;
  const of = (type: string) => constraints.filter((each) => each.type === type);
  return {
    columns: columns
      .map((column) => ({
        ...column,
        default:
          column.default === null
            ? null
            : column.default.startsWith('nextval(')
              ? 'its sequence'
              : plain(column.default),
      }))
      .toSorted((a, b) => (a.name < b.name ? -1 : 1)),
    primaryKey: of('p').map((each) => each.columns),
    uniques: of('u')
      .map((each) => `${each.name} (${each.columns.join(', ')})`)
      .toSorted(),
    indexes: indexes
      .map((index) => ({ ...index, where: index.where === null ? null : plain(index.where) }))
      .toSorted((a, b) => (a.name < b.name ? -1 : 1)),
    foreignKeys: of('f')
      .map(
        (each) =>
          `(${each.columns.join(', ')}) to ${each.target} (${each.targetColumns?.join(', ')})`,
      )
      .toSorted(),
  };
}

test('the database has the tables of the schema and no others', async () => {
  const found = await sql<{ name: string }[]>`
    select relname as name from pg_class where relnamespace = 'public'::regnamespace
      and relkind in ('r', 'p') and not relispartition order by 1`;
  expect(found.map(({ name }) => name)).toEqual(
    tables.map((table) => getTableName(table)).toSorted(),
  );
});

test.each(tables.map((table) => ({ name: getTableName(table), table })))(
  '$name: columns, types, defaults, keys and indexes are those of the schema',
  async ({ name, table }) => {
    expect(await describeDatabase(name)).toEqual(describeSchema(table));
  },
);

test('names of keys that the code asks for are there', async () => {
  // db/store-errors.ts tells a taken business id by it.
  const found = await sql`select 1 from pg_constraint where conname = 'instances_public_id'`;
  expect(found).toHaveLength(1);
});

test('fences and dispatch numbers come from one sequence of 64 bits', async () => {
  const [sequence] = await sql`
    select data_type::text as type, increment_by::int as step, cache_size::int as cache, cycle
    from pg_sequences where sequencename = 'fences'`;
  expect({ ...sequence }).toEqual({ type: 'bigint', step: 1, cache: 1, cycle: false });
});

describe('what the schema cannot say', () => {
  test.each([
    ['callbacks', 'RANGE (signed_at)'],
    ['reads', 'RANGE (signed_at)'],
    ['attempts', 'RANGE (began)'],
  ])('%s is partitioned by %s', async (name, key) => {
    const [row] = await sql`select pg_get_partkeydef(${name}::regclass) as key`;
    expect(row?.['key']).toBe(key);
  });

  test('dispatches leaves room for updates on the page and is cleaned by itself', async () => {
    const [row] =
      await sql`select reloptions as options from pg_class where relname = 'dispatches'`;
    expect(row?.['options']).toEqual(
      expect.arrayContaining(['fillfactor=50', 'autovacuum_vacuum_scale_factor=0']),
    );
  });
});
