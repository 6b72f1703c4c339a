import { createConnection } from 'node:net';

export type HttpConnection = {
  /** Sends one request and reads its answer; the next one only after that. */
  send(request: string, onAnswer: (answer: HttpAnswer) => void): void;
  isFree(): boolean;
  close(): void;
};

/** 'broken': the connection ended before an answer came. */
export type HttpAnswer = { resultCode: string } | 'broken';

/**
 * One kept connection that speaks just enough HTTP/1.1 for the answers of the peers, so that the
 * generator leaves the processor to those it measures. A broken one is opened anew.
 */
export function openHttpConnection(port: number): HttpConnection {
  let waiting: ((answer: HttpAnswer) => void) | undefined;
  let received = '';
  let isClosed = false;
  let socket = connect();

  function connect() {
    const opened = createConnection({ port, host: '127.0.0.1', noDelay: true });
    opened.setEncoding('latin1');
    opened.on('data', (chunk) => onData(String(chunk)));
    opened.on('error', () => undefined);
    opened.on('close', () => {
      if (isClosed) return;
      received = '';
      socket = connect();
      finish('broken');
    });
    return opened;
  }

  function onData(chunk: string): void {
    received = received === '' ? chunk : received + chunk;
    const headEnd = received.indexOf('\r\n\r\n');
    if (headEnd < 0) return;
    const lengthAt = received.search(/content-length: /i);
    if (lengthAt < 0 || lengthAt > headEnd) throw new Error('an answer without Content-Length');
    const sizeBytes = Number.parseInt(received.slice(lengthAt + 16, lengthAt + 26), 10);
    if (received.length < headEnd + 4 + sizeBytes) return;
    const codeAt = received.indexOf('"resultCode":"', headEnd);
    const resultCode =
      codeAt < 0 ? `HTTP ${received.slice(9, 12)}` : received.slice(codeAt + 14, codeAt + 20);
    received = '';
    finish({ resultCode });
  }

  function finish(answer: HttpAnswer): void {
    const onAnswer = waiting;
    waiting = undefined;
    onAnswer?.(answer);
  }

  return {
    send(request, onAnswer) {
      waiting = onAnswer;
      socket.write(request, 'latin1');
    },
    isFree: () => waiting === undefined,
    close() {
      isClosed = true;
      socket.destroy();
    },
  };
}
