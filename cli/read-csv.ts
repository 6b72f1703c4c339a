/** One record of a CSV file: its fields, and the line of the file on which it begins. */
export type CsvRecord = { line: number; fields: string[] };

/** The file is no CSV from this line on; nothing behind it can be read. */
export class CsvError extends Error {
  override readonly name = 'CsvError';
  readonly line: number;

  constructor(line: number, problem: string) {
    super(`line ${line}: ${problem}`);
    this.line = line;
  }
}

/** A quote that is never closed must not take the rest of a large file into memory. */
const recordLengthMax = 1024 * 1024;

/**
 * Reads CSV as RFC 4180 has it (commas, quotes, quotes doubled inside, line breaks inside quotes),
 * with or without a byte order mark, lines ended by LF, CR LF or CR. Holds one record at a time. Empty lines
 * are left out.
 *
 * @param chunks bytes of UTF-8, cut anywhere
 * @throws CsvError that names the line and quotes nothing
 */
export async function* readCsv(
  chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
): AsyncGenerator<CsvRecord> {
  // Leaves a byte order mark out by itself.
  const decoder = new TextDecoder('utf-8', { fatal: true });
  const parser = createParser();
  for await (const chunk of chunks) yield* parser.read(decode(chunk));
  yield* parser.read(decode());
  yield* parser.end();

  function decode(chunk?: Uint8Array): string {
    try {
      return chunk === undefined ? decoder.decode() : decoder.decode(chunk, { stream: true });
    } catch {
      throw new CsvError(parser.line(), 'the file is not UTF-8');
    }
  }
}

type State = 'start of field' | 'plain' | 'quoted' | 'behind quote';

function createParser() {
  let state: State = 'start of field';
  let fields: string[] = [];
  let field = '';
  let length = 0;
  let line = 1;
  let beganAt = 1;
  let afterReturn = false;

  function endField(): void {
    fields.push(field);
    field = '';
    state = 'start of field';
  }

  function* endRecord(): Generator<CsvRecord> {
    const isEmpty = fields.length === 0 && field === '' && state === 'start of field';
    if (!isEmpty) {
      endField();
      yield { line: beganAt, fields };
    }
    fields = [];
    length = 0;
  }

  function take(text: string): void {
    length += text.length;
    if (length > recordLengthMax) {
      throw new CsvError(beganAt, 'the record is longer than a million characters');
    }
    field += text;
  }

  return {
    line: () => line,

    *read(text: string): Generator<CsvRecord> {
      let at = 0;
      while (at < text.length) {
        const char = text[at] ?? '';
        if (afterReturn && char === '\n') {
          // Of CR LF the CR has ended the line; inside quotes both belong to the field.
          if (state === 'quoted') take(char);
          afterReturn = false;
          at += 1;
          continue;
        }
        afterReturn = char === '\r';
        if (char === '\n' || char === '\r') {
          line += 1;
          if (state === 'quoted') {
            take(char);
          } else {
            yield* endRecord();
            beganAt = line;
          }
          at += 1;
          continue;
        }
        switch (state) {
          case 'start of field':
            if (char === '"') state = 'quoted';
            else if (char === ',') endField();
            else {
              state = 'plain';
              continue;
            }
            at += 1;
            break;
          case 'plain': {
            if (char === ',') {
              endField();
              at += 1;
              break;
            }
            if (char === '"') throw new CsvError(line, 'a quote stands in the middle of a field');
            const to = endOfRun(text, at, plainEnd);
            take(text.slice(at, to));
            at = to;
            break;
          }
          case 'quoted': {
            if (char === '"') {
              state = 'behind quote';
              at += 1;
              break;
            }
            const to = endOfRun(text, at, quotedEnd);
            take(text.slice(at, to));
            at = to;
            break;
          }
          case 'behind quote':
            if (char === '"') {
              take('"');
              state = 'quoted';
            } else if (char === ',') endField();
            else throw new CsvError(line, 'something stands between a closing quote and the comma');
            at += 1;
            break;
        }
      }
    },

    *end(): Generator<CsvRecord> {
      if (state === 'quoted') throw new CsvError(beganAt, 'a quote is never closed');
      yield* endRecord();
    },
  };
}

const plainEnd = /[",\r\n]/g;
const quotedEnd = /["\r\n]/g;

function endOfRun(text: string, from: number, end: RegExp): number {
  end.lastIndex = from;
  return end.exec(text)?.index ?? text.length;
}
