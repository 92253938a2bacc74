import { afterAll, beforeAll, expect, it } from "vitest";
import { until } from "../../support/patience.ts";
import { ScriptedBrowser } from "../../support/scripted-browser.ts";
import { describeWithServices } from "../../support/services/index.ts";
import { approve } from "../../support/walk-consent.ts";
import { ForeignHost } from "./support/foreign-host.ts";
import { nothing, shownAt, TwoTeams } from "./support/two-teams.ts";

// The key has the ability `admin` for all connections, and no other ability.
describeWithServices(["postgres", "redis"], "an attacker with an admin key", () => {
  let stage: TwoTeams;
  let key: string;

  beforeAll(async () => {
    stage = await TwoTeams.start();
    key = await stage.api.createKey({ name: "admin", abilities: ["admin"], connections: ["*"] });
  });

  afterAll(async () => {
    await stage[Symbol.asyncDispose]();
  });

  const post = async (path: string, body: unknown) => await stage.attack(key, path, { method: "POST", body });
  const patch = async (path: string, body: unknown) => await stage.attack(key, path, { method: "PATCH", body });

  it("makes itself no key that reads tokens or handles connections", async () => {
    for (const abilities of [["tokens"], ["connections"], ["admin", "tokens"], ["tokens", "connections", "admin"]]) {
      const { status, body } = await post("/keys", { name: "more", abilities, connections: ["*"] });
      expect([status, body["code"]]).toEqual([403, "forbidden"]);
    }
    const bounded = await stage.api.createKey({
      name: "bounded",
      abilities: ["admin"],
      connections: ["team-a-*"],
      expires_at: "2030-01-01T00:00:00Z",
    });
    const wishes = [
      { connections: ["*"], expires_at: "2029-01-01T00:00:00Z" },
      { connections: ["team-*"], expires_at: "2029-01-01T00:00:00Z" },
      { connections: ["team-a-*"] },
      { connections: ["team-a-*"], expires_at: "2030-01-01T00:00:01Z" },
    ];
    for (const wish of wishes) {
      const body = { name: "more", abilities: ["admin"], ...wish };
      expect((await stage.attack(bounded, "/keys", { method: "POST", body })).status, JSON.stringify(wish)).toBe(403);
    }
  });

  it("reads no token, and does nothing with connections", async () => {
    for (const name of stage.neighbours) {
      expect((await stage.attack(key, `/tokens/${name}`)).status).toBe(403);
      for (const path of ["", "/events"]) {
        expect((await stage.attack(key, `/connections/${name}${path}`)).status).toBe(403);
      }
      for (const path of ["/consent-links", "/import", "/code", "/refresh", "/account", "/device"]) {
        expect((await post(`/connections/${name}${path}`, {})).status).toBe(403);
      }
      expect((await patch(`/connections/${name}`, { disabled: true })).status).toBe(403);
      expect((await stage.attack(key, `/connections/${name}`, { method: "DELETE" })).status).toBe(403);
    }
    expect((await post("/connections", { name: "x", provider: "strict", client: "accounts-b" })).status).toBe(403);
  });

  it("finds no secret in what it may read", async () => {
    for (const path of ["/clients", "/clients/shop-b", "/keys", "/providers", "/providers/shopware", "/recovery"]) {
      expect((await stage.attack(key, path)).status).toBe(200);
    }
    for (const path of ["/metrics", "/readyz", "/openapi.json"]) await stage.attack(key, path);
  });

  it("has no stored secret, no token and no password sent to a host of its own", async () => {
    const hosts = { shop_url: stage.foreign.origin };
    expect((await patch("/clients/shop-b", { inputs: hosts })).body["code"]).toBe("invalid_request");
    expect((await patch("/clients/shop-idle", { inputs: hosts })).body["code"]).toBe("invalid_request");
    expect((await patch("/clients/shop-idle", { inputs: hosts, client_id: "other" })).status).toBe(400);
    expect((await patch("/clients/shop-b", { inputs: hosts, client_secret: "own" })).body["code"]).toBe("conflict");
    const tenant = { inputs: { host_url: stage.foreign.origin }, client_secret: "own" };
    expect((await patch("/clients/tenant-b", tenant)).body["code"]).toBe("conflict");
    // Also not while the connection is disabled, nor when its grant has ended.
    await stage.api.createConnection({ name: "off", provider: "tenant", client: "tenant-b", scopes: ["read"] });
    await stage.connect("off");
    await stage.api.changeConnection("off", { disabled: true });
    expect((await patch("/clients/tenant-b", tenant)).body["code"]).toBe("conflict");
    expect((await stage.attack(key, "/clients/shop-b", { method: "DELETE" })).body["code"]).toBe("conflict");
  });

  /** A client at a host that its input decides, and a connection that a person is about to connect. */
  const aboutToConnect = async (name: string) => {
    await stage.addTenantClient(name);
    await stage.api.createConnection({ name, provider: "tenant", client: name, scopes: ["read"] });
    const browser = new ScriptedBrowser();
    const page = await browser.open((await stage.api.consentLink(name)).url);
    const isElsewhere = (url: URL) => url.origin !== new URL(stage.api.url).origin;
    const onward = await browser.submit(page, { stopAt: isElsewhere });
    return { browser, callback: await approve(onward.url.href, new ScriptedBrowser()) };
  };
  const move = async (name: string) =>
    await patch(`/clients/${name}`, { inputs: { host_url: stage.foreign.origin }, client_secret: "own" });

  it("moves no host while a person is at the provider: their code goes where they were", async () => {
    const { browser, callback } = await aboutToConnect("on-the-way");
    expect((await move("on-the-way")).body["code"]).toBe("conflict");
    expect((await browser.open(callback)).status).toBe(200);
    expect((await stage.api.connection("on-the-way")).status).toBe("connected");
    expect((await move("on-the-way")).body["code"]).toBe("conflict");
  });

  it("moves no host while a code is being exchanged", async () => {
    const { browser, callback } = await aboutToConnect("exchanging");
    const sent = stage.tenant.ledger.requests.length;
    const goOn = stage.tenant.holdTokens();
    const page = browser.open(callback);
    await until("the code is at the provider", () => stage.tenant.ledger.requests.length > sent);
    expect((await move("exchanging")).body["code"]).toBe("conflict");
    goOn();
    expect((await page).status).toBe(200);
    expect((await stage.api.connection("exchanging")).status).toBe("connected");
  });

  it("gets no code that ops hand in while it moves the host, nor what the code was exchanged for", async () => {
    const { copied, api } = stage;
    const client = { client_id: copied.client.id, client_secret: copied.client.secret };
    await api.createClient({ name: "copied", provider: "copied", ...client, inputs: { host_url: copied.origin } });
    await api.createConnection({ name: "copied", provider: "copied", client: "copied", scopes: ["read"] });
    copied.redirectUris.add(shownAt);
    const query = new URLSearchParams({ response_type: "code", client_id: client.client_id, redirect_uri: shownAt });
    const shown = await approve(`${copied.origin}/authorize?${query.toString()}&scope=read`);
    const goOn = copied.holdTokens();
    const sent = copied.ledger.requests.length;
    const handedIn = api.api("/connections/copied/code", {
      method: "POST",
      body: { code: shown.searchParams.get("code") },
    });
    await until("the code is at the provider", () => copied.ledger.requests.length > sent);
    // The database does not show that a code is on its way, so the host may be changed. The code that comes back was meant for the old host.
    expect((await move("copied")).status).toBe(200);
    goOn();
    await handedIn;
    const refreshed = await api.api("/connections/copied/refresh", { method: "POST" });
    expect([refreshed.body["code"], (await api.token("copied")).body.code]).toEqual(Array(2).fill("unreadable_secret"));
    await api.api("/connections/copied", { method: "DELETE" });
    expect(stage.foreign.connections).toBe(0);
  });

  it("may move a client that nobody uses, with a secret of its own: none of the secrets before goes there", async () => {
    await using own = await ForeignHost.start();
    const moved = await patch("/clients/shop-idle", { inputs: { shop_url: own.origin }, client_secret: "admins-own" });
    expect([moved.status, moved.body["secret_rotating"]]).toEqual([200, false]);
    const connection = { name: "team-b-late", provider: "shopware", client: "shop-idle", grant: "client_credentials" };
    await stage.api.createConnection(connection);
    expect(own.requests.length).toBeGreaterThan(0);
    expect(own.requests.join("\n")).toContain("admins-own");
    expect(own.requests.join("\n")).not.toContain(stage.shop.client.secret);
  });

  it("for some connections alone changes no client of others, opens none to others, and ends no key of others", async () => {
    const bounded = await stage.api.createKey({ name: "a", abilities: ["admin"], connections: ["team-a-*"] });
    const reader = await stage.api.createKey({ name: "b", abilities: ["tokens"], connections: ["team-b-*"] });
    const change = async (path: string, method: "PATCH" | "DELETE" | "POST", body?: unknown) =>
      (await stage.attack(bounded, path, { method, ...(body !== undefined && { body }) })).status;
    expect(await change("/clients/accounts-b", "PATCH", { client_secret: "broken" })).toBe(403);
    expect(await change("/clients/accounts-b", "PATCH", { connections: ["team-a-*"] })).toBe(403);
    expect(await change("/clients/accounts-b", "DELETE")).toBe(403);
    const client = { name: "a", provider: "strict", client_id: "a" };
    expect(await change("/clients", "POST", { ...client, connections: ["*"] })).toBe(403);
    expect(await change(`/keys/${reader.split("_")[1]}`, "DELETE")).toBe(404);
    expect(JSON.stringify((await stage.attack(bounded, "/keys")).body)).not.toContain(reader.split("_")[1]);
    expect((await stage.api.token("team-b-account", { key: reader })).status).toBe(200);
  });

  it("for some connections alone takes no client and no key that names no connections", async () => {
    const bounded = await stage.api.createKey({
      name: "narrow",
      abilities: ["admin", "connections"],
      connections: ["team-a-*"],
    });
    const idle = await stage.api.createKey({ name: "idle", abilities: ["connections"], connections: [] });
    const secret = { client_id: stage.shop.client.id, client_secret: stage.shop.client.secret };
    const client = { name: "unclaimed", provider: "shopware", ...secret, inputs: { shop_url: stage.shop.origin } };
    await stage.api.createClient(client);
    const ask = async (method: "PATCH" | "DELETE" | "POST", path: string, body?: unknown) => {
      const reply = await stage.attack(bounded, path, { method, ...(body !== undefined && { body }) });
      return [reply.status, reply.body?.["code"]];
    };
    const hosts = { inputs: { shop_url: stage.foreign.origin }, client_secret: "own" };
    for (const change of [
      hosts,
      { connections: ["team-a-*"] },
      { client_id: "own" },
      { ...hosts, connections: ["team-a-*"] },
    ]) {
      expect(await ask("PATCH", "/clients/unclaimed", change)).toEqual([403, "forbidden"]);
    }
    expect(await ask("DELETE", "/clients/unclaimed")).toEqual([403, "forbidden"]);
    expect(await ask("DELETE", `/keys/${idle.split("_")[1]}`)).toEqual([404, "not_found"]);
    expect(JSON.stringify((await stage.attack(bounded, "/keys")).body)).not.toContain(idle.split("_")[1]);
    // It cannot make clients or keys, either, that it could not take back.
    const own = { name: "own-a", provider: "strict", client_id: "a" };
    for (const [path, body] of [
      ["/clients", own],
      ["/keys", { name: "own-a", abilities: ["admin"], connections: [] }],
    ] as const) {
      const { status, body: said } = await stage.attack(bounded, path, { method: "POST", body });
      expect([status, said["detail"]]).toEqual([403, expect.stringMatching(/^connections: .*team-a-\*/)]);
    }
    expect(await ask("POST", "/clients", { ...own, connections: ["team-a-*"] })).toEqual([201, undefined]);
    expect(await ask("PATCH", "/clients/own-a", { connections: [] })).toEqual([403, "forbidden"]);
    expect(await ask("DELETE", "/clients/own-a")).toEqual([204, undefined]);
  });

  it("all in all has got no token and no secret, and has had nobody else asked", () => {
    expect(stage.answers.length).toBeGreaterThan(60);
    expect(stage.loot()).toEqual(nothing);
  });
});
