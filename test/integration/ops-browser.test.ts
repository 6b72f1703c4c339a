import { existsSync } from 'node:fs';
import { type Browser, type BrowserContext, type Page, chromium } from 'playwright-core';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { until } from '../servers/until.ts';
import { type OpsServer, operator, startOpsServer } from './ops-server.ts';

const executablePath = process.env['CHROMIUM_PATH'] ?? '/usr/bin/chromium';
const isThere = existsSync(executablePath);
if (!isThere) {
  process.stderr.write(
    `\n!!! NOT RUN: the pages in a browser, because ${executablePath} is missing (apt-get install chromium)\n\n`,
  );
}
/** A folder to look at the pages oneself. */
const screenshots = process.env['SCREENSHOTS_DIR'];

describe.skipIf(!isThere)('in a browser', () => {
  let server: OpsServer;
  let browser: Browser;
  beforeAll(async () => {
    server = await startOpsServer();
    await server.queues[0]?.add('created', { instance: 7, dispatch: 9 }, { jobId: 'look-7-9' });
    browser = await chromium.launch({
      executablePath,
      args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking'],
    });
  });
  afterAll(async () => {
    await browser?.close();
    await server?.stop();
  });

  let strangers: string[];
  let complaints: string[];
  beforeEach(() => {
    strangers = [];
    complaints = [];
  });

  async function openPage(
    options: { locale?: string; colorScheme?: 'light' | 'dark' } = {},
  ): Promise<{ page: Page; context: BrowserContext }> {
    const context = await browser.newContext({ locale: 'en-US', ...options });
    const page = await context.newPage();
    page.on('request', (request) => {
      const { protocol, origin } = new URL(request.url());
      if (protocol !== 'data:' && origin !== server.url) strangers.push(request.url());
    });
    page.on('console', (message) => {
      const text = message.text();
      if (/content.security.policy/i.test(text)) complaints.push(text);
    });
    page.on('pageerror', (error) => complaints.push(String(error)));
    return { page, context };
  }

  async function logIn(page: Page): Promise<void> {
    await page.goto(`${server.url}/ops`);
    expect(page.url()).toBe(`${server.url}/ops/login`);
    await page.fill('#name', operator.name);
    await page.fill('#password', operator.password);
    await page.click('button');
    await page.waitForURL(`${server.url}/ops/queues`);
  }

  async function shoot(page: Page, name: string): Promise<void> {
    if (screenshots !== undefined) await page.screenshot({ path: `${screenshots}/${name}.png` });
  }

  test('the board shows queue and job, asks nobody else and breaks no policy', async () => {
    for (const colorScheme of ['light', 'dark'] as const) {
      const { page, context } = await openPage({ colorScheme });
      await logIn(page);
      await page.getByText('provisioning').first().waitFor();
      await shoot(page, `board-${colorScheme}`);
      await page.goto(`${server.url}/ops/queues/queue/provisioning`);
      await page.getByText('created').first().waitFor();
      await shoot(page, `board-queue-${colorScheme}`);
      await page.goto(`${server.url}/ops/queues/queue/provisioning/look-7-9`);
      await page.getByText('dispatch:').first().waitFor();
      await shoot(page, `board-job-${colorScheme}`);
      for (const tab of ['Options', 'Logs', 'Error']) {
        await page.getByText(tab, { exact: true }).first().click();
      }
      await context.close();
    }
    expect(strangers).toEqual([]);
    expect(complaints).toEqual([]);
  });

  test("the board's dialogs break no policy and ask nobody else either", async () => {
    const { page, context } = await openPage();
    await logIn(page);
    const address = `${server.url}/ops/queues/queue/provisioning`;
    await page.goto(address);
    await page.getByText('look-7-9').first().waitFor();
    // Icons without names, so all of them.
    const buttons = page.locator('header button');
    const count = await buttons.count();
    expect(count).toBeGreaterThan(3);
    for (let i = 0; i < count; i++) {
      await page.goto(address);
      await page.getByText('look-7-9').first().waitFor();
      await buttons.nth(i).click();
      await page.waitForLoadState('networkidle');
      await shoot(page, `board-header-${i}`);
    }
    expect(strangers).toEqual([]);
    expect(complaints).toEqual([]);
    await context.close();
  });

  test('from the board one menu leads to pause, resume and log out', async () => {
    const { page, context } = await openPage();
    await logIn(page);
    await page.locator('header button').last().click();
    await page.getByText('Pause, resume, log out').waitFor();
    await shoot(page, 'board-menu');
    await context.close();
  });

  test('the board offers no button that writes to a job', async () => {
    const { page, context } = await openPage();
    await logIn(page);
    await page.goto(`${server.url}/ops/queues/queue/provisioning/look-7-9`);
    await page.getByText('dispatch:').first().waitFor();
    const labels = await page
      .locator('button, [role=menuitem]')
      .evaluateAll((buttons) =>
        buttons.map((b) => `${b.textContent ?? ''} ${b.getAttribute('aria-label') ?? ''}`),
      );
    expect(labels.join('|')).not.toMatch(
      /retry|promote|remove|clean|obliterate|add job|duplicate/i,
    );
    await context.close();
  });

  test('a queue is paused, resumed and left by hand', async () => {
    const { page, context } = await openPage();
    await logIn(page);
    await page.goto(`${server.url}/ops/controls`);
    await page.getByRole('button', { name: 'Pause: provisioning' }).click();
    await until(async () => server.queues[0]?.isPaused(), true);
    await page.getByRole('button', { name: 'Resume: provisioning' }).waitFor();
    await shoot(page, 'controls');
    await page.getByRole('button', { name: 'Resume: provisioning' }).click();
    await until(async () => server.queues[0]?.isPaused(), false);
    await page.getByRole('button', { name: 'Log out' }).click();
    await page.waitForURL(`${server.url}/ops/login`);
    await page.goto(`${server.url}/ops/queues`);
    expect(page.url()).toBe(`${server.url}/ops/login`);
    expect(strangers).toEqual([]);
    expect(complaints).toEqual([]);
    await context.close();
  });

  test('login and tenant page are readable in both languages, light and dark, from nowhere else', async () => {
    for (const locale of ['en-US', 'zh-CN']) {
      for (const colorScheme of ['light', 'dark'] as const) {
        const { page, context } = await openPage({ locale, colorScheme });
        for (const path of ['/ops/login', '/tenants/b-1']) {
          await page.goto(server.url + path);
          const look = await page.evaluate<{ ground: string; text: string }>(
            `(({ backgroundColor, color }) => ({ ground: backgroundColor, text: color }))(getComputedStyle(document.querySelector('main')))`,
          );
          expect(look.ground).not.toBe(look.text);
          expect(look.ground).toBe(
            colorScheme === 'light' ? 'rgb(255, 255, 255)' : 'rgb(27, 31, 38)',
          );
          const heading = await page.textContent('h1');
          expect(/[\u4e00-\u9fff]/.test(heading ?? '')).toBe(locale === 'zh-CN');
          await shoot(page, `${path.split('/')[1]}-${locale}-${colorScheme}`);
        }
        await context.close();
      }
    }
    expect(strangers).toEqual([]);
    expect(complaints).toEqual([]);
  });
});
