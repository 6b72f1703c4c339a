// The steps in which something breaks: the backend, an order, the workers.
import { randomUUID } from 'node:crypto';
import { isAcknowledged, type Order, type Reply } from '../marketplace.ts';
import { untilStored, waitFor } from '../waiting.ts';
import {
  buyOne,
  describe,
  pace,
  reportAll,
  row,
  sendTwice,
  waitForEquality,
  type Step,
  type Story,
} from './context.ts';
import type { StoryRow } from './report.ts';

export async function outage(story: Story, step: Step): Promise<StoryRow[]> {
  const { sellerBackend } = story.input;
  const failuresBefore = sellerBackend.requests.filter((one) => one.status === 500).length;
  sellerBackend.setMode({ kind: 'fail' });
  const serving = story.backend.orders.slice(15, 19);
  const held = [
    ...Array.from({ length: 6 }, () => buyOne(story, story.backend, story.nextOrder(), step)),
    ...serving.map((order) =>
      sendTwice(
        story.backend,
        { activity: 'updateInstanceStatus', instanceId: order.instanceId, status: 'FREEZE' },
        story.timing,
        step,
      ),
    ),
  ];
  const others = Array.from({ length: 3 }, () =>
    buyOne(story, story.tenants, story.nextOrder(), step),
  );
  const failures = await waitFor(() => {
    const seen = sellerBackend.requests.filter((one) => one.status === 500).length - failuresBefore;
    return seen >= 5 ? seen : undefined;
  }, pace(story));
  if (failures === undefined) step.problem('the failing backend was not called five times');
  // One product's outage is not another's: these are made while the backend is still down.
  const unaffected = (await Promise.all(others)).filter(Boolean).length;
  if (unaffected < others.length) step.problem('an outage of one product held up another');
  step.count(
    'failures',
    sellerBackend.requests.filter((one) => one.status === 500).length - failuresBefore,
  );
  sellerBackend.setMode(
    { kind: 'throttle', retryAfterSeconds: 1, times: 1 },
    { kind: 'lost answer', times: 2 },
    { kind: 'reset', times: 1 },
  );
  await Promise.all(held);
  const different = await waitForEquality(story);
  reportAll(different, step);
  return [
    row('Backend down, then back', step, {
      applied: (step.counters['ready'] ?? 0) + (step.counters['events'] ?? 0),
      proven: different.length === 0 && `${step.counters['failures'] ?? 0} failures, nothing lost`,
    }),
  ];
}

export async function refusals(story: Story, step: Step): Promise<StoryRow[]> {
  const { sellerBackend, redrive, showOrder } = story.input;
  const { market } = story.backend;
  const [dead, soldOut] = [story.nextOrder(), story.nextOrder()];
  sellerBackend.refuseOrder(dead.orderId, { status: 400 });
  sellerBackend.refuseOrder(soldOut.orderId, { status: 422, resultCode: '000106' });
  const first = await acknowledge(story, dead, step);
  const sold = await acknowledge(story, soldOut, step);
  const wasRefused = (order: Order): true | undefined =>
    sellerBackend.requests.some(
      (one) => one.status >= 400 && one.status < 500 && one.orderIds.includes(order.orderId),
    ) || undefined;
  for (const order of [dead, soldOut]) {
    if (!(await waitFor(() => wasRefused(order), pace(story)))) {
      step.problem(`the backend was never asked about ${order.orderId}`);
    }
  }

  // A refusal with a code is the seller's last word: the marketplace is told so when it asks again.
  const told = await waitFor(async () => {
    const reply = await market.newInstance(soldOut);
    step.count('sent');
    return reply.resultCode === '000106' ? reply : undefined;
  }, pace(story));
  if (told) step.count('refused');
  else step.problem('an order that the backend refused with 000106 was not answered so');
  const soldId = sold.instanceId ?? '';
  const gone = await untilStored(() => market.queryInstance(soldId), story.timing);
  step.count('sent');
  if (gone.resultCode !== '000003') step.problem(`a refused id was answered ${describe(gone)}`);

  // A refusal without one is a fault: the order waits, under its id, for someone to mend it.
  const waiting = await untilStored(() => market.newInstance(dead), story.timing);
  step.count('sent');
  if (waiting.resultCode === '000004' && waiting.instanceId === first.instanceId) {
    step.count('acknowledged');
  } else step.problem(`a dead letter's re-send was answered ${describe(waiting)}`);
  if (showOrder && (await showOrder(dead.orderId)) === undefined) {
    step.problem('the operator cannot see the order of the dead letter');
  }
  const callsBefore = sellerBackend.requests.filter((one) =>
    one.orderIds.includes(dead.orderId),
  ).length;
  sellerBackend.acceptOrder(dead.orderId);
  let lastError = '';
  const redriven = await waitFor(async () => {
    try {
      await redrive(dead.orderId);
      return true;
    } catch (error) {
      lastError = error instanceof Error ? error.message : String(error);
      return undefined;
    }
  }, pace(story));
  if (redriven) step.count('redriven');
  else step.problem(`the dead letter could not be redriven: ${lastError}`);
  await buyOne(story, story.backend, dead, step);
  if (callsBefore !== 1) step.problem(`a permanent refusal was tried ${callsBefore} times`);
  return [
    row('Refused for good; redriven', step, {
      applied: step.counters['ready'] ?? 0,
      proven: redriven === true && told !== undefined && 'one answers 000106, one was mended',
    }),
  ];
}

export async function kill(story: Story, step: Step): Promise<StoryRow[]> {
  const { sellerBackend, killWorkers } = story.input;
  const burst = Math.max(6, Math.ceil((story.input.purchasesPerProduct ?? 40) / 2));
  // Slow enough that the kill finds effects done and not yet recorded.
  sellerBackend.setMode({ kind: 'late', delayMs: 250 });
  const callsBefore = sellerBackend.requests.length;
  const bought = [story.tenants, story.backend].flatMap((side) =>
    Array.from({ length: burst }, () => buyOne(story, side, story.nextOrder(), step)),
  );
  const isUnderway = await waitFor(() => sellerBackend.requests.length > callsBefore || undefined, {
    ...pace(story),
    everyMs: 5,
  });
  if (!isUnderway) step.problem('no work was under way when the workers were to be killed');
  const killed = await killWorkers();
  step.count('killed', killed);
  if (killed < 1) step.problem('no worker was killed');
  const ready = (await Promise.all(bought)).filter(Boolean).length;
  sellerBackend.setMode({ kind: 'ok' });
  return [
    row('Workers killed in a burst', step, {
      applied: ready,
      proven: ready === bought.length && killed > 0 && `${killed} killed, every order ready`,
    }),
  ];
}

async function acknowledge(story: Story, order: Order, step: Step): Promise<Reply> {
  const reply = await story.backend.market.sendUntilAcknowledged(
    () => ({ activity: 'newInstance', businessId: randomUUID(), ...order }),
    story.timing,
  );
  step.count('sent');
  if (isAcknowledged(reply)) step.count('acknowledged');
  else step.problem(`${order.orderId} was answered ${describe(reply)}`);
  return reply;
}
