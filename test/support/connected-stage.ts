import { type BrokerProcess, startBrokers } from "./broker-process.ts";
import { providersFolder } from "./providers/definition-files.ts";
import { GenericProvider, type GenericOptions } from "./providers/generic.ts";
import { useDatabase, useRedis } from "./services/index.ts";
import { walkConsent } from "./walk-consent.ts";

export type StageOptions = {
  replicas?: number;
  /** One of the run's databases and Redis databases unless named; null: without. */
  databaseUrl?: string;
  redisUrl?: string | null;
  provider?: GenericOptions;
  env?: Record<string, string | undefined>;
};

/** Replicas on real Postgres, a strict provider, and a client of it. Take it with `await using`. */
export class ConnectedStage implements AsyncDisposable {
  readonly provider: GenericProvider;
  readonly brokers: BrokerProcess[];

  constructor(provider: GenericProvider, brokers: BrokerProcess[]) {
    this.provider = provider;
    this.brokers = brokers;
  }

  static async start({ replicas = 1, databaseUrl, redisUrl, provider: options, env }: StageOptions = {}) {
    const provider = await new GenericProvider(options).start();
    const redis = redisUrl === undefined ? await useRedis() : redisUrl;
    const brokers = await startBrokers(replicas, {
      databaseUrl: databaseUrl ?? (await useDatabase()),
      providersDir: await providersFolder(provider),
      ...(redis === null ? {} : { redisUrl: redis }),
      ...(env === undefined ? {} : { env }),
    });
    const stage = new ConnectedStage(provider, brokers);
    provider.redirectUris.add(stage.first.redirectUri(provider.id));
    const { id: client_id, secret: client_secret } = provider.client;
    await stage.first.api.createClient({ name: "app", provider: provider.id, client_id, client_secret });
    return stage;
  }

  /** The first replica. */
  get first(): BrokerProcess {
    return this.brokers[0] as BrokerProcess;
  }

  /** A connection whose account a person has connected. */
  async connect(name: string): Promise<void> {
    await this.first.api.createConnection({ name, provider: this.provider.id, client: "app" });
    await this.reconnect(name);
  }

  async reconnect(name: string): Promise<void> {
    const { url } = await this.first.api.consentLink(name);
    const page = await walkConsent(url);
    if (page.status !== 200) throw new Error(`the consent ended with ${page.status}: ${page.text}`);
  }

  /** A connection whose access token has run out, and whose refresh token is good. */
  async connectExpired(name: string): Promise<{ family: string; refreshToken: string }> {
    await this.first.api.createConnection({ name, provider: this.provider.id, client: "app" });
    const { accessToken, refreshToken = "" } = this.provider.issueTokenSet();
    const set = { access_token: accessToken, refresh_token: refreshToken, expires_in: 0 };
    await this.first.api.importTokens(name, set);
    return { family: this.provider.ledger.familyOf(refreshToken) ?? "", refreshToken };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.brokers.map((broker) => broker[Symbol.asyncDispose]()));
    await this.provider.stop();
  }
}
