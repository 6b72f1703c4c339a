import { afterAll, beforeAll, expect, test } from 'vitest';
import { setPassword } from '../../operations/set-password.ts';
import { type OpsServer, logIn, operator, postLogin, startOpsServer } from './ops-server.ts';

let server: OpsServer;
beforeAll(async () => {
  server = await startOpsServer();
});
afterAll(() => server.stop());

const wrong = { name: operator.name, password: 'not his password' };

test('a right password opens a session whose cookie scripts and other sites cannot use', async () => {
  const response = await postLogin(server.url, operator);
  expect(response.status).toBe(303);
  expect(response.headers.get('location')).toBe('/ops/queues');
  const cookies = response.headers.getSetCookie();
  expect(cookies).toHaveLength(1);
  expect(cookies[0]).toMatch(/^latchkey=[\w-]{43}; /);
  expect(cookies[0]?.split('; ').toSorted()).toEqual(
    expect.arrayContaining(['HttpOnly', 'Max-Age=43200', 'Path=/', 'SameSite=Strict']),
  );
});

test('the table of sessions knows the hash of a token and never the token', async () => {
  const cookie = await logIn(server.url);
  const token = cookie.split('=')[1] ?? '';
  const { rows } = await server.db.pool.query<{ row: string }>(
    `select encode(token_hash, 'base64') || ' ' || encode(token_hash, 'hex') || encode(token_hash, 'escape') as row from sessions`,
  );
  expect(rows.length).toBeGreaterThan(0);
  for (const { row } of rows) expect(row).not.toContain(token);
});

test('behind TLS the cookie is __Host- and Secure', async () => {
  const secure = await startOpsServer({ publicUrl: 'https://latchkey.example' });
  try {
    const response = await postLogin(secure.url, operator, { origin: 'https://latchkey.example' });
    const [cookie = ''] = response.headers.getSetCookie();
    expect(cookie).toMatch(/^__Host-latchkey=/);
    expect(cookie.split('; ')).toEqual(
      expect.arrayContaining(['Secure', 'HttpOnly', 'SameSite=Strict', 'Path=/']),
    );
    expect(cookie).not.toContain('Domain');
    const page = await fetch(`${secure.url}/ops/controls`, {
      headers: { cookie: cookie.split(';')[0] ?? '', accept: 'text/html' },
      redirect: 'manual',
    });
    expect(page.status).toBe(200);
    expect(page.headers.get('strict-transport-security')).toBe('max-age=31536000');
  } finally {
    await secure.stop();
  }
});

test('a wrong password and a name that nobody has are answered alike, after the same work', async () => {
  const timed = async (form: { name: string; password: string }) => {
    const began = performance.now();
    const response = await postLogin(server.url, form);
    const text = await response.text();
    return { status: response.status, text, ms: performance.now() - began };
  };
  const known = await timed(wrong);
  const unknown = await timed({ name: 'nobody', password: wrong.password });
  expect(known.status).toBe(401);
  expect(unknown.status).toBe(401);
  expect(unknown.text).toBe(known.text);
  expect(known.text).toContain('The name or the password is wrong.');
  // A look into the table takes a few ms, scrypt a third of a second.
  expect(unknown.ms).toBeGreaterThan(60);
});

test('logging out ends the session in the table, not only in the browser', async () => {
  const cookie = await logIn(server.url);
  const get = () =>
    fetch(`${server.url}/ops/controls`, {
      headers: { cookie, accept: 'text/html' },
      redirect: 'manual',
    });
  expect((await get()).status).toBe(200);
  const out = await fetch(`${server.url}/ops/logout`, {
    method: 'POST',
    headers: { cookie, origin: server.url },
    redirect: 'manual',
  });
  expect(out.status).toBe(303);
  expect(out.headers.getSetCookie()[0]).toContain('Max-Age=0');
  expect((await get()).status).toBe(302);
});

test('a session ends after its time, and with a change of the password', async () => {
  const cookie = await logIn(server.url);
  const status = async (c: string) =>
    (await fetch(`${server.url}/ops/controls`, { headers: { cookie: c } })).status;
  expect(await status(cookie)).toBe(200);
  await server.db.pool.query('update sessions set expires_at = now()');
  expect(await status(cookie)).toBe(401);

  const second = await logIn(server.url);
  expect(await status(second)).toBe(200);
  await setPassword({ db: server.db, actor: 'test' }, operator);
  expect(await status(second)).toBe(401);
});

test('a login leaves a trace that names the operator', async () => {
  await logIn(server.url);
  const { rows } = await server.db.pool.query(
    `select actor, subject from audit where act = 'operator.logged_in' limit 1`,
  );
  expect(rows).toEqual([{ actor: 'anna', subject: 'operator/anna' }]);
});

test('a form that another site posts is refused before the password is looked at', async () => {
  for (const headers of [
    { origin: 'https://evil.example' },
    { origin: 'null' },
    { origin: 'https://evil.example', 'sec-fetch-site': 'cross-site' },
    { origin: '' },
  ]) {
    const response = await postLogin(server.url, operator, headers);
    expect(response.status).toBe(403);
    expect(response.headers.getSetCookie()).toEqual([]);
    expect(await response.text()).toContain('another site');
  }
});

test('another site gets no leave to send JSON or PUT', async () => {
  const response = await fetch(`${server.url}/ops/queues/api/queues/pause`, {
    method: 'OPTIONS',
    headers: {
      origin: 'https://evil.example',
      'access-control-request-method': 'PUT',
      'access-control-request-headers': 'content-type',
    },
  });
  expect(response.status).toBeGreaterThanOrEqual(400);
  expect([...response.headers.keys()].filter((h) => h.startsWith('access-control'))).toEqual([]);
});

test('the login page follows the language of its reader', async () => {
  const page = async (language: string, query = '') => {
    const response = await fetch(`${server.url}/ops/login${query}`, {
      headers: { 'accept-language': language },
    });
    return { lang: response.headers.get('content-language'), text: await response.text() };
  };
  expect((await page('zh-CN,zh;q=0.9,en;q=0.8')).text).toContain('<html lang="zh-CN">');
  expect((await page('zh-CN,zh;q=0.9,en;q=0.8')).text).toContain('登录');
  expect((await page('de,en;q=0.5,zh;q=0.4')).lang).toBe('en');
  expect((await page('en', '?lang=zh')).lang).toBe('zh-CN');
});

test('without any operator the login page says how to make one, and nothing logs in', async () => {
  const empty = await startOpsServer({ withOperator: false });
  try {
    const page = await (await fetch(`${empty.url}/ops/login`)).text();
    expect(page).toContain('npx latchkey password set NAME --password-stdin');
    expect(page).not.toContain('<form');
    for (const password of ['', 'admin', 'latchkey', 'password']) {
      expect((await postLogin(empty.url, { name: 'admin', password })).status).toBe(401);
    }
  } finally {
    await empty.stop();
  }
});

test('the sixth attempt on one name is refused even with the right password, and says how long', async () => {
  const limited = await startOpsServer({
    limits: { perNameAndAddress: 5, perAddress: 100, windowMs: 60_000 },
  });
  try {
    for (let i = 0; i < 5; i++) {
      expect((await postLogin(limited.url, { ...wrong, name: 'anna' })).status).toBe(401);
    }
    const sixth = await postLogin(limited.url, operator);
    expect(sixth.status).toBe(429);
    expect(Number(sixth.headers.get('retry-after'))).toBeGreaterThan(0);
    expect(Number(sixth.headers.get('retry-after'))).toBeLessThanOrEqual(60);
    expect(await sixth.text()).toContain('Too many attempts. Try again in one minute.');
    expect(sixth.headers.getSetCookie()).toEqual([]);
    // Another name at the same address still has its own attempts.
    expect((await postLogin(limited.url, { ...wrong, name: 'bert' })).status).toBe(401);
  } finally {
    await limited.stop();
  }
});

test('one address is limited over all names, and free again when its time is over', async () => {
  const limited = await startOpsServer({
    limits: { perNameAndAddress: 5, perAddress: 3, windowMs: 600_000 },
  });
  try {
    for (const name of ['a', 'b', 'c']) {
      expect((await postLogin(limited.url, { name, password: 'x' })).status).toBe(401);
    }
    expect((await postLogin(limited.url, operator)).status).toBe(429);
    await limited.db.pool.query(`update login_attempts set expire = now() - interval '1 second'`);
    expect((await postLogin(limited.url, operator)).status).toBe(303);
  } finally {
    await limited.stop();
  }
});

test('attempts are counted without names, because people type passwords there', async () => {
  const secret = 'my-password-in-the-wrong-field';
  await postLogin(server.url, { name: secret, password: 'x' });
  const { rows } = await server.db.pool.query<{ row: string }>(
    'select l::text as row from login_attempts l',
  );
  expect(rows.length).toBeGreaterThan(0);
  expect(JSON.stringify(rows)).not.toContain(secret);
});
