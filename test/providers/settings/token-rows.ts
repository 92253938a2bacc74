import { exchangePlace, firstPlaces, refreshLabels, refreshPlaces, sidePlaces, type Place } from "./places.ts";
import { at, each, type Change, type Row } from "./row.ts";

const tokenUrl = "https://login.example/token";
const basic = "Basic app-1:s3/cret";
const form = "application/x-www-form-urlencoded";
const atToken = [...firstPlaces, ...refreshPlaces.slice(0, 1), exchangePlace];
const tokenLabels = labelsOf(atToken);
/** What stands at the top of `token` holds for requests beside the token endpoint too, where it is about who asks. */
const everywhere = [...tokenLabels, ...labelsOf(sidePlaces)];
const bodies: Record<string, string> = Object.assign({}, ...[...atToken, ...sidePlaces].map((place) => place.bodies));

const named = { client_auth: { header: "X-Key" } };
const signed = at("token", { client_auth: "private_key_jwt" });
const query = { client_auth: "none", encoding: "query" };

/** The settings at the top of `token`, which hold for every request unless it says otherwise. */
export const tokenRows: Row[] = [
  {
    setting: "token.url",
    file: "token: { url: https://other.example/x }",
    shows: each(tokenLabels, "address", [`POST ${tokenUrl}`, "POST https://other.example/x"]),
  },
  {
    setting: "token.method",
    base: "bare",
    file: at("token", { ...query, method: "GET" }),
    instead: at("token", query),
    shows: {
      "fetch: address": [
        `POST ${tokenUrl}?grant_type=client_credentials&a=b`,
        `GET ${tokenUrl}?grant_type=client_credentials&a=b`,
      ],
    },
  },
  {
    setting: "token.encoding",
    file: "token: { encoding: json }",
    shows: {
      ...each(tokenLabels, "content-type", [form, "application/json"]),
      ...changedBodies(tokenLabels, (body) => JSON.stringify(Object.fromEntries(new URLSearchParams(body)))),
    },
  },
  {
    setting: "token.encoding",
    base: "bare",
    file: "token: { encoding: query }",
    shows: {
      "fetch: address": [`POST ${tokenUrl}`, `POST ${tokenUrl}?grant_type=client_credentials&a=b`],
      "fetch: content-type": [form, ""],
      "fetch: body": ["grant_type=client_credentials&a=b", ""],
    },
  },
  {
    setting: "token.client_auth",
    file: "token: { client_auth: body }",
    shows: {
      ...each(everywhere, "authorization", [basic, ""]),
      ...changedBodies(everywhere, (body) => withField(withField(body, "client_id=app-1"), "client_secret=s3%2Fcret")),
    },
  },
  {
    setting: "token.client_auth",
    file: "token: { client_auth: none }",
    shows: {
      ...each(everywhere, "authorization", [basic, ""]),
      ...changedBodies(tokenLabels, (body) => withField(body, "client_id=app-1")),
    },
  },
  {
    setting: "token.client_auth.header",
    file: at("token", named),
    shows: { ...each(everywhere, "authorization", [basic, ""]), ...each(everywhere, "x-key", ["", "s3/cret"]) },
  },
  {
    setting: "token.client_auth.value",
    file: at("token", { client_auth: { header: "X-Key", value: "Key {client.secret}" } }),
    instead: at("token", named),
    shows: each(everywhere, "x-key", ["s3/cret", "Key s3/cret"]),
  },
  {
    setting: "token.client_auth.basic",
    file: at("token", { client_auth: { basic: "{client.secret}:" } }),
    shows: each(everywhere, "authorization", [basic, "Basic s3/cret:"]),
  },
  {
    setting: "token.basic_percent_encoding",
    file: "token: { basic_percent_encoding: true }",
    shows: each(everywhere, "authorization", [basic, "Basic app-1:s3%2Fcret"]),
  },
  {
    setting: "token.assertion.alg",
    file: at("token", { client_auth: "private_key_jwt", assertion: { alg: "PS256" } }),
    instead: signed,
    shows: assertions((url) => `JWT PS256 for ${url}, 60 s`),
  },
  {
    setting: "token.assertion.audience",
    file: `{ authorization: { issuer: "https://login.example" }, token: { client_auth: private_key_jwt, assertion: { audience: issuer } } }`,
    instead: `{ authorization: { issuer: "https://login.example" }, token: { client_auth: private_key_jwt, assertion: { audience: token_url } } }`,
    shows: assertions(() => "client-authentication+jwt RS256 for https://login.example, 60 s"),
  },
  {
    setting: "token.assertion.typ",
    file: at("token", { client_auth: "private_key_jwt", assertion: { typ: "client-authentication+jwt" } }),
    instead: signed,
    shows: assertions((url) => `client-authentication+jwt RS256 for ${url}, 60 s`),
  },
  {
    setting: "token.assertion.life_s",
    file: at("token", { client_auth: "private_key_jwt", assertion: { life_s: 30 } }),
    instead: signed,
    shows: assertions((url) => `JWT RS256 for ${url}, 30 s`),
  },
  {
    setting: "token.headers",
    file: "token: { headers: { X-Version: '2' } }",
    shows: each(everywhere, "x-version", ["", "2"]),
  },
  {
    setting: "token.headers",
    file: "token: { headers: { X-Version: '2' }, grants: { refresh_token: { headers: { x-version: null } } } }",
    instead: "token: { headers: { X-Version: '2' } }",
    shows: each(refreshLabels, "x-version", ["2", ""]),
  },
  {
    setting: "token.grants.password.refresh.grant_type",
    file: "token: { grants: { refresh_token: { grant_type: again }, password: { refresh: { grant_type: anew } } } }",
    instead: "token: { grants: { refresh_token: { grant_type: again } } }",
    shows: {
      "refresh after login: body": ["grant_type=again&refresh_token=rt-0", "grant_type=anew&refresh_token=rt-0"],
    },
  },
];

function labelsOf(places: readonly Place[]): string[] {
  return places.flatMap(({ labels }) => labels);
}

function changedBodies(labels: readonly string[], change: (body: string) => string): Record<string, Change> {
  const changes = labels.map((label): [string, Change] => {
    const body = bodies[label] ?? "";
    return [`${label}: body`, [body, change(body)]];
  });
  return Object.fromEntries(changes.filter(([, [before, after]]) => before !== after));
}

/** A field that is there is not doubled. */
function withField(body: string, field: string): string {
  return body.includes(field) ? body : `${body}&${field}`;
}

function assertions(change: (url: string) => string): Record<string, Change> {
  const changes = [...atToken, ...sidePlaces].flatMap(({ url, labels }) =>
    labels.map((label): [string, Change] => [`${label}: assertion`, [`JWT RS256 for ${url}, 60 s`, change(url)]]),
  );
  return Object.fromEntries(changes);
}
