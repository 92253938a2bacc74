import { mkdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Browser, type BrowserContext, type Page, chromium } from "playwright-core";
import { afterAll, afterEach, beforeAll, describe, inject } from "vitest";

const flags = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** Opens a page in a browser profile that no other test has used; the pages of one test share it. */
export type OpenPage = () => Promise<Page>;

/** `describe` with one Chromium for all its tests; skipped, naming the remedy, where there is none. */
export function describeWithBrowser(name: string, body: (openPage: OpenPage) => void): void {
  const found = inject("chromium");
  if ("remedy" in found) {
    describe.skip(`${name} (to run: ${found.remedy})`, () => {
      body(() => Promise.reject(new Error(found.remedy)));
    });
    return;
  }
  describe(name, () => {
    body(useBrowser(found.path));
  });
}

/** Keeps a picture of a page in `SCREENSHOTS_DIR`, or in a folder of the temporary one, and returns its path. */
export async function screenshot(page: Page, name: string): Promise<string> {
  const folder = process.env["SCREENSHOTS_DIR"] ?? join(tmpdir(), "freshet-screenshots");
  await mkdir(folder, { recursive: true });
  const path = join(folder, `${name}.png`);
  await page.screenshot({ path, fullPage: true });
  return path;
}

function useBrowser(executablePath: string): OpenPage {
  let browser: Browser | undefined;
  let context: BrowserContext | undefined;
  beforeAll(async () => {
    browser = await chromium.launch({ executablePath, headless: true, args: flags });
  });
  afterEach(async () => {
    await context?.close();
    context = undefined;
  });
  afterAll(async () => {
    await browser?.close();
  });
  return async () => {
    if (!browser) throw new Error("the browser starts before the first test: open pages inside tests");
    context ??= await browser.newContext();
    return await context.newPage();
  };
}
