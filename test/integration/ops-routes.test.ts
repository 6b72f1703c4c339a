import { appRoutes } from '@bull-board/api/dist/routes.js';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';
import { startFaultProxy } from '../servers/fault-proxy.ts';
import { type OpsServer, logIn, startOpsServer } from './ops-server.ts';

let server: OpsServer;
let cookie: string;
beforeAll(async () => {
  server = await startOpsServer();
  cookie = await logIn(server.url);
});
afterAll(() => server.stop());

type Route = { method: string; path: string };

const filled = (path: string): string =>
  path
    .replace(':queueName', 'provisioning')
    .replace(/:\w+(\{[^}]*\})?/g, 'x')
    .replace('*', 'x');

const isPause = (route: Route): boolean =>
  /\/api\/queues\/([^/]+\/)?(pause|resume)$/.test(route.path);

/** What the server itself says it has. */
function opsRoutes(): Route[] {
  const routes = server.app.routes
    .filter(({ path }) => path.startsWith('/ops'))
    .flatMap(({ method, path }) =>
      (method === 'ALL' ? ['GET', 'POST', 'PUT', 'PATCH', 'DELETE'] : [method]).map((m) => ({
        method: m,
        path: filled(path),
      })),
    );
  return [...new Map(routes.map((r) => [`${r.method} ${r.path}`, r])).values()];
}

/** What Bull Board itself has, its pages aside. */
function boardRoutes(): Route[] {
  return appRoutes.api.flatMap(({ method, route }) =>
    [method].flat().flatMap((m) =>
      [route].flat().map((path) => ({
        method: m.toUpperCase(),
        path: `/ops/queues${filled(path)}`,
      })),
    ),
  );
}

async function call(
  { method, path }: Route,
  headers: Record<string, string> = {},
): Promise<Response> {
  return fetch(server.url + path, {
    method,
    headers: { origin: server.url, ...headers },
    redirect: 'manual',
  });
}

const isPublic = ({ method, path }: Route): boolean =>
  path === '/ops/assets/latchkey.css' ||
  path === '/ops/login' ||
  (path === '/ops/logout' && method === 'POST');

test('every route under /ops but login and stylesheet asks for a session', async () => {
  const routes = [...opsRoutes(), ...boardRoutes()].filter((route) => !isPublic(route));
  expect(routes.length).toBeGreaterThan(50);
  for (const route of routes) {
    const name = `${route.method} ${route.path}`;
    expect({ name, status: (await call(route)).status }).toEqual({ name, status: 401 });
    const wrong = await call(route, { cookie: `latchkey=${'A'.repeat(43)}` });
    expect({ name, status: wrong.status }).toEqual({ name, status: 401 });
    if (route.method !== 'GET') continue;
    const page = await call(route, { accept: 'text/html' });
    expect({ name, to: page.headers.get('location') }).toEqual({ name, to: '/ops/login' });
  }
});

test("every one of Bull Board's writing routes but pause and resume is refused by name", async () => {
  await server.queues[0]?.add('created', { instance: 1 }, { jobId: 'look-1-1', delay: 3_600_000 });
  const writing = boardRoutes().filter((route) => route.method !== 'GET' && !isPause(route));
  expect(writing.length).toBeGreaterThan(15);
  for (const route of writing) {
    for (const path of [route.path, route.path.replace('/x/', '/look-1-1/')]) {
      const response = await call(
        { ...route, path },
        { cookie, 'content-type': 'application/json' },
      );
      const name = `${route.method} ${path}`;
      expect({ name, status: response.status }).toEqual({ name, status: 405 });
      const body = (await response.json()) as { message: string };
      expect(body.message).toContain('read-only');
    }
  }
  expect(await server.queues[0]?.getJobCounts('delayed', 'waiting')).toMatchObject({ delayed: 1 });
});

test('methods that Bull Board does not have are refused too', async () => {
  for (const method of ['POST', 'PUT', 'PATCH', 'DELETE']) {
    const path = '/ops/queues/api/queues/provisioning/whatever/new';
    expect((await call({ method, path }, { cookie })).status).toBe(405);
  }
});

test('a queue is paused and resumed by its operator, by both ways, with a trace of each', async () => {
  const [queue] = server.queues;
  if (!queue) throw new Error('no queue');
  const put = (path: string) =>
    call({ method: 'PUT', path: `/ops/queues/api/queues/${path}` }, { cookie });
  const post = (act: string, name = queue.name) =>
    fetch(`${server.url}/ops/controls`, {
      method: 'POST',
      body: new URLSearchParams({ queue: name, act }),
      headers: { cookie, origin: server.url },
      redirect: 'manual',
    });

  expect((await put(`${queue.name}/pause`)).status).toBe(200);
  expect(await queue.isPaused()).toBe(true);
  expect((await post('resume')).status).toBe(303);
  expect(await queue.isPaused()).toBe(false);
  expect((await put('pause')).status).toBe(200);
  expect(await Promise.all(server.queues.map((q) => q.isPaused()))).toEqual([true, true]);
  expect((await put('resume')).status).toBe(200);
  expect(await queue.isPaused()).toBe(false);
  expect((await post('pause', 'no such queue')).status).toBe(400);
  expect((await put('nothing/pause')).status).toBe(404);

  const { rows } = await server.db.pool.query<{ line: string }>(
    `select actor || ' ' || act || ' ' || subject as line from audit where act like 'queue.%' order by id`,
  );
  expect(rows.map((row) => row.line)).toEqual([
    'anna queue.paused queue/provisioning',
    'anna queue.resumed queue/provisioning',
    'anna queue.paused queue/provisioning',
    'anna queue.paused queue/order-lookup',
    'anna queue.resumed queue/provisioning',
    'anna queue.resumed queue/order-lookup',
  ]);
});

test("the board's page and files are served from any working directory, with nothing from elsewhere", async () => {
  const before = process.cwd();
  const page = await call({ method: 'GET', path: '/ops/queues' }, { cookie, accept: 'text/html' });
  const html = await page.text();
  expect(page.status).toBe(200);
  expect(html).not.toMatch(/https?:\/\/|<style|\sstyle=/);
  const policy = page.headers.get('content-security-policy') ?? '';
  expect(policy).toContain("default-src 'none'");
  expect(policy).not.toMatch(/unsafe|https?:|\*/);
  const files = [...html.matchAll(/(?:src|href)="(static\/[^"]+)"/g)].map((match) => match[1]);
  expect(files.length).toBeGreaterThan(4);
  try {
    process.chdir('/');
    for (const file of files) {
      const response = await call({ method: 'GET', path: `/ops/queues/${file}` }, { cookie });
      expect({ file, status: response.status }).toEqual({ file, status: 200 });
    }
  } finally {
    process.chdir(before);
  }
});

test('while the store of the queues hangs, board, controls and metrics answer in time and say so', async () => {
  const store = new URL(inject('redisUrl') ?? inject('postgresUrl'));
  const proxy = await startFaultProxy({ port: Number(store.port) });
  const other = await startOpsServer({ queuesThrough: (url) => proxy.through(url) });
  try {
    const session = await logIn(other.url);
    const timed = async (path: string) => {
      const began = performance.now();
      const response = await fetch(other.url + path, { headers: { cookie: session } });
      const text = await response.text();
      return { status: response.status, text, ms: performance.now() - began };
    };
    expect((await timed('/ops/queues/api/queues')).status).toBe(200);
    await proxy.set({ kind: 'black-hole' });
    const [board, controls, metrics] = await Promise.all([
      timed('/ops/queues/api/queues'),
      timed('/ops/controls'),
      timed('/metrics'),
    ]);
    expect([500, 504]).toContain(board.status);
    expect(JSON.parse(board.text)).toMatchObject({
      message: 'The store of the queues did not answer.',
    });
    expect(board.ms).toBeLessThan(8_000);
    expect(controls.status).toBe(200);
    expect(controls.text).toContain('does not answer');
    expect(controls.ms).toBeLessThan(3_000);
    expect(metrics.text).toContain('latchkey_scrape_ok{store="queues"} 0');
    expect(metrics.ms).toBeLessThan(3_000);
  } finally {
    await proxy.set({ kind: 'refuse' });
    await other.stop();
    await proxy.close();
  }
});

test('/ops leads to the queues', async () => {
  for (const path of ['/ops', '/ops/']) {
    const response = await call({ method: 'GET', path }, { cookie, accept: 'text/html' });
    expect(response.headers.get('location')).toBe('/ops/queues');
  }
});

test('a buyer is told how to connect, by the same page for every id', async () => {
  const get = async (id: string, language = 'en') => {
    const response = await fetch(`${server.url}/tenants/${id}`, {
      headers: { 'accept-language': language },
    });
    return { status: response.status, text: await response.text() };
  };
  const one = await get('b-1');
  expect(one.status).toBe(200);
  for (const word of ['db.seller.example', '5432', 'tenants', 'user name and password']) {
    expect(one.text).toContain(word);
  }
  expect(await get('%3Cscript%3E')).toEqual(one);
  expect(one.text).not.toContain('b-1');
  expect((await get('b-1', 'zh')).text).toContain('订单详情');
});
