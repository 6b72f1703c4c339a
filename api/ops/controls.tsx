import { type Context, Hono } from 'hono';
import { bodyLimit } from 'hono/body-limit';
import type { Database } from '../../db/client.ts';
import type { Logger } from '../../runtime/logger.ts';
import { createBoundedRead } from '../bounded-read.ts';
import { renderPage } from './page.tsx';
import { paths } from './paths.ts';
import { type PausableQueue, pauseQueue } from './pause-queue.ts';
import type { OpsEnv } from './session.ts';
import type { Words } from './words.ts';

type QueueState = { name: string; state: 'paused' | 'running' | 'unknown' };

/**
 * The page that pauses and resumes queues, and logs out: Bull Board hides its own buttons on queues
 * that are read-only otherwise.
 */
export function createControls(options: {
  db: Database;
  queues: readonly PausableQueue[];
  log: Logger;
  now?: () => number;
}): Hono<OpsEnv> {
  const { db, queues, log, now = Date.now } = options;
  const onError = (error: unknown) => log.warn({ err: error }, 'queue.unanswered');
  const readers = queues.map((queue) => ({
    name: queue.name,
    isPaused: createBoundedRead({
      read: () => queue.isPaused(),
      timeoutMs: 1_000,
      cacheMs: 0,
      now,
      onError,
    }),
  }));
  const readStates = (): Promise<QueueState[]> =>
    Promise.all(
      readers.map(async ({ name, isPaused }) => {
        const answer = await isPaused();
        return {
          name,
          state: answer === 'unavailable' ? 'unknown' : answer ? 'paused' : 'running',
        };
      }),
    );

  const app = new Hono<OpsEnv>();
  app.get(paths.controls, async (c) => renderControls(c, await readStates()));

  app.post(paths.controls, bodyLimit({ maxSize: 4_096 }), async (c) => {
    const form = await c.req.parseBody();
    const queue = queues.find((q) => q.name === form['queue']);
    const act = form['act'];
    if (!queue || (act !== 'pause' && act !== 'resume')) {
      return c.json({ message: 'expected the name of a queue, and act = pause or resume' }, 400);
    }
    const actor = c.get('operator').name;
    try {
      await pauseQueue({ db, actor }, queue, act === 'pause');
    } catch (error) {
      onError(error);
      return renderControls(c, await readStates(), true);
    }
    return c.redirect(paths.controls, 303);
  });
  return app;
}

function renderControls(c: Context<OpsEnv>, states: QueueState[], hasFailed = false) {
  const page = ({ controls }: Words) => ({
    heading: controls.heading,
    content: () => (
      <>
        <p class="soft">{controls.lead}</p>
        {hasFailed ? (
          <p class="note" role="alert">
            {controls.failed}
          </p>
        ) : null}
        <table>
          <thead>
            <tr>
              <th scope="col">{controls.queue}</th>
              <th scope="col">{controls.state}</th>
              <th scope="col" class="end">
                {controls.act}
              </th>
            </tr>
          </thead>
          <tbody>
            {states.map(({ name, state }) => (
              <tr>
                <td>{name}</td>
                <td>{controls[state]}</td>
                <td class="end">
                  <form method="post" action={paths.controls}>
                    <input type="hidden" name="queue" value={name} />
                    <button
                      class="quiet"
                      name="act"
                      value={state === 'paused' ? 'resume' : 'pause'}
                      disabled={state === 'unknown'}
                      aria-label={`${state === 'paused' ? controls.resume : controls.pause}: ${name}`}
                    >
                      {state === 'paused' ? controls.resume : controls.pause}
                    </button>
                  </form>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
        <div class="bar">
          <a href={paths.queues}>{controls.back}</a>
          <span class="soft">{controls.loggedInAs(c.get('operator').name)}</span>
          <form method="post" action={paths.logout}>
            <button class="quiet">{controls.logout}</button>
          </form>
        </div>
      </>
    ),
  });
  return renderPage(c, paths.stylesheet, page, hasFailed ? 503 : 200);
}
