import { randomUUID } from "node:crypto";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { ConnectedStage } from "../support/connected-stage.ts";
import { query } from "../support/query.ts";
import { type Page, ScriptedBrowser } from "../support/scripted-browser.ts";
import { describeWithServices } from "../support/services/index.ts";
import { approve, deny } from "../support/walk-consent.ts";
import { StandinApp } from "./support/standin-app.ts";

let app: StandinApp;
let stage: ConnectedStage;
const browsers: ScriptedBrowser[] = [];

/** A browser in which this user of the app is signed in; null: nobody is. */
async function browserOf(user: string | null): Promise<ScriptedBrowser> {
  const browser = new ScriptedBrowser();
  browsers.push(browser);
  if (user !== null) await signIn(browser, user);
  return browser;
}

const signIn = async (browser: ScriptedBrowser, user: string) => void (await browser.open(app.signInUrl(user)));

/** A user of the app whose connection of the same name waits. */
async function newUser(name = "user"): Promise<string> {
  const user = `${name}-${randomUUID().slice(0, 8)}`;
  await stage.create(user);
  return user;
}

const leavesBroker = ({ origin }: URL) => origin !== stage.first.url;
const stop = { stopAt: () => true };

/** Opens a link and presses "Continue". The provider's address, or the broker's page that says why not. */
async function claims(browser: ScriptedBrowser, link: string): Promise<Page> {
  const page = await browser.open(link);
  return page.forms.length === 0 ? page : await browser.submit(page, { stopAt: leavesBroker });
}

/** Says yes at the provider; the callback's address, which is not called yet. */
const consents = async (browser: ScriptedBrowser, provider: URL) => await approve(provider.href, browser);

/** Comes back to the broker. The app's address with the ticket, or the broker's page that says why not. */
const returns = async (browser: ScriptedBrowser, callback: URL) =>
  await browser.open(callback, { stopAt: leavesBroker });

const arrives = async (browser: ScriptedBrowser, address: URL) => await browser.open(address);

const ticketOf = (address: URL) => address.searchParams.get("ticket") ?? "";
const exchanges = () => stage.provider.ledger.granted("authorization_code");
const statusOf = async (name: string) => (await stage.first.api.connection(name)).status;

/** From a link up to the app's address with the ticket, which is not opened. */
async function held(user: string, given: { url?: string; browser?: ScriptedBrowser } = {}) {
  const browser = given.browser ?? (await browserOf(user));
  const url = given.url ?? (await app.makeLink(user)).url;
  const provider = (await claims(browser, url)).url;
  const callback = await consents(browser, provider);
  const address = (await returns(browser, callback)).url;
  return { browser, url, callback, address, ticket: ticketOf(address) };
}

/** The whole way in one browser, and what the app's page says. */
async function walks(user: string): Promise<string> {
  const { browser, address } = await held(user);
  return (await arrives(browser, address)).url.search;
}

const complete = async (ticket: string, user: string, replica = 0) =>
  await app.complete(ticket, user, stage.brokers[replica]?.api ?? null);

async function problemOf(answer: Promise<{ status: number; body: Record<string, unknown> }>): Promise<unknown[]> {
  const { status, body } = await answer;
  return [status, body["code"]];
}

const sql = async (text: string, ...values: unknown[]) => await query(stage.databaseUrl, text, values);

/** All that the database has of consents, as text. */
async function everyRow(): Promise<string> {
  const tables = ["authorization_requests", "consent_attempts", "consent_links", "connection_events"];
  return JSON.stringify(
    await Promise.all(tables.map(async (table) => await sql(`SELECT row_to_json(t)::text AS row FROM ${table} t`))),
  );
}

describeWithServices(["postgres", "redis"], "a consent that an app completes for its signed-in user", () => {
  beforeAll(async () => {
    app = await StandinApp.start();
    stage = await ConnectedStage.start({
      replicas: 2,
      env: {
        RETURN_ORIGINS: app.origin,
        LINK_PAGES_PER_MINUTE: "60000",
        LINK_POSTS_PER_MINUTE: "60000",
        CALLBACKS_PER_MINUTE: "60000",
        LINK_OPEN_REQUESTS: "100",
      },
    });
    await stage.first.api.changeClient(stage.client, { connections: ["*"] });
    app.api = stage.first.api;
    app.key = await stage.first.api.createKey({ name: "app", abilities: ["connections"], connections: ["*"] });
  });
  afterEach(async () => {
    await Promise.all(browsers.splice(0).map(async (browser) => await browser.close()));
  });
  afterAll(async () => {
    await stage[Symbol.asyncDispose]();
    await app[Symbol.asyncDispose]();
  });

  describe("the good way", () => {
    it("ends at the app, with its own parameters and a ticket, by a redirect that tells nobody where from; the app connects the account", async () => {
      const user = await newUser();
      const browser = await browserOf(user);
      const { url } = await app.makeLink(user);
      const page = await browser.open(url);
      expect(page.text).toContain(`You then come back to ${new URL(app.origin).host}`);
      const callback = await consents(browser, (await claims(browser, url)).url);
      const back = await browser.open(callback, stop);
      expect([back.status, back.headers["referrer-policy"], back.headers["cache-control"]]).toEqual([
        303,
        "no-referrer",
        "no-store",
      ]);
      expect(back.url.href).toMatch(/\/connected\?from=settings%20page&ticket=[\w-]{43}$/);
      expect(await statusOf(user)).toBe("pending");
      expect((await arrives(browser, back.url)).url.search).toBe("?connected");
      expect(await statusOf(user)).toBe("connected");
      expect((await stage.first.api.token(user)).status).toBe(200);
    });

    it("a second callback in the same browser leads to the same ticket, before and after the app has completed it", async () => {
      const user = await newUser();
      const { browser, callback, address } = await held(user);
      expect((await browser.open(callback, stop)).url.href).toBe(address.href);
      await arrives(browser, address);
      const again = await browser.open(callback, stop);
      expect(again.url.href).toBe(address.href);
      expect((await arrives(browser, again.url)).url.search).toBe("?connected");
    });

    it("a denial ends on a page here that leads to the app, and the same link goes on", async () => {
      const user = await newUser();
      const browser = await browserOf(user);
      const { url } = await app.makeLink(user);
      const no = await browser.open(await deny((await claims(browser, url)).url.href, browser));
      expect([no.status, no.text]).toEqual([200, expect.stringContaining("Not connected")]);
      expect(no.html).toContain(
        `href="${app.origin}/connected?from=settings+page&amp;connection=${user}&amp;status=denied"`,
      );
      const { address } = await held(user, { browser, url });
      expect((await arrives(browser, address)).url.search).toBe("?connected");
    });
  });

  describe("an attacker who is a user of the app has a victim finish what they have begun: 0 connections", () => {
    // What the attacker gets the victim to open, and what the victim's browser does then. Each is tried with the victim's sign-in before each of these
    // steps, after the last one, and never. After each step the attacker tries what they have, in their browser and in another one.
    const steps = {
      "the link": ["claims", "consents", "returns", "arrives"],
      "the provider's address": ["consents", "returns"],
      "the callback's address": ["returns"],
      "the app's address with a ticket": ["arrives"],
    } as const;
    const orders = Object.entries(steps).flatMap(([handedOver, theirs]) =>
      [...theirs.keys(), theirs.length, null].map((signsInBefore) => ({
        handedOver: handedOver as keyof typeof steps,
        signsInBefore,
        order: [...theirs, "comes once more"]
          .flatMap((step, at) => (at === signsInBefore ? ["signs in", step] : step))
          .slice(0, signsInBefore === theirs.length ? undefined : -1)
          .join(", "),
      })),
    );

    it("lists every order", () => {
      expect(orders).toHaveLength(6 + 4 + 3 + 3);
    });

    it.each(orders)("$handedOver: the victim $order", async ({ handedOver, signsInBefore }) => {
      const [mallory, ada] = [await newUser("mallory"), `ada-${randomUUID().slice(0, 8)}`];
      const [theirs, own, other] = [await browserOf(null), await browserOf(mallory), await browserOf(mallory)];
      const before = exchanges();
      const { url } = await app.makeLink(mallory);
      const seen: Partial<Record<"provider" | "callback" | "address", URL>> = {};
      const at = (what: keyof typeof seen): URL => seen[what] ?? new URL(url);

      // What the attacker has done before they hand it over.
      const isBegun = handedOver !== "the link";
      if (isBegun) seen.provider = (await claims(own, url)).url;
      const isTheirsToTheEnd = isBegun && handedOver !== "the provider's address";
      if (isTheirsToTheEnd) seen.callback = await consents(own, at("provider"));
      if (handedOver === "the app's address with a ticket") seen.address = (await returns(own, at("callback"))).url;

      const step = {
        claims: async () => void (seen.provider = (await claims(theirs, url)).url),
        consents: async () => void (seen.callback = await consents(theirs, at("provider"))),
        returns: async () => {
          const page = await returns(theirs, at("callback"));
          if (isBegun) expect([page.status, page.text]).toEqual([403, expect.stringContaining("another browser")]);
          else seen.address = page.url;
        },
        arrives: async () => {
          expect((await arrives(theirs, at("address"))).url.search).toBe("?wrong_end_user");
        },
      };
      /** The victim's browser goes on by itself to what it is sent to. So the attacker gets to know an address when it has been there. */
      const attackerTries = async (done: string) => {
        for (const browser of [own, other]) {
          const page = await browser.open(url, stop);
          expect([200, 403, 410]).toContain(page.status);
          if (page.status === 200) expect([isBegun, browser]).toEqual([true, own]);
          if (done === "returns") expect((await returns(browser, at("callback"))).status).toBe(403);
          if (done === "arrives") expect((await arrives(browser, at("address"))).url.search).toBe("?wrong_end_user");
        }
      };

      for (const [index, name] of steps[handedOver].entries()) {
        if (index === signsInBefore) await signIn(theirs, ada);
        await step[name]();
        await attackerTries(name);
      }
      if (signsInBefore === steps[handedOver].length) {
        await signIn(theirs, ada);
        await step[steps[handedOver].at(-1) ?? "arrives"]();
      }
      expect([exchanges() - before, await statusOf(mallory)]).toEqual([0, "pending"]);
      expect(await walks(mallory), "the next link of its rightful user works").toBe("?connected");
    });

    it("the victim's own link works as before", async () => {
      const [mallory, ada] = [await newUser("mallory"), await newUser("ada")];
      const { address } = await held(mallory, { browser: await browserOf(ada) });
      expect((await arrives(await browserOf(ada), address)).url.search).toBe("?wrong_end_user");
      expect([await walks(ada), await statusOf(mallory)]).toEqual(["?connected", "pending"]);
    });
  });

  describe("a wrong browser at the callback burns the attempt", () => {
    it("whatever it brings; its own browser is told so, the link stays its, and the audit and the history have it", async () => {
      const user = await newUser();
      const browser = await browserOf(user);
      const { url, id } = await app.makeLink(user);
      const callback = await consents(browser, (await claims(browser, url)).url);
      const bare = new URL(callback);
      bare.searchParams.delete("code");
      const stranger = await browserOf(null);
      expect((await stranger.open(bare)).status).toBe(403);
      const own = await browser.open(callback);
      expect([own.status, own.text]).toEqual([403, expect.stringContaining("This attempt has been stopped")]);
      const { body } = await stage.first.api.api<{ items: Record<string, unknown>[] }>(`/audit?connection=${user}`);
      expect(body.items[0]).toMatchObject({
        action: "consents.complete",
        result: "burnt_state",
        actor: { kind: "link", id },
        detail: { binding: "app" },
      });
      const { address } = await held(user, { browser, url });
      expect((await arrives(browser, address)).url.search).toBe("?connected");
    });
  });

  describe("a ticket", () => {
    it("is unknown, byte for byte, to another key, to one whose patterns do not cover the connection, and where nobody has made it", async () => {
      const user = await newUser();
      const { ticket } = await held(user);
      const { api } = stage.first;
      const asked = async (key: string | undefined, path = ticket) => {
        const answer = await api.api(`/consents/${path}/complete`, {
          method: "POST",
          body: { end_user: user },
          ...(key !== undefined && { key }),
        });
        return [answer.status, JSON.stringify(answer.body)];
      };
      const abilities = ["connections"];
      const same = await api.createKey({ name: "app", abilities, connections: ["*"] });
      const foreign = await api.createKey({ name: "foreign", abilities, connections: ["other-*"] });
      const unknown = await asked(app.key, "x".repeat(43));
      expect(unknown[0]).toBe(404);
      for (const key of [same, foreign, undefined]) expect(await asked(key)).toEqual(unknown);
      expect((await complete(ticket, user)).status).toBe(200);
      for (const key of [same, foreign, undefined]) expect(await asked(key)).toEqual(unknown);
    });

    it("is completed by the key that made the link only while that key works", async () => {
      const user = await newUser();
      const ofTheApp = app.key;
      app.key = await stage.first.api.createKey({ name: "short", abilities: ["connections"], connections: ["*"] });
      const { ticket } = await held(user);
      const { body } = await stage.first.api.api<{ items: { id: string; name: string }[] }>("/keys");
      const { id } = body.items.find(({ name }) => name === "short") ?? { id: "" };
      await stage.first.api.api(`/keys/${id}`, { method: "DELETE" });
      expect(await problemOf(complete(ticket, user))).toEqual([401, "unauthenticated"]);
      app.key = ofTheApp;
      expect(await problemOf(complete(ticket, user))).toEqual([404, "not_found"]);
      expect(await statusOf(user)).toBe("pending");
    });

    it("is over after a minute by the database's clock: 410 for ten minutes, then unknown, and the link is usable again", async () => {
      const user = await newUser();
      const { ticket, browser, url } = await held(user);
      const before = exchanges();
      const pass = async (seconds: number) => {
        const earlier = `= %s - make_interval(secs => ${seconds})`;
        await sql(
          `UPDATE authorization_requests SET expires_at ${earlier.replace("%s", "expires_at")} WHERE ticket_hash IS NOT NULL`,
        );
        await sql(
          `UPDATE consent_links SET held_until ${earlier.replace("%s", "held_until")} WHERE held_until IS NOT NULL`,
        );
      };
      const rows = await sql(
        "SELECT extract(epoch FROM r.expires_at - clock_timestamp())::float AS left FROM authorization_requests r JOIN connections c ON c.id = r.connection_id WHERE c.name = $1",
        user,
      );
      expect(rows[0]?.["left"]).toBeLessThanOrEqual(60);
      expect((await browser.open(url)).status).toBe(410);
      await pass(61);
      expect(await problemOf(complete(ticket, user))).toEqual([410, "authorization_expired"]);
      expect(await problemOf(complete(ticket, "somebody else"))).toEqual([410, "authorization_expired"]);
      // Another consent begins, by which what is over is tidied up.
      const other = await held(await newUser());
      expect(await problemOf(complete(ticket, user, 1))).toEqual([410, "authorization_expired"]);
      const again = await held(user, { browser, url });
      expect(await problemOf(complete(ticket, user)), "the old ticket does not free the link again").toEqual([
        410,
        "authorization_expired",
      ]);
      expect((await browser.open(url)).status).toBe(410);
      expect((await complete(again.ticket, user)).status).toBe(200);
      expect(exchanges() - before).toBe(1);
      await pass(700);
      await held(await newUser());
      expect(await problemOf(complete(ticket, user))).toEqual([404, "not_found"]);
      expect(await problemOf(complete(other.ticket, "x"))).toEqual([404, "not_found"]);
    });

    it("whose client or inputs were changed meanwhile is not sent, and its link goes on", async () => {
      const user = await newUser();
      const { ticket, browser, url } = await held(user);
      const before = exchanges();
      await stage.first.api.changeClient(stage.client, { client_id: "another" });
      expect(await problemOf(complete(ticket, user))).toEqual([409, "conflict"]);
      expect(await problemOf(complete(ticket, user))).toEqual([409, "conflict"]);
      await stage.first.api.changeClient(stage.client, { client_id: stage.provider.client.id });
      expect([exchanges() - before, (await browser.open(url)).status]).toEqual([0, 200]);
    });

    it("of a disabled connection is not sent; of a deleted one it is unknown", async () => {
      const [user, gone] = [await newUser(), await newUser()];
      const [one, two] = [await held(user), await held(gone)];
      const before = exchanges();
      await stage.first.api.changeConnection(user, { disabled: true });
      expect(await problemOf(complete(one.ticket, user))).toEqual([409, "connection_disabled"]);
      await stage.first.api.deleteConnection(gone);
      expect(await problemOf(complete(two.ticket, gone))).toEqual([404, "not_found"]);
      expect(exchanges() - before).toBe(0);
    });

    it("whose code the provider refuses is answered the same twice, and the link goes on", async () => {
      const user = await newUser();
      const { ticket, browser, url } = await held(user);
      stage.provider.advance(3600);
      const first = await complete(ticket, user);
      expect([first.status, first.body["code"]]).toEqual([422, "provider_rejected"]);
      expect((await complete(ticket, user, 1)).body).toEqual(first.body);
      const again = await held(user, { browser, url });
      expect((await complete(again.ticket, user)).status).toBe(200);
    });
  });

  describe("races", () => {
    it("ten completions at once on two replicas make one exchange, and all get the connection", async () => {
      const user = await newUser();
      const { ticket } = await held(user);
      const before = exchanges();
      const answers = await Promise.all(
        Array.from({ length: 10 }, async (_, at) => await complete(ticket, user, at % 2)),
      );
      expect(answers.map(({ status }) => status)).toEqual(Array.from({ length: 10 }, () => 200));
      expect(exchanges() - before).toBe(1);
    });

    it("the right user and a wrong one at once: one of them is first, and there is one exchange or none", async () => {
      for (let round = 0; round < 5; round++) {
        const user = await newUser();
        const { ticket } = await held(user);
        const before = exchanges();
        const [right, wrong] = await Promise.all([
          complete(ticket, user, round % 2),
          complete(ticket, "mallory", 1 - (round % 2)),
        ]);
        expect(wrong.status).toBe(403);
        expect([200, 403]).toContain(right.status);
        expect([exchanges() - before, await statusOf(user)]).toEqual(
          right.status === 200 ? [1, "connected"] : [0, "pending"],
        );
      }
    });

    it("two callbacks at once on two replicas lead to one ticket", async () => {
      const user = await newUser();
      const browser = await browserOf(user);
      const { url } = await app.makeLink(user);
      const callback = await consents(browser, (await claims(browser, url)).url);
      const elsewhere = new URL(callback.pathname + callback.search, stage.brokers[1]?.url);
      const pages = await Promise.all([browser.open(callback, stop), browser.open(elsewhere, stop)]);
      expect(new Set(pages.map((page) => page.url.href)).size).toBe(1);
      expect((await arrives(browser, new URL(pages[0].url))).url.search).toBe("?connected");
    });

    it("a completion while the connection is deleted gives 200 or says that it is gone, and nothing is left", async () => {
      for (let round = 0; round < 5; round++) {
        const user = await newUser();
        const { ticket } = await held(user);
        const { api } = stage.first;
        const deletion = api.api(`/connections/${user}`, { method: "DELETE" });
        const [done, deleted] = await Promise.all([complete(ticket, user, 1), deletion]);
        // Both lock the same rows, in the same order.
        expect([200, 404, 409]).toContain(done.status);
        expect([200, 204]).toContain(deleted.status);
        expect(await sql("SELECT 1 FROM connections WHERE name = $1", user)).toEqual([]);
      }
    });
  });

  it("a broker that is killed while a code is held loses nothing: another one completes it", async () => {
    const user = await newUser();
    const { ticket } = await held(user);
    await stage.first.kill();
    const { status } = await complete(ticket, user, 1);
    await stage.first.start();
    expect([status, await statusOf(user)]).toEqual([200, "connected"]);
  });

  it("the code is in no plain column, no log and no address of the broker, and neither is the ticket", async () => {
    const user = await newUser();
    const { ticket, callback, browser, address } = await held(user);
    const code = callback.searchParams.get("code") ?? "";
    const whileHeld = await everyRow();
    await arrives(browser, address);
    const after = await everyRow();
    const logs = stage.brokers.map(({ stdout, stderr }) => stdout + stderr).join("");
    for (const secret of [code, ticket]) {
      const forms = [secret, Buffer.from(secret).toString("base64"), Buffer.from(secret).toString("hex")];
      for (const form of forms) {
        for (const place of [whileHeld, after, logs]) expect(place.includes(form)).toBe(false);
      }
    }
    expect(code.length).toBeGreaterThan(10);
  });
});
