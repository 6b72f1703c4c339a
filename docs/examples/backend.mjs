// A whole seller's backend: it makes, changes and drops tenants when Latchkey asks, and gives back
// what the buyer needs to log in. Run: LATCHKEY_WEBHOOK_SECRET=whsec_… PORT=9000 node backend.mjs
import { randomBytes } from 'node:crypto';
import { createServer } from 'node:http';
import { Webhook } from 'standardwebhooks';

const secrets = (process.env.LATCHKEY_WEBHOOK_SECRET ?? '').split(' '); // two while one is changed

// Put this in your database, and change row and tenant in one transaction: after a crash, or with two
// copies of this program, the generation must still be there to compare.
const rows = new Map(); // instance id → { generation, exists, desired, appInfo }

const server = createServer((request, response) => {
  const answer = ([status, body]) => {
    response.writeHead(status, body ? { 'content-type': 'application/json' } : {});
    response.end(body && JSON.stringify(body));
  };
  // A 5xx is safe to give: Latchkey comes again with the same generation, or a newer one.
  handle(request).then(answer, () => answer([500, { error: 'failed' }]));
});

/** Gives [status, body] for one request. */
async function handle(request) {
  const body = await readText(request);
  const verifies = (secret) => {
    try {
      // The signature covers the bytes as they came. Parsing and printing JSON first would change them.
      new Webhook(secret).verify(body, request.headers, { jsonParse: false });
      return true;
    } catch {
      return false;
    }
  };
  if (!secrets.some(verifies)) return [401, { error: 'bad signature' }];
  const url = new URL(request.url, 'http://localhost');
  const [, encodedId = '', question] = /^\/instances\/([^/]+)(\/check)?$/.exec(url.pathname) ?? [];
  const id = decodeURIComponent(encodedId);
  if (!id) return [404, { error: 'unknown path' }];
  if (question) return request.method === 'POST' ? check(id, JSON.parse(body)) : [405];
  if (request.method === 'DELETE') return remove(id, Number(url.searchParams.get('generation')));
  if (request.method !== 'PUT') return [405, { error: 'PUT or DELETE' }];
  const wish = JSON.parse(body);
  if (wish?.instanceId !== id || !Number.isSafeInteger(wish.generation) || !wish.desired) {
    return [400, { error: 'not what was agreed' }];
  }
  return put(id, wish);
}

/** Makes the tenant what it should be. The whole wish comes each time, so nothing is added up. */
function put(id, { generation, desired }) {
  const row = rows.get(id);
  // A request may be delayed and overtaken by a newer one. 409 says: a newer wish was already fulfilled.
  if (row && generation < row.generation) return [409, { error: 'older generation' }];
  // The generation that dropped a tenant never asks for it again.
  if (row && !row.exists && generation === row.generation) return [409, { error: 'dropped' }];
  // Here a real backend makes the tenant, or changes it: desired.frozen, desired.expiresAt, desired.plan.
  // The first password stays: the same request may come twice, and the buyer may have the first answer.
  const appInfo = row?.appInfo ?? {
    frontEndUrl: `https://app.example.com/${encodeURIComponent(id)}`,
    userName: 'admin',
    password: randomBytes(12).toString('base64url'),
    memo: 'Please change the password after the first login.',
  };
  rows.set(id, { generation, exists: true, desired, appInfo });
  return [200, { appInfo }];
}

/** Says whether the buyer may change to another plan. Asked only with `--change-rule ask`; within 2 s. */
function check(id, { target }) {
  const isFull = rows.get(id)?.exists && target.quantity > 1000;
  return [200, isFull ? { allow: false, message: 'At most 1000 users.' } : { allow: true }];
}

/** Drops the tenant, but remembers the generation, so that a PUT arriving late cannot bring it back. */
function remove(id, generation) {
  if (!Number.isSafeInteger(generation) || generation < 1) return [400, { error: 'no generation' }];
  const row = rows.get(id);
  if (row && generation < row.generation) return [409, { error: 'older generation' }];
  // Here a real backend drops the tenant's data.
  rows.set(id, { generation, exists: false });
  return row?.exists ? [204] : [404, { error: 'nothing to drop' }]; // both count as done
}

async function readText(request) {
  const chunks = [];
  let sizeBytes = 0;
  for await (const chunk of request) {
    chunks.push(chunk);
    sizeBytes += chunk.length;
    // Nothing is verified yet, so a stranger must not be able to fill the memory.
    if (sizeBytes > 1_048_576) throw new Error('too large');
  }
  return Buffer.concat(chunks).toString('utf8');
}

server.listen(Number(process.env.PORT ?? 9000), process.env.HOST ?? '127.0.0.1', () => {
  console.log(`listening on port ${server.address().port}`);
});
