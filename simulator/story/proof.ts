// The last step: everything acknowledged is compared with what is there.
import { waitFor } from '../waiting.ts';
import { compareAccessData, fetchInfo } from './compare.ts';
import { pace, reportAll, waitForEquality, type Step, type Story } from './context.ts';
import type { StoryRow } from './report.ts';

export async function proof(story: Story, step: Step): Promise<StoryRow[]> {
  const different = await waitForEquality(story);
  reportAll(different, step);
  const rows: StoryRow[] = [];
  for (const side of [story.tenants, story.backend]) {
    const { ledger } = side.market;
    const idProblems = ledger.problems();
    const info = await fetchInfo(side.market, story.timing);
    const accessProblems = compareAccessData(ledger, info, story.firstSeen);
    reportAll([...idProblems, ...accessProblems], step);
    const ids = ledger.instanceIds();
    step.count('instances', ids.length);
    rows.push({
      what: `Access data (${side.name})`,
      sent: ids.length,
      acknowledged: ids.length,
      applied: info.size,
      proven: idProblems.length + accessProblems.length === 0 && 'as expected, distinct, unchanged',
    });
  }
  rows.push(...(await proveLogins(story, step)));
  const created = [...story.input.sellerBackend.instances.values()];
  reportAll(story.input.sellerBackend.problems, step);
  rows.push({
    what: "Seller's backend against the ledger",
    sent: story.input.sellerBackend.requests.length,
    acknowledged: story.backend.market.ledger.instanceIds().length,
    applied: created.filter((one) => one.created > 0).length,
    proven: different.length === 0 && 'equal, each made once',
  });
  rows.push(proveReplies(story, step));
  return rows;
}

async function proveLogins(story: Story, step: Step): Promise<StoryRow[]> {
  const { logIn } = story.input;
  if (!logIn) return [];
  const { ledger } = story.tenants.market;
  const tenants = ledger.instanceIds().flatMap((instanceId) => {
    const appInfo = story.firstSeen.get(instanceId)?.appInfo;
    return appInfo ? [{ instanceId, appInfo }] : [];
  });
  const wrong: string[] = [];
  for (const { instanceId, appInfo } of tenants) {
    const { exists, frozen } = ledger.expectedState(instanceId);
    const isServing = exists && !frozen;
    // Access data does not tell a frozen tenant from a serving one: a late freeze is only seen here.
    const isAsExpected = await waitFor(
      async () => (await logIn(appInfo)) === isServing || undefined,
      // Once one has waited in vain, the others have had their time too.
      wrong.length === 0 ? pace(story) : { everyMs: 1, deadlineMs: 0 },
    );
    step.count('logins');
    if (!isAsExpected) {
      wrong.push(`${instanceId} ${isServing ? 'keeps its buyer out' : 'still lets its buyer in'}`);
    }
  }
  reportAll(wrong, step);
  return [
    {
      what: 'Buyers log in to their tenants',
      sent: tenants.length,
      acknowledged: tenants.length,
      applied: tenants.length - wrong.length,
      proven: wrong.length === 0 && 'serving ones in, frozen and released ones not',
    },
  ];
}

function proveReplies({ replies }: Story, step: Step): StoryRow {
  const answered = replies.filter((reply) => reply.httpStatus === 200);
  // A refusal before any key has verified (000001, 000002) has no key to sign with.
  const owed = answered.filter((reply) => !['000001', '000002'].includes(reply.resultCode));
  const signed = owed.filter((reply) => reply.bodySignOk).length;
  if (signed < owed.length)
    step.problem(`${owed.length - signed} answers without a good Body-Sign`);
  const other = replies.length - answered.length;
  if (other > 0) step.problem(`${other} callbacks were not answered with HTTP 200`);
  // The marketplace's pages garble anything but ASCII: memos must come escaped.
  // oxlint-disable-next-line no-control-regex
  if (answered.some((reply) => /[^\u0000-\u007f]/.test(reply.rawBody))) {
    step.problem('an answer holds characters that are not escaped');
  }
  const slowest = Math.max(0, ...answered.map((reply) => reply.durationMs));
  return {
    what: 'Answers in time and signed',
    sent: replies.length,
    acknowledged: answered.length,
    applied: signed,
    proven: signed === owed.length && other === 0 && `slowest ${Math.round(slowest)} ms`,
  };
}
