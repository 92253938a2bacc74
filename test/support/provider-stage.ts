import type { BrokerApi, ConnectionRequest } from "./broker-api.ts";
import { type BrokerProcess, startBroker } from "./broker-process.ts";
import { passTime } from "./pass-time.ts";
import { providersFolder } from "./providers/definition-files.ts";
import type { DefinitionFile, StrictServer } from "./providers/strict-server.ts";
import { query } from "./query.ts";
import { Service } from "./service.ts";
import { useDatabase, useRedis } from "./services/index.ts";
import { walkConsent } from "./walk-consent.ts";

type Options<Server> = {
  /** Further servers, for the definitions in `more`; they stop with the stage. */
  beside?: StrictServer[];
  /** Definitions beside the server's own; its origin is known when this is called. */
  more?: (server: Server) => DefinitionFile[];
};

/** `server`: whose client it is; the stage's own unless named. */
type ClientOptions = { server?: StrictServer; inputs?: Record<string, string> };

/** A broker on real Postgres and Redis, and the strict server of one of the systems: for all tests of a file, one after the other. */
export class ProviderStage<Server extends StrictServer> implements AsyncDisposable {
  readonly broker: BrokerProcess;
  readonly server: Server;
  readonly #beside: StrictServer[];
  readonly #databaseUrl: string;

  private constructor(parts: { broker: BrokerProcess; server: Server; beside: StrictServer[]; databaseUrl: string }) {
    this.broker = parts.broker;
    this.server = parts.server;
    this.#beside = parts.beside;
    this.#databaseUrl = parts.databaseUrl;
  }

  /** Starts the server, and a broker with its definitions whose redirect URIs every server knows. */
  static async start<Server extends StrictServer>(
    server: Server,
    { beside = [], more = () => [] }: Options<Server> = {},
  ): Promise<ProviderStage<Server>> {
    await Promise.all([server, ...beside].map((each) => each.start()));
    const definitions = [...server.definitions(), ...more(server)];
    const databaseUrl = await useDatabase();
    const broker = await startBroker({
      databaseUrl,
      redisUrl: await useRedis(),
      providersDir: await providersFolder({ definitions: () => definitions }),
    });
    for (const each of [server, ...beside]) {
      for (const { id } of definitions) each.redirectUris.add(broker.redirectUri(id));
    }
    return new ProviderStage({ broker, server, beside, databaseUrl });
  }

  /** For the next test: no connections and no clients, and each server as it was at first. */
  async startOver(): Promise<void> {
    for (const kind of ["connections", "clients"]) {
      const { body } = await this.api.api<{ items: { name: string }[] }>(`/${kind}`);
      for (const { name } of body.items) await this.api.api(`/${kind}/${name}`, { method: "DELETE" });
    }
    for (const each of [this.server, ...this.#beside]) each.startOver();
  }

  /** As if so much time had passed for all tokens, at the providers and in the broker. */
  async pass(seconds: number): Promise<void> {
    for (const each of [this.server, ...this.#beside]) each.advance(seconds);
    await passTime(seconds, { databaseUrl: this.#databaseUrl, apis: [this.api] });
  }

  get api(): BrokerApi {
    return this.broker.api;
  }

  /** The strict server's client, registered as `name` for one of its definitions. */
  async addClient(name: string, provider: string, { server, inputs }: ClientOptions = {}): Promise<void> {
    const { id: client_id, secret } = (server ?? this.server).client;
    const known = secret === "" ? {} : { client_secret: secret };
    await this.api.createClient({ name, provider, client_id, ...known, ...(inputs && { inputs }) });
  }

  /** Creates a connection and returns a service that uses it, with `path` as the place in the provider's API that it calls. */
  async create(connection: ConnectionRequest, path: string): Promise<Service> {
    await this.api.createConnection(connection);
    return new Service({ api: this.api, connection: connection.name, path });
  }

  /** The same for a connection whose account a person connects. */
  async connect(connection: ConnectionRequest, path: string): Promise<Service> {
    const service = await this.create(connection, path);
    await this.consent(connection.name);
    return service;
  }

  /** A person follows a new consent link to its end. */
  async consent(name: string): Promise<void> {
    const { url } = await this.api.consentLink(name);
    const page = await walkConsent(url);
    if (page.status !== 200) throw new Error(`the consent ended with ${page.status}: ${page.text}`);
  }

  /** As if every back-off, and every time for which a host is left alone, were over. */
  async endBackOffs(): Promise<void> {
    await query(this.#databaseUrl, "UPDATE request_limits SET closed_until = NULL");
    await query(this.#databaseUrl, "UPDATE connections SET backoff_until = NULL");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.broker[Symbol.asyncDispose]();
    await Promise.all([this.server, ...this.#beside].map((each) => each.stop()));
  }
}
