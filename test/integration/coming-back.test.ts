import { createServer, type IncomingMessage } from "node:http";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { expect, it } from "vitest";
import { startBroker } from "../support/broker-process.ts";
import { startFaultProxy } from "../support/faults/tcp-proxy.ts";
import { until } from "../support/patience.ts";
import { providersFolder } from "../support/providers/definition-files.ts";
import { GenericProvider } from "../support/providers/generic.ts";
import { ScriptedBrowser } from "../support/scripted-browser.ts";
import { describeWithServices, useDatabase } from "../support/services/index.ts";
import { walkConsent } from "../support/walk-consent.ts";

async function bodyOf(request: IncomingMessage): Promise<string> {
  let body = "";
  for await (const chunk of request.setEncoding("utf8")) body += String(chunk);
  return body;
}

describeWithServices(["postgres"], "coming back when the database goes away in the middle", () => {
  it.each(["silence", "reset"] as const)(
    "the person is told Connected, as often as they look, and the token is there afterwards (%s)",
    async (fault) => {
      await using stack = new AsyncDisposableStack();
      const provider = stack.use(await new GenericProvider().start());
      const toPostgres = stack.use(await startFaultProxy(await useDatabase()));
      /** Between broker and token endpoint: with the answer in hand the database goes away. */
      const between = createServer((request, response) => {
        void (async () => {
          const headers = { "content-type": "application/x-www-form-urlencoded" };
          const authorization = request.headers.authorization ?? "";
          const body = await bodyOf(request);
          const answer = await fetch(`${provider.origin}/token`, {
            method: "POST",
            headers: { ...headers, authorization },
            body,
          });
          if (body.includes("authorization_code")) {
            if (fault === "silence") toPostgres.stall();
            toPostgres.faults.newConnections = fault === "reset" ? "reset" : "swallowed";
            if (fault === "reset") toPostgres.reset();
          }
          response.writeHead(answer.status, { "content-type": "application/json" }).end(await answer.text());
        })();
      });
      between.listen(0, "127.0.0.1");
      await once(between, "listening");
      stack.defer(() => void between.close());
      const { port } = between.address() as AddressInfo;
      const token = { url: `http://127.0.0.1:${port}/token`, client_auth: "basic", encoding: "form" };
      const definitions = provider.definitions().map((definition) => Object.assign(definition, { token }));
      const providersDir = await providersFolder({ definitions: () => definitions });
      const broker = stack.use(await startBroker({ databaseUrl: toPostgres.url, providersDir }));
      provider.redirectUris.add(broker.redirectUri(provider.id));
      const { id: client_id, secret: client_secret } = provider.client;
      await broker.api.createClient({ name: "app", provider: provider.id, client_id, client_secret });
      await broker.api.createConnection({ name: "acme", provider: provider.id, client: "app" });
      const browser = new ScriptedBrowser();
      const page = await walkConsent((await broker.api.consentLink("acme")).url, { browser });
      expect([page.status, page.text]).toEqual([200, expect.stringContaining("Connected")]);
      expect(page.url.pathname).toMatch(/^\/connected\//);
      expect((await browser.open(page.url)).text).toContain("Connected");
      toPostgres.heal();
      await until("the token has come from the spool", async () => (await broker.api.token("acme")).status === 200);
      expect((await browser.open(page.url)).text).toContain("Connected");
      expect(provider.ledger.granted("authorization_code")).toBe(1);
      await browser.close();
    },
  );
});
