// The comparisons with which the story ends: the ledger's fold against what others hold.
import type { Ledger } from '../ledger.ts';
import type { BuyTiming, InstanceInfo, Marketplace } from '../marketplace.ts';
import type { BackendInstance } from '../seller-backend.ts';
import { untilStored } from '../waiting.ts';

/** Asks for all instances of the ledger, 100 ids a call; what came back, by id. */
export async function fetchInfo(
  market: Marketplace,
  timing: BuyTiming = { retryEveryMs: 100, deadlineMs: 5_000 },
): Promise<Map<string, InstanceInfo>> {
  const ids = market.ledger.instanceIds();
  const found = new Map<string, InstanceInfo>();
  for (let from = 0; from < ids.length; from += 100) {
    const some = ids.slice(from, from + 100);
    const reply = await untilStored(() => market.queryInstance(some), timing);
    for (const info of reply.info ?? []) found.set(info.instanceId, info);
  }
  return found;
}

/**
 * Every instance that should exist gives access data, no other does; no two give the same; and none
 * gives other data than its buyer saw first. Lists what is not so.
 */
export function compareAccessData(
  ledger: Ledger,
  info: ReadonlyMap<string, InstanceInfo>,
  firstSeen: ReadonlyMap<string, InstanceInfo>,
): string[] {
  const problems: string[] = [];
  const seen = new Map<string, string>();
  for (const instanceId of ledger.instanceIds()) {
    const { exists } = ledger.expectedState(instanceId);
    const appInfo = info.get(instanceId)?.appInfo;
    if (exists !== info.has(instanceId)) {
      problems.push(`${instanceId} ${exists ? 'has no' : 'still has'} access data`);
    }
    if (!exists || !info.has(instanceId)) continue;
    if (!appInfo?.frontEndUrl || !appInfo.userName || !appInfo.password) {
      problems.push(`${instanceId} gives incomplete access data`);
      continue;
    }
    const first = firstSeen.get(instanceId)?.appInfo;
    if (first && JSON.stringify(first) !== JSON.stringify(appInfo)) {
      problems.push(`${instanceId} gives other access data than at first`);
    }
    for (const text of [`password ${appInfo.password}`, `url ${appInfo.frontEndUrl}`]) {
      const other = seen.get(text);
      if (other !== undefined) problems.push(`${instanceId} and ${other} share access data`);
      seen.set(text, instanceId);
    }
  }
  const known = new Set(ledger.instanceIds());
  for (const id of info.keys()) if (!known.has(id)) problems.push(`${id} was never bought`);
  return problems;
}

/** The backend's instances against the ledger's fold: state for state, and each made just once. */
export function compareWithBackend(
  ledger: Ledger,
  instances: ReadonlyMap<string, BackendInstance>,
): string[] {
  const problems: string[] = [];
  const known = new Set(ledger.instanceIds());
  for (const id of instances.keys()) if (!known.has(id)) problems.push(`${id} was never bought`);
  for (const instanceId of known) {
    const expected = ledger.expectedState(instanceId);
    const actual = instances.get(instanceId);
    const isThere = actual?.exists ?? false;
    if (isThere !== expected.exists) {
      problems.push(`${instanceId} ${isThere ? 'is still' : 'is not'} at the backend`);
    }
    if (actual && (actual.created > 1 || actual.deleted > 1)) {
      problems.push(`${instanceId} was made ${actual.created} and dropped ${actual.deleted} times`);
    }
    if (!actual || !isThere || !expected.exists) continue;
    if (actual.desired['exists'] !== true) problems.push(`${instanceId} is there but not wanted`);
    if (actual.desired['frozen'] !== expected.frozen) {
      problems.push(`${instanceId} should be ${expected.frozen ? 'frozen' : 'serving'}`);
    }
    if (timeOf(actual.desired['expiresAt']) !== timeOf(expected.expiresAt)) {
      problems.push(`${instanceId} should end at ${expected.expiresAt ?? 'no known time'}`);
    }
  }
  return problems;
}

function timeOf(value: unknown): number | null {
  return typeof value === 'string' ? Date.parse(value) : null;
}
