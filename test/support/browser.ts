import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { type Browser, type BrowserContext, type BrowserContextOptions, type Page, chromium } from "playwright-core";
import { hangMs } from "./patience.ts";
import { afterAll, afterEach, beforeAll, describe, inject } from "vitest";

/** Opens a page in a browser profile that has nothing of another test; the pages of one test share it. */
export type OpenPage = () => Promise<Page>;

/** `describe` whose tests have a Chromium; skipped, naming the remedy, where there is none. */
export function describeWithBrowser(name: string, body: (openPage: OpenPage) => void): void {
  const found = inject("chromium");
  if ("remedy" in found) {
    describe.skip(`${name} (to run: ${found.remedy})`, () => {
      body(() => Promise.reject(new Error(found.remedy)));
    });
    return;
  }
  describe(name, () => {
    body(useBrowser(found.endpoint));
  });
}

/** Keeps a picture of a page in `SCREENSHOTS_DIR`, where that is set. */
export async function screenshot(page: Page, name: string): Promise<void> {
  const folder = process.env["SCREENSHOTS_DIR"];
  if (!folder) return;
  await mkdir(folder, { recursive: true });
  await page.screenshot({ path: join(folder, `${name}.png`), fullPage: true });
}

/** A new profile. It has the tests' time limit in place of Playwright's own ones, which say nothing about the broker. */
export async function newProfile(browser: Browser, options: BrowserContextOptions = {}): Promise<BrowserContext> {
  const context = await browser.newContext(options);
  context.setDefaultTimeout(hangMs);
  return context;
}

function useBrowser(endpoint: string): OpenPage {
  let browser: Browser | undefined;
  let context: BrowserContext | undefined;
  beforeAll(async () => {
    browser = await chromium.connect(endpoint, { timeout: hangMs });
    context = await newProfile(browser);
    await context.newPage(); // keeps the process that shows pages, whose start is more work than most tests
  });
  afterEach(async () => {
    const [, ...opened] = context?.pages() ?? [];
    await Promise.all(opened.map(async (page) => await page.close()));
    await context?.clearCookies(); // the broker's pages leave nothing else behind
  });
  afterAll(async () => {
    await browser?.close();
  });
  return async () => {
    if (!context) throw new Error("the browser starts before the first test: open pages inside tests");
    return await context.newPage();
  };
}
