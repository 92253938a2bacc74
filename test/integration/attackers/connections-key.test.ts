import { afterAll, beforeAll, expect, it } from "vitest";
import { describeWithServices } from "../../support/services/index.ts";
import { query } from "../../support/query.ts";
import { type Page, ScriptedBrowser } from "../../support/scripted-browser.ts";
import { walkConsent } from "../../support/walk-consent.ts";
import { nothing, TwoTeams } from "./support/two-teams.ts";

// Team A's key may read and connect its own connections, and knows the names of all that team B has.
describeWithServices(["postgres", "redis"], "an attacker with a connections key", () => {
  let stage: TwoTeams;
  let key: string;

  beforeAll(async () => {
    stage = await TwoTeams.start();
    key = await stage.api.createKey({
      name: "team-a",
      abilities: ["tokens", "connections"],
      connections: ["team-a-*"],
    });
  });

  afterAll(async () => {
    await stage[Symbol.asyncDispose]();
  });

  const post = async (path: string, body: unknown) => await stage.attack(key, path, { method: "POST", body });
  const patch = async (path: string, body: unknown) => await stage.attack(key, path, { method: "PATCH", body });

  it("makes no connection with team B's clients, and is not told that they are there", async () => {
    const clients = ["shop-b", "accounts-b", "tenant-b", "shop-idle"];
    const wishes = [
      { grant: "client_credentials" },
      {},
      { scopes: ["read"] },
      { scopes: [] },
      { inputs: { shop_url: stage.foreign.origin } },
      { credentials: { username: "x" } },
      { grant: "password" },
      { grant: "import" },
    ];
    for (const provider of ["shopware", "strict", "tenant", "bol"]) {
      for (const wish of wishes) {
        const ask = async (client: string) => {
          const { status, body } = await post("/connections", { name: "team-a-steal", provider, client, ...wish });
          return JSON.stringify([status, body]).replaceAll(client, "CLIENT");
        };
        const unknown = await ask("no-such-client");
        for (const client of clients) expect(await ask(client), `${provider} ${JSON.stringify(wish)}`).toBe(unknown);
      }
    }
    expect((await stage.attack(key, "/connections/team-a-steal")).status).toBe(404);
  });

  it("makes no connection under team B's names, nor under names that stand for several", async () => {
    for (const name of ["team-b-new", "team-b-account", "team-a", "xteam-a-x"]) {
      expect((await post("/connections", { name, provider: "strict", client: "accounts-b" })).status).toBe(403);
    }
    for (const name of ["team-a-*", "team-a-x#user", "team-a-%", "team-a-/../team-b-account", "*"]) {
      const { status } = await post("/connections", { name, provider: "strict", client: "accounts-b" });
      expect([400, 403]).toContain(status);
    }
  });

  it("sees nothing of team B's connections, and does nothing to them", async () => {
    const bodies = { PATCH: { disabled: true }, POST: {} };
    for (const name of [...stage.neighbours, "team-b-account%23user", "team-b-acc*", "%2e%2e%2fteam-b-account"]) {
      const paths = ["", "/events", "/consent-links", "/code", "/import", "/refresh", "/account", "/device"];
      for (const path of paths) {
        for (const method of ["GET", "POST", "PATCH", "DELETE"] as const) {
          const body = method === "PATCH" || method === "POST" ? bodies[method] : undefined;
          const { status } = await stage.attack(key, `/connections/${name}${path}`, { method, body });
          expect([400, 404, 405], `${method} ${name}${path}`).toContain(status);
        }
      }
      const { status } = await stage.attack(key, `/tokens/${name}?include=request`);
      expect([400, 404]).toContain(status);
    }
    for (const filter of ["", "?client=accounts-b", "?q=team-b", "?provider=shopware", "?q=%25", "?q=_"]) {
      const { body } = await stage.attack(key, `/connections${filter}`);
      expect(JSON.stringify(body)).not.toContain("team-b");
    }
  });

  it("has no way to clients, keys, definitions, or what is held", async () => {
    for (const path of ["/clients", "/clients/shop-b", "/keys", "/providers", "/providers/shopware", "/recovery"]) {
      for (const method of ["GET", "POST", "PATCH", "DELETE"] as const) {
        const { status } = await stage.attack(key, path, { method, ...(method !== "GET" && { body: {} }) });
        expect([403, 405, 404], `${method} ${path}`).toContain(status);
      }
    }
  });

  it("uses no client for a connection that ops made for it while the client is not open to it", async () => {
    await stage.api.createConnection({
      name: "team-a-lent",
      provider: "strict",
      client: "accounts-b",
      scopes: ["read"],
    });
    const tries: [string, unknown][] = [
      ["consent-links", {}],
      ["consent-links", { return_to: stage.foreign.origin }],
      ["code", { code: "x" }],
      ["import", { access_token: "x", refresh_token: "y", verify: true }],
      ["refresh", undefined],
      ["device", undefined],
      ["account", { accept: true }],
    ];
    for (const [path, body] of tries) {
      const { status, body: said } = await post(`/connections/team-a-lent/${path}`, body);
      expect([status, said["detail"]], path).toEqual([
        400,
        'client: there is no client named "accounts-b" that this key may use for this connection.',
      ]);
    }
    for (const change of [{ scopes: ["write"] }, { disabled: false }, { inputs: { x: "y" } }]) {
      expect((await patch("/connections/team-a-lent", change)).status, JSON.stringify(change)).toBe(400);
    }
  });

  it("asks with a client that is open to it for the client's scopes, and never for whatever the provider would give", async () => {
    const client = { provider: "strict", client_id: "open", client_secret: "open-secret" };
    await stage.api.createClient({ name: "open", ...client, scopes: ["read"], connections: ["team-a-*"] });
    const create = { provider: "strict", client: "open" };
    expect((await post("/connections", { name: "team-a-1", ...create, scopes: ["read", "write"] })).status).toBe(400);
    expect((await post("/connections", { name: "team-a-2", ...create, scopes: [] })).status).toBe(400);
    const made = await post("/connections", { name: "team-a-3", ...create });
    expect([made.status, made.body["scopes"]]).toEqual([201, ["read"]]);
    for (const scopes of [["write"], ["read", "write"], []]) {
      expect((await patch("/connections/team-a-3", { scopes })).status).toBe(400);
    }
    expect((await patch("/connections/team-a-3", { scopes: ["read"] })).status).toBe(200);
    expect((await post("/connections/team-a-3/consent-links", { return_to: stage.foreign.origin })).status).toBe(400);
    expect((await post("/connections", { name: "team-b-3", ...create })).status).toBe(403);
  });
  it("is not told the names of others by its own connection's history", async () => {
    await stage.api.createConnection({ name: "team-a-history", provider: "strict", client: "accounts-b" });
    const happen = async (...connections: string[]) =>
      await query(
        stage.databaseUrl,
        `INSERT INTO connection_events (connection_id, type, detail)
          SELECT id, 'other_sets_dropped', $1::jsonb FROM connections WHERE name = 'team-a-history'`,
        [JSON.stringify({ connections, kept: 1 })],
      );
    await happen("team-b-account", "team-a-lent");
    await happen("team-b-account");
    const seen = async (path: string) => {
      const { body } = await stage.attack(key, `/connections/team-a-history/events${path}`);
      return (body["items"] as { type: string; detail: unknown }[]).map(({ type, detail }) => [type, detail]);
    };
    // An event that names no connection which the key may see is missing from the history, and leaves no gap in a page.
    const shown = ["other_sets_dropped", { connections: ["team-a-lent"], kept: 1 }];
    expect(await seen("")).toEqual([shown, ["created", {}]]);
    expect(await seen("?limit=1")).toEqual([shown]);
  });

  it("gets no second hold of a refresh token that team B's connection lives by", async () => {
    const client = { client_id: stage.accounts.client.id, client_secret: stage.accounts.client.secret };
    const shared = { provider: "strict", ...client, scopes: ["read"], connections: ["team-a-*", "team-b-*"] };
    await stage.api.createClient({ name: "shared", ...shared });
    for (const name of ["team-b-first", "team-a-second"]) {
      await stage.api.createConnection({ name, provider: "strict", client: "shared" });
    }
    stage.accounts.repeated =
      stage.accounts.grants.startFamily({
        clientId: client.client_id,
        scope: "read",
        grantType: "authorization_code",
      }).refreshToken ?? null;
    await stage.connect("team-b-first");
    const page = await walkConsent((await stage.api.consentLink("team-a-second")).url);
    stage.accounts.repeated = null;
    expect([page.status, page.text]).toEqual([409, expect.stringContaining("This account is connected already")]);
    expect((await stage.attack(key, "/connections/team-a-second")).body["status"]).toBe("pending");
    // Nothing was revoked or spent: team B goes on.
    expect((await stage.api.api("/connections/team-b-first/refresh", { method: "POST" })).status).toBe(200);
    expect(stage.accounts.ledger.reuses).toEqual([]);
  });

  it("revokes nothing that team B's connection lives by when it deletes its own", async () => {
    const client = { client_id: stage.accounts.client.id, client_secret: stage.accounts.client.secret };
    const shared = { provider: "lent", ...client, scopes: ["read"], connections: ["team-a-*", "team-b-*"] };
    await stage.api.createClient({ name: "lent", ...shared });
    const set = stage.accounts.grants.startFamily({ clientId: client.client_id, scope: "read", grantType: "import" });
    const body = { access_token: set.accessToken, refresh_token: set.refreshToken, expires_in: set.expiresIn };
    for (const name of ["team-b-lent", "team-a-lent-too"]) {
      await stage.api.createConnection({ name, provider: "lent", client: "lent", grant: "import" });
      expect((await stage.api.api(`/connections/${name}/import`, { method: "POST", body })).status).toBe(200);
    }
    const revoked = () => stage.accounts.ledger.requests.filter(({ path }) => path === "/revoke").length;
    expect((await stage.attack(key, "/connections/team-a-lent-too", { method: "DELETE" })).status).toBe(204);
    expect(revoked()).toBe(0);
    // The last connection that holds the token revokes it.
    expect((await stage.api.api("/connections/team-b-lent", { method: "DELETE" })).status).toBe(204);
    expect(revoked()).toBeGreaterThan(0);
  });

  it("leaves team B its part of what a provider bears: with refreshes, with tokens that have never worked, and by a link alone with made-up codes", async () => {
    const { client, ledger } = stage.limited;
    for (const team of ["a", "b"]) {
      const fields = { provider: "limited", client_id: client.id, client_secret: client.secret };
      await stage.api.createClient({ name: `limited-${team}`, ...fields, connections: [`team-${team}-*`] });
      const name = `team-${team}-limited`;
      await stage.api.createConnection({ name, provider: "limited", client: `limited-${team}` });
      await stage.connect(name);
    }
    const sent = () => ledger.requestsTo("token").length;
    // Tokens that have never worked may use half of the provider's 8 requests, and 2 of those are used.
    await post("/connections", { name: "team-a-junk", provider: "limited", client: "limited-a", grant: "import" });
    const junk: number[] = [];
    for (let index = 0; index < 4; index++) {
      const set = { refresh_token: `junk-${index}`, verify: true };
      junk.push((await post("/connections/team-a-junk/import", set)).status);
    }
    expect([sent(), junk]).toEqual([4, [422, 422, 503, 503]]);
    // Somebody without any key. The last two requests of the limit are for team B, which has used one of them.
    const { url } = await stage.api.consentLink("team-a-limited");
    const browser = new ScriptedBrowser();
    const pages: Page[] = [];
    for (let index = 0; index < 5; index++) {
      const isAway = ({ origin }: URL) => origin !== stage.broker.url;
      const away = await browser.submit(await browser.open(url), { stopAt: isAway });
      const state = away.url.searchParams.get("state") ?? "";
      const callback = `${stage.broker.redirectUri("limited")}?code=made-up-${index}&state=${state}`;
      pages.push(await browser.open(callback));
    }
    expect([sent(), pages.map(({ status }) => status)]).toEqual([7, [502, 502, 502, 503, 503]]);
    const { text, headers } = pages.at(-1) as Page;
    expect(text).toContain("takes no more requests right now");
    expect(Number(headers["retry-after"])).toBeGreaterThan(60);
    expect((await browser.open(url)).status).toBe(200);
    const refused = await stage.attack(key, "/connections/team-a-limited/refresh", { method: "POST" });
    expect([refused.status, refused.body["code"]]).toEqual([503, "provider_unavailable"]);
    expect(Number(refused.headers["retry-after"])).toBeGreaterThan(60);
    expect((await stage.api.token("team-b-limited")).status).toBe(200);
    expect((await stage.api.api("/connections/team-b-limited/refresh", { method: "POST" })).status).toBe(200);
    expect(sent()).toBe(8);
  });

  it("all in all has got no token and no secret, and has had nobody else asked", () => {
    expect(stage.answers.length).toBeGreaterThan(200);
    expect(stage.loot()).toEqual(nothing);
  });
});
