import { afterAll, beforeAll, beforeEach, expect, it } from "vitest";
import type { ConnectionRequest } from "../../support/broker-api.ts";
import { Apicbase } from "../../support/providers/apicbase.ts";
import type { RequestEntry } from "../../support/providers/ledger.ts";
import { ProviderStage } from "../../support/provider-stage.ts";
import { expectLife, rotate } from "../../support/rotations.ts";
import { ScriptedBrowser } from "../../support/scripted-browser.ts";
import type { ServiceToken } from "../../support/service.ts";
import { describeWithServices } from "../../support/services/index.ts";
import { approve } from "../../support/walk-consent.ts";

const api = "/api/v2/products/";
const scopes = ["accounts", "library"];
const lifeSeconds = 604_800;
let stage: ProviderStage<Apicbase>;

function like(name: string, provider: string): ConnectionRequest {
  return { name, provider, client: provider, scopes };
}

/** The owner follows the documented address, says yes, and copies the code from the page that shows it. */
async function copyCode(): Promise<string> {
  const { server } = stage;
  const query = `response_type=code&client_id=${server.client.id}&scope=${scopes.join("+")}`;
  return (await approve(`${server.origin}/oauth/authorize/?${query}`)).searchParams.get("code") ?? "";
}

/** The owner creates a token set on the provider's pages and copies it. */
async function importSet(name: string) {
  const {
    accessToken: access_token,
    refreshToken = "",
    expiresIn: expires_in,
    scope,
  } = stage.server.issueTokenSet({
    scope: scopes.join(" "),
  });
  await stage.api.importTokens(name, { access_token, refresh_token: refreshToken, expires_in, scope });
  return refreshToken;
}

/** A person opens a manual link, gets a code behind the address that the page names, and pastes it. */
async function pasteCode(name: string, toPasted: (shown: URL) => string) {
  const { url } = await stage.api.consentLink(name, { manual: true });
  const browser = new ScriptedBrowser();
  const page = await browser.open(url);
  const address = /<a href="([^"]+)" target="_blank"/.exec(page.html)?.[1]?.replaceAll("&amp;", "&") ?? "";
  return await browser.submit(page, { fields: { code: toPasted(await approve(address)) } });
}

const isBasic = ({ headers }: RequestEntry) => headers["authorization"]?.startsWith("Basic ") ?? false;

/** The names of the fields that were sent, each combination once. */
function fieldsOf(entries: RequestEntry[], grantType: string): string[] {
  const fitting = entries.filter(({ fields }) => fields["grant_type"] === grantType);
  return [...new Set(fitting.map(({ fields }) => Object.keys(fields).sort().join()))];
}

describeWithServices(["postgres", "redis"], "Apicbase", () => {
  beforeAll(async () => {
    stage = await ProviderStage.start(new Apicbase());
  });
  beforeEach(async () => {
    await stage.startOver();
    for (const provider of ["apicbase", "apicbase-basic"]) await stage.addClient(provider, provider);
  });
  afterAll(async () => await stage[Symbol.asyncDispose]());

  it("six independent sets, got in every documented way, are each refreshed ten times and leave the others alone", async () => {
    const { ledger } = stage.server;
    const services = [
      await stage.connect(like("by-body", "apicbase"), api),
      await stage.connect(like("by-basic", "apicbase-basic"), api),
      await stage.create(like("by-code", "apicbase"), api),
      await stage.create(like("by-manual-link", "apicbase-basic"), api),
      await stage.create({ ...like("by-import", "apicbase"), grant: "import" }, api),
      await stage.create({ ...like("by-import-basic", "apicbase-basic"), grant: "import" }, api),
    ];
    await stage.api.submitCode("by-code", await copyCode());
    const page = await pasteCode("by-manual-link", (shown) => shown.searchParams.get("code") ?? "");
    expect([page.status, page.text]).toEqual([200, expect.stringContaining("by-manual-link")]);
    await importSet("by-import");
    await importSet("by-import-basic");
    const first = await Promise.all(services.map((service) => service.token()));
    for (const token of first) {
      expectLife(token, lifeSeconds);
      expect(token.scopes).toEqual(scopes);
    }
    await rotate({ stage, services });

    const families = first.map(({ access_token }) => ledger.familyOf(access_token));
    expect(families.map((family) => ledger.refreshes(family))).toEqual(services.map(() => 10));
    expect(ledger.reuses).toEqual([]);
    expect(ledger.peakConcurrency()).toBe(1);
    const requests = ledger.requestsTo("token");
    expect(requests.filter(({ status }) => status !== 200)).toEqual([]);
    const byBody = requests.filter((entry) => !isBasic(entry));
    expect(byBody).toHaveLength(32);
    expect(fieldsOf(byBody, "refresh_token")).toEqual(["client_id,client_secret,grant_type,refresh_token"]);
    const byBasic = requests.filter(isBasic);
    expect(byBasic).toHaveLength(32);
    expect(fieldsOf(byBasic, "refresh_token")).toEqual(["grant_type,refresh_token"]);
    expect(fieldsOf(byBasic, "authorization_code")).toEqual(["code,grant_type,redirect_uri", "code,grant_type"]);
  });

  it("a refresh token that has died ends each connection with the advice that fits it, and all are mended under their names", async () => {
    const consented = await stage.connect(like("consented", "apicbase"), api);
    const coded = await stage.create(like("coded", "apicbase-basic"), api);
    const imported = await stage.create({ ...like("imported", "apicbase"), grant: "import" }, api);
    await stage.api.submitCode("coded", await copyCode());
    await importSet("imported");
    const ways = [
      { service: consented, advice: /new consent link/, mend: () => stage.consent("consented") },
      {
        service: coded,
        advice: /new consent link/,
        mend: async () => stage.api.submitCode("coded", await copyCode()),
      },
      { service: imported, advice: /import a new token set/, mend: () => importSet("imported") },
    ];
    const last = await Promise.all(ways.map(({ service }) => service.token()));
    stage.server.killRefreshTokens();
    await stage.pass(lifeSeconds + 1);
    for (const [index, { service, advice, mend }] of ways.entries()) {
      const before = last[index] as ServiceToken;
      await service.meetEnd(before);
      const refused = await service.read();
      expect([refused.status, refused.body.code]).toEqual([409, "needs_reauthorization"]);
      expect(refused.body.detail).toMatch(advice);
      expect(refused.body.detail).toMatch(/revoked/);
      expect((await stage.api.connection(service.connection)).status).toBe("needs_reauthorization");
      await mend();
      const token = await service.token();
      expect(token.version).toBeGreaterThan(before.version);
      expect(await service.call(token)).toMatchObject({ status: 200 });
    }
    expect(stage.server.ledger.reuses).toEqual([]);
  });

  it("the whole address that shows the code may be pasted too", async () => {
    const service = await stage.create(like("pasted", "apicbase"), api);
    expect((await pasteCode("pasted", (shown) => shown.href)).status).toBe(200);
    expect(await service.call(await service.token())).toMatchObject({ status: 200 });
  });

  it("a code that is more than a minute old is refused, and the next one connects", async () => {
    const service = await stage.create(like("slow", "apicbase"), api);
    const code = await copyCode();
    stage.server.advance(61);
    const refused = await stage.api.api("/connections/slow/code", { method: "POST", body: { code } });
    expect([refused.status, refused.body["code"]]).toEqual([422, "provider_rejected"]);
    expect(refused.body["detail"]).toMatch(/code has expired/);
    expect((await service.read()).body.code).toBe("authorization_pending");
    await stage.api.submitCode("slow", await copyCode());
    expect(await service.call(await service.token())).toMatchObject({ status: 200 });
  });

  it("sets stand side by side: refreshing one leaves the other good, and no set is held twice", async () => {
    const one = await stage.create({ ...like("one", "apicbase"), grant: "import" }, api);
    const two = await stage.create({ ...like("two", "apicbase"), grant: "import" }, api);
    const copied = await importSet("one");
    const body = { refresh_token: copied };
    const refused = await stage.api.api("/connections/two/import", { method: "POST", body });
    expect([refused.status, refused.body["code"]]).toEqual([409, "duplicate_grant"]);

    await importSet("two");
    const [ofOne, ofTwo] = [await one.token(), await two.token()];
    await stage.api.refresh("one");
    expect(await one.call(ofOne)).toMatchObject({ status: 401 });
    expect(await two.call(ofTwo)).toMatchObject({ status: 200 });
    await stage.api.refresh("two");
    for (const service of [one, two]) expect(await service.call(await service.token())).toMatchObject({ status: 200 });
    expect(stage.server.ledger.reuses).toEqual([]);
  });
});
