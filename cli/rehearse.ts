import { randomBytes } from 'node:crypto';
import { isIP } from 'node:net';
import { type TLSSocket, connect } from 'node:tls';
import type { DebugCase } from '../core/debug-cases.ts';
import { type Check, type CheckStatus } from '../operations/diagnose.ts';
import { type Marketplace, type Reply, createMarketplace } from '../simulator/marketplace.ts';
import type { CallbackFields } from '../simulator/signing.ts';

/** The marketplace gives up at 5 s. */
const replyTimeoutMs = 5_000;
const slowMs = 2_000;
const clockNotedMs = 20_000;
const certificateNotedDays = 14;
const connectTimeoutMs = 5_000;

/**
 * Plays the marketplace's debugging calls, testFlag 1, against an address, and looks at the address
 * itself: all that the console would find, before it does. Nothing is bought; no instance is made.
 *
 * @param options.accessKey the product's key for the basic interfaces; it is never printed
 */
export async function rehearse(options: {
  callbackUrl: string;
  accessKey: string;
  cases: readonly DebugCase[];
  now: () => number;
}): Promise<Check[]> {
  const { callbackUrl, accessKey, cases, now } = options;
  const url = new URL(callbackUrl);
  const form = checkForm(url);
  const certificate = url.protocol === 'https:' ? [await checkCertificate(url, now())] : [];
  const market = createMarketplace({ callbackUrl, accessKey, clock: now, replyTimeoutMs });
  try {
    const played = await playCases(market, cases, now());
    return [form, ...certificate, ...judgeCalls(played, now())];
  } finally {
    market.close();
  }
}

function checkForm(url: URL): Check {
  const name = 'address';
  const host = url.hostname.replace(/^\[|\]$/g, '');
  const problems = [
    ...(isIP(host) === 0
      ? []
      : ['it is an IP address, and the marketplace takes domain names only']),
    ...(isIP(host) !== 0 || host.includes('.') ? [] : ['it is no public domain name']),
    ...(url.username === '' && url.password === '' ? [] : ['it has a user or a password']),
    ...(url.hash === '' && url.search === '' ? [] : ['it has a query or a fragment']),
  ];
  if (problems.length > 0) {
    return check(
      name,
      'fail',
      `${withoutSecrets(url)}: ${problems.join(', ')}`,
      'Set PUBLIC_URL to https:// and a domain name of yours, or give another one by --url.',
    );
  }
  return url.protocol === 'https:'
    ? check(name, 'ok', url.href)
    : check(
        name,
        'warn',
        `${url.href} is not https; the publishing form takes it, the requirements do not`,
        'Put a proxy with TLS in front, and set PUBLIC_URL to https://.',
      );
}

function withoutSecrets(url: URL): string {
  return `${url.protocol}//${url.host}${url.pathname}`;
}

type Greeting = { problem: string } | { protocol: string; alpn: string | false; validTo: string };

async function checkCertificate(url: URL, nowMs: number): Promise<Check> {
  const name = 'certificate';
  const greeting = await greet(url);
  const next = 'Give the proxy the whole chain of a certificate that a known authority signed.';
  if ('problem' in greeting) return check(name, 'fail', greeting.problem, next);
  const days = Math.floor((Date.parse(greeting.validTo) - nowMs) / 86_400_000);
  if (days < certificateNotedDays) {
    return check(name, 'warn', `valid for ${days} more days`, 'Renew it, by a timer if possible.');
  }
  if (greeting.alpn === 'h2') {
    return check(
      name,
      'warn',
      `valid, ${greeting.protocol}; but the address also speaks HTTP/2, in which Body-Sign loses its capitals`,
      'Turn HTTP/2 off for this name.',
    );
  }
  return check(name, 'ok', `valid for ${days} more days, ${greeting.protocol}`);
}

function greet(url: URL): Promise<Greeting> {
  return new Promise((resolve) => {
    const host = url.hostname.replace(/^\[|\]$/g, '');
    const socket: TLSSocket = connect({
      host,
      port: url.port === '' ? 443 : Number(url.port),
      ...(isIP(host) === 0 ? { servername: host } : {}),
      minVersion: 'TLSv1.2',
      ALPNProtocols: ['h2', 'http/1.1'],
    });
    const end = (greeting: Greeting) => {
      socket.destroy();
      resolve(greeting);
    };
    socket.setTimeout(connectTimeoutMs, () => end({ problem: 'no TLS within 5 s' }));
    socket.once('error', (error: NodeJS.ErrnoException) =>
      end({ problem: `TLS failed: ${error.code ?? error.message}` }),
    );
    socket.once('secureConnect', () =>
      end({
        protocol: socket.getProtocol() ?? 'TLS',
        alpn: socket.alpnProtocol ?? false,
        validTo: socket.getPeerCertificate().valid_to,
      }),
    );
  });
}

type PlayedCall = { name: string; reply: Reply; problems: string[] };

/** In the order of a life, with ids of their own; each is signed anew, as the console does. */
async function playCases(
  market: Marketplace,
  cases: readonly DebugCase[],
  nowMs: number,
): Promise<PlayedCall[]> {
  const orderId = `CSREHEARSAL${randomBytes(4).toString('hex').toUpperCase()}`;
  const order = { orderId, orderLineId: `${orderId}-000001` };
  const played: PlayedCall[] = [];
  let instanceId = `rehearsal-${orderId}`;

  async function play(
    name: string,
    fields: CallbackFields,
    judge: (reply: Reply) => string[] = () => [],
  ): Promise<Reply> {
    const reply = await market.send({ ...fields, testFlag: '1' });
    const answers = reply.resultCode === '000000';
    played.push({ name, reply, problems: answers ? judge(reply) : [] });
    return reply;
  }

  for (const each of cases) {
    switch (each) {
      case 'new': {
        const purchase = { activity: 'newInstance', businessId: `rehearsal-${orderId}`, ...order };
        const first = await play('newInstance', purchase, (reply) =>
          reply.instanceId === undefined || reply.instanceId.length > 64
            ? ['the answer has no instanceId of at most 64 characters']
            : [],
        );
        instanceId = first.instanceId ?? instanceId;
        await play('newInstance, sent again', purchase, (reply) =>
          reply.instanceId === first.instanceId ? [] : ['the answer names another instanceId'],
        );
        break;
      }
      case 'query':
        await play('queryInstance', { activity: 'queryInstance', instanceId }, (reply) =>
          reply.info?.some((info) => info.instanceId === instanceId && info.appInfo?.frontEndUrl)
            ? []
            : ['the answer has no info with a frontEndUrl for the instance asked'],
        );
        break;
      case 'refresh':
        await play('refreshInstance', {
          activity: 'refreshInstance',
          scene: 'RENEWAL',
          ...order,
          instanceId,
          expireTime: digitsOf(nowMs + 365 * 86_400_000),
        });
        break;
      case 'freeze':
      case 'unfreeze': {
        const status = each === 'freeze' ? 'FREEZE' : 'UNFREEZE';
        await play(`updateInstanceStatus ${status}`, {
          activity: 'updateInstanceStatus',
          instanceId,
          status,
        });
        break;
      }
      case 'release':
        await play('releaseInstance', { activity: 'releaseInstance', instanceId, ...order });
        break;
      case 'expire':
        throw new Error('the old interface is not rehearsed yet');
    }
  }
  return played;
}

function judgeCalls(played: readonly PlayedCall[], nowMs: number): Check[] {
  const answered = played.filter(({ reply }) => reply.httpStatus !== 0);
  const [one] = answered;
  return [
    ...played.map(judgeCall),
    ...(one === undefined
      ? []
      : [checkBodySign(answered), checkContentType(answered), checkTime(one.reply, nowMs)]),
  ];
}

function judgeCall({ name, reply, problems }: PlayedCall): Check {
  const { httpStatus, resultCode, durationMs, failure } = reply;
  const took = `${Math.round(durationMs)} ms`;
  if (httpStatus === 0) {
    return check(
      name,
      'fail',
      `no answer: ${failure ?? 'the connection ended'}`,
      'See that the address is reached from outside, and that the server and the proxy run.',
    );
  }
  if (httpStatus !== 200) {
    return check(
      name,
      'fail',
      `HTTP ${httpStatus}; the marketplace takes 200 only`,
      httpStatus === 404
        ? 'See that the proxy hands the whole path on, and that the product is of this server.'
        : 'See that the proxy hands the call on unchanged.',
    );
  }
  if (resultCode === '000001') {
    return check(
      name,
      'fail',
      'the signature was refused',
      'See `npx latchkey product refusals`: another database is behind the address, or a proxy rewrites the body.',
    );
  }
  if (resultCode !== '000000') {
    const says = resultCode === '' ? 'the answer is no JSON with a resultCode' : resultCode;
    return check(
      name,
      'fail',
      `${says}${reply.resultMsg === '' ? '' : `: ${reply.resultMsg}`}; debugging takes 000000 only`,
      'See the log line callback.answered of this call.',
    );
  }
  if (problems.length > 0) {
    return check(
      name,
      'fail',
      problems.join(', '),
      'See what stands between the address and Latchkey.',
    );
  }
  if (durationMs > slowMs) {
    return check(
      name,
      'warn',
      `000000 after ${took}; the marketplace gives up at 5 s`,
      'Look at the network and the load.',
    );
  }
  return check(name, 'ok', `000000 after ${took}`);
}

function checkBodySign(played: readonly PlayedCall[]): Check {
  const name = 'Body-Sign';
  // Who could not verify the call signs with nothing.
  const signed = played.filter(({ reply }) => reply.resultCode === '000000');
  if (signed.length === 0) {
    return check(
      name,
      'warn',
      'cannot be judged before a call is answered 000000',
      'Mend the calls first.',
    );
  }
  const bad = signed.find(({ reply }) => !reply.bodySignOk);
  if (!bad) return check(name, 'ok', 'there with its capitals, and signs the bytes received');
  const found = bad.reply.rawHeaders.find(
    (text, at) => at % 2 === 0 && text.toLowerCase() === 'body-sign',
  );
  if (found === undefined) {
    return check(
      name,
      'fail',
      'the header is missing',
      'Let the proxy hand all headers of the answer on.',
    );
  }
  return found === 'Body-Sign'
    ? check(
        name,
        'fail',
        'does not sign the bytes received',
        'Let the proxy hand the answer on unchanged: no compression, no rewriting.',
      )
    : check(
        name,
        'fail',
        `arrives as ${found}, and the marketplace looks for exactly these capitals`,
        'Let the proxy keep the names of headers, and answer HTTP/1.1.',
      );
}

function checkContentType(played: readonly PlayedCall[]): Check {
  const types = new Set(played.map(({ reply }) => reply.headers['content-type'] ?? 'none'));
  const bad = [...types].find((type) => !/^application\/json\s*(?:;|$)/i.test(type));
  return bad === undefined
    ? check('content type', 'ok', 'application/json')
    : check(
        'content type',
        'fail',
        `${bad}, not application/json`,
        'Let the proxy hand it on as it is.',
      );
}

function checkTime(reply: Reply, nowMs: number): Check {
  const there = Date.parse(reply.headers.date ?? '');
  if (Number.isNaN(there)) return check('time', 'ok', 'the answer names no time to compare with');
  const apartMs = Math.abs(nowMs - there);
  // The header is to the second, and this machine's clock may be the wrong one.
  const says = `the address is ${Math.round(apartMs / 1_000)} s ${there < nowMs ? 'behind' : 'ahead of'} this machine`;
  return apartMs < clockNotedMs
    ? check('time', 'ok', 'the address and this machine agree')
    : check('time', 'warn', says, 'Let both follow a time server (NTP).');
}

function digitsOf(atMs: number): string {
  return new Date(atMs).toISOString().replace(/\D/g, '').slice(0, 14);
}

function check(name: string, status: CheckStatus, says: string, next: string | null = null): Check {
  return { name, status, says, next };
}
