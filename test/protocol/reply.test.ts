import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { ResultCode } from '../../protocol/result-codes.ts';
import {
  accessDataSchema,
  refusal,
  replyToChangeCheck,
  replyToEvent,
  replyToOrder,
  replyToQuery,
  serializeReply,
  type AccessData,
} from '../../protocol/saas-v2/reply.ts';

const access: AccessData = { frontEndUrl: 'https://t.example.com/i-1' };

describe('newInstance is answered with the id whatever the state, and', () => {
  test.each([
    ['pending', null, '000004'],
    ['active', null, '000000'],
    ['frozen', null, '000000'],
    ['released', null, '000000'],
    ['refused', '000106', '000106'],
    ['refused', '000103', '000103'],
    ['refused', null, '000104'],
    ['refused', '000000', '000104'],
    ['refused', '000999', '000104'],
    ['active', '000106', '000000'],
  ] as const)('%s with code %s by %s', (state, resultCode, expected) => {
    expect(replyToOrder({ state, resultCode }, 'i-1')).toMatchObject({
      resultCode: expected,
      instanceId: 'i-1',
    });
  });
});

describe('queryInstance', () => {
  test('shows the active and the frozen in the order asked, and leaves the others out', () => {
    const reply = replyToQuery([
      { instanceId: 'r', state: 'released' },
      { instanceId: 'f', state: 'frozen', access },
      { instanceId: 'p', state: 'pending' },
      { instanceId: 'a', state: 'active', access },
      { instanceId: 'x', state: 'refused' },
      { instanceId: 'u', state: 'unknown' },
    ]);
    expect(reply).toEqual({
      resultCode: '000000',
      resultMsg: 'success',
      info: [
        { instanceId: 'f', appInfo: access },
        { instanceId: 'a', appInfo: access },
      ],
    });
  });

  test('answers an id that was asked twice once', () => {
    const row = { instanceId: 'a', state: 'active', access } as const;
    expect(replyToQuery([row, { ...row, instanceId: 'b' }, row]).info).toEqual([
      { instanceId: 'a', appInfo: access },
      { instanceId: 'b', appInfo: access },
    ]);
  });

  test('shows an instance whose access data went to the buyer by other ways without appInfo', () => {
    expect(replyToQuery([{ instanceId: 'a', state: 'active' }]).info).toEqual([
      { instanceId: 'a' },
    ]);
  });

  test.each<[('pending' | 'released' | 'refused' | 'unknown')[], ResultCode]>([
    [['pending'], '000004'],
    [['unknown', 'pending', 'released'], '000004'],
    [['released'], '000003'],
    [['refused'], '000003'],
    [['unknown'], '000003'],
    [['unknown', 'released', 'refused'], '000003'],
    [[], '000003'],
  ])('of %j alone is %s without info', (states, resultCode) => {
    const reply = replyToQuery(states.map((state, at) => ({ instanceId: `i-${at}`, state })));
    expect(reply.resultCode).toBe(resultCode);
    expect('info' in reply).toBe(false);
  });
});

describe('an event that is', () => {
  const kinds = ['renewed', 'frozen', 'unfrozen', 'upgraded', 'released'] as const;
  test.each(kinds)('%s is answered by what became of it', (kind) => {
    expect(replyToEvent('accepted', kind).resultCode).toBe('000000');
    expect(replyToEvent('duplicate', kind).resultCode).toBe('000000');
    expect(replyToEvent('unknown', kind).resultCode).toBe('000003');
    expect(replyToEvent('released', kind).resultCode).toBe(
      kind === 'released' ? '000000' : '000003',
    );
  });
});

test('a change check allows, does not know, or refuses in the rule’s own words', () => {
  expect(replyToChangeCheck('allowed')).toEqual({ resultCode: '000000', resultMsg: 'success' });
  expect(replyToChangeCheck('unknown').resultCode).toBe('000003');
  expect(replyToChangeCheck({ refused: '12 users are more than 10' })).toEqual({
    resultCode: '000005',
    resultMsg: '12 users are more than 10',
  });
});

describe('resultMsg', () => {
  test('is never missing, and the table’s words where there are no others', () => {
    expect(refusal('000002')).toEqual({
      resultCode: '000002',
      resultMsg: 'request parameter invalid',
    });
    expect(refusal('000002', 'nonce is missing').resultMsg).toBe('nonce is missing');
  });

  test('is cut to 255 characters, and never through a pair', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 400 }), (message) => {
        const { resultMsg } = refusal('000005', message);
        expect(resultMsg.length).toBeLessThanOrEqual(255);
        expect(message.startsWith(resultMsg)).toBe(true);
      }),
    );
    expect(refusal('000005', `${'x'.repeat(254)}😀`).resultMsg).toBe('x'.repeat(254));
    expect(refusal('000005', `${'x'.repeat(253)}😀y`).resultMsg).toBe(`${'x'.repeat(253)}😀`);
  });
});

describe('the text that is sent', () => {
  test('has its keys in the protocol’s order and non-ASCII as escapes', () => {
    const reply = {
      ...replyToQuery([
        {
          instanceId: 'i-1',
          state: 'active',
          access: { memo: '张三😀', password: 'p"\\', frontEndUrl: 'https://t.example.com/' },
        },
      ]),
      instanceId: 'i-9',
    };
    expect(serializeReply(reply)).toBe(
      String.raw`{"resultCode":"000000","resultMsg":"success","instanceId":"i-9","info":[{"instanceId":"i-1","appInfo":{"frontEndUrl":"https://t.example.com/","password":"p\"\\","memo":"\u5f20\u4e09\ud83d\ude00"}}]}`,
    );
  });

  test('has no key for what is not there', () => {
    expect(serializeReply(refusal('000001'))).toBe(
      '{"resultCode":"000001","resultMsg":"authentication failed"}',
    );
    expect(serializeReply(replyToOrder({ state: 'pending' }, 'i-1'))).toBe(
      '{"resultCode":"000004","resultMsg":"request in process","instanceId":"i-1"}',
    );
  });

  test('carries nothing that merely rides along in access data', () => {
    const sealed = { ...access, internalNote: 'not for buyers' };
    const text = serializeReply(
      replyToQuery([{ instanceId: 'i', state: 'active', access: sealed }]),
    );
    expect(text).not.toContain('internalNote');
  });

  test('is ASCII and reads back as the same reply', () => {
    fc.assert(
      fc.property(
        fc.string({ unit: 'binary' }),
        fc.string({ unit: 'grapheme' }),
        (resultMsg, memo) => {
          const reply = {
            ...replyToQuery([{ instanceId: 'i', state: 'active', access: { ...access, memo } }]),
            resultMsg,
          };
          const text = serializeReply(reply);
          expect(text).toMatch(/^[\x20-\x7f]*$/);
          expect(JSON.parse(text)).toEqual(reply);
        },
      ),
    );
  });
});

describe('access data', () => {
  const longest = {
    frontEndUrl: 'f'.repeat(512),
    adminUrl: 'a'.repeat(512),
    userName: 'u'.repeat(128),
    password: 'p'.repeat(128),
    memo: 'm'.repeat(1024),
  };

  test('may be as long as the marketplace takes it', () => {
    const read: AccessData = accessDataSchema.parse(longest);
    expect(read).toEqual(longest);
  });

  test.each(['frontEndUrl', 'adminUrl', 'userName', 'password', 'memo'] as const)(
    'with one character more in %s is refused',
    (name) => {
      const tooLong = { ...longest, [name]: `${longest[name]}x` };
      expect(accessDataSchema.safeParse(tooLong).success).toBe(false);
    },
  );

  test('is measured as Java measures it: a pair is two', () => {
    const pairs = (count: number) => ({ ...access, userName: '😀'.repeat(count) });
    expect(accessDataSchema.safeParse(pairs(64)).success).toBe(true);
    expect(accessDataSchema.safeParse(pairs(65)).success).toBe(false);
  });

  test('needs an address, and takes null or the empty text of the others as none', () => {
    expect(accessDataSchema.safeParse({}).success).toBe(false);
    expect(accessDataSchema.safeParse({ frontEndUrl: '' }).success).toBe(false);
    expect(accessDataSchema.safeParse({ frontEndUrl: null }).success).toBe(false);
    expect(accessDataSchema.parse({ ...access, adminUrl: null, memo: '', other: 1 })).toEqual(
      access,
    );
  });
});
