import pg from 'pg';
import { type DatabaseOptions, type Queryable, isServerError, poolConfig } from './client.ts';

export type Connection = {
  /** Runs `work` on the one client, connecting first where there is none. */
  run<T>(work: (client: Queryable) => Promise<T>): Promise<T>;
  close(): Promise<void>;
};

/**
 * One client of its own, for statements that are one at a time anyway. Whatever is no clean answer
 * of the server destroys the client, since a statement may still be running on it; the next `run`
 * connects anew.
 */
export function createConnection(options: Omit<DatabaseOptions, 'poolMax'>): Connection {
  const { max: _max, ...config } = poolConfig({ ...options, poolMax: 1 });
  let current: pg.Client | undefined;
  let connecting: Promise<pg.Client> | undefined;

  async function connect(): Promise<pg.Client> {
    const client = new pg.Client(config);
    client.on('error', (error) => {
      if (current === client) current = undefined;
      options.onIdleError?.(error);
    });
    try {
      await client.connect();
    } catch (error) {
      destroy(client);
      throw error;
    }
    current = client;
    return client;
  }

  /** Who comes while it is under way waits for the same client. */
  function connectOnce(): Promise<pg.Client> {
    return connect().finally(() => {
      connecting = undefined;
    });
  }

  return {
    async run(work) {
      const client = current ?? (await (connecting ??= connectOnce()));
      try {
        return await work(client);
      } catch (error) {
        if (!isServerError(error)) {
          if (current === client) current = undefined;
          destroy(client);
        }
        throw error;
      }
    },
    async close() {
      const client = current;
      current = undefined;
      await client?.end();
    },
  };
}

/** `end` alone waits for a server that may never answer. */
function destroy(client: pg.Client): void {
  client.end().catch(() => undefined);
  const { connection } = client as unknown as { connection?: { stream?: { destroy(): void } } };
  connection?.stream?.destroy();
}
