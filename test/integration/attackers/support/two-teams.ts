import type { ApiOptions, BrokerApi, Reply } from "../../../support/broker-api.ts";
import { type BrokerProcess, startBroker } from "../../../support/broker-process.ts";
import type { Place } from "../../../support/canaries.ts";
import { providersFolder } from "../../../support/providers/definition-files.ts";
import { GenericProvider } from "../../../support/providers/generic.ts";
import { Shopware } from "../../../support/providers/shopware.ts";
import { useDatabase, useRedis } from "../../../support/services/index.ts";
import { walkConsent } from "../../../support/walk-consent.ts";
import { ForeignHost } from "./foreign-host.ts";
import { readNeighbours, stolenFrom } from "./neighbours.ts";

/** Where the provider's page shows a code. */
export const shownAt = "https://team-b.example/code";
const pattern = String.raw`^https?://127\.0\.0\.1:[0-9]{1,5}$`;

/**
 * One broker for two teams. Team B has a shop whose client proves itself with a secret, an account that a person connected, and one at a
 * provider whose host an input of its client decides. The attacker does not belong to team B.
 */
export class TwoTeams implements AsyncDisposable {
  readonly broker: BrokerProcess;
  readonly databaseUrl: string;
  readonly shop: Shopware;
  readonly accounts: GenericProvider;
  readonly tenant: GenericProvider;
  /** Shows codes to be copied, at a host that the client's input decides. */
  readonly copied: GenericProvider;
  /** Allows few requests, which all its clients share. */
  readonly limited: GenericProvider;
  readonly foreign: ForeignHost;
  /** All that the attacker was told. */
  readonly answers: Place[] = [];
  readonly neighbours = ["team-b-shop", "team-b-account", "team-b-tenant"];

  private constructor(
    parts: Pick<TwoTeams, "broker" | "databaseUrl" | "shop" | "accounts" | "tenant" | "copied" | "limited" | "foreign">,
  ) {
    this.broker = parts.broker;
    this.databaseUrl = parts.databaseUrl;
    this.shop = parts.shop;
    this.accounts = parts.accounts;
    this.tenant = parts.tenant;
    this.copied = parts.copied;
    this.limited = parts.limited;
    this.foreign = parts.foreign;
  }

  static async start(): Promise<TwoTeams> {
    const databaseUrl = await useDatabase();
    const shop = await new Shopware().start();
    const accounts = await new GenericProvider().start();
    const tenant = await new GenericProvider().start();
    const copied = await new GenericProvider({ pkce: "off" }).start();
    const limited = await new GenericProvider({ id: "limited" }).start();
    const [fixed = { id: "", extends: "" }] = tenant.definitions();
    const anywhere = {
      ...fixed,
      id: "tenant",
      inputs: { host_url: { pattern } },
      authorization: { url: "{inputs.host_url}/authorize", pkce: "required" },
      token: { url: "{inputs.host_url}/token", client_auth: "basic", encoding: "form" },
      api: { base_url: "{inputs.host_url}/api" },
    };
    const manual = { manual_code: true, manual_redirect_uri: shownAt };
    const shown = { ...anywhere.authorization, pkce: "off", ...manual };
    const toCopy = { ...anywhere, id: "copied", authorization: shown };
    // Its refresh tokens are never spent, so that several connections may hold one.
    const [strict = fixed] = accounts.definitions();
    const refresh = { rotation: "never", reuse: "safe" };
    const lent = { ...strict, id: "lent", refresh, revocation: { url: `${accounts.origin}/revoke` } };
    const [plain = fixed] = limited.definitions();
    const few = { ...plain, limits: { max_per_window: "8 in 3600 s" } };
    const definitions = [...shop.definitions(), ...accounts.definitions(), few, lent, anywhere, toCopy];
    const broker = await startBroker({
      databaseUrl,
      redisUrl: await useRedis(),
      providersDir: await providersFolder({ definitions: () => definitions }),
    });
    const foreign = await ForeignHost.start();
    const stage = new TwoTeams({ broker, databaseUrl, shop, accounts, tenant, copied, limited, foreign });
    await stage.#settle();
    return stage;
  }

  get api(): BrokerApi {
    return this.broker.api;
  }

  async #settle(): Promise<void> {
    const { api, broker } = this;
    // Their first secrets share words with their names, which are no secrets.
    for (const server of [this.shop, this.accounts, this.tenant, this.copied, this.limited]) server.changeSecret();
    this.accounts.redirectUris.add(broker.redirectUri("strict"));
    this.limited.redirectUris.add(broker.redirectUri("limited"));
    const connections = ["team-b-*"];
    const shop = { provider: "shopware", client_id: this.shop.client.id, client_secret: this.shop.client.secret };
    await api.createClient({ name: "shop-b", ...shop, connections, inputs: { shop_url: this.shop.origin } });
    await api.createClient({ name: "shop-idle", ...shop, connections, inputs: { shop_url: this.shop.origin } });
    const account = { client_id: this.accounts.client.id, client_secret: this.accounts.client.secret };
    await api.createClient({ name: "accounts-b", provider: "strict", ...account, connections, scopes: ["read"] });
    await this.addTenantClient("tenant-b", { connections });
    await api.createConnection({
      name: "team-b-shop",
      provider: "shopware",
      client: "shop-b",
      grant: "client_credentials",
    });
    await api.createConnection({ name: "team-b-account", provider: "strict", client: "accounts-b", scopes: ["read"] });
    await api.createConnection({ name: "team-b-tenant", provider: "tenant", client: "tenant-b", scopes: ["read"] });
    for (const name of ["team-b-account", "team-b-tenant"]) await this.connect(name);
  }

  /** A client at the host that its input names, where its own redirect URI is registered. */
  async addTenantClient(name: string, rest: { connections?: string[] } = {}): Promise<void> {
    const client = { client_id: this.tenant.client.id, client_secret: this.tenant.client.secret };
    const inputs = { host_url: this.tenant.origin };
    const made = await this.api.createClient({ name, provider: "tenant", ...client, inputs, ...rest });
    this.tenant.redirectUris.add(String(made["redirect_uri"]));
  }

  async connect(name: string): Promise<void> {
    const { url } = await this.api.consentLink(name);
    const page = await walkConsent(url);
    if (page.status !== 200) throw new Error(`the consent ended with ${page.status}: ${page.text}`);
  }

  /** Sends what an attacker asks, and checks that team B is served meanwhile. */
  async attack(key: string, path: string, options: Omit<ApiOptions, "key"> = {}): Promise<Reply> {
    const answer = await this.api.api(path, { ...options, key });
    const where = `${options.method ?? "GET"} ${path}`;
    this.answers.push({ where, text: JSON.stringify([answer.headers, answer.body]) });
    await readNeighbours(this.api, this.neighbours);
    return answer;
  }

  /** What the attacker has got. It must be nothing. */
  loot(): { stolen: string[]; foreignRequests: string[]; foreignConnections: number } {
    const servers = [this.shop, this.accounts, this.tenant, this.copied, this.limited];
    return {
      stolen: servers.flatMap((server) => stolenFrom(server, this.answers)),
      foreignRequests: this.foreign.requests,
      foreignConnections: this.foreign.connections,
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.broker[Symbol.asyncDispose]();
    await Promise.all(
      [this.shop, this.accounts, this.tenant, this.copied, this.limited].map(async (server) => await server.stop()),
    );
    await this.foreign[Symbol.asyncDispose]();
  }
}

export const nothing = { stolen: [], foreignRequests: [], foreignConnections: 0 };
