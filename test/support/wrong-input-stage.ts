import { proveByHand, vaultOf } from "./prove-by-hand.ts";
import { writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { Agent, type Dispatcher } from "undici";
import { stringify } from "yaml";
import { type BrokerProcess, startBroker } from "./broker-process.ts";
import { query } from "./query.ts";
import { type Page, ScriptedBrowser } from "./scripted-browser.ts";
import { until } from "./patience.ts";
import { temporaryFolder } from "./services/guardian.ts";

export type Answer = { status: number; headers: Dispatcher.ResponseData["headers"]; text: string };

export type Sending = {
  method?: Dispatcher.HttpMethod | "OPTIONS" | "PROPFIND";
  /** As it stands on the wire. */
  path: string;
  /** The admin key unless named; null: none. */
  key?: string | null;
  headers?: Record<string, string>;
  /** To be sent as JSON. */
  body?: unknown;
  /** To be sent as it is. */
  raw?: string | Buffer | Readable;
};

type Keys = Record<"reader" | "provisioner" | "manager" | "expired" | "revoked", string>;

/** A consent that has been walked to its end, and one that is under way. */
type Consents = {
  used: { link: string; browser: ScriptedBrowser; callback: URL };
  /** `finish`: the person agrees once more, with a code that is new then. */
  claimed: { link: string; browser: ScriptedBrowser; callback: URL; finish(): Promise<Page> };
  expired: string;
  open: string;
};

/** Every secret that the broker of this stage has stored. No answer and no line of a log may hold one. */
export const canary = (what: string) => `canary-${what}-5b1c`;

const origin = "https://app.example";

/** A broker with stored secrets, at which tests try wrong input. Take it with `await using`. */
export class WrongInputStage implements AsyncDisposable {
  readonly broker: BrokerProcess;
  readonly keys: Keys;
  readonly consents: Consents;
  readonly #agent = new Agent();
  #callers = 0;

  private constructor(broker: BrokerProcess, keys: Keys, consents: Consents) {
    this.broker = broker;
    this.keys = keys;
    this.consents = consents;
  }

  static async start({ databaseUrl }: { databaseUrl: string }): Promise<WrongInputStage> {
    const proxied = { TRUST_PROXY: "127.0.0.1", LINK_PAGES_PER_MINUTE: undefined, CALLBACKS_PER_MINUTE: undefined };
    const env = { ...proxied, RETURN_ORIGINS: origin, LOG_LEVEL: "info", SANDBOX: "true" };
    const broker = await startBroker({ databaseUrl, env, providersDir: await machineProvider() });
    // A start makes the sandbox's client and connection beside serving.
    await until("the sandbox is there", async () => (await broker.api.api("/connections/sandbox")).status === 200);
    await register(broker);
    await damageOne(broker, databaseUrl);
    // One after the other: the proofs of all links are written by hand in between.
    const keys = await makeKeys(broker, databaseUrl);
    const consents = await makeConsents(broker);
    return new WrongInputStage(broker, keys, consents);
  }

  /** Sends one request, each from an address of its own, so that the limit on wrong keys stays out of the way. */
  async send({ method = "GET", path, key, headers = {}, body, raw }: Sending): Promise<Answer> {
    const content = raw ?? (body === undefined ? undefined : JSON.stringify(body));
    const answer = await this.#agent.request({
      origin: this.broker.url,
      method,
      path,
      headers: {
        "x-forwarded-for": `2001:db8:0:${(++this.#callers).toString(16)}::1`,
        ...(key === null ? {} : { authorization: `Bearer ${key ?? this.broker.adminKey}` }),
        ...(body === undefined ? {} : { "content-type": "application/json" }),
        ...headers,
      },
      body: content ?? null,
    });
    return { status: answer.statusCode, headers: answer.headers, text: await answer.body.text() };
  }

  /** Writes bytes that need not be HTTP, and reads until the broker closes. */
  async write(bytes: string): Promise<Answer> {
    const socket = connect(Number(new URL(this.broker.url).port), "127.0.0.1");
    socket.write(bytes);
    let received = "";
    for await (const chunk of socket) received += String(chunk);
    const [head = "", text = ""] = received.split("\r\n\r\n");
    const [start = "", ...lines] = head.split("\r\n");
    const headers = Object.fromEntries(
      lines.map((line) => [line.split(":", 1)[0]?.toLowerCase(), line.replace(/^[^:]*: */, "")]),
    );
    return { status: Number(start.split(" ")[1]), headers, text };
  }

  /** All that ops see of what is stored. */
  async stored(): Promise<unknown> {
    const connections = ["/connections?provider=sandbox", "/connections?provider=apicbase", "/connections/acme/events"];
    const paths = [...connections, "/clients", "/keys", "/workloads"];
    const bodies = await Promise.all(paths.map(async (path) => (await this.broker.api.api(path)).body));
    // Whether a key was used in an earlier minute says nothing of what was changed.
    return JSON.parse(JSON.stringify(bodies, (name, value: unknown) => (name === "last_used_at" ? null : value)));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#agent.destroy();
    await this.broker[Symbol.asyncDispose]();
  }
}

/** As an answer, so that pages go through the same checks. */
export function answerOf({ status, headers, text }: Page): Answer {
  return { status, headers, text };
}

/** A provider for machines that does not exist: no request reaches it. */
async function machineProvider(): Promise<string> {
  const folder = await temporaryFolder("providers");
  const token = { url: "http://127.0.0.1:1/token" };
  const definition = { id: "machine", extends: "oauth2", name: "Machine", grants: ["client_credentials"], token };
  await writeFile(join(folder.path, "machine.yaml"), stringify(definition));
  return folder.path;
}

async function register({ api }: BrokerProcess): Promise<void> {
  const secret = { client_id: "id", client_secret: canary("client-secret") };
  await api.createClient({ name: "manual", provider: "apicbase", ...secret, connections: ["acme-*"] });
  await api.createClient({ name: "others", provider: "apicbase", ...secret, connections: ["other-*"] });
  await api.createClient({ name: "secretless", provider: "bol", client_id: "id" });
  await api.createClient({
    name: "shop",
    provider: "shopware",
    ...secret,
    inputs: { shop_url: "https://shop.example" },
  });
  await api.createClient({ name: "machine", provider: "machine", ...secret });
  await api.createClient({ name: "unused", provider: "bol", ...secret });

  await api.createConnection({ name: "acme", provider: "sandbox", client: "sandbox", labels: { team: "a" } });
  await api.createConnection({ name: "acme-copied", provider: "apicbase", client: "manual" });
  await api.createConnection({ name: "acme-machine", provider: "machine", client: "machine" });
  for (const name of ["acme-off", "acme-held", "acme-used", "foreign"]) {
    await api.createConnection({ name, provider: "sandbox", client: "sandbox" });
  }
  await api.changeConnection("acme-off", { disabled: true });
  const held = { access_token: canary("access-token"), refresh_token: canary("refresh-token"), expires_in: 3600 };
  await api.importTokens("acme-held", held);
  await api.createConnection({ name: "acme-short", provider: "sandbox", client: "sandbox" });
  await api.importTokens("acme-short", { access_token: canary("access-token"), expires_in: 3600 });
}

/** A connection whose stored token somebody has changed by a bit. */
async function damageOne({ api }: BrokerProcess, databaseUrl: string): Promise<void> {
  await api.createConnection({ name: "acme-torn", provider: "sandbox", client: "sandbox" });
  await api.importTokens("acme-torn", { access_token: canary("access-token"), expires_in: 3600 });
  const last = "length(access_token_sealed) - 1";
  await query(
    databaseUrl,
    `UPDATE connections SET access_token_sealed = set_byte(access_token_sealed, ${last},
      get_byte(access_token_sealed, ${last}) # 1) WHERE name = 'acme-torn'`,
  );
  await api.changeConnection("acme-torn", { labels: {} }); // what the broker remembers of it is old
}

async function makeKeys({ api, encryptionKeys }: BrokerProcess, databaseUrl: string): Promise<Keys> {
  const create = async (name: string, ability: string) =>
    await api.createKey({ name, abilities: [ability], connections: ["acme", "acme-*"] });
  const expired = await create("expired", "tokens");
  await query(
    databaseUrl,
    "UPDATE api_keys SET expires_at = clock_timestamp() - interval '1 day' WHERE name = 'expired'",
  );
  await proveByHand((sql, values) => query(databaseUrl, sql, values), vaultOf(encryptionKeys));
  const revoked = await create("revoked", "tokens");
  await api.api(`/keys/${revoked.split("_")[1]}`, { method: "DELETE" });
  return {
    reader: await create("reader", "tokens"),
    provisioner: await create("provisioner", "connections"),
    manager: await create("manager", "admin"),
    expired,
    revoked,
  };
}

async function makeConsents({ api }: BrokerProcess): Promise<Consents> {
  const link = async (options: object) => (await api.consentLink("acme-used", { ...options })).url;
  const used = await walkToCallback(await link({ return_to: `${origin}/done` }));
  const page = await used.browser.open(used.callback);
  if (page.status !== 200) throw new Error(`the consent ended with ${page.status}: ${page.text}`);
  const expired = await link({ expires_in: 1 });
  const claimed = await walkToCallback(await link({}));
  const open = await link({});
  await sleep(1100);
  return { used, claimed, expired, open };
}

/** As far as the provider's answer, which is not handed in. */
async function walkToCallback(link: string) {
  const browser = new ScriptedBrowser();
  const page = await browser.submit(await browser.open(link));
  const { url: callback } = await browser.submit(page, {
    button: "Authorize",
    stopAt: (url) => url.pathname.startsWith("/callback"),
  });
  const finish = async () => await browser.submit(page, { button: "Authorize" });
  return { link, browser, callback, finish };
}
