import { createHash } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { canonicalize, formatSdkDate, signAkSk } from '../../protocol/ak-sk.ts';

const orderQuery = new URL(
  'https://mkt.myhuaweicloud.com/api/mkp-openapi-public/global/v1/order/query' +
    '?orderLineId=MOCKPERIODYEARNEW-000001&orderId=MOCKPERIODYEARNEW',
);
const at = new Date('2025-01-01T00:00:00Z');
const key = { accessKeyId: 'EXAMPLEAK', secretKey: 'EXAMPLESK' };

describe('SDK-HMAC-SHA256', () => {
  test('an order query is signed as the published vector is', () => {
    const { canonical } = canonicalize({
      method: 'GET',
      url: orderQuery,
      headers: { 'X-Sdk-Date': formatSdkDate(at) },
    });
    expect(createHash('sha256').update(canonical).digest('hex')).toBe(
      'fccb012b71abb1c4b8c443c2fd846464e7929dc6b90c8c73f930ac989406d5d9',
    );
    expect(signAkSk(key, { method: 'GET', url: orderQuery }, at)).toEqual({
      'X-Sdk-Date': '20250101T000000Z',
      Authorization:
        'SDK-HMAC-SHA256 Access=EXAMPLEAK, SignedHeaders=host;x-sdk-date, ' +
        'Signature=a018701671e66c2dfff93f41c0dfd83b543baa81c35d7ea4344f6095b57480d2',
    });
  });

  test("a POST with more headers is signed as another implementation's test expects", () => {
    const { Authorization } = signAkSk(
      { accessKeyId: 'test', secretKey: '123' },
      {
        method: 'POST',
        url: new URL(
          'https://mkt.myhuaweicloud.com/api/mkp-openapi-public/global/v1/license/activate',
        ),
        headers: { 'x-stage': 'RELEASE', 'Content-Type': 'application/json' },
        body: '',
      },
      new Date('2024-03-17T14:42:37Z'),
    );
    expect(Authorization).toBe(
      'SDK-HMAC-SHA256 Access=test, SignedHeaders=content-type;host;x-sdk-date;x-stage, ' +
        'Signature=77595ad624b6e4e49990b8c4e84bf1c287457fca61069c4e60b9b6765b52053d',
    );
  });

  test('the query is sorted by raw names and encoded by RFC 3986, the path ends in a slash', () => {
    const url = new URL("https://mkt.example/a?z=1&a~=x y&a=%E8%AE%A2!'()*");
    expect(canonicalize({ method: 'get', url }).canonical.split('\n').slice(0, 3)).toEqual([
      'GET',
      '/a/',
      'a=%E8%AE%A2%21%27%28%29%2A&a~=x%20y&z=1',
    ]);
  });

  test('the bytes that are sent are hashed, and a port belongs to the host', () => {
    const url = new URL('http://127.0.0.1:8443/x');
    const body = Buffer.from([0xff, 0x00, 0x0a]);
    const lines = canonicalize({ method: 'POST', url, body }).canonical.split('\n');
    expect(lines).toContain('host:127.0.0.1:8443');
    expect(lines.at(-1)).toBe(createHash('sha256').update(body).digest('hex'));
  });
});
