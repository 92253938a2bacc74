import { X509Certificate } from "node:crypto";
import type { Labels } from "../labels.ts";
import { parseNetworks } from "../providers/http/egress.ts";
import type { Ability } from "../store/api-keys.ts";
import type { Algorithm } from "../jwt-form.ts";
import { coversMatch, fits, type Match, patternsOf } from "./claims.ts";
import { type KeySource, readKeys, sourceId } from "./issuer-keys.ts";

/** A caller that shows tokens of its platform instead of a key: which tokens those are, and what it may. */
export type Workload = KeySource & {
  name: string;
  audience: string;
  algorithms: readonly Algorithm[];
  match: Match;
  abilities: readonly Ability[];
  connections: readonly string[];
  labels: Labels;
  /** Null: when it is deleted. */
  expiresAt: Date | null;
};

/** Issuers whose tokens everybody can get. `owner`: the claims that say whose a token is, and what a pattern of a workload must look like there. */
export type SharedIssuers = readonly { issuers: readonly string[]; owner: Readonly<Record<string, string>> }[];

/** What is wrong with a declaration. `path`: the field, as the API and WORKLOADS_FILE name it. */
export type Misdeclared = { path: readonly string[]; text: string };

/** Checks what a schema cannot express. */
export function checkWorkload(workload: Workload, shared: SharedIssuers): Misdeclared[] {
  return [...checkSource(workload), ...checkMatch(workload), ...checkOwner(workload, shared)];
}

function checkSource({ issuer, jwks, jwksUri, ca, networks, algorithms }: Workload): Misdeclared[] {
  const faults: Misdeclared[] = [];
  const fault = (path: string | readonly string[], text: string) => void faults.push({ path: [path].flat(), text });
  const isFetched = jwks === null;
  if (jwks !== null && jwksUri !== null) fault("jwks_uri", "either `jwks` or `jwks_uri`, not both");
  if (isFetched && jwksUri === null && !isPlainHttps(issuer)) {
    fault("issuer", "must be an https URL without query, or say by `jwks` or `jwks_uri` where its keys are");
  }
  if (jwksUri !== null && !isPlainHttps(jwksUri, { withQuery: true })) fault("jwks_uri", "must be an https URL");
  if (jwks !== null) {
    const keys = readKeys(jwks);
    const isSecret = /"(d|p|q|dp|dq|qi|k)"\s*:/.test(jwks);
    if (isSecret) fault("jwks", "holds a private or a shared key: give the public parts alone, and make new keys");
    else if (!keys.some((key) => algorithms.some((algorithm) => key.fits(algorithm)))) {
      fault("jwks", `holds no key for ${algorithms.join(", ")}: RSA of 2048 bits or more, EC, or Ed25519`);
    }
  }
  if (!isFetched && ca !== null) fault("ca", "is for keys that are fetched, and `jwks` holds them");
  if (!isFetched && networks.length > 0) fault("networks", "is for keys that are fetched, and `jwks` holds them");
  if (ca !== null && !isPem(ca)) fault("ca", "must hold certificates as PEM (-----BEGIN CERTIFICATE-----)");
  for (const [at, network] of networks.entries()) {
    try {
      parseNetworks(network);
      if (network.includes(",")) fault(["networks", String(at)], "must be one CIDR block");
    } catch (error) {
      fault(["networks", String(at)], (error as RangeError).message);
    }
  }
  return faults;
}

/** An address that means itself to the letter. */
function isPlainHttps(text: string, { withQuery = false } = {}): boolean {
  const url = URL.parse(text);
  const isPlain = url?.protocol === "https:" && url.username === "" && url.password === "" && !/[#\s\\]/.test(text);
  return isPlain && (withQuery || !text.includes("?"));
}

function isPem(text: string): boolean {
  const blocks = text.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
  try {
    return blocks.length > 0 && blocks.every((block) => new X509Certificate(block).raw.length > 0);
  } catch {
    return false;
  }
}

function checkMatch({ match }: Workload): Misdeclared[] {
  const faults = Object.keys(match)
    .filter((name) => name.startsWith("/") && /~(?![01])/.test(name))
    .map((name) => ({ path: ["match", name], text: "is no JSON pointer: write ~0 for ~, and ~1 for / (RFC 6901)" }));
  const isBound = Object.keys(match).some((name) => !/^\/?(iss|aud|exp|nbf|iat|jti)$/.test(name));
  if (isBound) return faults;
  return [...faults, { path: ["match"], text: "must name a claim that says whose the token is, such as `sub`" }];
}

/** At an issuer whose tokens everybody can get, a workload says whose tokens it takes. */
function checkOwner({ issuer, match }: Workload, shared: SharedIssuers): Misdeclared[] {
  const entry = shared.find(({ issuers }) => issuers.some((pattern) => fits(pattern, issuer)));
  if (entry === undefined) return [];
  const claims = Object.entries(entry.owner);
  const isTied = claims.some(([claim, form]) => {
    const patterns = Object.hasOwn(match, claim) ? patternsOf(match[claim]) : [];
    return patterns.length > 0 && patterns.every((pattern) => new RegExp(form, "u").test(pattern));
  });
  if (isTied) return [];
  const wanted = claims.map(([claim, form]) => `\`${claim}\` (${form})`).join(" or ");
  const text = `everybody can get tokens of ${issuer}: match must say whose they are, without a star there, by ${wanted}`;
  return [{ path: ["match"], text }];
}

/** Whether every token that is one workload's is the other's, too. */
export function overlap(one: Workload, other: Workload): boolean {
  const isSame = sourceId(one) === sourceId(other) && one.audience === other.audience;
  return isSame && (coversMatch(one.match, other.match) || coversMatch(other.match, one.match));
}
