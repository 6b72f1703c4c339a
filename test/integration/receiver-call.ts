import { randomBytes } from 'node:crypto';
import { type IncomingMessage, request } from 'node:http';
import { createDatabase } from '../../db/client.ts';
import { createKeyring } from '../../db/data-keys.ts';
import { loadMasterKey } from '../../runtime/secrets.ts';
import { isBodySigned, signRequest } from '../../simulator/signing.ts';

/** What is sent; whatever is left out is as the marketplace does it. */
export type Call = {
  port: number;
  /** Of the address; the part behind `/callbacks/`, as it stands in it. */
  productKey: string;
  accessKey: string;
  body: string | Buffer;
  method?: string;
  timestamp?: string;
  nonce?: string;
  /** The query as sent, made from a well signed one. */
  changeQuery?: (query: URLSearchParams) => URLSearchParams | string;
  /** The body as sent, made from the one that was signed. */
  changeBody?: (body: string | Buffer) => string | Buffer;
  headers?: Record<string, string>;
  isChunked?: boolean;
};

export type Answer = {
  httpStatus: number;
  resultCode: string;
  resultMsg: string;
  instanceId: string | undefined;
  rawHeaders: string[];
  headers: IncomingMessage['headers'];
  raw: Buffer;
  /** Whether Body-Sign is there with its capitals and signs the bytes under this key. */
  isSignedBy(accessKey: string): boolean;
  hasBodySign: boolean;
};

/** One signed call as bytes: sent twice it is a replay. */
export type Signed = Call & { sentBody: string | Buffer; query: string };

export function signCall(call: Call): Signed {
  const nonce = call.nonce ?? randomBytes(32).toString('hex').toUpperCase();
  const timestamp = call.timestamp ?? String(Date.now());
  const { accessKey, body } = call;
  const signature = signRequest({ accessKey, nonce, timestamp, body });
  const signed = new URLSearchParams({ signature, timestamp, nonce });
  const query = String(call.changeQuery?.(signed) ?? signed);
  return { ...call, sentBody: call.changeBody?.(body) ?? body, query };
}

export function sendSigned(call: Signed): Promise<Answer> {
  const body = Buffer.from(call.sentBody);
  const length: Record<string, number> = call.isChunked ? {} : { 'content-length': body.length };
  return new Promise((resolve, reject) => {
    const outgoing = request(
      {
        host: '127.0.0.1',
        port: call.port,
        path: `/callbacks/${call.productKey}${call.query === '' ? '' : `?${call.query}`}`,
        method: call.method ?? 'POST',
        headers: { 'content-type': 'application/json;charset=utf8', ...length, ...call.headers },
        agent: false,
      },
      (incoming) => {
        const chunks: Buffer[] = [];
        incoming.on('data', (chunk: Buffer) => chunks.push(chunk));
        incoming.on('error', reject);
        incoming.on('end', () => resolve(readAnswer(incoming, Buffer.concat(chunks))));
      },
    );
    outgoing.on('error', reject);
    outgoing.end(body);
  });
}

export const send = (call: Call): Promise<Answer> => sendSigned(signCall(call));

function readAnswer(incoming: IncomingMessage, raw: Buffer): Answer {
  const reply = parseReply(raw);
  const { rawHeaders, headers } = incoming;
  return {
    httpStatus: incoming.statusCode ?? 0,
    resultCode: reply['resultCode'] ?? '',
    resultMsg: reply['resultMsg'] ?? '',
    instanceId: reply['instanceId'],
    rawHeaders,
    headers,
    raw,
    isSignedBy: (accessKey) => isBodySigned(accessKey, rawHeaders, raw),
    hasBodySign: headers['body-sign'] !== undefined,
  };
}

function parseReply(raw: Buffer): Record<string, string> {
  try {
    return JSON.parse(raw.toString()) as Record<string, string>;
  } catch {
    return {};
  }
}

/** What an operation needs, apart from the processes under test. */
export function openOperator(databaseUrl: string, masterKey: string) {
  const db = createDatabase({ url: databaseUrl, applicationName: 'test', poolMax: 2 });
  const loaded = loadMasterKey({ masterKey, dataDir: '/nonexistent', isProduction: false });
  return { db, keyring: createKeyring({ db, masterKey: loaded.masterKey }), actor: 'test' };
}
