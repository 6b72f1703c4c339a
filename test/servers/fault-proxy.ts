import { once } from 'node:events';
import { createConnection, createServer } from 'node:net';
import type { Socket } from 'node:net';

/** What happens to the connections, those that are open included. */
type FaultMode =
  | { kind: 'pass' }
  /** Every piece of data arrives this much later, in both directions. */
  | { kind: 'latency'; ms: number }
  /** Connections are accepted and stay open, but nothing arrives any more. */
  | { kind: 'black-hole' }
  /** Connections are ended by RST, new ones at once. */
  | { kind: 'reset' }
  /** After so many bytes from the server (counted from now, for each connection) it is ended. */
  | { kind: 'cut-after'; bytes: number }
  /** The server's side says that it is done; what the client sends disappears. */
  | { kind: 'half-close' }
  /** Nothing listens; open connections are ended. */
  | { kind: 'refuse' };

export type FaultProxy = {
  port: number;
  /** The address with the proxy's host and port in place of its own. */
  through(url: string): string;
  set(mode: FaultMode): Promise<void>;
  /** Connections that are open now. */
  connections(): number;
  close(): Promise<void>;
};

type Pair = { client: Socket; server: Socket; received: number };

/** A TCP proxy on a free loopback port that can misbehave. */
export async function startFaultProxy(target: {
  host?: string;
  port: number;
}): Promise<FaultProxy> {
  const pairs = new Set<Pair>();
  let mode: FaultMode = { kind: 'pass' };

  const listener = createServer({ allowHalfOpen: true }, (client) => {
    if (mode.kind === 'reset') {
      client.resetAndDestroy();
      return;
    }
    const server = createConnection({
      host: target.host ?? '127.0.0.1',
      port: target.port,
      allowHalfOpen: true,
    });
    const pair: Pair = { client, server, received: 0 };
    pairs.add(pair);
    const later = (work: () => void): void => {
      if (mode.kind === 'latency') setTimeout(work, mode.ms);
      else work();
    };
    for (const [from, to] of [
      [client, server],
      [server, client],
    ] as const) {
      from.on('error', () => to.destroy());
      from.on('close', () => {
        // What was on its way still arrives.
        later(() => to.end());
        if (to.destroyed) pairs.delete(pair);
      });
      from.on('data', (data) => forward(pair, from, to, data));
      from.on('end', () => {
        if (mode.kind !== 'black-hole') later(() => to.end());
      });
    }
    apply(pair);
  });

  function forward(pair: Pair, from: Socket, to: Socket, data: Buffer): void {
    if (to.destroyed || to.writableEnded) return;
    if (mode.kind === 'latency') {
      setTimeout(() => {
        if (!to.destroyed && !to.writableEnded) to.write(data);
      }, mode.ms);
      return;
    }
    if (mode.kind === 'half-close') return;
    if (mode.kind === 'cut-after' && from === pair.server) {
      const left = mode.bytes - pair.received;
      pair.received += data.length;
      if (data.length > left) {
        to.write(data.subarray(0, Math.max(0, left)), () => {
          to.destroy();
          from.destroy();
        });
        return;
      }
    }
    to.write(data);
  }

  function apply(pair: Pair): void {
    pair.received = 0;
    // A black hole is two sockets that are not read: the peers' acknowledgements go on for as long
    // as the kernel has room, then their writes block, as with a peer that vanished.
    const pausing = mode.kind === 'black-hole';
    for (const socket of [pair.client, pair.server]) {
      if (pausing) socket.pause();
      else socket.resume();
    }
    if (mode.kind === 'half-close') pair.client.end();
    if (mode.kind === 'reset' || mode.kind === 'refuse') {
      pair.client.resetAndDestroy();
      pair.server.destroy();
    }
  }

  async function listen(port: number): Promise<number> {
    listener.listen(port, '127.0.0.1');
    await once(listener, 'listening');
    const address = listener.address();
    if (typeof address !== 'object' || address === null) throw new Error('no port');
    return address.port;
  }

  const port = await listen(0);

  return {
    port,
    through(url) {
      const changed = new URL(url);
      changed.hostname = '127.0.0.1';
      changed.port = String(port);
      return changed.toString();
    },
    async set(next) {
      mode = next;
      if (mode.kind === 'refuse') listener.close();
      else if (!listener.listening) await listen(port);
      for (const pair of pairs) apply(pair);
    },
    connections: () => pairs.size,
    async close() {
      const closed = listener.listening ? once(listener, 'close') : Promise.resolve();
      listener.close();
      for (const pair of pairs) {
        pair.client.destroy();
        pair.server.destroy();
      }
      await closed;
    },
  };
}
