import { type BrokerOptions, type BrokerProcess, startBrokers } from "./broker-process.ts";
import { type FaultProxy, startFaultProxy } from "./faults/tcp-proxy.ts";
import { passTime } from "./pass-time.ts";
import { until } from "./patience.ts";
import type { RequestEntry } from "./providers/ledger.ts";
import { providersFolder } from "./providers/definition-files.ts";
import { GenericProvider, type GenericOptions } from "./providers/generic.ts";
import type { DefinitionFile } from "./providers/strict-server.ts";
import { useDatabase, useRedis, useRole } from "./services/index.ts";
import { walkConsent } from "./walk-consent.ts";

export type StageOptions = {
  replicas?: number;
  /** One of the run's databases and Redis databases unless named; null: without. */
  databaseUrl?: string;
  redisUrl?: string | null;
  provider?: GenericOptions;
  /** Further definitions of the same server. Each gets a client of the same name. The server's own definition is always there. */
  more?: (own: DefinitionFile) => DefinitionFile[];
  env?: Record<string, string | undefined>;
  /** What differs between replicas: a failpoint, a clock, a proxy on the way to Postgres or Redis. */
  each?: (replica: number) => Partial<BrokerOptions>;
  /** Each broker reaches the provider through a proxy of its own, `stage.line`. */
  withLines?: boolean;
};

type Settings = { databaseUrl?: string; client?: string; lines?: readonly FaultProxy[] };

/** Replicas on real Postgres, a strict provider, and a client of it. Take it with `await using`. */
export class ConnectedStage implements AsyncDisposable {
  readonly provider: GenericProvider;
  readonly brokers: BrokerProcess[];
  readonly databaseUrl: string;
  /** The name of the provider's client at the brokers. */
  readonly client: string;
  readonly #lines: readonly FaultProxy[];

  constructor(
    provider: GenericProvider,
    brokers: BrokerProcess[],
    { databaseUrl = "", client = "app", lines = [] }: Settings = {},
  ) {
    this.provider = provider;
    this.brokers = brokers;
    this.databaseUrl = databaseUrl;
    this.client = client;
    this.#lines = lines;
  }

  static async start(given: StageOptions = {}): Promise<ConnectedStage> {
    const { replicas = 1, redisUrl, provider: options, more = () => [], env, each, withLines = false } = given;
    const provider = await new GenericProvider(options).start();
    const lines = await startLines(withLines ? replicas : 0, provider);
    const redis = redisUrl === undefined ? await useRedis() : redisUrl;
    const databaseUrl = given.databaseUrl ?? (await useDatabase());
    // The brokers serve with the role that may do the least; the test itself with the one that may do all.
    const runtimeUrl = given.databaseUrl ?? (await useRole(databaseUrl));
    const further = provider.definitions().flatMap(more);
    const brokers = await startBrokers(replicas, {
      databaseUrl: runtimeUrl,
      ...(given.databaseUrl === undefined && { migrationUrl: databaseUrl }),
      providersDir: await providersFolder(provider, { definitions: () => further }),
      ...(redis === null ? {} : { redisUrl: redis }),
      ...(env === undefined ? {} : { env }),
      each: (replica) => ({ ...linked(lines[replica]), ...each?.(replica) }),
    });
    const stage = new ConnectedStage(provider, brokers, { databaseUrl, lines: lines.map(({ proxy }) => proxy) });
    return await stage.register(further.map((definition) => definition.id));
  }

  /** Tells the provider the brokers' redirect URIs, and makes a client at the brokers for each definition. */
  async register(further: readonly string[] = []): Promise<this> {
    const { id: client_id, secret: client_secret } = this.provider.client;
    for (const provider of [this.provider.id, ...further]) {
      this.provider.redirectUris.add(this.first.redirectUri(provider));
      await this.first.api.createClient({ name: this.#clientOf(provider), provider, client_id, client_secret });
    }
    return this;
  }

  /** Between a replica and the provider, where asked for. */
  line(replica = 0): FaultProxy {
    const line = this.#lines[replica];
    if (line === undefined) throw new Error("start this stage with `withLines`");
    return line;
  }

  /** The token requests that reached the provider from one replica. */
  sentBy(replica: number): RequestEntry[] {
    const host = `127.0.0.1:${this.line(replica).port}`;
    return this.provider.ledger.requestsTo("token").filter(({ headers }) => headers["host"] === host);
  }

  /** The first replica. */
  get first(): BrokerProcess {
    return this.brokers[0] as BrokerProcess;
  }

  /** A connection that waits; of the server's own definition unless another is named. */
  async create(name: string, provider = this.provider.id): Promise<void> {
    await this.first.api.createConnection({ name, provider, client: this.#clientOf(provider) });
  }

  /** A connection whose account a person has connected. */
  async connect(name: string, provider?: string): Promise<void> {
    await this.create(name, provider);
    await this.reconnect(name);
  }

  async reconnect(name: string): Promise<void> {
    const { url } = await this.first.api.consentLink(name);
    const page = await walkConsent(url);
    if (page.status !== 200) throw new Error(`the consent ended with ${page.status}: ${page.text}`);
  }

  /** A connection whose access token has run out, and whose refresh token is good. */
  async connectExpired(name: string, provider?: string): Promise<{ family: string; refreshToken: string }> {
    await this.create(name, provider);
    const { accessToken, refreshToken = "" } = this.provider.issueTokenSet();
    const set = { access_token: accessToken, refresh_token: refreshToken, expires_in: 0 };
    await this.first.api.importTokens(name, set);
    return { family: this.provider.ledger.familyOf(refreshToken) ?? "", refreshToken };
  }

  /** As if so much time had passed since a connection got its tokens. */
  async pass(seconds: number, name: string): Promise<void> {
    const apis = this.brokers.map(({ api }) => api);
    await passTime(seconds, { databaseUrl: this.databaseUrl, apis, names: [name] });
  }

  /** Token requests that are sent from now on are held at the provider, until `release`. */
  holdTokens(): { untilSent: () => Promise<void>; release: () => void } {
    const count = () => this.provider.ledger.requestsTo("token").length;
    const before = count();
    const release = this.provider.holdTokens();
    return { release, untilSent: async () => void (await until("a token request", () => count() > before)) };
  }

  /** The client of the server's own definition, or else the client that has its definition's name. */
  #clientOf(provider: string): string {
    return provider === this.provider.id ? this.client : provider;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.brokers.map((broker) => broker[Symbol.asyncDispose]()));
    await this.provider.stop();
    await Promise.all(this.#lines.map((line) => line[Symbol.asyncDispose]()));
  }
}

type Line = { proxy: FaultProxy; providersDir: string };

/** A proxy for each replica, and the provider's definition with the address of the proxy in place of the provider's. */
async function startLines(count: number, provider: GenericProvider): Promise<Line[]> {
  const start = async () => {
    const proxy = await startFaultProxy(provider.origin);
    const text = JSON.stringify(provider.definitions()).replaceAll(provider.origin, proxy.url);
    const definitions = () => JSON.parse(text) as DefinitionFile[];
    return { proxy, providersDir: await providersFolder({ definitions }) };
  };
  return await Promise.all(Array.from({ length: count }, start));
}

function linked(line: Line | undefined): Partial<BrokerOptions> {
  return line === undefined ? {} : { providersDir: line.providersDir };
}
