import { createHmac } from "node:crypto";
import { forFurtherToken, type ProviderDefinition } from "../../../src/providers/format/definition.ts";
import { resolveInputs } from "../../../src/providers/format/requirements.ts";
import { fill } from "../../../src/providers/format/template.ts";
import {
  expectedIssuer,
  isDenial,
  judgeIssuer,
  readCallback,
} from "../../../src/providers/oauth/authorization-request.ts";
import type { Expiry, Grant } from "../../../src/providers/oauth/token-answer.ts";
import {
  describeApiRequest,
  readIntrospection,
  readLookup,
  readPollState,
} from "../../../src/providers/oauth/side-requests.ts";
import { processTokenResponse } from "../../../src/providers/oauth/token-response.ts";
import { lookupLists } from "./observe-requests.ts";
import { type Observed, valuesFor } from "./values.ts";

const claims = Buffer.from(JSON.stringify({ exp: 2_000_000_000 })).toString("base64url");
const jwt = `x.${claims}.y`;
const other = { life: 900, life_ms: 900_000, at: 2_000_000_000, date: "2033-05-18T03:33:20Z", jwt };
const elsewhere = { access_token: "at-2", refresh_token: "rt-2", token_type: "dpop", scope: ["x"] };
const user = { access_token: "ut-1", refresh_token: "urt-1", token_type: "pop", scope: "u", expires_in: 60 };
const silent = { access_token: "at-1", refresh_token: "rt-1", user: { access_token: "ut-1", refresh_token: "urt-1" } };
const said = {
  token_type: "mac",
  scope: "read,write all",
  expires_in: 1800,
  expires_at: 2_100_000_000,
  refresh_token_expires_in: 86_400,
};
const answer = { ...silent, ...said, user, other: { ...other, ...elsewhere }, host: "eu1.example.com" };

/** How the definition reads answers. The answers are always the same. */
export function observeAnswers(definition: ProviderDefinition): Observed {
  return {
    ...observeGrants(definition),
    ...observeRefusals(definition),
    ...observeCallbacks(definition),
    ...observeLookups(definition),
    ...observeIntrospection(definition),
    ...observeInputs(definition),
  };
}

function observeGrants(definition: ProviderDefinition): Observed {
  const grant = read(definition, answer);
  const quiet = read(definition, silent);
  const chains = definition.furtherTokens.flatMap(({ name, exchange }): Observed[] => {
    const chain = forFurtherToken(definition, name);
    const own = exchange === null ? grant?.furtherTokens?.[name] : read(chain, answer);
    const ownQuiet = exchange === null ? quiet?.furtherTokens?.[name] : read(chain, silent);
    const refreshed = exchange === null ? [chain] : [];
    return [
      describe(name, own, ownQuiet),
      ...refreshed.map((later) => describe(`refreshed ${name}`, read(later, answer), read(later, silent))),
    ];
  });
  return {
    ...describe("answer", grant, quiet),
    "answer in a form": read(definition, "access_token=at-1")?.accessToken ?? "unreadable",
    ...Object.assign({}, ...chains),
  };
}

function read(definition: ProviderDefinition, body: object | string): Grant | undefined {
  const text = typeof body === "string" ? body : JSON.stringify(body);
  const response = { status: 200, headers: {}, body: Buffer.from(text) };
  const result = processTokenResponse({ definition, response, secrets: [] });
  return result.kind === "granted" ? result.grant : undefined;
}

function describe(label: string, grant: Grant | undefined, quiet: Grant | undefined): Observed {
  if (grant === undefined) return { [label]: "unreadable" };
  const captured = Object.entries(grant.captured).map(
    ([name, value]) => [`${label}: captured ${name}`, value] as const,
  );
  return {
    [`${label}: access token`]: grant.accessToken ?? "",
    [`${label}: refresh token`]: grant.refreshToken ?? "",
    [`${label}: token type`]: grant.tokenType,
    [`${label}: scopes`]: (grant.scopes ?? []).join(" | "),
    [`${label}: ends`]: endOf(grant.accessExpiry),
    [`${label}: refresh token ends`]: endOf(grant.refreshExpiry),
    [`${label}, silent: ends`]: endOf(quiet?.accessExpiry),
    [`${label}, silent: refresh token ends`]: endOf(quiet?.refreshExpiry),
    ...Object.fromEntries(captured),
  };
}

function endOf(expiry: Expiry | undefined): string {
  if (expiry?.kind === "in") return `in ${expiry.seconds} s`;
  return expiry?.kind === "at" ? `at ${expiry.epochSeconds}` : (expiry?.kind ?? "");
}

const refusals: Record<string, { status: number; body: string }> = {
  "a page with 404": { status: 404, body: "<html>" },
  "code 8 with 400": { status: 400, body: '{"errors":[{"code":"8"}]}' },
  "an error with 200": { status: 200, body: '{"ok":false,"status":"true"}' },
  "a dead grant in a form": { status: 400, body: "error=invalid_grant" },
  "a 502": { status: 502, body: "bad gateway" },
};

function observeRefusals(definition: ProviderDefinition): Observed {
  const entries = Object.entries(refusals).map(([name, sent]) => {
    const result = processTokenResponse({
      definition,
      response: { status: sent.status, headers: {}, body: Buffer.from(sent.body) },
      secrets: [],
    });
    return [name, result.kind === "failed" ? result.failure.code : "granted"] as const;
  });
  return Object.fromEntries(entries);
}

const sorted = "code=code-1&state=state-1";
const hmac = createHmac("sha256", "s3/cret").update(sorted).digest("hex");
const callbacks: Record<string, Record<string, string>> = {
  "a callback": { code: "code-1", other_code: "code-2", realmId: "r1", state: "state-1" },
  "a signed callback": { code: "code-1", state: "state-1", hmac },
  "a callback with a wrong signature": { code: "code-1", state: "state-1", hmac: hmac.replaceAll(/[0-9]/g, "0") },
};

function observeCallbacks(definition: ProviderDefinition): Observed {
  if (definition.authorization === null) return {};
  const taken = Object.entries(callbacks).map(([name, query]) => {
    const callback = readCallback(definition, query, () => "s3/cret");
    if (callback.kind === "error") return [name, callback.error] as const;
    return [name, [callback.code, ...Object.entries(callback.captured).flat()].join(" ")] as const;
  });
  const expected = definition.authorization && expectedIssuer(definition, valuesFor(definition));
  const issuers = ["https://login.example", "https://issuer.example", undefined].map((iss) => {
    const fits = expected !== null && judgeIssuer(expected, iss) === "ours";
    return [`a callback of ${iss ?? "nobody"}`, fits ? "is taken" : "is refused"] as const;
  });
  const denied = isDenial(definition, "user_cancelled");
  const declined = readPollState(definition, "user_cancelled") === "access_denied";
  const nos = [
    ["a callback with user_cancelled", denied ? "is a no" : "is a failure"],
    ["a poll with user_cancelled", declined ? "is a no" : "is a failure"],
  ] as const;
  return Object.fromEntries([...taken, ...issuers, ...nos]);
}

const entries = [
  { id: "a", name: "A", kind: "x" },
  { id: "b", name: "B", kind: "y" },
];

function observeLookups(definition: ProviderDefinition): Observed {
  const values = valuesFor(definition);
  const found = lookupLists(definition).flatMap(({ label: after, lookup }): Observed[] => {
    if (lookup.value !== null) return [{ [`account${after}, without a request`]: fill(lookup.value, values) ?? "" }];
    const { account, label, captured } = readLookup(lookup, { id: 1, mail: "m@x", entries }, values) ?? {};
    const kept = Object.entries(captured ?? {}).map(
      ([name, value]) => [`account${after}: captured ${name}`, value] as const,
    );
    return [
      { [`account${after}`]: account ?? "", [`account${after}: label`]: label ?? "", ...Object.fromEntries(kept) },
    ];
  });
  return Object.assign({}, ...found);
}

function observeIntrospection({ introspection }: ProviderDefinition): Observed {
  if (introspection === null) return {};
  const full = { active: true, revoked: false, exp: 1_900_000_000, other };
  const told = readIntrospection(introspection, full);
  const quiet = readIntrospection(introspection, { active: true });
  return {
    "asked about: active": String(told.active),
    "asked about: ends": endOf(told.expiry),
    "asked about, silent: ends": endOf(quiet.expiry),
  };
}

const uuid = /[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}/;

function observeInputs(definition: ProviderDefinition): Observed {
  const grant = definition.grants[0] ?? "authorization_code";
  const given = { none: {}, munich: { shop: "munich" } };
  const tried = Object.entries(given).flatMap(([name, inputs]) => {
    const label = `inputs, given ${name}`;
    try {
      const resolved = resolveInputs({ definition, grant, given: inputs, clientInputs: null });
      const { headers } = describeApiRequest({ definition, values: { ...valuesFor(definition), inputs: resolved } });
      return [
        [label, JSON.stringify(resolved).replace(uuid, "a UUID")],
        [`${label}: sent`, (headers["x-shop"] ?? "nothing").replace(uuid, "a UUID")],
      ];
    } catch (error) {
      return [[label, error instanceof Error ? error.message : ""]];
    }
  });
  return Object.keys(definition.inputs).length === 0 ? {} : Object.fromEntries(tried);
}
