import type { Clock } from "../clock.ts";
import { BrokerError } from "../errors.ts";
import { readPointer } from "./answer-body.ts";
import { assemble } from "./assemble.ts";
import type { ClientAuth, ProviderDefinition, ProviderRequest } from "./definition.ts";
import type { OAuthClient } from "./oauth-client.ts";
import { lacksAddress } from "./requirements.ts";
import { fillUrl, splitUrl, type TemplateValues } from "./template.ts";

export type Discovery = {
  /**
   * The definition with the addresses that its file leaves out, as the issuer's metadata name them.
   * @throws BrokerError `provider_unavailable` when there are none, or they lack an address that is needed
   */
  complete: (definition: ProviderDefinition, values: TemplateValues) => Promise<ProviderDefinition>;
  /** Something at these addresses failed in a way that a move could explain: the next caller reads them anew. */
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
/** What is kept of metadata: the addresses that can be used, those for clients with a certificate, and whether callbacks carry `iss`. */
type Metadata = { plain: Endpoints; mtls: Endpoints; announcesIss: boolean };
type Known = { metadata: Metadata; readMs: number; doubted: boolean };

const keepMs = 3_600_000;
/** A doubt is not followed more often than this, and an issuer that does not answer is not asked more often. */
const againMs = 60_000;
/** Inputs may stand in an issuer, so that there may be any number of them; those read longest ago are forgotten. */
const mostIssuers = 1000;
const longestAddress = 2000;

/** Metadata of authorization servers (RFC 8414; OpenID Connect Discovery 1.0), kept for an hour. */
export function createDiscovery(parts: {
  oauth: Pick<OAuthClient, "ask">;
  clock: Pick<Clock, "monotonicMs">;
}): Discovery {
  const { oauth, clock } = parts;
  const known = new Map<string, Known>();
  const failed = new Map<string, { atMs: number; error: BrokerError }>();
  const reading = new Map<string, Promise<Metadata>>();

  const isGood = ({ readMs, doubted }: Known): boolean => clock.monotonicMs() - readMs < (doubted ? againMs : keepMs);

  const read = async (definition: ProviderDefinition, issuer: string): Promise<Metadata> => {
    const place = placeOf(definition, issuer);
    try {
      const metadata = await fetchMetadata(oauth, definition, issuer);
      remember(known, place, { metadata, readMs: clock.monotonicMs(), doubted: false });
      failed.delete(place);
      return metadata;
    } catch (error) {
      if (error instanceof BrokerError) remember(failed, place, { atMs: clock.monotonicMs(), error });
      // What was known is better than nothing: addresses hardly ever change.
      const old = known.get(place);
      if (old) return old.metadata;
      throw error;
    }
  };

  const metadataOf = async (definition: ProviderDefinition, issuer: string): Promise<Metadata> => {
    const place = placeOf(definition, issuer);
    const current = known.get(place);
    if (current && isGood(current)) return current.metadata;
    const failure = failed.get(place);
    if (failure && clock.monotonicMs() - failure.atMs < againMs) {
      if (current) return current.metadata;
      throw failure.error;
    }
    const started = reading.get(place) ?? read(definition, issuer).finally(() => reading.delete(place));
    reading.set(place, started);
    return await started;
  };

  return {
    async complete(definition, values) {
      if (definition.issuer === null || !lacksAddress(definition)) return definition;
      return fillIn(definition, await metadataOf(definition, fillUrl(definition.issuer, values)));
    },
    doubt(definition, values) {
      if (definition.issuer === null) return;
      const current = known.get(placeOf(definition, fillUrl(definition.issuer, values)));
      if (current) current.doubted = true;
    },
  };
}

/**
 * Where an issuer's metadata are kept: for each provider apart. Another one may reach other networks, and neither what it was
 * told nor that it was turned away may count for this one.
 */
function placeOf({ id }: ProviderDefinition, issuer: string): string {
  return `${id} ${issuer}`;
}

/** As the newest of its map. */
function remember<Value>(map: Map<string, Value>, place: string, value: Value): void {
  map.delete(place);
  map.set(place, value);
  const [oldest] = map.keys();
  if (map.size > mostIssuers && oldest !== undefined) map.delete(oldest);
}

/** Where metadata may be: RFC 8414, section 3.1, puts the path behind, OpenID Connect Discovery, section 4, in front. */
function metadataUrls(issuer: string): string[] {
  const { authority, rest } = splitUrl(issuer);
  const path = rest.replace(/\/$/, "");
  return [
    `${authority}${path}/.well-known/openid-configuration`,
    `${authority}/.well-known/oauth-authorization-server${path}`,
  ];
}

async function fetchMetadata(
  oauth: Pick<OAuthClient, "ask">,
  definition: ProviderDefinition,
  issuer: string,
): Promise<Metadata> {
  const details: string[] = [];
  for (const url of metadataUrls(issuer)) {
    const request = assemble({ ...metadataRequest, url }, {}, []);
    const { ok, body, detail } = await oauth.ask({ definition, request });
    // A mismatch is an attack or a mistake, either of which sends secrets astray (RFC 8414, section 3.3).
    if (ok && readPointer(body, "/issuer") === issuer) return addressesIn(body, issuer);
    details.push(ok ? "the answer names another issuer" : detail);
  }
  const said = [...new Set(details)].join("; ");
  throw new BrokerError("provider_unavailable", `The metadata of ${issuer} cannot be read: ${said}.`, {
    retryAfterSeconds: 60,
  });
}

const metadataRequest: Omit<ProviderRequest, "url"> = {
  method: "GET",
  encoding: "query",
  clientAuth: { kind: "none" },
  headers: { accept: "application/json" },
  fields: {},
};

/** Only the two endpoints of every grant must be named; what the others are for does without where they are not. */
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
    extraTokens: definition.extraTokens.map((extra) =>
      Object.assign({}, extra, { exchange: find(extra.exchange, "token_endpoint") }),
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
 * Whether requests may go to what metadata name; what else stands there counts as not named. Addresses are filled like those
 * of a file, so that braces would put a secret into one.
 */
function isAddress(value: unknown, issuer: string): value is string {
  if (typeof value !== "string" || value.length > longestAddress || /[{}#\\\s\p{Cc}]/u.test(value)) return false;
  const url = URL.parse(value);
  if (url === null || url.username !== "" || url.password !== "") return false;
  return url.protocol === "https:" || (url.protocol === "http:" && /^http:/i.test(issuer));
}

function missing({ name }: ProviderDefinition, endpoint: string): never {
  throw new BrokerError("provider_unavailable", `The metadata of ${name} name no ${endpoint}.`, {
    retryAfterSeconds: 60,
  });
}
