import { readFile, readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Page } from "playwright-core";
import { request } from "undici";
import { expect, test } from "vitest";
import { faultsOfHeaders } from "../support/answer-headers.ts";
import { BrokerApi, type TokenBody } from "../support/broker-api.ts";
import { describeWithBrowser, screenshot } from "../support/browser.ts";
import { FirstStart, freshFolder } from "../support/first-start.ts";
import { freePort } from "../support/free-port.ts";
import { aptInstall, findOnPath, mayInstall } from "../support/services/surroundings.ts";

/** With TEST_REAL_WAITS=1 the test waits for the sandbox's 90 s. Otherwise an ordered refresh takes their place. */
const waitsForReal = process.env["TEST_REAL_WAITS"] === "1";

const hasCurl = (await findOnPath("curl")) !== undefined || ((await mayInstall()) && (await aptInstall("curl")));
const hasTerminal = process.platform === "linux" && (await findOnPath("script")) !== undefined;
const remedy = hasCurl && hasTerminal ? "" : " (to run all of it: Linux with the programs curl and script)";

async function connect(page: Page, link: string): Promise<void> {
  await page.goto(link);
  await page.getByRole("button", { name: "Continue" }).click();
  await page.getByRole("button", { name: "Authorize" }).click();
  await page.waitForURL("**/connected/**");
  expect(await page.locator("h1").textContent()).toBe("Connected");
}

async function readToken(start: FirstStart): Promise<TokenBody> {
  return JSON.parse(await start.paste(start.curl)) as TokenBody;
}

async function keyIn(start: FirstStart, dataDir = "data"): Promise<string> {
  return (await readFile(join(start.folder, dataDir, "admin-key"), "utf8")).trim();
}

/** Waits for the token's own end, or orders a refresh at once. */
async function endToken(start: FirstStart, token: TokenBody): Promise<void> {
  if (waitsForReal) return await sleep(Date.parse(token.expires_at ?? "") - Date.now() + 100);
  const api = new BrokerApi(start.url, await keyIn(start));
  await api.refresh("sandbox");
  await api.close();
}

describeWithBrowser(`a first start, with nothing else on the machine${remedy}`, (openPage) => {
  test.skipIf(!hasCurl)(
    "names the file of the admin key and not the key, and prints a link that connects and a line that prints a token",
    async () => {
      const port = await freePort();
      const folder = await freshFolder();
      await using start = await FirstStart.launch(folder, { port });
      await start.ready();
      expect(start.curl).toBe(
        `curl -H "Authorization: Bearer $(cat data/admin-key)" http://localhost:${port}/tokens/sandbox`,
      );
      expect(JSON.parse(await start.paste(start.curl))).toMatchObject({ status: 409, code: "authorization_pending" });
      const key = await keyIn(start);
      expect((await stat(join(folder, "data/admin-key"))).mode & 0o777).toBe(0o600);
      expect(start.stdout).toContain(join(folder, "data/admin-key"));
      expect([await start.interrupt(), start.hasLeftovers, start.stderr]).toEqual([0, false, ""]);
      const kept = ["admin-key", "audit", "database", "encryption-key", "lock", "marks", "replica-id", "sealed-format"];
      expect((await readdir(join(folder, "data"))).sort()).toEqual(kept);

      await using second = await FirstStart.launch(folder, { port });
      await second.ready();
      expect(second.link).toMatch(/\/connect\/\S{20,}$/);
      expect([secretOf(second.link) === secretOf(start.link), second.curl]).toEqual([false, start.curl]);
      const page = await openPage();
      await connect(page, second.link ?? "");
      await screenshot(page, "first-steps-connected");
      const first = await readToken(second);
      expect([first.version, first.token_type, first.warnings]).toEqual([1, "Bearer", []]);
      await endToken(second, first);
      const next = await readToken(second);
      expect(next.version).toBe(2);
      expect(next.access_token).not.toBe(first.access_token);
      const used = await request(`${second.url}/sandbox/api/me`, {
        headers: { authorization: `Bearer ${next.access_token}` },
      });
      expect([used.statusCode, await used.body.json()]).toEqual([200, expect.objectContaining({ account: "sandbox" })]);
      expect([await second.interrupt(), second.hasLeftovers, second.stderr]).toEqual([0, false, ""]);

      await using third = await FirstStart.launch(folder, { port, terminal: hasTerminal });
      await third.ready();
      expect([third.link, third.curl, await keyIn(third)]).toEqual([null, start.curl, key]);
      expect((await readToken(third)).version).toBeGreaterThanOrEqual(2);
      expect(await third.interrupt()).toBe(0);
      for (const { stdout, stderr } of [start, second, third]) expect(stdout + stderr).not.toContain(key);
    },
  );

  test.skipIf(!hasCurl || !hasTerminal)(
    "in a terminal shows the admin key once, ends with the first steps, and goes with Ctrl-C; its line survives any folder name",
    async () => {
      const folder = await freshFolder();
      const options = { port: await freePort(), env: { DATA_DIR: "it's our data" }, terminal: true };
      await using start = await FirstStart.launch(folder, options);
      await start.ready();
      const key = await keyIn(start, "it's our data");
      expect(start.stdout.split(key)).toHaveLength(2);
      expect(start.stdout).toMatch(/^ready: Freshet [^]*Freshet is ready at/m);
      expect(JSON.parse(await start.paste(start.curl))).toMatchObject({ status: 409, code: "authorization_pending" });
      expect(await start.interrupt()).toBe(0);
    },
  );
});

describeWithBrowser("the API reference", (openPage) => {
  test("shows itself under a policy that lets it run its own scripts alone, in no frame; / leads to it, and so do the pages of wrong addresses", async () => {
    await using start = await FirstStart.launch(await freshFolder(), { port: await freePort() });
    await start.ready();
    const page = await openPage();
    const complaints: string[] = [];
    page.on("console", (message) => complaints.push(`${message.type()}: ${message.text()}`));
    page.on("pageerror", (error) => complaints.push(error.message));
    const answer = await page.goto(start.url);
    expect(new URL(page.url()).pathname).toMatch(/^\/docs/);
    const headers = answer?.headers() ?? {};
    expect(headers["content-security-policy"]).toMatch(/script-src 'self'; style-src 'self';.* form-action 'none'/);
    expect(faultsOfHeaders(headers, { publicUrl: start.url })).toEqual([]);
    await page.getByRole("heading", { name: "Freshet" }).waitFor();
    await page.locator("#operations-tokens-getToken, .opblock").first().click();
    await page.getByRole("button", { name: "Try it out" }).first().waitFor();
    const liveness = page.locator("#operations-health-getLiveness");
    await liveness.click();
    await liveness.getByRole("button", { name: "Try it out" }).click();
    await liveness.getByRole("button", { name: "Execute" }).click();
    await liveness.locator(".live-responses-table").getByText('"status"').waitFor();
    await page.getByRole("button", { name: "Authorize" }).click();
    await page.getByRole("button", { name: "Close", exact: true }).click();
    expect(complaints).toEqual([]);

    const wrong = { "/console": 404, "/docs/xyz": 404, "/connect": 404, "/tokens/sandbox": 401, "/%zz": 400 };
    for (const [path, status] of Object.entries(wrong)) {
      const shown = await page.goto(start.url + path);
      expect([path, shown?.status(), await page.getByRole("heading", { name: "What now?" }).count()]).toEqual([
        path,
        status,
        1,
      ]);
      await screenshot(page, `wrong${path.replaceAll(/\W/g, "-")}`);
    }
    await page.getByRole("link", { name: "The API is described here." }).click();
    await page.getByRole("heading", { name: "Freshet" }).waitFor();
    expect(complaints.filter((line) => !line.includes("Failed to load resource"))).toEqual([]);
    expect(await start.interrupt()).toBe(0);
  });
});

function secretOf(link: string | null): string | undefined {
  return link?.split("/").at(-1);
}
