import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import {
  bodySignValue,
  canonicalBody,
  isBodySigned,
  signRequest,
} from '../../simulator/signing.ts';

type Vector = {
  body: string;
  canonical: string;
  timestamp: string;
  nonce: string;
  signature: string;
  signatureOverRawBody: string;
};
const vectors: { accessKey: string; saasV2: Vector[] } = JSON.parse(
  readFileSync(new URL('../fixtures/vectors.json', import.meta.url), 'utf8'),
);
const { accessKey } = vectors;

describe.each(vectors.saasV2)('a callback $nonce', (vector) => {
  const { timestamp, nonce } = vector;
  test('signs to the known signature over the raw body and over the canonical one', () => {
    const sign = (body: string): string => signRequest({ accessKey, nonce, timestamp, body });
    expect(sign(vector.body)).toBe(vector.signatureOverRawBody);
    expect(sign(vector.canonical)).toBe(vector.signature);
    expect(sign(Buffer.from(vector.body).toString())).toBe(vector.signatureOverRawBody);
  });
});

// JSON.parse forgets how a number was written; the simulator itself sends no such numbers.
const readable = vectors.saasV2.filter(({ body }) => !body.includes('9007199254740993'));

test('all vectors but the one of numbers are printed here', () => {
  expect(readable).toHaveLength(vectors.saasV2.length - 1);
});

test.each(readable)('a callback $nonce prints as the sample prints it', ({ body, canonical }) => {
  expect(canonicalBody(JSON.parse(body))).toBe(canonical);
});

test('Body-Sign is looked for with its capitals, and over the exact bytes', () => {
  const body = Buffer.from(
    '{"resultCode":"000000","resultMsg":"success","instanceId":"87b94795-0603-4e24-8ae5-69420d60e3c8"}',
  );
  const value = 'sign_type="HMAC-SHA256", signature="jSG76qV+sErcIudFc/8kM8U2qb2E3rj/NYMDJ8OYm90="';
  const key = 'demo-access-key-0001';
  expect(bodySignValue(key, body)).toBe(value);
  expect(isBodySigned(key, ['Date', 'now', 'Body-Sign', value], body)).toBe(true);
  expect(isBodySigned(key, ['body-sign', value], body)).toBe(false);
  expect(isBodySigned(key, ['X', 'Body-Sign'], body)).toBe(false);
  expect(isBodySigned(key, ['Body-Sign', value], Buffer.concat([body, Buffer.from(' ')]))).toBe(
    false,
  );
});
