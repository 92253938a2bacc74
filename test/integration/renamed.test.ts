import { rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import { stringify } from "yaml";
import { startBroker } from "../support/broker-process.ts";
import { providersFolder } from "../support/providers/definition-files.ts";
import { GenericProvider } from "../support/providers/generic.ts";
import { describeWithServices, useDatabase } from "../support/services/index.ts";
import { walkConsent } from "../support/walk-consent.ts";

describeWithServices(["postgres"], "a provider's definition that is renamed", () => {
  it("goes on with its tokens, its client and its redirect URI, where it says what it was called", async () => {
    await using stack = new AsyncDisposableStack();
    const provider = await new GenericProvider().start();
    stack.defer(async () => await provider.stop());
    const folder = await providersFolder(provider);
    const broker = stack.use(await startBroker({ databaseUrl: await useDatabase(), providersDir: folder }));
    const { api } = broker;
    provider.redirectUris.add(broker.redirectUri("strict"));
    const { id: client_id, secret: client_secret } = provider.client;
    await api.createClient({ name: "before", provider: "strict", client_id, client_secret });
    const create = async (name: string, by: string, client = "before") => {
      await api.createConnection({ name, provider: by, client, scopes: ["read"] });
      return (await walkConsent((await api.consentLink(name)).url)).status;
    };
    const providerOf = async (name: string) => (await api.connection(name))["provider"];
    const refresh = async (name: string) =>
      (await api.api(`/connections/${name}/refresh`, { method: "POST", body: {} })).status;
    const sent = () => provider.ledger.requestsTo("token").length;
    expect(await create("old", "strict")).toBe(200);

    const [definition] = provider.definitions();
    const renameTo = async (more: Record<string, unknown>) => {
      await broker.stop("SIGINT");
      await writeFile(join(folder, "renamed.yaml"), stringify({ ...definition, id: "stricter", ...more }));
      await rename(join(folder, "renamed.yaml"), join(folder, "strict.yaml"));
      await broker.start();
    };

    await renameTo({});
    expect(await refresh("old")).not.toBe(200);
    expect(sent()).toBe(1); // that of the consent

    await renameTo({ formerly: ["strict"] });
    expect(await refresh("old")).toBe(200);
    expect(sent()).toBe(2);
    // Old and new name on the old client: its redirect URI is the one that is registered.
    expect([await create("one", "stricter"), await create("two", "strict")]).toEqual([200, 200]);
    expect([await providerOf("one"), await providerOf("two")]).toEqual(["strict", "strict"]);

    provider.redirectUris.add(broker.redirectUri("stricter"));
    await api.createClient({ name: "after", provider: "strict", client_id, client_secret });
    expect(await create("three", "strict", "after")).toBe(200);
    expect(await providerOf("three")).toBe("stricter");
    expect(provider.ledger.reuses).toEqual([]);
  });
});
