import { afterAll, beforeAll, beforeEach, expect, it } from "vitest";
import { basicCredentials } from "../../support/providers/call.ts";
import type { RequestEntry } from "../../support/providers/ledger.ts";
import { query } from "../../support/query.ts";
import { patience } from "../../support/patience.ts";
import { ScriptedBrowser } from "../../support/scripted-browser.ts";
import { describeWithServices } from "../../support/services/index.ts";
import { dumpPostgres } from "../../support/dumps.ts";
import { AbilityStage } from "./support/ability-stage.ts";
import { AbleProvider } from "./support/able-provider.ts";

const password = "first-password";
const firstKey = "store-key-d0c5-first";
const secondKey = "store-key-77ab-second";

function define(server: AbleProvider) {
  const inputs = { store_key: { secret: true, pattern: "^[a-z0-9-]+$" }, region: { default: "eu" } };
  const token = {
    headers: { "x-store": "{inputs.store_key}", "x-region": "{inputs.region}" },
    grants: { refresh_token: { fields: { refresh_token: "{refresh_token}", store_key: "{inputs.store_key}" } } },
  };
  return [
    server.definition("able", {}),
    server.definition("beside", {
      grants: ["authorization_code", "device_code"],
      authorization: { pushed: { url: `${server.origin}/par` } },
      device: { url: `${server.origin}/device` },
      introspection: { url: `${server.origin}/introspect` },
      response: { expires: { from: "introspect" } },
      revocation: server.revocation("token"),
    }),
    server.definition("keyed", {
      inputs,
      token,
      revocation: { ...server.revocation("token"), headers: { ...token.headers } },
    }),
    server.definition("login", { ...structuredClone({ inputs, token }), grants: ["password"] }),
  ];
}

let stage: AbilityStage<AbleProvider>;
let server: AbleProvider;
let from = 0;

/** The token requests since the test began. */
const sent = (): RequestEntry[] => server.ledger.requestsTo("token").slice(from);
const last = () => sent().at(-1);
const secretsIn = (entries: RequestEntry[]) =>
  entries.map(({ headers }) => basicCredentials({ headers } as never)?.secret ?? null);
/** A connection that cannot be made because of its inputs. */
const create = async (inputs: Record<string, string>) =>
  await stage.api.api("/connections", {
    method: "POST",
    body: { name: "wrong", provider: "keyed", client: "keyed", inputs },
  });
const refresh = async (name: string) => await stage.api.api(`/connections/${name}/refresh`, { method: "POST" });

/** A client of its own. The broker has a new secret for it already, the provider has not. */
async function startRotation(name: string, provider = "able", grant = "authorization_code") {
  const { id: client_id, secret: old } = server.client;
  const next = `next-${crypto.randomUUID()}`;
  await stage.api.createClient({ name, provider, client_id, client_secret: old });
  await stage.create(name, provider, { client: name, grant });
  if (provider === "able") await stage.consent(name);
  await stage.api.changeClient(name, { client_secret: next });
  from = server.ledger.requestsTo("token").length;
  return { old, next };
}

describeWithServices(["postgres", "redis"], "secrets", () => {
  beforeAll(async () => {
    server = new AbleProvider();
    stage = await AbilityStage.start(server, define);
  });
  beforeEach(() => {
    from = server.ledger.requestsTo("token").length;
    server.password = password;
  });
  afterAll(() => stage[Symbol.asyncDispose]());

  it("while a client's secret is rotated, the one before is tried when the new one is refused: at refreshes and for codes", async () => {
    const { old, next } = await startRotation("rotated");
    expect((await refresh("rotated")).status).toBe(200);
    expect(secretsIn(sent())).toEqual([next, old]);
    expect((await stage.consent("rotated")).text).toMatch(/^Connected/);
    expect(secretsIn(sent())).toEqual([next, old, next, old]);
    expect(server.ledger.reuses).toEqual([]);

    // Now the provider has it, too. With its first success the broker forgets the older one.
    server.client.secret = next;
    expect((await refresh("rotated")).status).toBe(200);
    await expect
      .poll(async () => (await stage.api.api("/clients/rotated")).body["secret_rotating"], patience)
      .toBe(false);
    server.client.secret = old;
    expect((await refresh("rotated")).body["code"]).toBe("client_rejected");
    expect(secretsIn(sent()).slice(4)).toEqual([next, next]);
    expect(await stage.api.connection("rotated")).toMatchObject({ status: "connected" });
  });

  it("and so it is beside the token endpoint: for user codes, pushed requests, introspection and revocation", async () => {
    const { old, next } = await startRotation("around", "beside", "device_code");
    const { body } = await stage.api.api<{ user_code: string }>("/connections/around/device", { method: "POST" });
    server.devices.answer(body.user_code, "approved");
    await expect.poll(async () => (await stage.api.connection("around")).status, patience).toBe("connected");
    await expect.poll(() => server.ledger.requestsTo("introspect").length, patience).toBe(2);
    await stage.api.deleteConnection("around");
    await expect.poll(() => server.ledger.requestsTo("revoke").length, patience).toBe(2);
    await stage.create("pushed", "beside", { client: "around" });
    const browser = new ScriptedBrowser();
    const start = await browser.open((await stage.api.consentLink("pushed")).url);
    const onward = await browser.submit(start, { stopAt: ({ origin }) => origin === server.origin });
    expect(onward.url.searchParams.get("request_uri")).toMatch(/^urn:pushed:/);
    for (const endpoint of ["device", "introspect", "revoke", "par"]) {
      expect(secretsIn(server.ledger.requestsTo(endpoint)), endpoint).toEqual([next, old]);
    }
  });

  it("an answer that says nothing of the secret leads to no second try: the refresh token is sent once", async () => {
    for (const [name, answer] of [
      ["busy", { status: 503, body: {} }],
      ["limited", { status: 429, body: {} }],
    ] as const) {
      const { next } = await startRotation(name);
      server.failNext(answer);
      expect((await refresh(name)).status, name).toBeGreaterThanOrEqual(400);
      expect(secretsIn(sent()), name).toEqual([next]);
    }
  });

  it("a secret input is sent where the definition says, and is in no column, view, event or log", async () => {
    await stage.connect("keyed", "keyed", { inputs: { store_key: firstKey } });
    expect(last()?.headers).toMatchObject({ "x-store": firstKey, "x-region": "eu" });
    await stage.api.refresh("keyed");
    expect(last()?.fields).toMatchObject({ store_key: firstKey });
    expect(await stage.api.connection("keyed")).toMatchObject({ inputs: { region: "eu" } });

    const pages = [
      "/connections/keyed",
      "/connections?limit=100",
      "/connections/keyed/events",
      "/tokens/keyed?include=request",
    ];
    const seen = await Promise.all(pages.map(async (path) => JSON.stringify((await stage.api.api(path)).body)));
    const { stdout, stderr } = stage.first;
    const everything = [await dumpPostgres(stage.databaseUrl), ...seen, stdout, stderr].join("\n");
    for (const encoding of ["utf8", "hex", "base64"] as const) {
      expect(everything).not.toContain(Buffer.from(firstKey).toString(encoding));
    }
    await stage.api.deleteConnection("keyed");
    expect(server.ledger.requestsTo("revoke").at(-1)?.headers).toMatchObject({ "x-store": firstKey });
  });

  it("a secret input is required, checked like any other, and not repeated in the refusal", async () => {
    const missing = await create({});
    expect([missing.status, missing.body["detail"]]).toEqual([
      400,
      expect.stringMatching(/inputs\.store_key is required/),
    ]);
    const wrong = await create({ store_key: "NOT A KEY" });
    expect([wrong.status, wrong.body["detail"]]).toEqual([400, expect.stringMatching(/inputs\.store_key must match/)]);
    expect(wrong.body["detail"]).not.toContain("NOT A KEY");
  });

  it("a PATCH changes a secret input without touching anything else, an open input included", async () => {
    await stage.connect("patched", "keyed", { inputs: { store_key: firstKey, region: "us" } });
    const before = await stage.token("patched");
    await stage.api.changeConnection("patched", { inputs: { store_key: secondKey } });
    expect((await stage.token("patched")).version).toBe(before.version);
    await stage.api.refresh("patched");
    expect(last()?.headers).toMatchObject({ "x-store": secondKey, "x-region": "us" });
    await stage.api.changeConnection("patched", { inputs: { region: "jp" } });
    await stage.api.refresh("patched");
    expect(last()?.headers).toMatchObject({ "x-store": secondKey, "x-region": "jp" });
    expect(await stage.api.connection("patched")).toMatchObject({ inputs: { region: "jp" } });
    const events = (await stage.events("patched")).filter(({ type }) => type === "updated");
    expect(JSON.stringify(events)).not.toContain("store-key");
  });

  it("with a login beside it, either is changed without the other, and both together", async () => {
    const credentials = { username: "ada", password };
    await stage.create("login", "login", { inputs: { store_key: firstKey }, credentials });
    expect(last()?.fields).toMatchObject({ username: "ada", password });

    const loginAgain = async () => {
      server.killRefreshTokens();
      await stage.api.refresh("login");
      return { fields: last()?.fields, headers: last()?.headers };
    };
    await stage.api.changeConnection("login", { inputs: { store_key: secondKey } });
    expect(await loginAgain()).toMatchObject({ fields: { password }, headers: { "x-store": secondKey } });

    server.password = "second-password";
    await stage.api.changeConnection("login", { credentials: { username: "ada", password: "second-password" } });
    expect(await loginAgain()).toMatchObject({
      fields: { password: "second-password" },
      headers: { "x-store": secondKey },
    });

    server.password = "third-password";
    const both = { inputs: { store_key: firstKey }, credentials: { username: "ada", password: "third-password" } };
    await stage.api.changeConnection("login", both);
    expect(await loginAgain()).toMatchObject({
      fields: { password: "third-password" },
      headers: { "x-store": firstKey },
    });
  });

  it("credentials that do not open send nothing, and are mended by new ones with every secret input, so that none is lost", async () => {
    const credentials = { username: "ada", password };
    await stage.create("torn", "login", { inputs: { store_key: firstKey }, credentials });
    await query(
      stage.databaseUrl,
      "UPDATE connections SET credentials_sealed = set_byte(credentials_sealed, 20, get_byte(credentials_sealed, 20) # 1) WHERE name = 'torn'",
    );
    const before = sent().length;
    expect((await refresh("torn")).body["code"]).toBe("unreadable_secret");
    expect(sent().length).toBe(before);
    const patch = async (body: object) => await stage.api.api("/connections/torn", { method: "PATCH", body });
    for (const part of [{ credentials }, { inputs: { store_key: firstKey } }]) {
      expect((await patch(part)).body).toMatchObject({ code: "unreadable_secret", connection: "torn" });
    }
    expect((await patch({ credentials, inputs: { store_key: secondKey } })).status).toBe(200);
    server.killRefreshTokens();
    await stage.api.refresh("torn");
    expect(last()).toMatchObject({ fields: { password }, headers: { "x-store": secondKey } });
  });

  it("a connection that a person must connect again stays so when a secret input is changed", async () => {
    await stage.connect("ended", "keyed", { inputs: { store_key: firstKey } });
    server.grants.killFamily(server.ledger.familyOf((await stage.token("ended")).access_token) ?? "");
    expect((await refresh("ended")).body["code"]).toBe("needs_reauthorization");
    const changed = await stage.api.changeConnection("ended", { inputs: { store_key: secondKey } });
    expect(changed.status).toBe("needs_reauthorization");
    expect((await stage.consent("ended")).text).toMatch(/^Connected/);
    expect(last()?.headers).toMatchObject({ "x-store": secondKey });
  });
});
