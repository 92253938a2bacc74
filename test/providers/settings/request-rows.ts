import type { Place } from "./places.ts";
import { at, each, type Change, type Row } from "./row.ts";

const basic = "Basic app-1:s3/cret";
const form = "application/x-www-form-urlencoded";
const jwtType = "urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer";
const fields = { a: "b" };

type Settings = Readonly<Record<string, unknown>>;
type Shown = Record<string, Change>;

/** What each setting of one kind of request does. */
export function requestRows(place: Place): Row[] {
  const row = rowOf(place);
  return [...addressRows(place, row), ...bodyRows(place, row), ...clientRows(place, row), ...assertionRows(place, row)];
}

/** The same, with the setting that only requests to the token endpoint have. */
export function exchangeRows(place: Place): Row[] {
  const row = rowOf(place);
  const grantType = row(
    "grant_type",
    [{ fields, grant_type: "special" }, { fields }],
    each(place.labels, "body", [sent(place.lead, "a=b"), "grant_type=special&a=b"]),
  );
  const without = row(
    "grant_type",
    [{ fields, grant_type: null }, { fields }],
    each(place.labels, "body", [sent(place.lead, "a=b"), "a=b"]),
  );
  return [...requestRows(place), grantType, without];
}

/** A fixed client id is in force for the grant's refreshes too. */
export function fixedClientRow({ path, labels }: Place): Row {
  const both = [...labels, ...labels.map((label) => `refresh after ${label}`)];
  return {
    setting: `${path}.client_id`,
    file: at(path, { client_id: "everybody" }),
    shows: each(both, "authorization", [basic, "Basic everybody:s3/cret"]),
  };
}

type MakeRow = (setting: string, sides: readonly [mine: Settings, instead: Settings], shows: Shown) => Row;

function rowOf({ path, given }: Place): MakeRow {
  return (setting, [mine, instead], shows) => ({
    setting: `${path.replaceAll(/\[\d\]/g, "")}.${setting}`,
    file: noChallenge(path, at(path, { ...given, ...mine })),
    instead: noChallenge(path, at(path, { ...given, ...instead })),
    shows,
  });
}

/** If the fields of a code's exchange hold no verifier, there is no challenge, either. */
function noChallenge(path: string, file: string): string {
  if (path !== "token.grants.authorization_code") return file;
  return JSON.stringify({ authorization: { pkce: "off" }, ...(JSON.parse(file) as object) });
}

function addressRows({ url, lead, labels }: Place, row: MakeRow): Row[] {
  const query = { encoding: "query", client_auth: "none", fields: {} };
  const asked = lead === "" ? url : `${url}?${lead}`;
  return [
    row(
      "url",
      [{ url: "https://other.example/x" }, {}],
      each(labels, "address", [`POST ${url}`, "POST https://other.example/x"]),
    ),
    row(
      "method",
      [
        { ...query, method: "GET" },
        { ...query, method: "POST" },
      ],
      each(labels, "address", [`POST ${asked}`, `GET ${asked}`]),
    ),
  ];
}

function bodyRows({ lead, bodies, labels }: Place, row: MakeRow): Row[] {
  const json = JSON.stringify(Object.fromEntries(new URLSearchParams(sent(lead, "a=b"))));
  return [
    row(
      "encoding",
      [
        { fields, encoding: "json" },
        { fields, encoding: "form" },
      ],
      {
        ...each(labels, "content-type", [form, "application/json"]),
        ...each(labels, "body", [sent(lead, "a=b"), json]),
      },
    ),
    row("headers", [{ headers: { "X-A": "{client.id}" } }, {}], each(labels, "x-a", ["", "app-1"])),
    row(
      "fields",
      [{ fields }, {}],
      bodyChange(labels, (label) => [bodies[label] ?? "", sent(lead, "a=b")]),
    ),
  ];
}

function clientRows({ lead, labels, authorization = basic }: Place, row: MakeRow): Row[] {
  const gone = each(labels, "authorization", [authorization, ""]);
  const id = lead.includes("client_id=") ? "" : "&client_id=app-1";
  const before = sent(lead, "a=b");
  const encoded = { client_auth: "basic", basic_percent_encoding: true };
  const named = { client_auth: { header: "X-Key" } };
  const valued = { client_auth: { header: "X-Key", value: "Key {client.id}" } };
  return [
    row("client_auth", [{ fields, client_auth: "none" }, { fields }], gone),
    row("client_auth", [{ fields, client_auth: "body" }, { fields }], {
      ...gone,
      ...each(labels, "body", [before, `${before}${id}&client_secret=s3%2Fcret`]),
    }),
    row("client_auth", [{ fields, client_auth: "tls" }, { fields }], {
      ...gone,
      ...(id !== "" && each(labels, "body", [before, `${before}${id}`])),
      ...each(labels, "certificate", ["", "the client's certificate"]),
    }),
    row("client_auth.header", [named, {}], { ...gone, ...each(labels, "x-key", ["", "s3/cret"]) }),
    row("client_auth.value", [valued, named], each(labels, "x-key", ["s3/cret", "Key app-1"])),
    row(
      "client_auth.basic",
      [{ client_auth: { basic: "{client.secret}:" } }, { client_auth: "basic" }],
      each(labels, "authorization", [basic, "Basic s3/cret:"]),
    ),
    row(
      "basic_percent_encoding",
      [encoded, { client_auth: "basic" }],
      each(labels, "authorization", [basic, "Basic app-1:s3%2Fcret"]),
    ),
  ];
}

function assertionRows({ path, url, lead, labels, authorization = basic }: Place, row: MakeRow): Row[] {
  const signed = { fields, client_auth: "private_key_jwt" };
  const before = sent(lead, "a=b");
  const id = lead.includes("client_id=") ? "" : "&client_id=app-1";
  const changed = (assertion: string) => each(labels, "assertion", [`JWT RS256 for ${url}, 60 s`, assertion]);
  // No signing key is set here, so a client that must sign is refused before anything is sent.
  const unasked: Change = ["is exchanged", "is refused"];
  const proven: Shown = path === "token.grants.authorization_code" ? { "a code that was not asked for": unasked } : {};
  return [
    row("client_auth", [signed, { fields }], {
      ...proven,
      ...each(labels, "authorization", [authorization, ""]),
      ...each(labels, "body", [before, `${before}${id}&client_assertion_type=${jwtType}&client_assertion=JWT`]),
      ...each(labels, "assertion", ["", `JWT RS256 for ${url}, 60 s`]),
    }),
    row("assertion.alg", [{ ...signed, assertion: { alg: "ES256" } }, signed], changed(`JWT ES256 for ${url}, 60 s`)),
    row(
      "assertion.audience",
      [{ ...signed, assertion: { audience: "https://aud.example" } }, signed],
      changed("JWT RS256 for https://aud.example, 60 s"),
    ),
    row(
      "assertion.typ",
      [{ ...signed, assertion: { typ: "client-authentication+jwt" } }, signed],
      changed(`client-authentication+jwt RS256 for ${url}, 60 s`),
    ),
    row(
      "assertion.life_s",
      [{ ...signed, assertion: { life_s: 600 } }, signed],
      changed(`JWT RS256 for ${url}, 600 s`),
    ),
  ];
}

function bodyChange(labels: readonly string[], change: (label: string) => Change): Shown {
  return Object.fromEntries(labels.map((label) => [`${label}: body`, change(label)]));
}

function sent(lead: string, own: string): string {
  return lead === "" ? own : `${lead}&${own}`;
}
