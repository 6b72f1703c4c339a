import { createHash, createHmac } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  isWithinWindow,
  readSignatureParameters,
  verifySignature,
  type SignatureParameters,
  type SigningKey,
} from '../../protocol/saas-v2/signature.ts';
import { buildSortedForm } from '../../protocol/saas-v2/sorted-form.ts';
import vectors from '../fixtures/vectors.json' with { type: 'json' };
import { accessKey, buildQuery, signPayload } from './signing.ts';

const keys: readonly SigningKey[] = [
  { id: 1, secret: 'another-key' },
  { id: 2, secret: accessKey },
  { id: 3, secret: vectors.accessKey },
];

function readParameters(query: string): SignatureParameters {
  const reading = readSignatureParameters(query);
  if (!reading.ok) throw new Error(reading.problem);
  return reading;
}

function verify(
  body: string | Buffer,
  parameters: { signature: string; timestamp: string; nonce: string },
) {
  return verifySignature({
    parameters: readParameters(buildQuery(parameters)),
    body: Buffer.from(body),
    keys,
  });
}

const timestamp = '1680508066618';
const nonce = '50D83FDECAED6CCD8EF597F2A577950527928BA287D04E6036E92B2806FD17DA';

describe('vectors', () => {
  const isRaw = ({ signature, signatureOverRawBody }: (typeof vectors.saasV2)[number]) =>
    signature === signatureOverRawBody;

  test.each(vectors.saasV2)('the signature of $body verifies', (vector) => {
    expect(verify(vector.body, vector)).toEqual({
      verified: true,
      keyId: 3,
      secret: vectors.accessKey,
      form: isRaw(vector) ? 'raw' : 'sorted',
    });
  });

  test.each(vectors.saasV2)('the signature over the bytes of $body verifies', (vector) => {
    const { timestamp: at, nonce: once, signatureOverRawBody: signature } = vector;
    expect(verify(vector.body, { signature, timestamp: at, nonce: once })).toMatchObject({
      verified: true,
      form: 'raw',
    });
  });

  test.each(vectors.saasV2)(
    'the signature of $body is refused for its neighbours’ bodies',
    (vector) => {
      for (const other of vectors.saasV2) {
        if (other !== vector) expect(verify(other.body, vector).verified).toBe(false);
      }
    },
  );

  test.each([
    [
      '{"activity":"newInstance","businessId":"87b94795-0603-4e24-8ae5-69420d60e3c8","orderId":"CS2211181819B4LVS","orderLineId":"CS2211181819B4LVS-000001","testFlag":"1"}',
      'A0718C9E7AF310A13EFC0B9F566CC9023410CE9806428754AD0CD7505C9A5F30',
      'raw',
    ],
    [
      '{"activity":"queryInstance","instanceId":"10e758d0-31ad-4c4b-8f1b-81d03469a10e"}',
      'D8DE921A2721A04992E0C4313F5A485D6CB66C394FB4D6FE1558727CB72D5281',
      'raw',
    ],
    [
      '{"activity":"refreshInstance","expireTime":"20221124023618","instanceId":"10e758d0-31ad-4c4b-8f1b-81d03469a10e","orderId":"CS2211181819B4LVS","orderLineId":"CS2211181819B4LVS-000001","productId":"OFFI461867333479178240","scene":"RENEWAL"}',
      'A48E2D393200DD0CBC4F3D401C4209CC25F533096487F63220C88A6DF5803930',
      'raw',
    ],
    [
      '{ "testFlag": null, "orderLineId": "CS2211181819B4LVS-000001",\n "orderId": "CS2211181819B4LVS", "businessId": "87b94795-0603-4e24-8ae5-69420d60e3c8", "activity": "newInstance" }',
      '358E8A33252E1ED221403D46979713CFDE1656F28147D03E525B9A5CAC37564C',
      'sorted',
    ],
  ])('the protocol note’s own signature of %s verifies', (body, signature, form) => {
    expect(verify(body, { signature, timestamp, nonce })).toMatchObject({ verified: true, form });
  });
});

const anyTimestamp = fc
  .integer({ min: 1_000_000_000_000, max: 9_999_999_999_999 })
  .map((at) => String(at));
const anyNonce = fc.string({
  unit: fc.constantFrom(
    'a',
    'b',
    'Z',
    '0',
    '1',
    '9',
    '-',
    '_',
    '+',
    '/',
    '=',
    '&',
    '%',
    '张',
    '😀',
  ),
  minLength: 1,
  maxLength: 60,
});
const anyBody = fc
  .oneof(fc.uint8Array({ maxLength: 200 }), fc.json())
  .map((body) => Buffer.from(body));

function flipBit(bytes: Buffer, bit: number): Buffer {
  const flipped = Buffer.from(bytes);
  const at = Math.floor(bit / 8) % bytes.length;
  flipped[at] = (flipped[at] ?? 0) ^ (1 << (bit % 8));
  return flipped;
}

describe('a signature', () => {
  test('over any bytes verifies by the key that made it, in either case of its digits', () => {
    fc.assert(
      fc.property(anyBody, anyTimestamp, anyNonce, (body, at, once) => {
        const signature = signPayload({ payload: body, timestamp: at, nonce: once });
        for (const written of [signature, signature.toLowerCase()]) {
          expect(verify(body, { signature: written, timestamp: at, nonce: once })).toEqual({
            verified: true,
            keyId: 2,
            secret: accessKey,
            form: 'raw',
          });
        }
      }),
    );
  });

  test('is the same bytes in either case of its digits, so that a replay cannot hide by it', () => {
    const signature = signPayload({ payload: 'x', timestamp, nonce });
    const upper = readParameters(buildQuery({ signature, timestamp, nonce }));
    const lower = readParameters(
      buildQuery({ signature: signature.toLowerCase(), timestamp, nonce }),
    );
    expect(upper.signatureBytes).toHaveLength(32);
    expect(upper.signatureBytes.equals(lower.signatureBytes)).toBe(true);
  });

  test('is refused once any bit of the body is another', () => {
    fc.assert(
      fc.property(
        anyBody.filter((body) => body.length > 0),
        fc.nat(),
        (body, bit) => {
          const signature = signPayload({ payload: body, timestamp, nonce });
          const flipped = flipBit(body, bit);
          // Signed raw, but another spacing of the same JSON may have the signed bytes as its form.
          const isSortedTwin = buildSortedForm(flipped) === body.toString();
          const result = verify(flipped, { signature, timestamp, nonce });
          expect(result.verified).toBe(isSortedTwin);
        },
      ),
      { numRuns: 500 },
    );
  });

  test('is refused for another nonce or timestamp, also when digits move from one to the other', () => {
    const payload = '{"activity":"queryInstance"}';
    fc.assert(
      fc.property(anyTimestamp, anyNonce, anyTimestamp, anyNonce, (at, once, otherAt, other) => {
        fc.pre(at !== otherAt && once !== other);
        const signature = signPayload({ payload, timestamp: at, nonce: once });
        expect(verify(payload, { signature, timestamp: otherAt, nonce: once }).verified).toBe(
          false,
        );
        expect(verify(payload, { signature, timestamp: at, nonce: other }).verified).toBe(false);
      }),
    );
    const signature = signPayload({ payload, timestamp, nonce: 'n123' });
    const moved = { signature, nonce: 'n', timestamp: `123${timestamp}` };
    expect(readSignatureParameters(buildQuery(moved)).ok).toBe(false);
  });

  test('is refused once any bit of the nonce is another', () => {
    fc.assert(
      fc.property(fc.nat(nonce.length * 8 - 1), (bit) => {
        const signature = signPayload({ payload: '{}', timestamp, nonce });
        const flipped = flipBit(Buffer.from(nonce), bit).toString();
        const reading = readSignatureParameters(
          buildQuery({ signature, timestamp, nonce: flipped }),
        );
        const isAccepted =
          reading.ok &&
          verifySignature({ parameters: reading, body: Buffer.from('{}'), keys }).verified;
        expect(isAccepted).toBe(false);
      }),
    );
  });

  test('is refused once any bit of the timestamp is another', () => {
    const signature = signPayload({ payload: '{}', timestamp, nonce });
    for (let bit = 0; bit < timestamp.length * 8; bit += 1) {
      const flipped = flipBit(Buffer.from(timestamp), bit).toString();
      const reading = readSignatureParameters(buildQuery({ signature, timestamp: flipped, nonce }));
      const isAccepted =
        reading.ok &&
        verifySignature({ parameters: reading, body: Buffer.from('{}'), keys }).verified;
      expect(isAccepted).toBe(false);
    }
  });

  test('is refused once any of its own bits is another', () => {
    const signature = Buffer.from(signPayload({ payload: '{}', timestamp, nonce }), 'hex');
    for (let bit = 0; bit < 256; bit += 1) {
      const flipped = flipBit(signature, bit).toString('hex');
      expect(verify('{}', { signature: flipped, timestamp, nonce }).verified).toBe(false);
    }
  });

  test('over the sorted form is refused once a flip changes that form, and holds where it does not', () => {
    const bodies = vectors.saasV2.filter((v) => v.signature !== v.signatureOverRawBody);
    expect(bodies.length).toBeGreaterThan(4);
    const seen = { refused: 0, kept: 0 };
    for (const vector of bodies) {
      const body = Buffer.from(vector.body);
      for (let bit = 0; bit < body.length * 8; bit += 1) {
        const flipped = flipBit(body, bit);
        const isSame = buildSortedForm(flipped) === vector.canonical;
        const result = verify(flipped, vector);
        expect(result.verified).toBe(isSame);
        seen[isSame ? 'kept' : 'refused'] += 1;
      }
    }
    expect(seen.refused).toBeGreaterThan(1000);
    expect(seen.kept).toBeGreaterThan(0);
  });

  test('over a plain SHA-256 of the body, as one third party makes it, is refused', () => {
    const inner = createHash('sha256').update('{}').digest('hex');
    const signature = createHmac('sha256', accessKey)
      .update(accessKey + nonce + timestamp + inner)
      .digest('hex');
    expect(verify('{}', { signature, timestamp, nonce })).toEqual({
      verified: false,
      reason: 'signed with none of your 3 keys; body forms tried: raw, sorted',
    });
  });

  test('by a key that is not active is refused, and no key at all refuses everything', () => {
    const signature = signPayload({ key: 'retired', payload: '{}', timestamp, nonce });
    expect(verify('{}', { signature, timestamp, nonce }).verified).toBe(false);
    const parameters = readParameters(buildQuery({ signature, timestamp, nonce }));
    expect(verifySignature({ parameters, body: Buffer.from('{}'), keys: [] })).toEqual({
      verified: false,
      reason: 'there is no active key',
    });
  });

  test('by any of several keys names that key, raw before sorted', () => {
    const several = ['k1', 'k2', 'k3'].map((secret, at) => ({ id: at + 1, secret }));
    const body = '{"b":1, "a":2}';
    for (const { id, secret } of several) {
      for (const [form, payload] of [
        ['raw', body],
        ['sorted', '{"a":2,"b":1}'],
      ] as const) {
        const signature = signPayload({ key: secret, payload, timestamp, nonce });
        const parameters = readParameters(buildQuery({ signature, timestamp, nonce }));
        expect(verifySignature({ parameters, body: Buffer.from(body), keys: several })).toEqual({
          verified: true,
          keyId: id,
          secret,
          form,
        });
      }
    }
  });

  test('over bytes that are no JSON verifies raw: what they say is judged later', () => {
    const body = Buffer.from([0xff, 0x00, 0x7b]);
    const signature = signPayload({ payload: body, timestamp, nonce });
    expect(verify(body, { signature, timestamp, nonce })).toMatchObject({ form: 'raw' });
  });
});

describe('the query', () => {
  const signature = 'A0718C9E7AF310A13EFC0B9F566CC9023410CE9806428754AD0CD7505C9A5F30';
  const good = buildQuery({ signature, timestamp, nonce });

  test('is read with and without "?", among other parameters, as received', () => {
    for (const query of [good, `?${good}`, `a=1&a=2&${good}&Signature=x&x`]) {
      expect(readSignatureParameters(query)).toEqual({
        ok: true,
        signature,
        timestamp,
        nonce,
        signatureBytes: Buffer.from(signature, 'hex'),
        signedAt: new Date(1_680_508_066_618),
      });
    }
  });

  test('a nonce is decoded once, as a form is', () => {
    const query = `signature=${signature}&timestamp=${timestamp}&nonce=a%2Bb%252F%3D`;
    expect(readSignatureParameters(query)).toMatchObject({ ok: true, nonce: 'a+b%2F=' });
  });

  test.each([
    ['', 'signature is missing'],
    [`timestamp=${timestamp}&nonce=n`, 'signature is missing'],
    [`signature=${signature}&nonce=n`, 'timestamp is missing'],
    [`signature=${signature}&timestamp=${timestamp}`, 'nonce is missing'],
    [`${good}&nonce=n`, 'nonce is given 2 times'],
    [`${good}&%6eonce=n&nonce=m`, 'nonce is given 3 times'],
    [`${good}&signature=${signature}`, 'signature is given 2 times'],
    [`${good}&timestamp=`, 'timestamp is given 2 times'],
    [`signature=&timestamp=${timestamp}&nonce=n`, 'signature is not 64 hexadecimal digits'],
    [
      `signature=${signature.slice(1)}&timestamp=${timestamp}&nonce=n`,
      'signature is not 64 hexadecimal digits',
    ],
    [
      `signature=${signature}0&timestamp=${timestamp}&nonce=n`,
      'signature is not 64 hexadecimal digits',
    ],
    [
      `signature=${signature}%0A&timestamp=${timestamp}&nonce=n`,
      'signature is not 64 hexadecimal digits',
    ],
    [
      `signature=g${signature.slice(1)}&timestamp=${timestamp}&nonce=n`,
      'signature is not 64 hexadecimal digits',
    ],
    [
      `signature=${signature}&timestamp=1680508066&nonce=n`,
      'timestamp is not 13 digits of milliseconds',
    ],
    [
      `signature=${signature}&timestamp=-168050806661&nonce=n`,
      'timestamp is not 13 digits of milliseconds',
    ],
    [
      `signature=${signature}&timestamp=16805080666180&nonce=n`,
      'timestamp is not 13 digits of milliseconds',
    ],
    [
      `signature=${signature}&timestamp=1.68050806e12&nonce=n`,
      'timestamp is not 13 digits of milliseconds',
    ],
    [
      `signature=${signature}&timestamp=${timestamp}&nonce=`,
      'nonce is not 1 to 128 visible characters',
    ],
    [
      `signature=${signature}&timestamp=${timestamp}&nonce=a%00b`,
      'nonce is not 1 to 128 visible characters',
    ],
    [
      `signature=${signature}&timestamp=${timestamp}&nonce=a+b`,
      'nonce is not 1 to 128 visible characters',
    ],
    [
      `signature=${signature}&timestamp=${timestamp}&nonce=a%0A`,
      'nonce is not 1 to 128 visible characters',
    ],
    [
      `signature=${signature}&timestamp=${timestamp}&nonce=${'n'.repeat(129)}`,
      'nonce is not 1 to 128 visible characters',
    ],
  ])('%s: refused', (query, problem) => {
    expect(readSignatureParameters(query)).toEqual({ ok: false, problem });
  });

  test('a nonce of 128 characters is the longest', () => {
    const query = buildQuery({ signature, timestamp, nonce: 'n'.repeat(128) });
    expect(readSignatureParameters(query).ok).toBe(true);
  });
});

test('the window reaches 60 s to both sides, its edges included', () => {
  const now = new Date(1_700_000_000_000);
  const shifted = (byMs: number) => new Date(now.getTime() + byMs);
  for (const byMs of [0, 59_999, 60_000, -60_000]) {
    expect(isWithinWindow(shifted(byMs), now)).toBe(true);
  }
  for (const byMs of [60_001, -60_001, 3_600_000, -3_600_000]) {
    expect(isWithinWindow(shifted(byMs), now)).toBe(false);
  }
  expect(isWithinWindow(shifted(1_001), now, 1_000)).toBe(false);
  expect(isWithinWindow(shifted(-1_000), now, 1_000)).toBe(true);
});
