import { type BrokerOptions, type BrokerProcess, startBrokers } from "./broker-process.ts";
import { type FaultProxy, startFaultProxy } from "./faults/tcp-proxy.ts";
import type { RequestEntry } from "./providers/ledger.ts";
import { providersFolder } from "./providers/definition-files.ts";
import { GenericProvider, type GenericOptions } from "./providers/generic.ts";
import type { DefinitionFile } from "./providers/strict-server.ts";
import { useDatabase, useRedis } from "./services/index.ts";
import { walkConsent } from "./walk-consent.ts";

export type StageOptions = {
  replicas?: number;
  /** One of the run's databases and Redis databases unless named; null: without. */
  databaseUrl?: string;
  redisUrl?: string | null;
  provider?: GenericOptions;
  env?: Record<string, string | undefined>;
  /** What differs between replicas: a failpoint, a clock, a proxy on the way to Postgres or Redis. */
  each?: (replica: number) => Partial<BrokerOptions>;
  /** Each broker reaches the provider through a proxy of its own, `stage.line`. */
  withLines?: boolean;
};

/** Replicas on real Postgres, a strict provider, and a client of it. Take it with `await using`. */
export class ConnectedStage implements AsyncDisposable {
  readonly provider: GenericProvider;
  readonly brokers: BrokerProcess[];

  /** The name of the provider's client at the brokers. */
  readonly client: string;

  readonly #lines: readonly FaultProxy[];

  constructor(
    provider: GenericProvider,
    brokers: BrokerProcess[],
    { client = "app", lines = [] }: { client?: string; lines?: readonly FaultProxy[] } = {},
  ) {
    this.provider = provider;
    this.brokers = brokers;
    this.client = client;
    this.#lines = lines;
  }

  static async start(given: StageOptions = {}): Promise<ConnectedStage> {
    const { replicas = 1, databaseUrl, redisUrl, provider: options, env, each, withLines = false } = given;
    const provider = await new GenericProvider(options).start();
    const lines = await startLines(withLines ? replicas : 0, provider);
    const redis = redisUrl === undefined ? await useRedis() : redisUrl;
    const brokers = await startBrokers(replicas, {
      databaseUrl: databaseUrl ?? (await useDatabase()),
      providersDir: await providersFolder(provider),
      ...(redis === null ? {} : { redisUrl: redis }),
      ...(env === undefined ? {} : { env }),
      each: (replica) => ({ ...linked(lines[replica]), ...each?.(replica) }),
    });
    return await new ConnectedStage(provider, brokers, { lines: lines.map(({ proxy }) => proxy) }).register();
  }

  /** Provider and brokers get to know each other. */
  async register(): Promise<this> {
    const { id: provider, client, redirectUris } = this.provider;
    redirectUris.add(this.first.redirectUri(provider));
    const secrets = { client_id: client.id, client_secret: client.secret };
    await this.first.api.createClient({ name: this.client, provider, ...secrets });
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

  /** A connection whose account a person has connected. */
  async connect(name: string): Promise<void> {
    await this.first.api.createConnection({ name, provider: this.provider.id, client: this.client });
    await this.reconnect(name);
  }

  async reconnect(name: string): Promise<void> {
    const { url } = await this.first.api.consentLink(name);
    const page = await walkConsent(url);
    if (page.status !== 200) throw new Error(`the consent ended with ${page.status}: ${page.text}`);
  }

  /** A connection whose access token has run out, and whose refresh token is good. */
  async connectExpired(name: string): Promise<{ family: string; refreshToken: string }> {
    await this.first.api.createConnection({ name, provider: this.provider.id, client: this.client });
    const { accessToken, refreshToken = "" } = this.provider.issueTokenSet();
    const set = { access_token: accessToken, refresh_token: refreshToken, expires_in: 0 };
    await this.first.api.importTokens(name, set);
    return { family: this.provider.ledger.familyOf(refreshToken) ?? "", refreshToken };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.brokers.map((broker) => broker[Symbol.asyncDispose]()));
    await this.provider.stop();
    await Promise.all(this.#lines.map((line) => line[Symbol.asyncDispose]()));
  }
}

type Line = { proxy: FaultProxy; providersDir: string };

/** A proxy for each replica, and the provider's definition with the proxy's address in the place of its own. */
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
