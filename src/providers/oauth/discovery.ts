import { LRUCache } from "lru-cache";
import type { Clock } from "../../clock.ts";
import { BrokerError } from "../../errors.ts";
import { readable } from "../../text.ts";
import { providerTimes } from "../../time.ts";
import type { ClientAuth, ProviderDefinition, ProviderRequest } from "../format/definition.ts";
import { isUsualHost } from "../format/places.ts";
import { fillUrl, splitUrl, type TemplateValues } from "../format/template.ts";
import { readPointer } from "./answer-body.ts";
import type { Asked, OAuthClient } from "./oauth-client.ts";
import { cut } from "./scrub.ts";
import { buildRequest } from "./token-request.ts";

export type Discovery = {
  /**
   * The definition with the addresses that its file leaves out, as the issuer's metadata name them.
   * @throws BrokerError `provider_unavailable` when there are none, or they lack an address that is needed
   */
  complete: (definition: ProviderDefinition, values: TemplateValues) => Promise<ProviderDefinition>;
  /** Call it if a request failed as if its address had changed: the next caller reads the metadata again. */
  doubt: (definition: ProviderDefinition, values: TemplateValues) => void;
};

const endpointNames = [
  "authorization_endpoint",
  "token_endpoint",
  "pushed_authorization_request_endpoint",
  "device_authorization_endpoint",
  "revocation_endpoint",
  "introspection_endpoint",
] as const;

type EndpointName = (typeof endpointNames)[number];
type Endpoints = Readonly<Partial<Record<EndpointName, string>>>;
/** What is cached of metadata: the addresses that can be used, those for clients with a certificate, and whether callbacks carry `iss`. */
type Metadata = { plain: Endpoints; mtls: Endpoints; announcesIss: boolean };
type Known = { metadata: Metadata; readMs: number; doubted: boolean };
/** The issuer and the address of its metadata, with all values filled in. */
type Place = { definition: ProviderDefinition; issuer: string; metadataUrl: string | null };

/** Inputs may stand in an issuer, so that there may be any number of them; those used longest ago are forgotten. */
const mostIssuers = { maxSize: 1000, sizeCalculation: () => 1 };
const longestAddress = 2000;
const mostHops = 3;

/** Metadata of authorization servers (RFC 8414; OpenID Connect Discovery 1.0), cached for an hour. */
export function createDiscovery(parts: {
  oauth: Pick<OAuthClient, "ask">;
  clock: Pick<Clock, "monotonicMs">;
}): Discovery {
  const { oauth, clock } = parts;
  const known = new LRUCache<string, Known>(mostIssuers);
  const failed = new LRUCache<string, { atMs: number; error: BrokerError }>(mostIssuers);
  const reading = new Map<string, Promise<Metadata>>();

  const isGood = ({ readMs, doubted }: Known): boolean =>
    clock.monotonicMs() - readMs < (doubted ? providerTimes.metadataAgainMs : providerTimes.metadataKeepMs);

  const read = async (place: Place): Promise<Metadata> => {
    const key = keyOf(place);
    try {
      const metadata = await fetchMetadata(oauth, place);
      known.set(key, { metadata, readMs: clock.monotonicMs(), doubted: false });
      failed.delete(key);
      return metadata;
    } catch (error) {
      if (error instanceof BrokerError) failed.set(key, { atMs: clock.monotonicMs(), error });
      // The old metadata are used on, since addresses hardly ever change.
      const old = known.get(key);
      if (old) return old.metadata;
      throw error;
    }
  };

  const metadataOf = async (place: Place): Promise<Metadata> => {
    const key = keyOf(place);
    const current = known.get(key);
    if (current && isGood(current)) return current.metadata;
    const failure = failed.get(key);
    if (failure && clock.monotonicMs() - failure.atMs < providerTimes.metadataAgainMs) {
      if (current) return current.metadata;
      throw failure.error;
    }
    const started = reading.get(key) ?? read(place).finally(() => reading.delete(key));
    reading.set(key, started);
    return await started;
  };

  return {
    async complete(definition, values) {
      const place = lacksAddress(definition) ? placeOf(definition, values) : null;
      return place === null ? definition : fillIn(definition, await metadataOf(place));
    },
    doubt(definition, values) {
      const place = placeOf(definition, values);
      const current = place === null ? undefined : known.get(keyOf(place));
      if (current) current.doubted = true;
    },
  };
}

function placeOf(definition: ProviderDefinition, values: TemplateValues): Place | null {
  const { issuer, metadataUrl } = definition;
  if (issuer === null) return null;
  const filled = metadataUrl === null ? null : fillUrl(metadataUrl, values);
  return { definition, issuer: fillUrl(issuer, values), metadataUrl: filled };
}

/**
 * The key of an issuer's cached metadata, separate for each provider. Another provider may reach other networks, so neither its metadata nor its
 * failure may count for this one.
 */
function keyOf({ definition, issuer, metadataUrl }: Place): string {
  return JSON.stringify([definition.id, issuer, metadataUrl]);
}

/** Where metadata are, or may be: RFC 8414, section 3.1, puts the path behind, OpenID Connect Discovery, section 4, in front. */
function metadataUrls({ issuer, metadataUrl }: Place): string[] {
  if (metadataUrl !== null) return [metadataUrl];
  const { authority, rest } = splitUrl(issuer);
  const path = rest.replace(/\/$/, "");
  return [
    `${authority}${path}/.well-known/openid-configuration`,
    `${authority}/.well-known/oauth-authorization-server${path}`,
  ];
}

async function fetchMetadata(oauth: Pick<OAuthClient, "ask">, place: Place): Promise<Metadata> {
  const { definition, issuer } = place;
  const details: string[] = [];
  for (const url of metadataUrls(place)) {
    const { ok, body, detail } = await askFollowing(oauth, definition, url);
    // A mismatch is an attack or a mistake. Either could send secrets to the wrong place (RFC 8414, section 3.3).
    if (ok && readPointer(body, "/issuer") === issuer) return addressesIn(body, issuer);
    details.push(ok ? otherIssuer(definition, { url, body, issuer }) : detail);
  }
  const said = [...new Set(details)].join("; ");
  throw new BrokerError("provider_unavailable", `The metadata of ${issuer} cannot be read: ${said}.`, {
    retryAfterSeconds: providerTimes.unusableSeconds,
  });
}

/**
 * Follows redirects within the same origin. What another origin says about the issuer does not count (RFC 8414, section 6.2).
 */
async function askFollowing(
  oauth: Pick<OAuthClient, "ask">,
  definition: ProviderDefinition,
  first: string,
): Promise<Asked> {
  let url = first;
  for (let hops = 0; ; hops++) {
    const request = buildRequest({ ...metadataRequest, url }, {});
    const asked = await oauth.ask({ definition, request });
    const next = asked.location === undefined ? null : URL.parse(asked.location, url);
    if (next === null) return asked;
    const from = URL.parse(url);
    const isOurs = next.origin === from?.origin && next.username === "" && next.password === "" && isPlain(next.href);
    if (isOurs && hops < mostHops) url = next.href;
    else return { ...asked, detail: `${asked.detail}${sentTo(definition, url, next)}` };
  }
}

/** Refuses addresses with braces: they would be read as templates. */
function isPlain(address: string): boolean {
  return address.length <= longestAddress && !/[{}]/.test(address);
}

/** What a host says is not passed on, unless the definition fixes that host. */
function sentTo(definition: ProviderDefinition, asked: string, { origin, pathname }: URL): string {
  if (!isUsualHost(definition, asked)) return "";
  return ` and sends to ${cut(readable(`${origin}${pathname}`))}, which is not followed: set discovery.metadata_url to where the metadata are`;
}

function otherIssuer(
  definition: ProviderDefinition,
  { url, body, issuer }: { url: string; body: unknown; issuer: string },
): string {
  const named = readPointer(body, "/issuer");
  if (typeof named !== "string" || !isUsualHost(definition, url)) return "the answer names another issuer";
  return `the answer names the issuer "${cut(readable(named))}", and the definition "${issuer}": they must be the same to the letter`;
}

const metadataRequest: Omit<ProviderRequest, "url"> = {
  method: "GET",
  encoding: "query",
  clientAuth: { kind: "none" },
  headers: { accept: "application/json" },
  fields: {},
};

/** Only the authorization and token endpoints are required. Without another endpoint, its function is not available. */
function fillIn(definition: ProviderDefinition, metadata: Metadata): ProviderDefinition {
  const { authorization, device } = definition;
  const find = <Request extends ProviderRequest>(request: Request | null, name: EndpointName): Request | null => {
    if (request === null || request.url !== "") return request;
    const url = addressFor(request.clientAuth, metadata, name);
    return url === undefined ? null : { ...request, url };
  };
  const tokens = <Exchanges extends object>(exchanges: Exchanges): Exchanges => {
    const entries = Object.entries(exchanges as Record<string, ProviderRequest>);
    const name = "token_endpoint";
    return Object.fromEntries(
      entries.map(([grant, exchange]) => [grant, find(exchange, name) ?? missing(definition, name)]),
    ) as Exchanges;
  };
  const authorizeUrl = metadata.plain.authorization_endpoint;
  return {
    ...definition,
    authorization: authorization && {
      ...authorization,
      url: authorization.url || (authorizeUrl ?? missing(definition, "authorization_endpoint")),
      iss: authorization.iss === "as_announced" && metadata.announcesIss ? "required" : authorization.iss,
      pushed: find(authorization.pushed, "pushed_authorization_request_endpoint"),
    },
    device: find(device, "device_authorization_endpoint"),
    exchanges: tokens(definition.exchanges),
    refreshes: tokens(definition.refreshes),
    furtherTokens: definition.furtherTokens.map((further) =>
      Object.assign({}, further, { exchange: find(further.exchange, "token_endpoint") }),
    ),
    revocation: find(definition.revocation, "revocation_endpoint"),
    introspection: find(definition.introspection, "introspection_endpoint"),
  };
}

/** Clients with a certificate have addresses of their own where the metadata name some (RFC 8705, section 5). */
function addressFor({ kind }: ClientAuth, { plain, mtls }: Metadata, name: EndpointName): string | undefined {
  return (kind === "tls" ? mtls[name] : undefined) ?? plain[name];
}

function addressesIn(body: unknown, issuer: string): Metadata {
  const read = (place: string): Endpoints =>
    Object.fromEntries(
      endpointNames.flatMap((name) => {
        const address = readPointer(body, `${place}/${name}`);
        return isAddress(address, issuer) ? [[name, address]] : [];
      }),
    );
  const announcesIss = readPointer(body, "/authorization_response_iss_parameter_supported") === true; // RFC 9207, section 3
  return { plain: read(""), mtls: read("/mtls_endpoint_aliases"), announcesIss };
}

/**
 * Whether requests may be sent to an address of metadata. Any other value counts as absent. Addresses are filled like those of a file, so
 * braces could put a secret into one.
 */
function isAddress(value: unknown, issuer: string): value is string {
  if (typeof value !== "string" || value.length > longestAddress || /[{}#\\\s\p{Cc}]/u.test(value)) return false;
  const url = URL.parse(value);
  if (url === null || url.username !== "" || url.password !== "") return false;
  return url.protocol === "https:" || (url.protocol === "http:" && /^http:/i.test(issuer));
}

function missing({ name }: ProviderDefinition, endpoint: string): never {
  throw new BrokerError("provider_unavailable", `The metadata of ${name} name no ${endpoint}.`, {
    retryAfterSeconds: providerTimes.unusableSeconds,
  });
}

type Requests = Pick<
  ProviderDefinition,
  "exchanges" | "refreshes" | "device" | "authorization" | "revocation" | "introspection"
>;

/** Whether the definition lacks an address that its issuer's metadata must supply. */
export function lacksAddress(definition: Requests): boolean {
  const { exchanges, refreshes, device, authorization, revocation, introspection } = definition;
  const requests = [...Object.values(exchanges), ...Object.values(refreshes), device, authorization?.pushed];
  return [...requests, authorization, revocation, introspection].some((request) => request?.url === "");
}
