import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, expect, test } from 'vitest';
import {
  type DataKey,
  createDataKeyBytes,
  keyIdOf,
  loadMasterKey,
  open,
  seal,
  unwrapDataKey,
  wrapDataKey,
} from '../../runtime/secrets.ts';

let dataDir = '';
beforeEach(() => {
  dataDir = mkdtempSync(join(tmpdir(), 'latchkey-secrets-'));
});
afterEach(() => rmSync(dataDir, { recursive: true }));

const dataKey: DataKey = { id: 77, key: createDataKeyBytes() };
const newMasterText = () => randomBytes(32).toString('base64');
const given = (masterKey: string) =>
  loadMasterKey({ masterKey, dataDir, isProduction: true }).masterKey;

test('what was sealed opens again, and only with the same key in the same place', () => {
  fc.assert(
    fc.property(fc.uint8Array(), fc.string(), (plain, aad) => {
      const sealed = seal(dataKey, Buffer.from(plain), aad);
      expect(sealed).toHaveLength(1 + 4 + 12 + plain.length + 16);
      expect(keyIdOf(sealed)).toBe(77);
      expect(open(dataKey, sealed, aad).equals(Buffer.from(plain))).toBe(true);
      expect(() => open(dataKey, sealed, `${aad}/`)).toThrow('changed or moved');
      const other = { id: 77, key: createDataKeyBytes() };
      expect(() => open(other, sealed, aad)).toThrow('changed or moved');
      expect(() => open({ ...dataKey, id: 78 }, sealed, aad)).toThrow(
        'sealed by key 77, opened with key 78',
      );
    }),
  );
});

test('every flipped bit and every cut is noticed', () => {
  const sealed = seal(dataKey, 'hunter2', 'products/http_secret_enc/3');
  for (let bit = 0; bit < sealed.length * 8; bit += 1) {
    const flipped = Buffer.from(sealed);
    flipped.writeUInt8(flipped.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3);
    expect(() => open(dataKey, flipped, 'products/http_secret_enc/3')).toThrow();
  }
  for (let length = 0; length < sealed.length; length += 1) {
    expect(() => open(dataKey, sealed.subarray(0, length), 'products/http_secret_enc/3')).toThrow();
  }
});

test('the same text sealed twice looks different, and neither shows it', () => {
  const [one, two] = [seal(dataKey, 'hunter2', 'a'), seal(dataKey, 'hunter2', 'a')];
  expect(one.equals(two)).toBe(false);
  expect(one.includes('hunter2')).toBe(false);
});

test('a data key opens under its own scope and its own master key only', () => {
  const [ours, theirs] = [given(newMasterText()), given(newMasterText())];
  const bytes = createDataKeyBytes();
  const row = { id: 3, wrapped: wrapDataKey(ours, bytes, 'product/1'), masterKeyId: ours.id };
  expect(unwrapDataKey(ours, row, 'product/1')).toEqual({ id: 3, key: bytes });
  expect(() => unwrapDataKey(ours, row, 'product/2')).toThrow('changed or moved');
  expect(() => unwrapDataKey(theirs, row, 'product/1')).toThrow(
    `data key 3 was wrapped by master key ${ours.id}, but LATCHKEY_MASTER_KEY is ${theirs.id}`,
  );
});

test('the environment comes before the file, the file before the data directory', () => {
  const [value, inFile] = [newMasterText(), newMasterText()];
  const file = join(dataDir, 'elsewhere.key');
  writeFileSync(file, `${inFile}\n`);
  const all = { masterKey: value, masterKeyFile: file, dataDir, isProduction: false };
  const fromEnvironment = loadMasterKey(all);
  expect(fromEnvironment).toMatchObject({ origin: 'environment', isNew: false });
  expect(fromEnvironment.masterKey.key.toString('base64')).toBe(value);
  const fromFile = loadMasterKey({ ...all, masterKey: undefined });
  expect(fromFile).toMatchObject({ origin: 'file', isNew: false });
  expect(fromFile.masterKey.key.toString('base64')).toBe(inFile);
  expect(readdirSync(dataDir)).toEqual(['elsewhere.key']);
});

test('the first start makes a key that only its owner can read, later starts find it', () => {
  const folder = join(dataDir, 'new');
  const first = loadMasterKey({ dataDir: folder, isProduction: false });
  expect(first).toMatchObject({ origin: 'data directory', isNew: true });
  expect(first.masterKey.key).toHaveLength(32);
  expect(statSync(folder).mode & 0o777).toBe(0o700);
  expect(statSync(join(folder, 'master.key')).mode & 0o777).toBe(0o600);
  expect(readdirSync(folder)).toEqual(['master.key']);
  const again = loadMasterKey({ dataDir: folder, isProduction: true });
  expect(again).toEqual({ ...first, isNew: false });
  const copied = readFileSync(join(folder, 'master.key'), 'utf8');
  expect(given(copied)).toEqual(first.masterKey);
});

test('production never makes a key', () => {
  expect(() => loadMasterKey({ dataDir, isProduction: true })).toThrow(
    /LATCHKEY_MASTER_KEY .*required in production/,
  );
  expect(readdirSync(dataDir)).toEqual([]);
});

test.each([
  ['', 'empty'],
  ['hunter2hunter2', 'too short'],
  [randomBytes(31).toString('base64'), '31 bytes'],
  [randomBytes(33).toString('base64'), '33 bytes'],
  [randomBytes(32).toString('hex'), 'hexadecimal'],
])('a wrong key (%#) is refused by name and never repeated', (text) => {
  let message = '';
  try {
    given(text);
  } catch (error) {
    message = String(error);
  }
  expect(message).toContain('LATCHKEY_MASTER_KEY must be base64 of 32 bytes');
  if (text !== '') expect(message).not.toContain(text);
});

test('a file that is not there or holds no key is named', () => {
  const file = join(dataDir, 'absent.key');
  const load = () => loadMasterKey({ masterKeyFile: file, dataDir, isProduction: false });
  expect(load).toThrow(`LATCHKEY_MASTER_KEY_FILE names ${file}, which is not there`);
  writeFileSync(file, 'hunter2');
  expect(load).toThrow('LATCHKEY_MASTER_KEY_FILE must be base64');
  expect(load).not.toThrow('hunter2');
});
