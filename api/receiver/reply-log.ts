import { createHash } from 'node:crypto';
import type { Logger } from 'pino';
import type { Database } from '../../db/client.ts';
import { type RepeatedReply, writeReplies } from '../../db/replies.ts';

export type ReplyLog = {
  record(reply: {
    instanceIds: readonly number[];
    activity: string;
    resultCode: string;
    body: Buffer;
    at: Date;
  }): void;
  stop(): Promise<void>;
};

const flushEveryMs = 1_000;
const keptMax = 20_000;

/**
 * What the marketplace was answered, written behind the answer once a second. It polls, so equal
 * answers in a row are counted, not listed. Losing a second of it in a crash loses no promise.
 */
export function createReplyLog(db: Database, log: Pick<Logger, 'warn'>): ReplyLog {
  let replies = new Map<string, Counted[]>();
  let kept = 0;
  let writing: Promise<void> = Promise.resolve();

  async function flush(): Promise<void> {
    if (kept === 0) return;
    const rows = [...replies.values()].flat().map(toRow);
    replies = new Map();
    kept = 0;
    await writeReplies(db.pool, rows).catch((error: unknown) => {
      log.warn({ err: error, rows: rows.length }, 'replies.not_written');
    });
  }

  const timer = setInterval(() => {
    writing = writing.then(flush);
  }, flushEveryMs);
  timer.unref();

  return {
    record({ instanceIds, activity, resultCode, body, at }) {
      for (const instanceId of instanceIds) {
        const key = `${instanceId}/${activity}`;
        const said = replies.get(key) ?? [];
        const repeated = said.find((one) => one.body.equals(body));
        if (repeated) {
          repeated.times += 1;
          repeated.lastAt = at;
        } else if (kept < keptMax) {
          kept += 1;
          said.push({ instanceId, activity, resultCode, body, firstAt: at, lastAt: at, times: 1 });
          replies.set(key, said);
        }
      }
    },
    async stop() {
      clearInterval(timer);
      await writing;
      await flush();
    },
  };
}

type Counted = Omit<RepeatedReply, 'bodyHash'> & { body: Buffer };

/** Behind the answer, not on its way. */
function toRow({ body, ...counted }: Counted): RepeatedReply {
  return { ...counted, bodyHash: createHash('sha256').update(body).digest() };
}
