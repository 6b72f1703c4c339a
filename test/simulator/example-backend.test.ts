import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, onTestFinished, test } from 'vitest';
import { callBackend, type SignedCallOptions } from './signed-call.ts';

const path = fileURLToPath(new URL('../../docs/examples/backend.mjs', import.meta.url));
const secret = `whsec_${Buffer.from('the secret of the example backend').toString('base64')}`;

async function startExample(): Promise<string> {
  const child = spawn(process.execPath, [path], {
    env: { PATH: process.env['PATH'], PORT: '0', LATCHKEY_WEBHOOK_SECRET: secret },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  onTestFinished(async () => {
    const ended = once(child, 'exit');
    child.kill();
    await ended;
  });
  const [line] = await once(child.stdout, 'data');
  const port = /port (\d+)/.exec(String(line))?.[1];
  if (port === undefined) throw new Error(`the example said: ${String(line)}`);
  return `http://127.0.0.1:${port}`;
}

test('the example is short enough to read', () => {
  expect(readFileSync(path, 'utf8').split('\n').length).toBeLessThan(100);
});

test('the example keeps the whole contract', async () => {
  const url = await startExample();
  const call = (
    method: 'PUT' | 'DELETE',
    generation: number,
    more: Partial<SignedCallOptions> = {},
  ): Promise<Response> =>
    callBackend({ url, secret, method, instanceId: 'i-1', generation, ...more });

  const made = await call('PUT', 1);
  expect(made.status).toBe(200);
  const body = await made.json();
  expect(body).toMatchObject({
    appInfo: { frontEndUrl: expect.stringMatching(/^https:/), userName: 'admin' },
  });
  expect(await (await call('PUT', 1)).json()).toEqual(body);
  expect(await (await call('PUT', 3)).json()).toEqual(body);
  expect((await call('PUT', 2)).status).toBe(409);
  expect((await call('DELETE', 2)).status).toBe(409);

  const stranger = `whsec_${Buffer.from('a stranger').toString('base64')}`;
  expect((await call('PUT', 4, { secret: stranger })).status).toBe(401);
  expect((await call('DELETE', 4, { secret: stranger })).status).toBe(401);
  expect((await call('PUT', 4, { bodySent: '{"instanceId":"i-1"}' })).status).toBe(401);
  expect((await fetch(`${url}/instances/i-1`, { method: 'PUT', body: '{}' })).status).toBe(401);
  expect((await call('PUT', 4, { at: new Date(Date.now() - 600_000) })).status).toBe(401);

  expect((await call('DELETE', 4)).status).toBe(204);
  expect((await call('DELETE', 4)).status).toBe(404);
  expect((await call('PUT', 3)).status).toBe(409);
  expect((await call('PUT', 4)).status).toBe(409);
  expect((await call('DELETE', 1, { instanceId: 'i-unknown' })).status).toBe(404);
  expect((await call('DELETE', 0, { instanceId: 'i-2' })).status).toBe(400);
  expect((await call('PUT', 0.5, { instanceId: 'i-2' })).status).toBe(400);
});

test('the example outlives what it cannot read', async () => {
  const url = await startExample();
  const call = (instanceId: string): Promise<Response> =>
    callBackend({ url, secret, method: 'PUT', instanceId, generation: 1 });
  expect((await call('%')).status).toBe(500);
  expect((await call('i-1')).status).toBe(200);
});
