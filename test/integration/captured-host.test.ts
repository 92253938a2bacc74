import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type BrokerProcess, startBroker } from "../support/broker-process.ts";
import { readCall } from "../support/providers/call.ts";
import { providersFolder } from "../support/providers/definition-files.ts";
import { walkConsent } from "../support/walk-consent.ts";
import { ForeignHost } from "./attackers/support/foreign-host.ts";

/** A data centre of a provider: its authorize page agrees at once, and names the data centre of the account in the callback. */
class DataCentre implements AsyncDisposable {
  /** What its authorize page says of the account's data centre; null: nothing. */
  named: string | string[] | null = null;
  /** The bodies of its token requests. */
  readonly received: URLSearchParams[] = [];
  readonly #server = createServer((request, response) => void this.#serve(request, response));

  static async start(): Promise<DataCentre> {
    const centre = new DataCentre();
    await once(centre.#server.listen(0, "127.0.0.1"), "listening");
    return centre;
  }

  get origin(): string {
    const address = this.#server.address();
    if (typeof address !== "object" || address === null) throw new Error("the data centre does not listen");
    return `http://127.0.0.1:${address.port}`;
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? "/", this.origin);
    if (url.pathname === "/authorize") {
      const back = new URL(url.searchParams.get("redirect_uri") ?? "");
      back.searchParams.set("code", "code-1");
      back.searchParams.set("state", url.searchParams.get("state") ?? "");
      for (const server of [this.named ?? []].flat()) back.searchParams.append("accounts-server", server);
      response.writeHead(302, { location: back.href }).end();
      return;
    }
    this.received.push(new URLSearchParams((await readCall(request)).body));
    const tokens = { access_token: "at-1", refresh_token: "rt-1", expires_in: 3600 };
    response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(tokens));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

describe("a callback that names the host which the code goes to", () => {
  const stack = new AsyncDisposableStack();
  let first: DataCentre;
  let second: DataCentre;
  let foreign: ForeignHost;
  let broker: BrokerProcess;

  beforeAll(async () => {
    first = stack.use(await DataCentre.start());
    second = stack.use(await DataCentre.start());
    foreign = stack.use(await ForeignHost.start());
    const hosts = [first.origin, second.origin];
    const server = { param: "accounts-server", enum: [...hosts], default: "{inputs.begin}" };
    const definition = {
      id: "centres",
      extends: "oauth2",
      grants: ["authorization_code", "import"],
      networks: ["127.0.0.0/8"],
      inputs: { begin: { enum: hosts, default: first.origin } },
      authorization: { url: "{inputs.begin}/authorize", callback: { capture: { server } } },
      token: { url: "{callback.server}/token", client_auth: "body" },
      refresh: { rotation: "never", reuse: "safe", old_access_token_dies: false },
      api: { base_url: "{callback.server}/api" },
    };
    const providersDir = await providersFolder({ definitions: () => [definition] });
    broker = stack.use(await startBroker({ providersDir }));
    await broker.api.createClient({ name: "app", provider: "centres", client_id: "c", client_secret: "the-secret" });
  });
  afterAll(async () => await stack.disposeAsync());
  beforeEach(() => {
    for (const centre of [first, second]) Object.assign(centre, { named: null }).received.length = 0;
  });

  const connect = async (name: string) => {
    await broker.api.createConnection({ name, provider: "centres", client: "app" });
    const { url } = await broker.api.consentLink(name);
    return await walkConsent(url);
  };
  const baseUrl = async (name: string) =>
    (await broker.api.api(`/tokens/${name}?include=request`)).body["request"] as { base_url: string };

  it("has the code, and every refresh after it, sent to that host, and callers are told its address", async () => {
    first.named = second.origin;
    expect((await connect("elsewhere")).status).toBe(200);
    await broker.api.refresh("elsewhere");
    expect(
      second.received.map((body) => [body.get("grant_type"), body.get("code") ?? body.get("refresh_token")]),
    ).toEqual([
      ["authorization_code", "code-1"],
      ["refresh_token", "rt-1"],
    ]);
    expect(first.received).toEqual([]);
    expect((await baseUrl("elsewhere")).base_url).toBe(`${second.origin}/api`);
  });

  it("has them sent where the consent began, if it names none", async () => {
    expect((await connect("none")).status).toBe(200);
    expect(first.received.map((body) => body.get("code"))).toEqual(["code-1"]);
    expect([second.received, foreign.requests]).toEqual([[], []]);
  });

  it("has nothing sent anywhere, if it names two", async () => {
    first.named = [second.origin, foreign.origin];
    expect((await connect("two")).status).toBe(400);
    expect([first.received, second.received, foreign.requests]).toEqual([[], [], []]);
  });

  it("is forgotten by the next consent: its code goes where its own callback says", async () => {
    first.named = second.origin;
    await connect("again");
    expect([first.received.length, second.received.length]).toEqual([0, 1]);
    first.named = null;
    const { url } = await broker.api.consentLink("again");
    expect((await walkConsent(url)).status).toBe(200);
    expect([first.received.length, second.received.length]).toEqual([1, 1]);
  });

  it("is refused if that host is not in the definition's list: the code goes nowhere, and the page says what is allowed", async () => {
    for (const [index, host] of [foreign.origin, `${second.origin}/x`, `${second.origin}@evil.test`].entries()) {
      first.named = host;
      const page = await connect(`foreign-${index}`);
      expect(page.status).toBe(502);
      expect(page.text).toContain("accounts-server is none of those that this provider has");
      expect(page.text).toContain(second.origin);
      expect(await broker.api.connection(`foreign-${index}`)).toMatchObject({ status: "pending" });
    }
    expect([first.received, second.received, foreign.connections, foreign.requests]).toEqual([[], [], 0, []]);
  });

  it("is not there for an imported set, which is refreshed at the host of its input", async () => {
    const inputs = { begin: second.origin };
    await broker.api.createConnection({
      name: "imported",
      provider: "centres",
      client: "app",
      grant: "import",
      inputs,
    });
    await broker.api.importTokens("imported", { refresh_token: "rt-0", verify: true });
    expect(second.received.map((body) => body.get("refresh_token"))).toEqual(["rt-0"]);
    expect(first.received).toEqual([]);
  });
});
