import { type IncomingMessage, createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createDatabase } from '../../db/client.ts';
import type { ApiScope } from '../../db/api-scopes.ts';
import { addApiKey } from '../../operations/add-api-key.ts';
import type { Process, System } from '../servers/system.ts';

/** An answer of /v1, with the parts that tests look at. */
type V1Answer = { status: number; body: Record<string, unknown>; headers: Headers };

export type V1Caller = {
  get(path: string): Promise<V1Answer>;
  post(path: string, body: unknown): Promise<V1Answer>;
};

/** Makes a key, as an operator would, and calls with it. */
export async function callerFor(
  system: System,
  api: Process,
  product: string,
  scopes: readonly ApiScope[],
): Promise<V1Caller & { secret: string }> {
  const url = system.env['DATABASE_URL'] ?? '';
  const db = createDatabase({ url, applicationName: 'test', poolMax: 1 });
  const added = await addApiKey({ db, actor: 'test' }, { product, scopes });
  await db.close();
  if (added.kind !== 'added') throw new Error(`no key: ${added.kind}`);
  return { ...callWith(api, added.secret), secret: added.secret };
}

/** @param key undefined: without any */
export function callWith(api: Process, key: string | undefined): V1Caller {
  const call = async (method: string, path: string, body?: unknown): Promise<V1Answer> => {
    const response = await fetch(`http://127.0.0.1:${api.port}${path}`, {
      method,
      headers: key === undefined ? {} : { authorization: `Bearer ${key}` },
      ...(body === undefined
        ? {}
        : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
    });
    const said = await response.text();
    return {
      status: response.status,
      body: JSON.parse(said) as Record<string, unknown>,
      headers: response.headers,
    };
  };
  return { get: (path) => call('GET', path), post: (path, body) => call('POST', path, body) };
}

type BackendCall = { method: string; instanceId: string; generation: number };

/** A backend that takes everything on and says later how it ended. */
export type SlowBackend = {
  calls: BackendCall[];
  /** What the next calls are answered; 202 to a PUT and 204 to a DELETE by default. */
  answerWith(answer: (call: BackendCall) => Promise<{ status: number; body?: object }>): void;
  listen(): Promise<string>;
  close(): Promise<void>;
};

export function createSlowBackend(): SlowBackend {
  const calls: BackendCall[] = [];
  let answerTo = async ({ method }: BackendCall): Promise<{ status: number; body?: object }> => ({
    status: method === 'PUT' ? 202 : 204,
  });
  const server = createServer((incoming, outgoing) => {
    readCall(incoming)
      .then(async (call) => {
        calls.push(call);
        const { status, body } = await answerTo(call);
        outgoing.writeHead(status, { 'content-type': 'application/json' });
        outgoing.end(body && JSON.stringify(body));
      })
      .catch(() => outgoing.destroy());
  });
  return {
    calls,
    answerWith: (answer) => {
      answerTo = answer;
    },
    listen: () =>
      new Promise((resolve) => {
        server.listen(0, '127.0.0.1', () => {
          resolve(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
        });
      }),
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

async function readCall(incoming: IncomingMessage): Promise<BackendCall> {
  const chunks: Buffer[] = [];
  for await (const chunk of incoming) chunks.push(Buffer.from(chunk as Uint8Array));
  const url = new URL(incoming.url ?? '/', 'http://backend');
  const body = Buffer.concat(chunks).toString('utf8');
  const said = body === '' ? {} : (JSON.parse(body) as { generation?: number });
  return {
    method: incoming.method ?? '',
    instanceId: decodeURIComponent(url.pathname.split('/').at(-1) ?? ''),
    generation: said.generation ?? Number(url.searchParams.get('generation')),
  };
}
