import { randomBytes } from 'node:crypto';
import { expect, test } from 'vitest';
import { hashPassword, verifyPassword } from '../../operations/password-hash.ts';

test('a password is known again, another one is not', async () => {
  const hash = await hashPassword('correct horse battery', randomBytes(16));
  expect(await verifyPassword(hash, 'correct horse battery')).toBe(true);
  expect(await verifyPassword(hash, 'correct horse batterz')).toBe(false);
  expect(await verifyPassword(hash, '')).toBe(false);
});

test('the hash names its costs and not the password, and the salt makes it its own', async () => {
  const first = await hashPassword('correct horse battery', randomBytes(16));
  const second = await hashPassword('correct horse battery', randomBytes(16));
  expect(first).toMatch(/^scrypt\$15\$8\$3\$[A-Za-z0-9+/=]{24}\$[A-Za-z0-9+/=]{44}$/);
  expect(second).not.toBe(first);
});

test('the same letters typed as other code points are the same password', async () => {
  const hash = await hashPassword('caf\u00e9 au lait', Buffer.alloc(16, 1));
  expect(await verifyPassword(hash, 'cafe\u0301 au lait')).toBe(true);
});

test('a hash of another making is an error, never a match', async () => {
  await expect(verifyPassword('$2b$10$abc', 'x')).rejects.toThrow('unknown form');
  await expect(verifyPassword('', '')).rejects.toThrow('unknown form');
});
