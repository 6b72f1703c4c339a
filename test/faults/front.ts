import { once } from 'node:events';
import { Agent, createServer, request } from 'node:http';

/** The one address that the marketplace knows, before any number of api processes. */
export type Front = {
  port: number;
  add(port: number): void;
  remove(port: number): void;
  close(): Promise<void>;
};

/**
 * Gives each call to the next process in turn. A process that dies takes its calls with it: the
 * caller's connection ends without an answer. Nothing is tried twice, so that only the caller re-sends.
 */
export async function startFront(): Promise<Front> {
  const agent = new Agent({ keepAlive: true });
  let ports: readonly number[] = [];
  let turn = 0;

  const server = createServer((incoming, outgoing) => {
    turn += 1;
    const port = ports[turn % Math.max(1, ports.length)];
    if (port === undefined) {
      incoming.socket.destroy();
      return;
    }
    const { url, method, headers } = incoming;
    const forwarded = request({ host: '127.0.0.1', port, path: url, method, headers, agent });
    const giveUp = (): void => void incoming.socket.destroy();
    forwarded.on('error', giveUp);
    forwarded.on('response', (answer) => {
      answer.on('error', giveUp);
      outgoing.writeHead(answer.statusCode ?? 0, answer.rawHeaders);
      answer.pipe(outgoing);
    });
    incoming.on('error', () => forwarded.destroy());
    incoming.pipe(forwarded);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (typeof address !== 'object' || address === null) throw new Error('no port');

  return {
    port: address.port,
    add(port) {
      ports = [...ports, port];
    },
    remove(port) {
      ports = ports.filter((one) => one !== port);
    },
    async close() {
      const closed = once(server, 'close');
      server.close();
      server.closeAllConnections();
      agent.destroy();
      await closed;
    },
  };
}
