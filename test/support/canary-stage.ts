import { randomBytes } from "node:crypto";
import { BrokerApi } from "./broker-api.ts";
import { type BrokerProcess, startBrokers } from "./broker-process.ts";
import type { Canary, Place } from "./canaries.ts";
import { dumpFolder, dumpPostgres, dumpRedis, watchRedis } from "./dumps.ts";
import { Apicbase } from "./providers/apicbase.ts";
import { providersFolder } from "./providers/definition-files.ts";
import { EchoingProvider } from "./providers/echoing.ts";
import { Shopware } from "./providers/shopware.ts";
import type { StrictServer } from "./providers/strict-server.ts";
import { query } from "./query.ts";
import { type Exchange, RecordingProxy } from "./recording-proxy.ts";
import { startPrivatePostgres, startPrivateRedis } from "./services/index.ts";

export type CanaryStage = Awaited<ReturnType<typeof setCanaryStage>>;

/** Where the app is whose completions the run makes. Nobody goes there. */
const returnTo = "https://app.example/connected";

/**
 * Short enough that no text is cut within it, and that it is not scrubbed for its looks alone. It has characters that each encoding writes
 * in its own way.
 */
const shortSecret = (): string => `+ &%<${randomBytes(7).toString("hex")}`;
const longSecret = (): string => randomBytes(24).toString("hex");

/**
 * Two brokers that log all they can, on a Postgres that logs every statement with its values and a Redis whose every command
 * is watched, behind a load balancer that keeps every answer; three providers. Take it with `await using`.
 */
export async function setCanaryStage() {
  const stack = new AsyncDisposableStack();
  const postgres = stack.use(await startPrivatePostgres({ logStatements: true }));
  const redis = stack.use(await startPrivateRedis());
  const proxy = stack.use(await RecordingProxy.start());
  const watch = await watchRedis(redis.url);
  stack.defer(() => watch.stop());
  const servers = { provider: new EchoingProvider(), shop: new Shopware(), kitchen: new Apicbase() };
  for (const server of Object.values(servers)) {
    stack.use(await server.start());
    server.client.secret = shortSecret();
  }
  servers.shop.user.password = shortSecret();

  // The broker serves with a role that may do the least. A server of these tests asks for no password, and takes any.
  const [migrationUrl, databaseUrl] = [new URL(postgres.url), new URL(postgres.url)];
  migrationUrl.password ||= longSecret();
  [databaseUrl.username, databaseUrl.password] = ["canary_runtime", longSecret()];
  await query(postgres.url, `CREATE ROLE ${databaseUrl.username} LOGIN`);
  const keys = {
    adminKey: longSecret(),
    metricsKey: longSecret(),
    encryptionKey: randomBytes(32),
    pastedKey: longSecret(),
  };
  const brokers = await startBrokers(2, {
    databaseUrl: databaseUrl.href,
    migrationUrl: migrationUrl.href,
    redisUrl: redis.url,
    publicUrl: proxy.url,
    providersDir: await providersFolder(...Object.values(servers)),
    adminKey: keys.adminKey,
    encryptionKeys: `k1:${keys.encryptionKey.toString("base64")}`,
    // The tests try one link in every wrong way, all from one address.
    env: {
      LOG_LEVEL: "trace",
      METRICS_KEY: keys.metricsKey,
      RETURN_ORIGINS: new URL(returnTo).origin,
      LINK_POSTS_PER_MINUTE: "1000",
      LINK_OPEN_REQUESTS: "1000",
    },
  });
  for (const broker of brokers) {
    stack.use(broker);
    proxy.targets.push(broker.url);
    for (const server of Object.values(servers)) {
      for (const { id } of server.definitions()) server.redirectUris.add(broker.redirectUri(id));
    }
  }
  const api = new BrokerApi(proxy.url, keys.adminKey);
  stack.defer(() => api.close());

  const given: Canary[] = [
    { what: "admin key", value: keys.adminKey },
    { what: "metrics key", value: keys.metricsKey },
    { what: "encryption key", value: keys.encryptionKey },
    { what: "database password", value: databaseUrl.password },
    { what: "database password", value: migrationUrl.password },
    { what: "password", value: servers.shop.user.password },
    ...Object.values(servers).map(({ client }) => ({ what: "client secret", value: client.secret })),
  ];
  const changed = () => ({ what: "client secret", value: servers.provider.client.secret });
  return {
    ...servers,
    ...keys,
    returnTo,
    postgres,
    redis,
    proxy,
    brokers,
    api,
    /** Every secret of the run so far. */
    canaries: (): Canary[] => [
      ...given,
      changed(),
      ...Object.values(servers).flatMap((server) => issuedBy(server)),
      ...proxy.exchanges.flatMap((exchange) => handedOutIn(exchange)),
    ],
    /** Everything that was stored, written or answered so far. Answers come without the secrets that they are there to give. */
    places: async (): Promise<Place[]> => [
      { where: "Postgres", text: await dumpPostgres(postgres.url) },
      { where: "statements", text: await postgres.log() },
      { where: "Redis", text: await dumpRedis(redis.url) },
      { where: "Redis commands", text: watch.commands() },
      ...(await Promise.all(brokers.map((broker, index) => writtenBy(broker, index + 1)))).flat(),
      ...proxy.exchanges.map((exchange) => answer(withoutLawful(exchange))),
    ],
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

async function writtenBy(broker: BrokerProcess, number: number): Promise<Place[]> {
  return [
    { where: `stdout ${number}`, text: broker.stdout },
    { where: `stderr ${number}`, text: broker.stderr },
    { where: `data folder ${number}`, text: await dumpFolder(broker.dataDir) },
  ];
}

/** What a server issued, and the verifiers that it was sent. */
function issuedBy({ ledger }: StrictServer): Canary[] {
  const kinds = { code: "authorization code", access: "access token", refresh: "refresh token" };
  const verifiers = ledger.requestsTo("token").flatMap(({ fields }) => fields["code_verifier"] ?? []);
  return [
    ...ledger.tokens.map(({ kind, value }) => ({ what: kinds[kind], value })),
    ...verifiers.map((value) => ({ what: "PKCE verifier", value })),
  ];
}

/** The broker's own secrets that an answer is there to give. */
function handedOutIn({ method, path, status, rawHeaders, body }: Exchange): Canary[] {
  const all = [...rawHeaders, body].join("\n");
  const route = `${method} ${path} ${status}`;
  const take = (what: string, pattern: RegExp) => {
    const value = pattern.exec(all)?.[1];
    return value === undefined ? [] : [{ what, value }];
  };
  if (route === "POST /keys 201") return take("API key", /"key":"frt_[^_]+_([^_]+)_/);
  if (/^POST \S+\/consent-links 201$/.test(route)) return take("consent link", /\/connect\/[0-9a-f]+-([0-9a-f]+)"/);
  if (route.startsWith("GET /connect/")) return take("browser cookie", /freshet_browser=([^;]+)/);
  if (/^POST \/connect\/\S+ 303$/.test(route)) return take("consent state", /[?&]state=([^&\s]+)/);
  if (/^GET \/callback\/\S+ 303$/.test(route)) return take("completion ticket", /[?&]ticket=([^&\s]+)/);
  return [];
}

/** An answer without what its caller asked for. */
function withoutLawful(exchange: Exchange): Exchange {
  const { method, path, status, body } = exchange;
  const route = `${method} ${path.split("?")[0]} ${status}`;
  const withoutField = (field: string) => ({ ...exchange, body: body.replace(new RegExp(`"${field}":"[^"]*"`), "") });
  if (/^GET \/tokens\/\S+ 200$/.test(route)) {
    const read = JSON.parse(body) as { access_token: string; request?: { headers: unknown } };
    const { access_token: _token, request: { headers: _headers, ...request } = { headers: {} }, ...rest } = read;
    return { ...exchange, body: JSON.stringify({ ...rest, request }) };
  }
  if (route === "POST /keys 201") return withoutField("key");
  if (/^POST \S+\/consent-links 201$/.test(route)) return withoutField("url");
  if (/^GET \/connect\/\S+ 200$/.test(route)) return withoutHeader(exchange, "set-cookie");
  if (/^POST \/connect\/\S+ 303$/.test(route)) return withoutHeader(exchange, "location");
  const isForApp = exchange.rawHeaders.some((text) => text.startsWith(`${returnTo}?ticket=`));
  if (/^GET \/callback\/\S+ 303$/.test(route) && isForApp) return withoutHeader(exchange, "location");
  return exchange;
}

function withoutHeader(exchange: Exchange, name: string): Exchange {
  const { rawHeaders } = exchange;
  const kept = rawHeaders.filter((_text, at) => rawHeaders[at - (at % 2)]?.toLowerCase() !== name);
  return { ...exchange, rawHeaders: kept };
}

/** The whole of an answer as text. */
export function answer({ method, path, status, statusMessage, rawHeaders, body }: Exchange): Place {
  const route = path.split("?")[0] ?? "";
  const text = [`HTTP/1.1 ${status} ${statusMessage}`, ...rawHeaders, "", body].join("\n");
  const shown = route.replace(/^(\/connect)\/.*/, "$1/:link").replace(/^\/consents\/[^/]+/, "/consents/:ticket");
  return { where: `the answer ${status} to ${method} ${shown}`, text };
}
