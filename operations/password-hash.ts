import { type ScryptOptions, scrypt, timingSafeEqual } from 'node:crypto';

// Kept as scrypt$15$8$3$salt$hash (base64), so that the costs can be raised without losing anyone.
const costs = { logN: 15, r: 8, p: 3 };
const saltSizeBytes = 16;
const hashSizeBytes = 32;

/** What a salt must have. */
export const passwordSaltSizeBytes = saltSizeBytes;

/** @param salt random, made for this password alone */
export async function hashPassword(password: string, salt: Buffer): Promise<string> {
  const hash = await derive(password, salt, costs, hashSizeBytes);
  const { logN, r, p } = costs;
  return ['scrypt', logN, r, p, salt.toString('base64'), hash.toString('base64')].join('$');
}

/**
 * Takes as long for a right password as for a wrong one, about a third of a second.
 *
 * @throws when `hash` is not one that `hashPassword` made
 */
export async function verifyPassword(hash: string, password: string): Promise<boolean> {
  const [scheme, logN, r, p, salt, expected, ...rest] = hash.split('$');
  if (scheme !== 'scrypt' || salt === undefined || expected === undefined || rest.length > 0) {
    throw new Error('a stored password hash has an unknown form');
  }
  const wanted = Buffer.from(expected, 'base64');
  const stored = { logN: Number(logN), r: Number(r), p: Number(p) };
  const got = await derive(password, Buffer.from(salt, 'base64'), stored, wanted.length);
  return timingSafeEqual(got, wanted);
}

function derive(
  password: string,
  salt: Buffer,
  { logN, r, p }: typeof costs,
  sizeBytes: number,
): Promise<Buffer> {
  const N = 2 ** logN;
  // Node's default of 32 MiB is just what these costs need and therefore refused.
  const options: ScryptOptions = { N, r, p, maxmem: 256 * N * r };
  return new Promise((resolve, reject) => {
    // The same letters typed on another keyboard may be other code points.
    scrypt(password.normalize('NFKC'), salt, sizeBytes, options, (error, key) => {
      if (error) reject(error);
      else resolve(key);
    });
  });
}
