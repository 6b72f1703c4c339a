import type { Database } from '../../db/client.ts';
import { readOrderHistory } from '../../db/order-history.ts';
import { tryTenantLogin } from '../../db/tenant-login.ts';
import { tenantsUrlBeside } from '../../db/tenants.ts';
import { redrive } from '../../operations/redrive.ts';
import type { AppInfo } from '../../simulator/marketplace.ts';
import { type Progress, type StoryReport, playStory } from '../../simulator/scenarios.ts';
import type { SellerBackend } from '../../simulator/seller-backend.ts';
import { describeFailure } from '../describe-failure.ts';
import type { DemoAccounts } from './demo-accounts.ts';
import type { DemoSystem } from './start-demo-system.ts';

/** Plays the story against the real processes; `redrivenOrder` is worth a look afterwards. */
export async function playDemo(demo: {
  system: DemoSystem;
  db: Database;
  accounts: DemoAccounts;
  sellerBackend: SellerBackend;
  actor: string;
  onProgress: (progress: Progress) => void;
}): Promise<{ report: StoryReport; redrivenOrder: string | undefined }> {
  const { system, db, accounts, sellerBackend, actor } = demo;
  const tenantsUrl = tenantsUrlBeside(system.databaseUrl);
  let redrivenOrder: string | undefined;
  const report = await playStory({
    products: { tenants: accounts.tenants, backend: accounts.backend },
    sellerBackend,
    killWorkers: system.killWorkers,
    async redrive(order) {
      const reason = 'the backend takes this order now';
      const outcome = await inWords(redrive({ db, actor }, { scope: { order }, reason }));
      if (outcome.kind !== 'redriven') throw new Error(outcome.kind);
      redrivenOrder = order;
    },
    async showOrder(orderId) {
      const { instances } = await inWords(readOrderHistory(db, orderId));
      return instances[0];
    },
    logIn: (appInfo) => logIn(tenantsUrl, appInfo),
    onProgress: demo.onProgress,
  });
  return { report, redrivenOrder };
}

/** Opens the page of the access data, as a buyer does first, and connects with the rest of it. */
async function logIn(tenantsUrl: string, appInfo: AppInfo): Promise<boolean> {
  const { frontEndUrl = '', userName = '', password = '' } = appInfo;
  const page = await fetch(frontEndUrl);
  const text = await page.text();
  if (page.status !== 200 || !text.includes(new URL(tenantsUrl).port)) {
    throw new Error(`the page of a tenant answers ${page.status} without its address`);
  }
  return tryTenantLogin(tenantsUrl, { user: userName, password });
}

/** The report is for people, and the database's own errors quote whole statements. */
async function inWords<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    throw new Error(describeFailure(error).message, { cause: error });
  }
}
