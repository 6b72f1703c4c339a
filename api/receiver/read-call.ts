import type { IncomingMessage } from 'node:http';

export const bodySizeBytesMax = 64 * 1024;
const bodyTimeMs = 1_500;

export type BodyReading =
  | { ok: true; body: Buffer }
  | { ok: false; problem: string; mustClose: true };

/**
 * The raw bytes of a request: the signature is over them, so nothing may touch them before. Stops
 * reading at 64 KiB and after 1.5 s, so that neither size nor slowness can hold the receiver.
 */
export function readBody(request: IncomingMessage): Promise<BodyReading> {
  const declared = Number(request.headers['content-length'] ?? 0);
  if (declared > bodySizeBytesMax) {
    return Promise.resolve({ ok: false, problem: tooLarge, mustClose: true });
  }
  return new Promise((resolve) => {
    const chunks: Buffer[] = [];
    let sizeBytes = 0;
    const timer = setTimeout(() => finish(refuse('the body did not arrive in time')), bodyTimeMs);

    function finish(reading: BodyReading): void {
      clearTimeout(timer);
      request.off('data', onData);
      request.off('end', onEnd);
      request.off('error', onBroken);
      request.off('close', onBroken);
      resolve(reading);
    }
    function onData(chunk: Buffer): void {
      sizeBytes += chunk.length;
      if (sizeBytes > bodySizeBytesMax) finish(refuse(tooLarge));
      else chunks.push(chunk);
    }
    function onEnd(): void {
      const [only] = chunks;
      finish({ ok: true, body: chunks.length === 1 && only ? only : Buffer.concat(chunks) });
    }
    function onBroken(): void {
      finish(refuse('the body did not arrive whole'));
    }
    request.on('data', onData);
    request.on('end', onEnd);
    request.on('error', onBroken);
    request.on('close', onBroken);
  });
}

const tooLarge = 'the body is larger than 64 KiB';

function refuse(problem: string): BodyReading {
  return { ok: false, problem, mustClose: true };
}
