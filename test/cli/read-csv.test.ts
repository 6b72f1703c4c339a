import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { CsvError, type CsvRecord, readCsv } from '../../cli/read-csv.ts';

async function read(text: string | Buffer, chunkSizeBytes = 1_000_000): Promise<CsvRecord[]> {
  const bytes = Buffer.from(text);
  const chunks: Buffer[] = [];
  for (let at = 0; at < bytes.length; at += chunkSizeBytes) {
    chunks.push(bytes.subarray(at, at + chunkSizeBytes));
  }
  const records: CsvRecord[] = [];
  for await (const record of readCsv(chunks)) records.push(record);
  return records;
}

const fieldsOf = async (text: string) => (await read(text)).map(({ fields }) => fields);

describe('a CSV file', () => {
  test.each([
    ['LF', 'a,b\n1,2\n'],
    ['CR LF', 'a,b\r\n1,2\r\n'],
    ['CR', 'a,b\r1,2\r'],
    ['no end of the last line', 'a,b\n1,2'],
    ['a byte order mark', '\uFEFFa,b\n1,2\n'],
    ['empty lines between', 'a,b\n\n\r\n1,2\n\n'],
  ])('is read with %s', async (_what, text) => {
    expect(await fieldsOf(text)).toEqual([
      ['a', 'b'],
      ['1', '2'],
    ]);
  });

  test('keeps commas, quotes and line breaks that stand inside quotes', async () => {
    expect(await fieldsOf('"a,b","say ""hi""","one\r\ntwo","",\n')).toEqual([
      ['a,b', 'say "hi"', 'one\r\ntwo', '', ''],
    ]);
  });

  test('names the line on which a record begins, whatever its fields hold', async () => {
    const records = await read('h\r\n"two\r\nlines"\r\n\r\nlast');
    expect(records.map(({ line }) => line)).toEqual([1, 2, 5]);
  });

  test.each([
    ['a quote that is never closed', 'a\n"b\nc', 2],
    ['a quote inside a field', 'a\nb"c', 2],
    ['text behind a closing quote', 'a\n"b"c', 2],
    ['bytes that are not UTF-8', Buffer.from([0x61, 0x0a, 0xff, 0xfe, 0x0a]), 1],
  ])('ends at %s and names the line', async (_what, text, line) => {
    const error = await read(text).then(
      () => undefined,
      (caught: unknown) => caught,
    );
    expect(error).toBeInstanceOf(CsvError);
    expect((error as CsvError).line).toBe(line);
  });

  test('never takes more than one record into memory', async () => {
    await expect(read(`a\n"${'x'.repeat(1_100_000)}`)).rejects.toThrow('longer than a million');
  });

  test('comes out as it was written, wherever its bytes are cut', async () => {
    const table = fc.array(
      fc.array(fc.string({ unit: fc.constantFrom('a', ',', '"', '\n', '\r', ' ', '店', '😀') }), {
        minLength: 2,
        maxLength: 4,
      }),
      { minLength: 1, maxLength: 6 },
    );
    await fc.assert(
      fc.asyncProperty(table, fc.integer({ min: 1, max: 7 }), async (rows, chunkSizeBytes) => {
        const text = rows
          .map((row) => row.map((cell) => `"${cell.replaceAll('"', '""')}"`).join(','))
          .join('\r\n');
        const records = await read(text, chunkSizeBytes);
        expect(records.map(({ fields }) => fields)).toEqual(rows);
      }),
    );
  });
});
