import { describe, expect, test } from "vitest";
import type { ProviderDefinition } from "../../../src/providers/format/definition.ts";
import { createDiscovery, type Discovery } from "../../../src/providers/oauth/discovery.ts";
import type { Asked } from "../../../src/providers/oauth/oauth-client.ts";
import { buildTokenRequest } from "../../../src/providers/oauth/token-request.ts";
import { fakeClock, type FakeClock } from "../tokens/fake-clock.ts";
import { define } from "./definitions.ts";

const issuer = "https://login.example/realm";
const openid = `${issuer}/.well-known/openid-configuration`;
const oauth = "https://login.example/.well-known/oauth-authorization-server/realm";
const metadata = {
  issuer,
  authorization_endpoint: "https://login.example/authorize",
  token_endpoint: "https://login.example/token",
  revocation_endpoint: "https://login.example/revoke",
};
const minute = 60_000;
const hour = 60 * minute;

/** In place of a page: the server redirects to this address. */
class Redirect {
  readonly to: string;
  constructor(to: string) {
    this.to = to;
  }
}

type Stage = {
  /** The page at each address; none: 404. */
  pages: Record<string, unknown>;
  asked: string[];
  clock: FakeClock;
  complete: (definition?: ProviderDefinition) => Promise<ProviderDefinition>;
  doubt: Discovery["doubt"];
  values: { inputs: Record<string, string> };
};

function setStage(pages: Record<string, unknown> = { [openid]: metadata }): Stage {
  const asked: string[] = [];
  const clock = fakeClock();
  const ask = async ({ request }: { request: { method: string; url: string } }): Promise<Asked> => {
    asked.push(request.url);
    await Promise.resolve();
    const body = pages[request.url];
    if (body instanceof Redirect) {
      return { ok: false, status: 302, body: null, detail: "the provider answered 302", location: body.to };
    }
    if (body === undefined) return { ok: false, status: 404, body: null, detail: "the provider answered 404" };
    return { ok: true, status: 200, body, detail: "the provider answered 200" };
  };
  const values = { inputs: {} };
  const discovery = createDiscovery({ oauth: { ask }, clock });
  const complete = (definition = plain) => discovery.complete(definition, values);
  const doubt: Discovery["doubt"] = (...given) => discovery.doubt(...given);
  return { pages, asked, clock, complete, doubt, values };
}

const stageWith = (changed: object) => setStage({ [openid]: { ...metadata, ...changed } });
const tenantIssuer = (tenant: number) => `https://login.example/t${tenant}`;
const discovered = (settings: string, from = issuer) => define(settings, `id: own\nissuer: "${from}"`);
const plain = discovered("revocation: {}");
const tokenUrl = ({ exchanges }: ProviderDefinition) => exchanges.authorization_code?.url;

describe("the metadata of an issuer", () => {
  test("fill in the addresses that a file leaves out, and none that it has", async () => {
    const definition = discovered(
      "grants: [authorization_code, device_code, import]\nauthorization: { pushed: {} }\nrevocation: { url: https://own.example/revoke }\nintrospection: {}\ndevice: {}",
    );
    const { complete } = setStage({
      [openid]: {
        ...metadata,
        pushed_authorization_request_endpoint: "https://login.example/par",
        introspection_endpoint: "https://login.example/introspect",
        device_authorization_endpoint: "https://login.example/device",
      },
    });
    const whole = await complete(definition);
    expect(whole.authorization).toEqual({
      ...definition.authorization,
      url: "https://login.example/authorize",
      pushed: { ...definition.authorization?.pushed, url: "https://login.example/par" },
    });
    const requests = [...Object.values(whole.exchanges), ...Object.values(whole.refreshes)];
    expect(requests.length).toBe(5);
    expect(new Set(requests.map(({ url }) => url))).toEqual(new Set(["https://login.example/token"]));
    expect(whole.device?.url).toBe("https://login.example/device");
    expect(whole.introspection?.url).toBe("https://login.example/introspect");
    expect(whole.revocation?.url).toBe("https://own.example/revoke");
    expect(tokenUrl(definition)).toBe("");
  });

  test("are looked for where OpenID Connect has them, then where RFC 8414 has them", async () => {
    const first = setStage();
    expect(tokenUrl(await first.complete())).toBe("https://login.example/token");
    expect(first.asked).toEqual([openid]);
    const second = setStage({ [oauth]: metadata });
    expect(tokenUrl(await second.complete())).toBe("https://login.example/token");
    expect(second.asked).toEqual([openid, oauth]);
  });

  test("of an issuer without a path, and of one with a tenant in it, are found too", async () => {
    const root = { ...metadata, issuer: "https://login.example" };
    const { complete, asked } = setStage({ "https://login.example/.well-known/oauth-authorization-server": root });
    await complete(discovered("", "https://login.example"));
    expect(asked).toEqual([
      "https://login.example/.well-known/openid-configuration",
      "https://login.example/.well-known/oauth-authorization-server",
    ]);
    const stage = setStage();
    Object.assign(stage.values.inputs, { tenant: "realm" });
    const tenants = discovered("inputs: { tenant: {} }", "https://login.example/{inputs.tenant}");
    expect(tokenUrl(await stage.complete(tenants))).toBe("https://login.example/token");
    Object.assign(stage.values.inputs, { tenant: "other" });
    await expect(stage.complete(tenants)).rejects.toThrow(/https:\/\/login\.example\/other/);
  });

  test("of an issuer that ends in a slash are where they are without it, and name it with the slash", async () => {
    const slashed = `${issuer}/`;
    for (const place of [openid, oauth]) {
      const { complete } = setStage({ [place]: { ...metadata, issuer: slashed } });
      expect(tokenUrl(await complete(discovered("", slashed)))).toBe("https://login.example/token");
    }
  });

  test.each([
    ["another host", "https://evil.example/realm"],
    ["another path", "https://login.example/other"],
    ["a slash more", `${issuer}/`],
    ["nobody", undefined],
  ])("that name %s as their issuer are not used (RFC 8414, section 3.3)", async (_name, named) => {
    const wrong = { ...metadata, issuer: named };
    const { complete } = setStage({ [openid]: wrong, [oauth]: wrong });
    await expect(complete()).rejects.toMatchObject({
      code: "provider_unavailable",
      message: `The metadata of ${issuer} cannot be read: ${
        named === undefined
          ? "the answer names another issuer"
          : `the answer names the issuer "${named}", and the definition "${issuer}": they must be the same to the letter`
      }.`,
    });
  });

  test("of another issuer at one place do not keep the right ones at the other from being found", async () => {
    const { complete } = setStage({ [openid]: { ...metadata, issuer: "https://evil.example" }, [oauth]: metadata });
    expect(tokenUrl(await complete())).toBe("https://login.example/token");
  });

  test("are followed to where their server says that they are, within its origin", async () => {
    const there = "https://login.example/meta?v=1";
    const stage = setStage({
      [openid]: new Redirect("/realm/again"),
      "https://login.example/realm/again": new Redirect(there),
      [there]: metadata,
    });
    expect(tokenUrl(await stage.complete())).toBe("https://login.example/token");
    expect(stage.asked).toEqual([openid, "https://login.example/realm/again", there]);
  });

  test.each([
    ["another host", "https://evil.example/meta?code=1", "https://evil.example/meta"],
    ["another port", "https://login.example:8443/meta", "https://login.example:8443/meta"],
    ["another scheme", "http://login.example/meta", "http://login.example/meta"],
    ["somebody's name there", "https://own@login.example/meta", "https://login.example/meta"],
    ["a template", "/meta/{client.secret}", "https://login.example/meta/%7Bclient.secret%7D"],
  ])("are not followed to %s, and it is said where they are", async (_name, to, said) => {
    const stage = setStage({ [openid]: new Redirect(to), [oauth]: new Redirect(to), [to]: metadata });
    const detail = `302 and sends to ${said}, which is not followed: set discovery.metadata_url`;
    const failed = stage.complete();
    if (to.includes("{")) await expect(failed).rejects.toThrow(/cannot be read/);
    else await expect(failed).rejects.toThrow(detail);
    expect(stage.asked.every((url) => url.startsWith("https://login.example/"))).toBe(true);
  });

  test("that send in a circle are given up, and an address that is none is not followed", async () => {
    const round = setStage({ [openid]: new Redirect(openid), [oauth]: metadata });
    expect(tokenUrl(await round.complete())).toBe("https://login.example/token");
    expect(round.asked.length).toBe(5);
    const odd = setStage({ [openid]: new Redirect("http://"), [oauth]: metadata });
    expect(tokenUrl(await odd.complete())).toBe("https://login.example/token");
  });

  test("of a host that the definition does not fix say nothing of what is there", async () => {
    const anywhere = discovered(`inputs: { at: { pattern: "^https://[a-z./]+$" } }`, "{inputs.at}");
    for (const page of [new Redirect("https://inside.example/x"), { ...metadata, issuer: "https://inside.example" }]) {
      const stage = setStage({ [openid]: page, [oauth]: page });
      Object.assign(stage.values.inputs, { at: issuer });
      const message = await stage.complete(anywhere).then(String, String);
      expect(message).toContain("cannot be read");
      expect(message).not.toContain("inside");
    }
  });

  test("are where discovery.metadata_url says, and there alone; they must name the issuer all the same", async () => {
    const there = "https://elsewhere.example/meta/north";
    const settings =
      'inputs: { region: {} }\ndiscovery: { metadata_url: "https://elsewhere.example/meta/{inputs.region}" }';
    const definition = discovered(settings);
    const stage = setStage({
      [openid]: { ...metadata, token_endpoint: "https://wrong.example/token" },
      [there]: metadata,
    });
    Object.assign(stage.values.inputs, { region: "north" });
    expect(tokenUrl(await stage.complete(definition))).toBe("https://login.example/token");
    expect(stage.asked).toEqual([there]);
    Object.assign(stage.values.inputs, { region: "south" });
    await expect(stage.complete(definition)).rejects.toThrow(/cannot be read/);
    expect(stage.asked).toEqual([there, "https://elsewhere.example/meta/south"]);
    const wrong = setStage({ [there]: { ...metadata, issuer: "https://elsewhere.example" } });
    Object.assign(wrong.values.inputs, { region: "north" });
    await expect(wrong.complete(definition)).rejects.toThrow(/names the issuer "https:\/\/elsewhere\.example"/);
  });

  test("that name no token or authorization endpoint do not do; other requests go without", async () => {
    const { token_endpoint: _token, ...tokenless } = metadata;
    await expect(setStage({ [openid]: tokenless }).complete()).rejects.toThrow(/name no token_endpoint/);
    const { authorization_endpoint: _authorize, ...pageless } = metadata;
    await expect(setStage({ [openid]: pageless }).complete()).rejects.toThrow(/name no authorization_endpoint/);
    const odd = { ...metadata, token_endpoint: "nowhere" };
    await expect(setStage({ [openid]: odd }).complete()).rejects.toThrow(/name no token_endpoint/);
    const { revocation_endpoint: _revocation, ...fewer } = metadata;
    expect((await setStage({ [openid]: fewer }).complete()).revocation).toBeNull();
  });

  test.each([
    ["holds a template", "https://login.example/token?k={client.secret}"],
    ["holds a brace alone", "https://login.example/token?k={"],
    ["is a script", "javascript:alert(1)"],
    ["is a file", "file:///etc/passwd"],
    ["is not encrypted while the issuer is", "http://login.example/token"],
    ["has a user name", "https://own@login.example/token"],
    ["has a password", "https://:own@login.example/token"],
    ["has a fragment", "https://login.example/token#a"],
    ["has an empty fragment", "https://login.example/token#"],
    ["has a line break", "https://login.example/to\nken"],
    ["has a backslash", "https:\\\\login.example\\token"],
    ["is very long", `https://login.example/${"x".repeat(2000)}`],
    ["is no text", ["https://login.example/token"]],
  ])("name no endpoint by what %s", async (_name, wrong) => {
    await expect(stageWith({ token_endpoint: wrong }).complete()).rejects.toThrow(/name no token_endpoint/);
    const page = stageWith({ authorization_endpoint: wrong });
    await expect(page.complete()).rejects.toThrow(/name no authorization_endpoint/);
    expect((await stageWith({ revocation_endpoint: wrong }).complete()).revocation).toBeNull();
    const certified = discovered("token: { client_auth: tls }");
    const alias = stageWith({ mtls_endpoint_aliases: { token_endpoint: wrong } });
    expect(tokenUrl(await alias.complete(certified))).toBe("https://login.example/token");
  });

  test("may name addresses without encryption where the issuer has none itself", async () => {
    const from = "http://login.test";
    const addresses = { authorization_endpoint: `${from}/authorize`, token_endpoint: `${from}/token` };
    const { complete } = setStage({ [`${from}/.well-known/openid-configuration`]: { issuer: from, ...addresses } });
    expect(tokenUrl(await complete(discovered("", from)))).toBe(`${from}/token`);
  });

  test("cannot put a secret into an address by braces that are encoded", async () => {
    const token_endpoint = "https://login.example/%7Bclient.secret%7D?k=%7Bclient.secret%7D";
    const definition = await setStage({ [openid]: { ...metadata, token_endpoint } }).complete();
    const { url } = buildTokenRequest({
      definition,
      grant: "refresh_token",
      obtainedBy: "authorization_code",
      values: { client: { id: "app-1", secret: "s3cret" }, refreshToken: "r1" },
    });
    expect(url).toBe(token_endpoint);
  });

  test("give a client with a certificate the addresses for it (RFC 8705, section 5), and no other client", async () => {
    const aliases = { token_endpoint: "https://mtls.example/token" };
    const { complete } = setStage({ [openid]: { ...metadata, mtls_endpoint_aliases: aliases } });
    const certified = discovered("revocation: {}\ntoken: { client_auth: tls }");
    const whole = await complete(certified);
    expect(tokenUrl(whole)).toBe("https://mtls.example/token");
    expect(whole.revocation?.url).toBe("https://login.example/revoke");
    expect(whole.authorization?.url).toBe("https://login.example/authorize");
    expect(tokenUrl(await complete())).toBe("https://login.example/token");
  });

  test("are not asked for where a definition has no issuer, or lacks no address", async () => {
    const { complete, doubt, asked, values } = setStage();
    const none = define("");
    const whole = define(`issuer: ${issuer}`);
    expect(await complete(none)).toBe(none);
    expect(await complete(whole)).toBe(whole);
    doubt(none, values);
    expect(asked).toEqual([]);
  });
});

describe("reading them again", () => {
  test("happens after an hour, and not before", async () => {
    const { complete, asked, clock, pages } = setStage();
    await complete();
    pages[openid] = { ...metadata, token_endpoint: "https://login.example/moved" };
    clock.advance(hour - 1);
    expect(tokenUrl(await complete())).toBe("https://login.example/token");
    expect(asked.length).toBe(1);
    clock.advance(1);
    expect(tokenUrl(await complete())).toBe("https://login.example/moved");
    expect(asked.length).toBe(2);
  });

  test("happens once for all who ask at the same time", async () => {
    const { complete, asked } = setStage();
    await Promise.all([complete(), complete(), complete(discovered("scopes: { a: b }"))]);
    expect(asked).toEqual([openid]);
  });

  test("follows a doubt, once they are a minute old, and once for each doubt", async () => {
    const { complete, doubt, asked, clock, values } = setStage();
    await complete();
    doubt(plain, values);
    clock.advance(minute - 1);
    await complete();
    expect(asked.length).toBe(1);
    clock.advance(1);
    await complete();
    expect(asked.length).toBe(2);
    clock.advance(minute);
    await complete();
    expect(asked.length).toBe(2);
  });

  test("that fails leaves what was known in force, and is tried again a minute later", async () => {
    const { complete, asked, clock, pages } = setStage();
    await complete();
    delete pages[openid];
    clock.advance(hour);
    expect(tokenUrl(await complete())).toBe("https://login.example/token");
    expect(asked.length).toBe(3);
    clock.advance(minute - 1);
    expect(tokenUrl(await complete())).toBe("https://login.example/token");
    expect(asked.length).toBe(3);
    pages[openid] = { ...metadata, token_endpoint: "https://login.example/moved" };
    clock.advance(1);
    expect(tokenUrl(await complete())).toBe("https://login.example/moved");
  });

  test("is each provider's own: neither what one was told nor that it failed counts for another at the same issuer", async () => {
    const { complete, asked, pages } = setStage({});
    const other = define("revocation: {}", `id: other\nissuer: "${issuer}"`, "other");
    await expect(complete()).rejects.toMatchObject({ code: "provider_unavailable" });
    pages[openid] = metadata;
    expect(tokenUrl(await complete(other))).toBe("https://login.example/token");
    await expect(complete()).rejects.toMatchObject({ code: "provider_unavailable" });
    expect(asked).toEqual([openid, oauth, openid]);
  });

  test("where none were ever read, happens once a minute, and everybody hears why in the meantime", async () => {
    const { complete, asked, clock, pages } = setStage({});
    const failure = expect.objectContaining({
      code: "provider_unavailable",
      message: `The metadata of ${issuer} cannot be read: the provider answered 404.`,
      context: { retryAfterSeconds: 60 },
    });
    await expect(complete()).rejects.toEqual(failure);
    clock.advance(minute - 1);
    await expect(complete()).rejects.toEqual(failure);
    expect(asked).toEqual([openid, oauth]);
    pages[openid] = metadata;
    clock.advance(1);
    expect(tokenUrl(await complete())).toBe("https://login.example/token");
  });
});

describe("what is kept of many issuers", () => {
  const tenants = discovered("inputs: { tenant: {} }", "https://login.example/{inputs.tenant}");

  async function visit({ complete, values }: Stage, tenant: number): Promise<void> {
    Object.assign(values.inputs, { tenant: `t${tenant}` });
    await complete(tenants).catch(() => {});
  }

  test.each([
    ["addresses", true],
    ["failures", false],
  ])("%s of a thousand, those used longest ago out first", async (_name, answers) => {
    const pages = Array.from({ length: 1001 }, (_, tenant) => {
      const from = tenantIssuer(tenant);
      return [`${from}/.well-known/openid-configuration`, { ...metadata, issuer: from }];
    });
    const stage = setStage(answers ? Object.fromEntries(pages) : {});
    for (let tenant = 0; tenant <= 1000; tenant++) await visit(stage, tenant);
    stage.asked.length = 0;
    for (const tenant of [1, 1000]) await visit(stage, tenant);
    expect(stage.asked).toEqual([]);
    await visit(stage, 0);
    expect(stage.asked[0]).toBe(`${tenantIssuer(0)}/.well-known/openid-configuration`);
    stage.asked.length = 0;
    for (const tenant of [0, 1, 1000]) await visit(stage, tenant);
    expect(stage.asked).toEqual([]);
    await visit(stage, 2);
    expect(stage.asked.length).toBeGreaterThan(0);
  });

  test("is their addresses, and nothing else of an answer", async () => {
    const answer = { ...metadata };
    const { complete, asked } = setStage({ [openid]: answer });
    await complete();
    answer.token_endpoint = "https://login.example/changed-in-the-answer";
    expect(tokenUrl(await complete())).toBe("https://login.example/token");
    expect(asked.length).toBe(1);
  });
});
