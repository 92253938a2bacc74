import { fileURLToPath, pathToFileURL } from "node:url";
import { afterAll, beforeAll, expect, it } from "vitest";
import { freePort } from "../../support/free-port.ts";
import { type OidcPeer, startOidcPeer } from "../../support/oidc-peer.ts";
import { patience, until } from "../../support/patience.ts";
import { describeWithServices } from "../../support/services/index.ts";
import { AbilityStage } from "./support/ability-stage.ts";
import { AbleProvider } from "./support/able-provider.ts";

const metadataPath = "/.well-known/openid-configuration";
const clockAhead = fileURLToPath(new URL("support/clock-ahead-preload.ts", import.meta.url));

/** One server for each test, with the name of the test. The broker knows only the issuer of each. */
const ids = ["evil", "down", "lacking", "moved", "gone", "machine"] as const;
let stage: AbilityStage<AbleProvider>;
let peer: OidcPeer;
const servers = new Map<string, AbleProvider>();

/** The server of one test, which publishes its addresses, with a connection of the same name. */
async function serve(id: (typeof ids)[number], metadata: Record<string, unknown> | null = {}) {
  const server = servers.get(id) as AbleProvider;
  server.metadata = metadata;
  await stage.create(id, id);
  const reads = () => server.ledger.requestsTo("metadata").length;
  return { server, reads };
}

async function askForLink(name: string) {
  const { status, body, headers } = await stage.api.api(`/connections/${name}/consent-links`, {
    method: "POST",
    body: {},
  });
  return { status, code: body["code"], detail: String(body["detail"]), retryAfter: headers["retry-after"] };
}

async function pass(time: "minute" | "hour"): Promise<void> {
  const { first } = stage;
  const jumps = () => first.stderr.split("clock ahead").length;
  const before = jumps();
  process.kill(first.pid, time === "minute" ? "SIGUSR2" : "SIGPWR");
  await until("the clock's jump", () => jumps() > before);
}

describeWithServices(["postgres", "redis"], "addresses that an issuer publishes", () => {
  beforeAll(async () => {
    const all = await Promise.all(ids.map(async (id) => [id, await new AbleProvider().start()] as const));
    for (const [id, server] of all) servers.set(id, server);
    const port = await freePort();
    const features = { revocation: { enabled: true } };
    const redirectUris = [`http://127.0.0.1:${port}/callback/peer`];
    peer = await startOidcPeer({ redirectUris, configuration: { features } });
    const define = () => [
      { id: "peer", extends: "oidc", issuer: peer.origin },
      ...all.map(([id, { origin }]) => ({
        id,
        extends: "oidc",
        issuer: origin,
        authorization: { pkce: "off", scope: { default: [] } },
        ...(id === "machine" && { grants: ["client_credentials"] }),
      })),
    ];
    const nodeOptions = [`--import=${pathToFileURL(clockAhead).href}`];
    stage = await AbilityStage.start(new AbleProvider(), define, { nodeOptions, port });
    for (const [id, server] of all) server.redirectUris.add(stage.first.redirectUri(id));
  });
  afterAll(async () => {
    await stage[Symbol.asyncDispose]();
    await Promise.all([...servers.values(), peer].map((server) => server[Symbol.asyncDispose]()));
  });

  it("metadata that are away leave a connection that needs no person pending, and say so on it", async () => {
    await serve("machine", null);
    const { status, last_error } = await stage.api.connection("machine");
    expect([status, last_error]).toEqual([
      "pending",
      expect.objectContaining({ code: "connect_failed", detail: expect.stringMatching(/metadata/) }),
    ]);
  });

  it("`extends: oidc` and an issuer are enough for oidc-provider: consent, refreshes and revocation, with one read of its metadata", async () => {
    const { api } = stage;
    const { id: client_id, secret: client_secret } = peer.client;
    await api.createClient({ name: "app", provider: "peer", client_id, client_secret });
    await api.createConnection({ name: "acme", provider: "peer", client: "app" });
    const page = await stage.consent("acme");
    expect([page.status, page.text]).toEqual([200, expect.stringMatching(/^Connected/)]);
    for (let count = 0; count < 5; count++) await api.refresh("acme");
    expect([peer.granted.length, peer.refused]).toEqual([6, []]);
    expect((await api.token("acme")).body.version).toBe(6);

    await api.deleteConnection("acme");
    expect(peer.paths.filter((path) => path === "/token/revocation").length).toBeGreaterThan(0);
    expect(peer.revokedGrants).toHaveLength(1);
    expect(peer.paths.filter((path) => path.startsWith("/.well-known/"))).toEqual([metadataPath]);
  });

  it("metadata that name another issuer are refused, in words, and nothing is sent there", async () => {
    const token_endpoint = "https://evil.example/token";
    const { server } = await serve("evil", { issuer: "https://evil.example", token_endpoint });
    const refused = await askForLink("evil");
    expect([refused.status, refused.code]).toEqual([503, "provider_unavailable"]);
    expect(refused.detail).toMatch(
      new RegExp(`names the issuer "https://evil.example", and the definition "${server.origin}"`),
    );
    expect(server.ledger.requestsTo("token")).toEqual([]);
  });

  it("an issuer that is down at first is a 503 with a time, is asked once a minute, and works when it is back", async () => {
    const { server, reads } = await serve("down", null);
    const down = await askForLink("down");
    expect([down.status, down.code, down.retryAfter]).toEqual([
      503,
      "provider_unavailable",
      expect.stringMatching(/^(5\d|60)$/),
    ]);
    const asked = reads();
    // An imported set needs nothing of the metadata.
    const handed = { access_token: "handed", refresh_token: "over", expires_in: 3600 };
    expect((await stage.api.api("/connections/down/import", { method: "POST", body: handed })).status).toBe(200);
    expect(await stage.token("down")).toMatchObject({ access_token: "handed" });
    server.metadata = {};
    for (let count = 0; count < 3; count++) expect((await askForLink("down")).status).toBe(503);
    expect(reads()).toBe(asked);
    await pass("minute");
    expect((await stage.consent("down")).text).toMatch(/^Connected/);
    expect(reads()).toBe(asked + 1);
  });

  it("metadata without what a grant needs are told by name; an address that only revocation needs may be lacking", async () => {
    const { server } = await serve("lacking", { token_endpoint: undefined });
    expect(await askForLink("lacking")).toMatchObject({
      status: 503,
      detail: expect.stringMatching(/no token_endpoint/),
    });
    server.metadata = { revocation_endpoint: undefined };
    await pass("hour");
    expect((await stage.consent("lacking")).text).toMatch(/^Connected/);
    await stage.api.deleteConnection("lacking");
    expect(server.ledger.requestsTo("revoke")).toEqual([]);
  });

  it("a token endpoint that has moved is found in the metadata within a minute, and no refresh token is lost", async () => {
    const { server, reads } = await serve("moved");
    await stage.consent("moved");
    for (let count = 0; count < 3; count++) await stage.api.refresh("moved");
    expect(reads()).toBe(1);

    server.tokenPath = "/elsewhere/token";
    const refresh = async () => (await stage.api.api("/connections/moved/refresh", { method: "POST" })).status;
    expect(await refresh()).toBe(503);
    expect(server.ledger.requestsTo("nowhere").map(({ path }) => path)).toEqual(["/token"]);
    expect((await stage.token("moved")).version).toBe(4);
    await pass("minute");
    await expect.poll(refresh, patience).toBe(200);
    expect(reads()).toBe(2);
    expect((await stage.token("moved")).version).toBe(5);
    expect([server.ledger.reuses, server.ledger.requestsTo("nowhere")]).toEqual([[], [expect.anything()]]);
  });

  it("what was known of an issuer that has gone away goes on counting, for revocation, too", async () => {
    const { server, reads } = await serve("gone");
    await stage.consent("gone");
    server.metadata = null;
    await pass("hour");
    await stage.api.refresh("gone");
    expect(reads()).toBe(2);
    await stage.api.deleteConnection("gone");
    await expect.poll(() => server.revoked.length, patience).toBeGreaterThan(0);
  });
});
