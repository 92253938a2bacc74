import { lifetimeRows } from "./lifetime-rows.ts";
import { at, each, type Row } from "./row.ts";

/** Tokens in an answer: where a file says where they are, and what is seen of that. */
type TokenPlace = {
  path: string;
  /** Read with these settings, the first of them by the settings themselves. */
  labels: readonly string[];
  access: string;
  refresh: string;
  /** What is read where the file says nothing. */
  usual: { type: string; scopes: string; ends: string; refreshEnds: string };
};

const standard = { type: "mac", scopes: "read,write | all", ends: "in 1800 s", refreshEnds: "in 86400 s" };
/** A further token has nothing of the answer that its own settings do not point at. */
const nothing = { type: "Bearer", scopes: "", ends: "in 3600 s", refreshEnds: "unstated" };

const ownTokens = { access: "at-1", refresh: "rt-1", usual: standard };
const grantPlaces: TokenPlace[] = [
  { path: "response", labels: ["answer", "refreshed user", "second"], ...ownTokens },
  { path: "response.extra_tokens[0]", labels: ["user"], access: "ut-1", refresh: "urt-1", usual: nothing },
  { path: "response.extra_tokens[0].refreshed", labels: ["refreshed user"], ...ownTokens },
];

function tokenRows(place: TokenPlace): Row[] {
  const { path, labels, access, refresh, usual } = place;
  const row = (setting: string, where: string, shows: Row["shows"]): Row => ({
    setting: `${path.replaceAll(/\[\d\]/g, "")}.${setting}`,
    file: at(path, { [setting]: where }),
    shows,
  });
  return [
    row("access_token", "/other/access_token", {
      ...each(labels, "access token", [access, "at-2"]),
      ...(path === "response" && { "answer in a form": ["at-1", "unreadable"] }),
    }),
    row("refresh_token", "/other/refresh_token", each(labels, "refresh token", [refresh, "rt-2"])),
    row("token_type", "/other/token_type", each(labels, "token type", [usual.type, "dpop"])),
    row("scope", "/other/scope", each(labels, "scopes", [usual.scopes, "x"])),
    ...lifetimeRows({
      path: `${path}.expires`,
      labels,
      part: "ends",
      stated: usual.ends,
      silent: "in 3600 s",
    }),
    ...lifetimeRows({
      path: `${path}.refresh_expires`,
      labels,
      part: "refresh token ends",
      stated: usual.refreshEnds,
      silent: "unstated",
    }),
  ];
}

const introspectionRows: Row[] = [
  ...lifetimeRows({
    path: "introspection.expires",
    labels: ["asked about"],
    part: "ends",
    stated: "at 1900000000",
    silent: "unstated",
  }),
  {
    setting: "introspection.active",
    file: "introspection: { active: /revoked }",
    shows: { "asked about: active": ["true", "false"] },
  },
  {
    setting: "introspection.token",
    file: "introspection: { token: refresh_token }",
    shows: {
      ...swapped("address", "POST https://login.example/introspect"),
      ...swapped("authorization", "Basic app-1:s3/cret"),
      ...swapped("content-type", "application/x-www-form-urlencoded"),
      "ask about access token: body": ["token=at-0&token_type_hint=access_token", ""],
      "ask about refresh token: body": ["", "token=rt-0&token_type_hint=refresh_token"],
    },
  },
];

function swapped(part: string, value: string): Row["shows"] {
  return { [`ask about access token: ${part}`]: [value, ""], [`ask about refresh token: ${part}`]: ["", value] };
}

/** What is read as `response` says. */
const asResponse = ["answer", "refreshed user", "second"];
const all = ["user", ...asResponse];

export const answerRows: Row[] = [
  ...grantPlaces.flatMap(tokenRows),
  ...introspectionRows,
  {
    setting: "response.expires.from",
    file: "response: { expires: { from: never } }",
    shows: each(
      asResponse.map((label) => `${label}, silent`),
      "ends",
      ["in 3600 s", "never"],
    ),
  },
  {
    setting: "response.expires.from",
    file: "response: { expires: { from: expires_at } }",
    shows: each(asResponse, "ends", ["in 1800 s", "at 2100000000"]),
  },
  {
    setting: "response.expires.from",
    file: "response: { expires: { from: fixed, fallback: 3600 } }",
    shows: each(asResponse, "ends", ["in 1800 s", "in 3600 s"]),
  },
  {
    setting: "response.scope_separator",
    file: "response: { scope_separator: ',' }",
    shows: each(asResponse, "scopes", ["read,write | all", "read | write | all"]),
  },
  {
    setting: "response.scope_separator",
    file: "response: { scope_separator: ',', extra_tokens: [{ scope: /scope }] }",
    instead: "response: { extra_tokens: [{ scope: /scope }] }",
    shows: each(all, "scopes", ["read,write | all", "read | write | all"]),
  },
  {
    setting: "response.format",
    file: "response: { format: json }",
    shows: { "a dead grant in a form": ["invalid_grant", "provider_unavailable"] },
  },
  {
    setting: "response.ok_when.pointer",
    file: "response: { ok_when: { pointer: /ok, equals: 'true' } }",
    instead: "response: { ok_when: { pointer: /status, equals: 'true' } }",
    shows: { "an error with 200": ["unreadable_answer", "provider_unavailable"] },
  },
  {
    setting: "response.ok_when.equals",
    file: "response: { ok_when: { pointer: /ok, equals: 'true' } }",
    instead: "response: { ok_when: { pointer: /ok, equals: 'false' } }",
    shows: { "an error with 200": ["unreadable_answer", "provider_unavailable"] },
  },
  {
    setting: "response.capture",
    file: "response: { capture: { host: /host } }",
    shows: each(all, "captured host", ["", "eu1.example.com"]),
  },
  {
    setting: "response.capture.pointer",
    file: "response: { capture: { host: { pointer: /host, pattern: '.' } } }",
    instead: "response: { capture: { host: { pointer: /access_token, pattern: '.' } } }",
    shows: each(all, "captured host", ["at-1", "eu1.example.com"]),
  },
  {
    setting: "response.capture.pattern",
    file: "response: { capture: { host: { pointer: /host, pattern: '^[a-z0-9]+\\.example\\.org$' } } }",
    instead: "response: { capture: { host: { pointer: /host, pattern: '^[a-z0-9]+\\.example\\.com$' } } }",
    shows: each(all, "captured host", ["eu1.example.com", ""]),
  },
  {
    setting: "response.capture.enum",
    file: "response: { capture: { host: { pointer: /host, enum: [eu2.example.com] } } }",
    instead: "response: { capture: { host: { pointer: /host, enum: [eu1.example.com, eu2.example.com] } } }",
    shows: each(all, "captured host", ["eu1.example.com", ""]),
  },
  {
    setting: "response.extra_tokens.name",
    base: "bare",
    file: "response: { extra_tokens: [{ name: person, access_token: /user/access_token, refresh_token: /user/refresh_token }] }",
    instead: "response: { extra_tokens: [] }",
    shows: {
      ...shown("person", { access: "ut-1", refresh: "urt-1", usual: nothing }),
      ...shown("refreshed person", ownTokens),
    },
  },
  {
    setting: "response.extra_tokens.refresh_token",
    base: "bare",
    file: "response: { extra_tokens: [{ name: person, access_token: /user/access_token, refresh_token: /user/refresh_token }] }",
    instead: "response: { extra_tokens: [{ name: person, access_token: /user/access_token }] }",
    shows: { "person: refresh token": ["", "urt-1"] },
  },
];

function shown(label: string, { access, refresh, usual }: Omit<TokenPlace, "path" | "labels">): Row["shows"] {
  return {
    [`${label}: access token`]: ["", access],
    [`${label}: refresh token`]: ["", refresh],
    [`${label}: token type`]: ["", usual.type],
    [`${label}: scopes`]: ["", usual.scopes],
    [`${label}: ends`]: ["", usual.ends],
    [`${label}: refresh token ends`]: ["", usual.refreshEnds],
    [`${label}, silent: ends`]: ["", "in 3600 s"],
    [`${label}, silent: refresh token ends`]: ["", "unstated"],
  };
}
