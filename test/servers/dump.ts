import { Redis } from 'ioredis';
import type { Sql } from 'postgres';

/**
 * Everything that a database holds, in every schema, as text; binary columns both as they print and
 * as the bytes that they are.
 */
export async function dumpDatabase(sql: Sql): Promise<string> {
  const tables = await sql<{ name: string }[]>`
    select c.oid::regclass::text as name from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind = 'r' and n.nspname not in ('pg_catalog', 'information_schema') and n.nspname not like 'pg_toast%'`;
  const parts: string[] = [];
  for (const { name } of tables) {
    const rows = await sql.unsafe<{ row: string }[]>(
      `select to_jsonb(t)::text as row from ${name} t`,
    );
    for (const { row } of rows) {
      parts.push(`${name} ${row}`);
      for (const [, hex = ''] of row.matchAll(/\\\\x([0-9a-f]+)/g)) {
        parts.push(Buffer.from(hex, 'hex').toString('latin1'));
        parts.push(Buffer.from(hex, 'hex').toString('utf8'));
      }
    }
  }
  return parts.join('\n');
}

/** Every key of a Redis with what it holds. */
export async function dumpRedis(url: string): Promise<string> {
  const redis = new Redis(url);
  const parts: string[] = [];
  try {
    for (const key of await redis.keys('*')) {
      const type = await redis.type(key);
      const value: unknown =
        type === 'hash'
          ? await redis.hgetall(key)
          : type === 'list'
            ? await redis.lrange(key, 0, -1)
            : type === 'set'
              ? await redis.smembers(key)
              : type === 'zset'
                ? await redis.call('zrange', key, '0', '-1', 'WITHSCORES')
                : type === 'stream'
                  ? await redis.xrange(key, '-', '+')
                  : await redis.get(key);
      parts.push(`${key} ${JSON.stringify(value)}`);
    }
  } finally {
    redis.disconnect();
  }
  return parts.join('\n');
}
