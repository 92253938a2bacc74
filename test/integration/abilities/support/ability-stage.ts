import type { BrokerApi, ConnectionBody, TokenBody } from "../../../support/broker-api.ts";
import { type BrokerOptions, type BrokerProcess, startBrokers } from "../../../support/broker-process.ts";
import { providersFolder } from "../../../support/providers/definition-files.ts";
import type { DefinitionFile, StrictServer } from "../../../support/providers/strict-server.ts";
import { ScriptedBrowser, type Page } from "../../../support/scripted-browser.ts";
import { useDatabase, useRedis, useRole } from "../../../support/services/index.ts";
import { passTime } from "../../../support/pass-time.ts";
import { walkConsent } from "../../../support/walk-consent.ts";

type Options = Pick<BrokerOptions, "env" | "nodeOptions" | "port"> & { replicas?: number };

/** Replicas on real Postgres and Redis, one strict server, and definitions of it; each has a client of the same name. */
export class AbilityStage<Server extends StrictServer> implements AsyncDisposable {
  readonly server: Server;
  readonly brokers: BrokerProcess[];
  readonly databaseUrl: string;
  /** Where its definitions are. */
  readonly providersDir: string;

  private constructor(parts: { server: Server; brokers: BrokerProcess[]; databaseUrl: string; providersDir: string }) {
    this.server = parts.server;
    this.providersDir = parts.providersDir;
    this.brokers = parts.brokers;
    this.databaseUrl = parts.databaseUrl;
  }

  static async start<Server extends StrictServer>(
    server: Server,
    define: (server: Server) => DefinitionFile[],
    { replicas = 1, ...options }: Options = {},
  ): Promise<AbilityStage<Server>> {
    await server.start();
    const definitions = define(server);
    const databaseUrl = await useDatabase();
    const providersDir = await providersFolder({ definitions: () => definitions });
    const brokers = await startBrokers(replicas, {
      // The role that may do the least; the test itself has the one that may do all.
      databaseUrl: await useRole(databaseUrl),
      migrationUrl: databaseUrl,
      redisUrl: await useRedis(),
      providersDir,
      ...options,
    });
    const stage = new AbilityStage({ server, brokers, databaseUrl, providersDir });
    for (const { id } of definitions) {
      server.redirectUris.add(stage.first.redirectUri(id));
      const { id: client_id, secret: client_secret } = server.client;
      await stage.api.createClient({ name: id, provider: id, client_id, client_secret });
    }
    return stage;
  }

  get first(): BrokerProcess {
    return this.brokers[0] as BrokerProcess;
  }

  get api(): BrokerApi {
    return this.first.api;
  }

  async create(name: string, provider: string, more: Record<string, unknown> = {}): Promise<ConnectionBody> {
    return await this.api.createConnection({ name, provider, client: provider, ...more });
  }

  /** A connection whose account a person has connected. */
  async connect(name: string, provider: string, more: Record<string, unknown> = {}): Promise<void> {
    await this.create(name, provider, more);
    const page = await this.consent(name);
    if (page.status !== 200 || !page.text.includes("Connected")) throw new Error(`${page.status}: ${page.text}`);
  }

  /** A person follows a new consent link; the last page. */
  async consent(name: string, browser = new ScriptedBrowser(), link: Record<string, unknown> = {}): Promise<Page> {
    return await walkConsent((await this.api.consentLink(name, link)).url, { browser });
  }

  /** @throws on any refusal */
  async token(name: string, query: Record<string, string | number> = {}): Promise<TokenBody> {
    const { status, body } = await this.api.token(name, query);
    if (status === 200) return body;
    throw new Error(`${status}: ${JSON.stringify(body)}`);
  }

  /** The history of a connection, oldest first. */
  async events(name: string): Promise<{ type: string; detail: Record<string, unknown> }[]> {
    const { body } = await this.api.api<{ items: { type: string; detail: Record<string, unknown> }[] }>(
      `/connections/${name}/events?limit=100`,
    );
    return body.items.toReversed();
  }

  /** As if so much time had passed since a connection got its tokens. */
  async pass(seconds: number, name: string): Promise<void> {
    const apis = this.brokers.map(({ api }) => api);
    await passTime(seconds, { databaseUrl: this.databaseUrl, apis, names: [name] });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.brokers.map((broker) => broker[Symbol.asyncDispose]()));
    await this.server.stop();
  }
}
