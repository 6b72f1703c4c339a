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
  let replies = new Map<string, RepeatedReply>();
  let writing: Promise<void> = Promise.resolve();

  async function flush(): Promise<void> {
    if (replies.size === 0) return;
    const rows = [...replies.values()];
    replies = new Map();
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
      if (instanceIds.length === 0 || replies.size >= keptMax) return;
      const bodyHash = createHash('sha256').update(body).digest();
      for (const instanceId of instanceIds) {
        const key = `${instanceId}/${activity}/${resultCode}/${bodyHash.toString('base64')}`;
        const repeated = replies.get(key);
        if (repeated) {
          repeated.times += 1;
          repeated.lastAt = at;
        } else {
          replies.set(key, {
            instanceId,
            activity,
            resultCode,
            bodyHash,
            firstAt: at,
            lastAt: at,
            times: 1,
          });
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
