// A small production interface in memory, written for these tests alone: it is what the story is played
// against here, well or with one planted fault, to see that the story notices.
import { createHmac } from 'node:crypto';
import { createServer } from 'node:http';
import { Webhook } from 'standardwebhooks';

export type Fault =
  | 'second id on a re-send'
  | 'replays accepted'
  | 'signatures not checked'
  | 'freezes forgotten'
  | 'renewals never go back'
  | 'released access data shown'
  | 'password changes'
  | 'access data shared'
  | 'answers not signed'
  | 'generation stands still';

type Instance = {
  id: string;
  orderId: string;
  exists: boolean;
  frozen: boolean;
  expiresAt: string | null;
  generation: number;
  applied: number;
  dead: boolean;
  refused: string;
  appInfo?: Record<string, string>;
};

export type FakeReceiver = {
  callbackUrl: string;
  accessKey: string;
  /** Answers every call like this while set: for a marketplace that must try again. */
  answerAll: (reply: { status: number; body: string } | undefined) => void;
  calls: { body: Record<string, string>; signature: string; rawBody: string }[];
  logIn: (appInfo: { password?: string }) => Promise<boolean>;
  killWorkers: () => Promise<number>;
  redrive: (orderId: string) => Promise<void>;
  close: () => Promise<void>;
};

export async function createFakeReceiver(options: {
  backend?: { url: string; secret: string };
  fault?: Fault;
}): Promise<FakeReceiver> {
  const { backend, fault } = options;
  const accessKey = 'fake-access-key';
  const byOrder = new Map<string, Instance>();
  const byId = new Map<string, Instance>();
  const seen = new Set<string>();
  const calls: FakeReceiver['calls'] = [];
  let forced: { status: number; body: string } | undefined;
  let isClosed = false;
  // A worker that was killed never hears the answers of its own calls.
  let worker = new AbortController();
  const busy = new Set<string>();

  const server = createServer((incoming, outgoing) => {
    const chunks: Buffer[] = [];
    incoming.on('data', (chunk: Buffer) => chunks.push(chunk));
    incoming.on('end', () => {
      const raw = Buffer.concat(chunks).toString('utf8');
      const reply = forced ?? { status: 200, body: toAscii(receive(incoming.url ?? '', raw)) };
      const signed = createHmac('sha256', accessKey).update(reply.body).digest('base64');
      outgoing.writeHead(reply.status, {
        'content-type': 'application/json',
        ...(fault === 'answers not signed'
          ? {}
          : { 'Body-Sign': `sign_type="HMAC-SHA256", signature="${signed}"` }),
      });
      outgoing.end(reply.body);
    });
  });

  function receive(url: string, raw: string): Record<string, unknown> {
    const query = new URL(url, 'http://fake').searchParams;
    const [signature, timestamp, nonce] = ['signature', 'timestamp', 'nonce'].map((name) =>
      query.get(name),
    );
    if (!signature || !timestamp || !nonce) return { resultCode: '000002' };
    if (Math.abs(Date.now() - Number(timestamp)) > 60_000) return { resultCode: '000002' };
    const hmac = (text: string): string =>
      createHmac('sha256', accessKey).update(text).digest('hex');
    const isGood = hmac(accessKey + nonce + timestamp + hmac(raw)).toUpperCase() === signature;
    if (!isGood && fault !== 'signatures not checked') return { resultCode: '000001' };
    if (seen.has(signature) && fault !== 'replays accepted') return { resultCode: '000001' };
    seen.add(signature);
    const body: Record<string, string> = JSON.parse(raw);
    calls.push({ body, signature, rawBody: raw });
    return { resultMsg: 'success', ...answer(body) };
  }

  function answer(body: Record<string, string>): Record<string, unknown> {
    const id = body['instanceId'] ?? '';
    if (body['testFlag'] === '1') {
      const test = { instanceId: id || `test-${body['orderId']}` };
      const appInfo = { frontEndUrl: 'https://test.example.com' };
      return { resultCode: '000000', ...test, info: [{ ...test, appInfo }] };
    }
    if (body['activity'] === 'newInstance') return create(body);
    if (body['activity'] === 'queryInstance') return query(id.split(','));
    const instance = byId.get(id);
    if (!instance) return { resultCode: '000003' };
    if (fault !== 'generation stands still') instance.generation += 1;
    if (body['activity'] === 'updateInstanceStatus' && fault !== 'freezes forgotten') {
      instance.frozen = body['status'] === 'FREEZE';
    }
    if (body['activity'] === 'refreshInstance') {
      const digits = body['expireTime'] ?? '';
      const [, day = '', time = ''] = /^(\d{8})(\d{6})/.exec(digits) ?? [];
      const next = `${day.replace(/(....)(..)(..)/, '$1-$2-$3')}T${time.replace(/(..)(..)(..)/, '$1:$2:$3')}Z`;
      const isBack = instance.expiresAt !== null && next < instance.expiresAt;
      if (!(isBack && fault === 'renewals never go back')) instance.expiresAt = next;
    }
    if (body['activity'] === 'releaseInstance') instance.exists = false;
    return { resultCode: '000000' };
  }

  function create(body: Record<string, string>): Record<string, unknown> {
    const key = `${body['orderId']}/${body['orderLineId']}`;
    let instance = byOrder.get(key);
    if (!instance) {
      instance = {
        id: body['businessId'] ?? '',
        orderId: body['orderId'] ?? '',
        exists: true,
        frozen: false,
        expiresAt: null,
        generation: 1,
        applied: 0,
        dead: false,
        refused: '',
      };
      byOrder.set(key, instance);
      byId.set(instance.id, instance);
    } else if (fault === 'second id on a re-send') {
      byId.set(body['businessId'] ?? '', instance);
      return { resultCode: '000000', instanceId: body['businessId'] };
    }
    if (instance.refused) return { resultCode: instance.refused, instanceId: instance.id };
    return { resultCode: instance.applied ? '000000' : '000004', instanceId: instance.id };
  }

  function query(ids: string[]): Record<string, unknown> {
    const found = ids.flatMap((id) => byId.get(id) ?? []);
    const shown = found.filter(
      (one) => one.applied > 0 && (one.exists || fault === 'released access data shown'),
    );
    if (shown.length === 0) {
      const isPending = found.some((one) => one.applied === 0 && one.exists && !one.refused);
      return { resultCode: isPending ? '000004' : '000003' };
    }
    const info = shown.map((one) => ({
      instanceId: one.id,
      appInfo:
        fault === 'password changes'
          ? { ...one.appInfo, password: `${Math.random()}` }
          : one.appInfo,
    }));
    return { resultCode: '000000', info };
  }

  async function apply(instance: Instance): Promise<void> {
    if (instance.dead || instance.refused || busy.has(instance.id)) return;
    const { generation } = instance;
    if (generation <= instance.applied && fault !== 'generation stands still') return;
    if (!backend) {
      const secret = fault === 'access data shared' ? 'same' : instance.id;
      instance.appInfo = { frontEndUrl: `https://t/${secret}`, userName: 'u', password: secret };
      instance.applied = generation;
      return;
    }
    busy.add(instance.id);
    try {
      await callBackend(instance, backend, generation);
    } catch {
      // The next round tries again.
    } finally {
      busy.delete(instance.id);
    }
  }

  async function callBackend(
    instance: Instance,
    target: { url: string; secret: string },
    generation: number,
  ): Promise<void> {
    const { exists, frozen, expiresAt } = instance;
    const body = exists
      ? JSON.stringify({
          instanceId: instance.id,
          product: 'fake',
          generation,
          desired: { exists, frozen, expiresAt, trial: false, plan: null },
          changes: [{ kind: 'created', orderId: instance.orderId }],
        })
      : '';
    const at = new Date();
    const id = `${instance.id}:${generation}`;
    const response = await fetch(
      `${target.url}/instances/${instance.id}${exists ? '' : `?generation=${generation}`}`,
      {
        method: exists ? 'PUT' : 'DELETE',
        ...(exists ? { body } : {}),
        signal: worker.signal,
        headers: {
          'webhook-id': id,
          'webhook-timestamp': String(Math.floor(at.getTime() / 1000)),
          'webhook-signature': new Webhook(target.secret).sign(id, at, body),
          'idempotency-key': id,
        },
      },
    );
    const text = await response.text();
    if (response.status === 422) instance.refused = JSON.parse(text).resultCode;
    else if (response.status === 400) instance.dead = true;
    else if (response.ok || response.status === 404) {
      if (exists) instance.appInfo = JSON.parse(text).appInfo;
      instance.applied = generation;
    }
  }

  const rounds = setInterval(() => {
    if (isClosed) return;
    for (const instance of byId.values()) apply(instance).catch(() => undefined);
  }, 10);

  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  const port = typeof address === 'object' && address ? address.port : 0;
  return {
    callbackUrl: `http://127.0.0.1:${port}/callbacks/fake`,
    accessKey,
    answerAll: (reply) => {
      forced = reply;
    },
    calls,
    // In tenants made here the password is the instance's id.
    logIn: ({ password = '' }) => {
      const instance = byId.get(password);
      return Promise.resolve(instance?.exists === true && !instance.frozen);
    },
    killWorkers: () => {
      worker.abort();
      worker = new AbortController();
      return Promise.resolve(1);
    },
    redrive: (orderId) => {
      const dead = [...byId.values()].find((one) => one.orderId === orderId && one.dead);
      if (!dead) return Promise.reject(new Error('no dead letter'));
      dead.dead = false;
      return Promise.resolve();
    },
    close: () => {
      isClosed = true;
      clearInterval(rounds);
      worker.abort();
      return new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      });
    },
  };
}

function toAscii(value: unknown): string {
  return JSON.stringify(value).replace(
    /[^ -~]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}
