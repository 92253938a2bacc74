import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Catalog, loadCatalog } from "../../../../src/providers/load/catalog.ts";
import { folderOfBuiltins } from "../../../support/built-ins.ts";
import { startOidcPeer } from "../../../support/oidc-peer.ts";
import { Apicbase } from "../../../support/providers/apicbase.ts";
import { Bakeronline } from "../../../support/providers/bakeronline.ts";
import { Bol } from "../../../support/providers/bol.ts";
import { overrideFiles, providersFolder } from "../../../support/providers/definition-files.ts";
import { GenericProvider } from "../../../support/providers/generic.ts";
import { Shopware } from "../../../support/providers/shopware.ts";
import type { StrictServer } from "../../../support/providers/strict-server.ts";

const ids = ["apicbase", "apicbase-basic", "bakeronline", "bol", "bol-form", "oauth2", "oidc", "shopware"];
const builtinFolder = folderOfBuiltins(...ids);
let servers: Record<string, StrictServer>;
let folder: string;
let catalog: Catalog;

beforeAll(async () => {
  const started = [new Bakeronline(), new Apicbase(), new Shopware(), new Bol(), new GenericProvider()];
  const [bakeronline, apicbase, shopware, bol, strict] = await Promise.all(started.map((server) => server.start()));
  if (!bakeronline || !apicbase || !shopware || !bol || !strict) throw new Error("a server did not start");
  servers = { bakeronline, apicbase, "apicbase-basic": apicbase, shopware, bol, "bol-form": bol, strict };
  folder = await providersFolder(bakeronline, apicbase, shopware, bol, strict);
  catalog = load();
});

afterAll(async () => {
  await Promise.all(Object.values(servers).map((server) => server.stop()));
});

function load(): Catalog {
  return loadCatalog({ builtinFolder, extraFolder: folder, sandbox: null });
}

describe("definitions that point at strict servers", () => {
  it.each(["bakeronline", "apicbase", "apicbase-basic", "bol", "bol-form", "strict"])(
    "%s reaches nothing but its strict server",
    (id) => {
      const definition = catalog.get(id);
      const exchanges = [...Object.values(definition?.exchanges ?? {}), ...Object.values(definition?.refreshes ?? {})];
      const urls = [definition?.authorization?.url, definition?.api.baseUrl, ...exchanges.map(({ url }) => url)];
      expect(urls.length).toBeGreaterThan(3);
      expect(urls.filter((url) => !url?.startsWith(`${servers[id]?.origin}/`) && url !== servers[id]?.origin)).toEqual(
        [],
      );
    },
  );

  it("shopware accepts its strict server as the shop, and no other host", () => {
    const pattern = new RegExp(catalog.get("shopware")?.inputs["shop_url"]?.pattern ?? "(?!)");
    expect(servers["shopware"]?.origin).toMatch(pattern);
    expect("https://127.0.0.1:80.example").not.toMatch(pattern);
  });

  it("keep every quirk of the built-in ones", () => {
    expect(catalog.get("bakeronline")?.exchanges.authorization_code?.grantType).toBe("code");
    expect(catalog.get("bol")?.exchanges.client_credentials?.encoding).toBe("query");
  });

  it("say about refresh tokens what the server does, also after it changed", async () => {
    expect(catalog.get("strict")?.refresh).toMatchObject({ rotation: "always", reuse: "kills_family" });
    const { strict } = servers;
    if (!strict) throw new Error("no strict server");
    Object.assign(strict.switches, { reuse: "grace", graceSeconds: 30 });
    await overrideFiles(strict, folder);
    expect(load().get("strict")?.refresh).toMatchObject({ reuse: "grace", graceSeconds: 30 });
  });

  it("oidc-provider's is accepted too", async () => {
    await using peer = await startOidcPeer({ redirectUris: ["http://127.0.0.1:9/callback/oidc-peer"] });
    await overrideFiles(peer, folder);
    expect(load().get("oidc-peer")?.authorization?.url).toBe(`${peer.origin}/auth`);
  });
});
