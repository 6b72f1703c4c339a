import pg from 'pg';
import { type NodePgDatabase, drizzle } from 'drizzle-orm/node-postgres';
import * as schema from './schema.ts';

export type Orm = NodePgDatabase<typeof schema>;

/** What runs a statement: the pool, or a client inside a transaction. */
export type Queryable = Pick<pg.ClientBase, 'query'>;

export type Transaction = Queryable & { orm: Orm };

export type Database = {
  pool: pg.Pool;
  orm: Orm;
  /**
   * Runs `work` in one transaction. A client whose connection broke is destroyed, never given back.
   *
   * @throws what `work` throws, after a rollback; connection errors as they come
   */
  transaction<T>(work: (tx: Transaction) => Promise<T>): Promise<T>;
  close(): Promise<void>;
};

export type DatabaseOptions = {
  url: string;
  applicationName: string;
  poolMax: number;
  connectTimeoutMs?: number;
  /** Enforced by the server. */
  statementTimeoutMs?: number;
  /** Enforced here, for a server that no longer answers at all. */
  queryTimeoutMs?: number;
  /** A stopped process must not hold locks for ever. */
  idleInTransactionTimeoutMs?: number;
  /** Called for clients that break while idle; without it they would end the process. */
  onIdleError?: (error: Error) => void;
};

/**
 * Opens a pool; connects only when first used.
 *
 * bigint comes as number: our sequences stay far below 2^53.
 */
export function createDatabase(options: DatabaseOptions): Database {
  const pool = new pg.Pool(poolConfig(options));
  pool.on('error', (error) => options.onIdleError?.(error));
  // A client may report its end at any moment, also between being connected and being given out, and
  // without a listener that would end the process. Who uses the client learns of it by its statement.
  pool.on('connect', (client) => client.on('error', () => undefined));
  const orm = drizzle(pool, { schema });
  return {
    pool,
    orm,
    transaction: (work) => inTransaction(pool, work),
    close: async () => {
      await pool.end();
    },
  };
}

export function poolConfig(options: DatabaseOptions): pg.PoolConfig {
  const statementTimeoutMs = options.statementTimeoutMs ?? 10_000;
  return {
    connectionString: options.url,
    application_name: options.applicationName,
    max: options.poolMax,
    connectionTimeoutMillis: options.connectTimeoutMs ?? 3_000,
    query_timeout: options.queryTimeoutMs ?? statementTimeoutMs + 2_000,
    statement_timeout: statementTimeoutMs,
    idle_in_transaction_session_timeout: options.idleInTransactionTimeoutMs ?? 15_000,
    keepAlive: true,
    // A plan that was cached while a table was empty is ten times slower once it is not.
    options:
      '-c plan_cache_mode=force_custom_plan -c synchronous_commit=on -c default_transaction_isolation=read\\ committed',
    types: { getTypeParser },
  };
}

const int8 = 20;
function getTypeParser(oid: number, format?: 'text' | 'binary'): (value: string) => unknown {
  if (oid === int8 && format !== 'binary') return Number;
  return pg.types.getTypeParser(oid, format as 'text') as (value: string) => unknown;
}

async function inTransaction<T>(pool: pg.Pool, work: (tx: Transaction) => Promise<T>): Promise<T> {
  const client = await pool.connect();
  let broken: Error | undefined;
  const onError = (error: Error) => {
    broken = error;
  };
  client.on('error', onError);
  try {
    await client.query('begin');
    const query = client.query.bind(client) as Queryable['query'];
    let orm: Orm | undefined;
    const tx: Transaction = {
      query,
      // Only where it is asked for: the transactions of the workers write by hand.
      get orm() {
        return (orm ??= drizzle(client, { schema }));
      },
    };
    const result = await work(tx);
    await client.query('commit');
    return result;
  } catch (error) {
    if (isServerError(error) || error instanceof Undo) {
      await client.query('rollback').catch((rollbackError: Error) => {
        broken = rollbackError;
      });
    } else {
      broken ??= error as Error;
    }
    throw error;
  } finally {
    client.off('error', onError);
    client.release(broken);
  }
}

/** An answer of the server: the connection still works. */
export function isServerError(error: unknown): error is pg.DatabaseError {
  return error instanceof pg.DatabaseError && error.code !== undefined && !endsSession(error.code);
}

/** The server said that it goes away: the session is over though an answer came. */
function endsSession(code: string): boolean {
  return code.startsWith('57P') || code.startsWith('08') || code === '25P03';
}

/** Thrown by the work itself to undo it, not by the driver. */
export class Undo extends Error {
  override name = 'Undo';
}
