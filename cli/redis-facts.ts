import { Redis } from 'ioredis';

export type RedisFacts =
  | { kind: 'unreachable'; problem: string }
  | { kind: 'reached'; version: string; appendOnly: boolean; evictionPolicy: string };

/** Asks a Redis server how it is set up; never says its password. */
export async function readRedisFacts(url: string): Promise<RedisFacts> {
  const redis = new Redis(url, {
    lazyConnect: true,
    connectTimeout: 3_000,
    commandTimeout: 3_000,
    maxRetriesPerRequest: 0,
    retryStrategy: () => null,
  });
  let lastError: Error | undefined;
  redis.on('error', (error: Error) => {
    lastError = error;
  });
  try {
    await redis.connect();
    const info = await redis.info();
    const valueOf = (name: string) => new RegExp(`^${name}:(.*?)\\r?$`, 'm').exec(info)?.[1];
    return {
      kind: 'reached',
      version: valueOf('redis_version') ?? 'unknown',
      appendOnly: valueOf('aof_enabled') === '1',
      evictionPolicy: valueOf('maxmemory_policy') ?? 'unknown',
    };
  } catch (error) {
    return { kind: 'unreachable', problem: describe(lastError ?? (error as Error)) };
  } finally {
    redis.disconnect();
  }
}

function describe(error: Error): string {
  const code = 'code' in error && typeof error.code === 'string' ? error.code : undefined;
  if (code === 'ECONNREFUSED') return 'nothing listens at the address of Redis';
  if (code === 'ENOTFOUND') return 'the host name of Redis is unknown';
  if (/NOAUTH|WRONGPASS/.test(error.message)) return 'Redis refuses the password';
  return 'Redis does not answer';
}
