import type { Browser, BrowserContextOptions, Page } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { describeWithBrowser, newProfile, screenshot } from "../support/browser.ts";
import { setConsentStage, type ConsentStage } from "../support/consent-stage.ts";
import { freePort } from "../support/free-port.ts";

let stage: ConsentStage;
let publicUrl: string;

beforeAll(async () => {
  const port = await freePort();
  publicUrl = `http://localhost:${port}`;
  // The same server under another name: another site to the browser, as a provider is.
  const authorizeOrigin = `http://127.0.0.1:${port}`;
  stage = await setConsentStage({ publicUrl, authorizeOrigin, returnOrigins: ["https://shop.example"] });
  await stage.app.listen({ host: "127.0.0.1", port });
});
afterAll(async () => await stage.close());

async function makeLink(given: { provider?: string; manual?: boolean; connectionName?: string } = {}): Promise<string> {
  const { manual = false, ...connection } = given;
  const { connectionId } = await stage.connect({ scopes: ["read", "write"], ...connection });
  const returnTo = "https://shop.example/done";
  return (await stage.createLink({ connectionId, manual, returnTo })).url;
}

/** The browser's complaints. Blocked styles, forms and frames show only here. */
function listen(page: Page): string[] {
  const complaints: string[] = [];
  page.on("console", (message) => complaints.push(`${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => complaints.push(error.message));
  return complaints;
}

async function heading(page: Page): Promise<string | null> {
  return await page.locator("h1").textContent();
}

describeWithBrowser("the pages of a consent", (openPage) => {
  /** A second profile in the same browser. */
  const openOther = async (options: BrowserContextOptions): Promise<Page> => {
    const browser: Browser | null = (await openPage()).context().browser();
    if (!browser) throw new Error("the page has no browser");
    return await (await newProfile(browser, options)).newPage();
  };

  test.each([true, false])(
    "lead from the link to Connected, and the browser complains of nothing (scripts: %s)",
    async (scripts) => {
      const page = await openOther({ javaScriptEnabled: scripts });
      const complaints = listen(page);
      await page.goto(await makeLink());
      await page.getByRole("button", { name: "Continue to Sandbox" }).click();
      await page.waitForURL("http://127.0.0.1:*/sandbox/authorize?**");
      await page.getByRole("button", { name: "Authorize" }).click();
      await page.waitForURL(`${publicUrl}/connected/**`);
      expect(await heading(page)).toBe("Connected");
      const back = await page.getByRole("link", { name: "Continue to shop.example" }).getAttribute("href");
      expect(back).toMatch(/^https:\/\/shop\.example\/done\?connection=acme-[0-9a-f]+&status=connected$/);
      expect(complaints).toEqual([]);
      await page.context().close();
    },
  );

  test("lead by keyboard alone from a denial back to Connected", async () => {
    const page = await openPage();
    const link = await makeLink();
    await page.goto(link);
    await page.keyboard.press("Tab");
    await page.keyboard.press("Enter");
    await page.waitForURL("http://127.0.0.1:*/sandbox/authorize?**");
    await page.keyboard.press("Tab");
    await page.keyboard.press("Tab");
    await page.keyboard.press("Enter");
    await page.waitForURL(`${publicUrl}/connected/**`);
    expect(await heading(page)).toBe("Not connected");
    await page.goto(link);
    await page.getByRole("button").click();
    await page.getByRole("button", { name: "Authorize" }).click();
    await page.waitForURL(`${publicUrl}/connected/**`);
    expect(await heading(page)).toBe("Connected");
    await page.reload();
    expect(await heading(page)).toBe("Connected");
    await page.goto(link);
    expect(await heading(page)).toBe("This link has been used");
  });

  test("keep a second browser out", async () => {
    const page = await openPage();
    const link = await makeLink();
    const other = await openOther({});
    await other.goto(link);
    await page.goto(link);
    await page.getByRole("button").click();
    await page.waitForURL("http://127.0.0.1:*/sandbox/authorize?**");
    await other.getByRole("button").click();
    expect(await heading(other)).toBe("This belongs to another browser");
    await other.context().close();
  });

  test("send no address of theirs to the provider", async () => {
    const page = await openPage();
    const referrers: (string | undefined)[] = [];
    await page.goto(await makeLink());
    page.on("request", (request) => {
      if (request.url().includes("/sandbox/authorize")) referrers.push(request.headers()["referer"]);
    });
    await page.getByRole("button").click();
    await page.waitForURL("http://127.0.0.1:*/sandbox/authorize?**");
    expect(referrers).toEqual([undefined]);
  });

  test.each(["light", "dark"] as const)(
    "are styled, and fit a narrow %s screen without scrolling sideways",
    async (colorScheme) => {
      const page = await openOther({ viewport: { width: 360, height: 740 }, colorScheme, javaScriptEnabled: true });
      const complaints = listen(page);
      const longName = `${"a".repeat(90)}-${"b".repeat(20)}-${colorScheme}`;
      const manual = await makeLink({ provider: "apicbase", manual: true });
      const pages = { consent: await makeLink(), long: await makeLink({ connectionName: longName }), manual };
      for (const [name, url] of Object.entries(pages)) {
        await page.goto(url);
        const widths = await page.evaluate(
          "[document.documentElement.scrollWidth, getComputedStyle(document.querySelector('main')).borderRadius]",
        );
        expect(widths).toEqual([360, "16px"]);
        await screenshot(page, `${name}-${colorScheme}`);
      }
      expect(complaints).toEqual([]);
      await page.context().close();
    },
  );
});
