import { createCipheriv, createDecipheriv, createHash, randomBytes } from 'node:crypto';
import {
  closeSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { dirname, join } from 'node:path';

// Two levels: data keys seal what is stored, the master key wraps data keys. Only wrapped data keys
// are in the database, the master key never is, so a dump of the database opens nothing.

import { drawRandomBytes } from './random.ts';

/** The key that wraps all data keys. */
export type MasterKey = {
  /** First 8 hex digits of sha256(key): says which key it is and nothing else about it. */
  id: string;
  key: Buffer;
};

/** A key that seals stored values; `id` is its row in data_keys and stands in all that it sealed. */
export type DataKey = { id: number; key: Buffer };

/** A key or a sealed value that cannot be used. The message never holds key material or plain text. */
export class SecretsError extends Error {
  override readonly name = 'SecretsError';
}

export type LoadedMasterKey = {
  masterKey: MasterKey;
  origin: 'environment' | 'file' | 'data directory';
  /** True when it was made just now and no copy of it exists anywhere else. */
  isNew: boolean;
};

const keySizeBytes = 32;
const nonceSizeBytes = 12;
const tagSizeBytes = 16;
const headerSizeBytes = 5;
const formatVersion = 1;

/**
 * Finds the master key: the value itself, else a file, else `master.key` in the data directory, which
 * is made on first start (mode 0600) unless this is production.
 *
 * @param from.masterKey base64 of 32 bytes
 * @param from.masterKeyFile path of a file that holds the same
 * @throws SecretsError that names the setting to correct, without values
 */
export function loadMasterKey(from: {
  masterKey?: string | undefined;
  masterKeyFile?: string | undefined;
  dataDir: string;
  isProduction: boolean;
}): LoadedMasterKey {
  if (from.masterKey !== undefined) {
    const masterKey = parseMasterKey(from.masterKey, 'LATCHKEY_MASTER_KEY');
    return { masterKey, origin: 'environment', isNew: false };
  }
  if (from.masterKeyFile !== undefined) {
    const text = readTextIfThere(from.masterKeyFile);
    if (text === undefined) {
      throw new SecretsError(
        `LATCHKEY_MASTER_KEY_FILE names ${from.masterKeyFile}, which is not there`,
      );
    }
    const masterKey = parseMasterKey(text, `the file of LATCHKEY_MASTER_KEY_FILE`);
    return { masterKey, origin: 'file', isNew: false };
  }
  const path = join(from.dataDir, 'master.key');
  const kept = readTextIfThere(path);
  if (kept !== undefined) {
    return { masterKey: parseMasterKey(kept, path), origin: 'data directory', isNew: false };
  }
  if (from.isProduction) {
    throw new SecretsError(
      'LATCHKEY_MASTER_KEY (base64 of 32 bytes) or LATCHKEY_MASTER_KEY_FILE is required in ' +
        'production; make one with: openssl rand -base64 32',
    );
  }
  const isNew = writeOnce(path, `${randomBytes(keySizeBytes).toString('base64')}\n`);
  const masterKey = parseMasterKey(readFileSync(path, 'utf8'), path);
  return { masterKey, origin: 'data directory', isNew };
}

/** @throws SecretsError when `text` is not base64 of 32 bytes; names `source`, not the text */
function parseMasterKey(text: string, source: string): MasterKey {
  const trimmed = text.trim();
  const key = /^[A-Za-z0-9+/_-]{43}=?$/.test(trimmed)
    ? Buffer.from(trimmed, 'base64')
    : Buffer.alloc(0);
  if (key.length !== keySizeBytes) {
    throw new SecretsError(
      `${source} must be base64 of 32 bytes; make one with: openssl rand -base64 32`,
    );
  }
  return { id: createHash('sha256').update(key).digest('hex').slice(0, 8), key };
}

/**
 * Seals a value with AES-256-GCM under a fresh nonce.
 *
 * @param aad where the value stands, as table/column/id: sealed values cannot change places
 * @returns 1 byte version, 4 bytes key id, 12 bytes nonce, cipher text, 16 bytes tag
 */
export function seal(dataKey: DataKey, plain: Buffer | string, aad: string): Buffer {
  const header = Buffer.alloc(headerSizeBytes);
  header.writeUInt8(formatVersion, 0);
  header.writeUInt32BE(dataKey.id, 1);
  const nonce = drawRandomBytes(nonceSizeBytes);
  const cipher = createCipheriv('aes-256-gcm', dataKey.key, nonce);
  cipher.setAAD(Buffer.concat([header, Buffer.from(aad)]));
  const text = cipher.update(typeof plain === 'string' ? Buffer.from(plain) : plain);
  return Buffer.concat([header, nonce, text, cipher.final(), cipher.getAuthTag()]);
}

/** @throws SecretsError when it was sealed by another key, for another place, or was changed */
export function open(dataKey: DataKey, sealed: Buffer, aad: string): Buffer {
  const keyId = keyIdOf(sealed);
  if (keyId !== dataKey.id) {
    throw new SecretsError(`sealed by key ${keyId}, opened with key ${dataKey.id}`);
  }
  const header = sealed.subarray(0, headerSizeBytes);
  const textAt = headerSizeBytes + nonceSizeBytes;
  const decipher = createDecipheriv(
    'aes-256-gcm',
    dataKey.key,
    sealed.subarray(headerSizeBytes, textAt),
    { authTagLength: tagSizeBytes },
  );
  decipher.setAAD(Buffer.concat([header, Buffer.from(aad)]));
  decipher.setAuthTag(sealed.subarray(sealed.length - tagSizeBytes));
  try {
    const text = decipher.update(sealed.subarray(textAt, sealed.length - tagSizeBytes));
    return Buffer.concat([text, decipher.final()]);
  } catch {
    throw new SecretsError(
      `what key ${keyId} sealed cannot be opened as ${aad}: it was changed or moved`,
    );
  }
}

/** The id of the data key that sealed this. @throws SecretsError when it is no sealed value */
export function keyIdOf(sealed: Buffer): number {
  const isWhole = sealed.length >= headerSizeBytes + nonceSizeBytes + tagSizeBytes;
  if (!isWhole || sealed.readUInt8(0) !== formatVersion) {
    throw new SecretsError('not a sealed value of a known version');
  }
  return sealed.readUInt32BE(1);
}

/** Makes the random 32 bytes of a new data key. */
export function createDataKeyBytes(): Buffer {
  return randomBytes(keySizeBytes);
}

/** Wraps the bytes of a data key for storage; `scope` is bound in, so rows cannot be exchanged. */
export function wrapDataKey(masterKey: MasterKey, key: Buffer, scope: string): Buffer {
  return seal(asWrappingKey(masterKey), key, wrappedAad(scope));
}

/** A data key as it stands in data_keys. */
export type WrappedDataKey = { id: number; wrapped: Buffer; masterKeyId: string };

/**
 * Opens a data key.
 *
 * @throws SecretsError that names both master keys by id when another one wrapped it
 */
export function unwrapDataKey(masterKey: MasterKey, row: WrappedDataKey, scope: string): DataKey {
  if (row.masterKeyId !== masterKey.id) {
    throw new SecretsError(
      `data key ${row.id} was wrapped by master key ${row.masterKeyId}, ` +
        `but LATCHKEY_MASTER_KEY is ${masterKey.id}`,
    );
  }
  return { id: row.id, key: open(asWrappingKey(masterKey), row.wrapped, wrappedAad(scope)) };
}

function asWrappingKey(masterKey: MasterKey): DataKey {
  return { id: Number.parseInt(masterKey.id, 16), key: masterKey.key };
}

function wrappedAad(scope: string): string {
  return `data_keys/wrapped/${scope}`;
}

function readTextIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

/**
 * Writes a file that is either whole or not there, and never replaces one. Processes that start
 * together agree: one writes, the others find it.
 */
function writeOnce(path: string, text: string): boolean {
  const folder = dirname(path);
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const draft = `${path}.${randomBytes(6).toString('hex')}`;
  try {
    const file = openSync(draft, 'wx', 0o600);
    try {
      writeSync(file, text);
      // A key that a power cut takes away takes everything that it sealed with it.
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
    linkSync(draft, path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  } finally {
    rmSync(draft, { force: true });
  }
  syncFolder(folder);
  return true;
}

function syncFolder(path: string): void {
  const folder = openSync(path, 'r');
  try {
    fsyncSync(folder);
  } finally {
    closeSync(folder);
  }
}
