/**
 * Runs what the Dockerfile and docker-compose.yml run, without an engine: the files that the image
 * copies, its build, a production environment, and each service's command and health check, on a
 * real Postgres and Redis. A purchase travels through it.
 */
import { execFileSync, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { cpSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createMarketplace } from '../simulator/marketplace.ts';
import { startTestPostgres } from '../test/servers/postgres.ts';
import { startTestRedis } from '../test/servers/redis.ts';
import { until } from '../test/servers/until.ts';

const image = mkdtempSync(join(tmpdir(), 'latchkey-image-'));
const dockerfile = readFileSync('Dockerfile', 'utf8');
const copied = dockerfile
  .split('\n')
  .filter((line) => line.startsWith('COPY ') && !line.includes('--from'))
  .flatMap((line) => line.split(/\s+/).slice(1, -1));
for (const path of copied) cpSync(path, join(image, path), { recursive: true });
const build = /^RUN (npm ci .*)$/m.exec(dockerfile)?.[1] ?? '';
execFileSync('sh', ['-c', build], { cwd: image, stdio: ['ignore', 'ignore', 'inherit'] });

const postgres = await startTestPostgres();
const redis = await startTestRedis();
const port = 20_000 + Math.floor(Math.random() * 20_000);
const env: Record<string, string> = {
  PATH: process.env['PATH'] ?? '',
  HOME: image,
  TMPDIR: image,
  NODE_ENV: 'production',
  DATABASE_URL: postgres.url,
  REDIS_URL: redis.url,
  LATCHKEY_MASTER_KEY: randomBytes(32).toString('base64'),
  PUBLIC_URL: `http://127.0.0.1:${port}`,
  HOST: '127.0.0.1',
  PORT: String(port),
};
const main = join(image, 'dist/cli/main.js');
const latchkey = (args: string[], input?: string) =>
  execFileSync(process.execPath, [main, ...args], {
    cwd: image,
    env,
    ...(input === undefined ? {} : { input }),
  });

latchkey(['migrate']);
const services = ['api', 'dispatcher', 'workers'].map((role) => ({
  role,
  child: spawn(process.execPath, [main, 'start', role], { cwd: image, env, stdio: 'ignore' }),
}));
let ends: string[] = [];
try {
  await until(async () => (await fetch(`${env['PUBLIC_URL']}/readyz`)).status, 200, {
    timeoutMs: 30_000,
  });
  for (const role of ['dispatcher', 'workers']) {
    await until(() => String(latchkey(['alive', role])), `${role} alive\n`, {
      timeoutMs: 30_000,
      everyMs: 500,
    });
  }
  latchkey(['product', 'add', 'shop', '--name', 'Shop', '--provisioner', 'postgres-schema']);
  latchkey(['key', 'add', 'shop', '--class', 'base', '--secret-stdin'], 'key-of-the-image');
  const market = createMarketplace({
    callbackUrl: `${env['PUBLIC_URL']}/callbacks/shop`,
    accessKey: 'key-of-the-image',
  });
  const bought = await market.buy(
    { orderId: 'CS1', orderLineId: '1' },
    { retryEveryMs: 200, deadlineMs: 30_000 },
  );
  market.close();
  if (bought.outcome !== 'ready')
    throw new Error(`the purchase did not get through: ${JSON.stringify(bought)}`);
} finally {
  for (const { child } of services) child.kill('SIGTERM');
  ends = await Promise.all(
    services.map(async ({ role, child }) => {
      if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
      return `${role} ${child.exitCode ?? child.signalCode}`;
    }),
  );
  await redis.stop();
  await postgres.stop();
  rmSync(image, { recursive: true, force: true });
}
if (ends.some((end) => !end.endsWith(' 0'))) {
  throw new Error(`not ended cleanly: ${ends.join(', ')}`);
}
process.stdout.write(`the image's commands work; ended: ${ends.join(', ')}\n`);
process.exit(0);
