import pg from 'pg';

/** Not permitted to log in; unknown role or wrong password. */
const refusals = new Set(['28000', '28P01']);

/**
 * Tries what a buyer does with the access data of a tenant: connects, and uses the schema.
 *
 * @param url address of the tenants' database; its user and password are not used
 * @returns false when the server refuses the login
 * @throws what else the server or the network says
 */
export async function tryTenantLogin(
  url: string,
  buyer: { user: string; password: string },
): Promise<boolean> {
  const { hostname, port, pathname } = new URL(url);
  const client = new pg.Client({
    host: hostname,
    port: Number(port || 5432),
    database: decodeURIComponent(pathname.slice(1)),
    ...buyer,
    connectionTimeoutMillis: 5_000,
    query_timeout: 5_000,
  });
  client.on('error', () => undefined);
  try {
    await client.connect();
    await client.query('create table if not exists visits (at timestamptz not null default now())');
    await client.query('insert into visits default values');
    return true;
  } catch (error) {
    if (error instanceof pg.DatabaseError && refusals.has(error.code ?? '')) return false;
    throw error;
  } finally {
    await client.end().catch(() => undefined);
  }
}
