import type { Logger } from 'pino';
import { type EventOutcome, type EventRow, acceptEvents } from '../../db/accept-events.ts';
import { type OrderOutcome, type OrderRow, createOrderStore } from '../../db/accept-orders.ts';
import { type QueryOutcome, type QueryRow, acceptQueries } from '../../db/accept-queries.ts';
import type { Queryable } from '../../db/client.ts';
import { type Connection, createConnection } from '../../db/connection.ts';
import { isPublicIdTaken } from '../../db/store-errors.ts';
import { type Lane, createLane } from './group-commit.ts';

export type Lanes = {
  orders: Lane<OrderRow, OrderOutcome>;
  events: Lane<EventRow, EventOutcome>;
  queries: Lane<QueryRow, QueryOutcome>;
  close(): Promise<void>;
};

type LanesOptions = {
  databaseUrl: string;
  log: Pick<Logger, 'warn' | 'error'>;
  nowMs: () => number;
  createPublicId: () => string;
  afterCommit?: (() => Promise<void> | void) | undefined;
};

/** One lane for each kind of callback, each with one connection of its own. */
export function createLanes(options: LanesOptions): Lanes {
  const { log, nowMs, createPublicId, afterCommit } = options;
  const connections: Connection[] = [];

  /** A statement on a connection of the lane's own. */
  function stored<Row, Outcome>(
    lane: string,
    accept: (db: Queryable, rows: readonly Row[]) => Promise<readonly (Outcome | 'again')[]>,
  ) {
    const connection = createConnection({
      url: options.databaseUrl,
      applicationName: `latchkey api ${lane}`,
      connectTimeoutMs: 500,
      statementTimeoutMs: 1_500,
      queryTimeoutMs: 2_000,
      onIdleError: (error) => log.warn({ lane, err: error }, 'lane.connection_lost'),
    });
    connections.push(connection);
    // Ready before the first callback: connecting is part of nobody's budget. Fails while Postgres is
    // away; the first row then connects.
    connection.run((client) => client.query('select 1')).catch(() => undefined);
    return async (rows: readonly Row[]) => {
      const outcomes = await connection.run((client) => accept(client, rows));
      await afterCommit?.();
      return outcomes;
    };
  }

  const orders = createLane<OrderRow, OrderOutcome>({
    name: 'orders',
    store: stored('orders', createOrderStore()),
    log,
    nowMs,
    // The proposed id is another order's already: the order still gets an instance, under an id of ours.
    repair: (row, error) =>
      isPublicIdTaken(error) ? { ...row, proposedId: createPublicId() } : undefined,
  });
  const events = createLane<EventRow, EventOutcome>({
    name: 'events',
    store: stored('events', acceptEvents),
    log,
    nowMs,
    separateBy: (row) => `${row.productId}/${row.publicId}`,
  });
  const queries = createLane<QueryRow, QueryOutcome>({
    name: 'queries',
    store: stored('queries', acceptQueries),
    // A statement that asks for thousands of instances would read the whole table instead.
    sizeOf: (row) => Math.max(1, row.publicIds.length),
    log,
    nowMs,
  });

  return {
    orders,
    events,
    queries,
    async close() {
      await Promise.all([orders.close(), events.close(), queries.close()]);
      await Promise.allSettled(connections.map((connection) => connection.close()));
    },
  };
}
