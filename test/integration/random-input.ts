import * as fc from "fast-check";
import { faultsOfHeaders } from "../support/answer-headers.ts";
import { until } from "../support/patience.ts";
import type { Answer, Sending, WrongInputStage } from "../support/wrong-input-stage.ts";

/** A JSON schema, as far as those of requests go. */
type Schema = {
  type?: string;
  enum?: string[];
  const?: unknown;
  anyOf?: Schema[];
  pattern?: string;
  maxLength?: number;
  minimum?: number;
  maximum?: number;
  properties?: Record<string, Schema>;
  required?: string[];
  items?: Schema;
  additionalProperties?: Schema | false;
};
type Parameter = { in: "path" | "query"; name: string; schema: Schema };
type Operation = {
  parameters?: Parameter[];
  requestBody?: { content: Record<string, { schema: Schema }> };
  responses: Record<string, unknown>;
};
type Document = {
  paths: Record<string, Record<string, Operation>>;
  components: { schemas: Record<string, Schema> };
};
/** `statuses`: what the OpenAPI document says that it may answer with. */
type Route = {
  method: "GET" | "POST" | "PATCH" | "DELETE";
  path: string;
  query: Parameter[];
  body: Schema | null;
  statuses: number[];
};

/** Things with known names, so that some of the random requests get past the first checks. None of them is reached over a network. */
const known: Record<string, string[]> = {
  name: ["acme", "new-1", "new-2", "a..b", "manual"],
  connection: ["acme", "acme-held", "acme-short", "acme-off", "acme-copied", "acme-machine", "nope"],
  client: ["sandbox", "manual", "machine", "unused"],
  provider: ["sandbox", "machine", "apicbase", "oauth2"],
  id: ["abcdefabcdef"],
  expires_at: [
    "9999-12-31T23:59:59.999999999Z",
    "1970-01-01T00:00:00Z",
    "2030-06-30T23:59:59+23:59",
    "2030-06-30 23:59:60Z",
  ],
  return_to: ["https://app.example/", "https://app.example/\u{1f600}?a=%00#x"],
  label: ["team:a", ":", "a:b:c", "%:_"],
  cursor: ["0", "999999999999999999"],
  connections: ["acme", "acme-*", "new-*"],
  grant: ["authorization_code", "client_credentials"],
  client_id: ["an-id"],
  client_secret: ["a secret"],
  access_token: ["an-access-token"],
};

/** What may be deleted: the others would be missed by the requests that follow. */
const deletable = ["new-1", "new-2", "nope"];

const oddText = fc.oneof(
  fc.string({ unit: "binary" }),
  fc.string({ unit: "grapheme", maxLength: 300 }),
  fc.constantFrom(
    "",
    "\0",
    "\ud800",
    "a\udfffb",
    "%",
    "'",
    "\\",
    "__proto__",
    "constructor",
    "../..",
    "{client.secret}",
    "a\r\nx-odd: 1",
    "' OR 1=1 --",
    "https://[::1]:1/",
    "\u202e",
    "\ufffe",
    "x".repeat(5000),
  ),
);
const keys = fc.oneof(fc.constantFrom("team", "password", "username"), oddText);
const oddNumber = fc.oneof(fc.integer(), fc.double(), fc.constantFrom(-0, 2 ** 31, 2 ** 53, 1e21, -1e308));
const odd = fc.oneof(oddText, oddNumber, fc.jsonValue(), fc.constantFrom(null, true, [], {}));

/** `right`: only what the schemas ask for, so that requests get past the first checks. `mixed`: now and then something else. */
type Mode = "right" | "mixed";

function valueFor(name: string, schema: Schema, mode: Mode): fc.Arbitrary<unknown> {
  const asked = rightValue(name, schema, mode);
  return mode === "right" ? asked : fc.oneof({ weight: 6, arbitrary: asked }, { weight: 1, arbitrary: odd });
}

function rightValue(name: string, schema: Schema, mode: Mode): fc.Arbitrary<unknown> {
  const { type, properties, items, additionalProperties, anyOf } = schema;
  if ("const" in schema) return fc.constant(schema.const);
  if (schema.enum) return fc.constantFrom(...schema.enum);
  if (anyOf) return fc.oneof(...anyOf.map((each) => rightValue(name, each, mode)));
  if (type === "integer" || type === "number") return numberFor(schema, mode);
  if (type === "boolean") return fc.boolean();
  if (type === "null") return fc.constant(null);
  if (type === "array") return fc.array(valueFor(name, items ?? {}, mode), { minLength: 1, maxLength: 3 });
  if (properties) return objectOf(schema, mode);
  if (additionalProperties) return fc.dictionary(keys, valueFor("", additionalProperties, mode), { maxKeys: 3 });
  return textFor(name, schema, mode);
}

/** Inside of its bounds, on them, and where it may be wrong just outside. */
function numberFor({ minimum = 0, maximum = 100 }: Schema, mode: Mode): fc.Arbitrary<number> {
  const right = fc.oneof(fc.integer({ min: minimum, max: maximum }), fc.constantFrom(minimum, maximum));
  if (mode === "right") return right;
  return fc.oneof({ weight: 2, arbitrary: right }, fc.constantFrom(minimum - 1, maximum + 1), oddNumber);
}

/** A name that is known, as its pattern says, as long as may be; where it may be wrong one longer, or odd. */
function textFor(name: string, { pattern, maxLength }: Schema, mode: Mode): fc.Arbitrary<string> {
  // The generator knows no lookahead.
  const made = pattern === undefined || pattern.includes("(?") ? [] : [fc.stringMatching(new RegExp(pattern))];
  const names = known[name] ?? [];
  const right = [...(names.length === 0 ? [] : [{ weight: 4, arbitrary: fc.constantFrom(...names) }]), ...made];
  if (mode === "right") return right.length === 0 ? fc.constantFrom("acme-x", "a word") : fc.oneof(...right);
  const lengths = maxLength === undefined ? [] : [fc.constantFrom("x".repeat(maxLength), "x".repeat(maxLength + 1))];
  return fc.oneof(...right, ...lengths, oddText);
}

/** With all fields that it must have and one more, with any of them, and where it may be wrong with one that it does not know. */
function objectOf({ properties = {}, required = [] }: Schema, mode: Mode): fc.Arbitrary<object> {
  const entries = Object.entries(properties).map(([name, schema]) => [name, valueFor(name, schema, mode)] as const);
  const optional = entries.filter(([name]) => !required.includes(name));
  const withOnly = (...names: string[]) =>
    fc.record(Object.fromEntries(entries.filter(([name]) => required.includes(name) || names.includes(name))));
  const whole = fc.oneof(withOnly(), ...optional.map(([name]) => withOnly(name)));
  if (mode === "right") return whole;
  const some = fc.record(Object.fromEntries(entries), { requiredKeys: [] });
  const extended = fc.tuple(whole, keys, odd).map(([object, key, value]) => Object.assign(object, { [key]: value }));
  return fc.oneof({ weight: 4, arbitrary: whole }, { weight: 3, arbitrary: some }, extended);
}

/** JSON text: of an object of the schema's fields, of anything, or none at all. */
function bodyFor(schema: Schema): fc.Arbitrary<string> {
  return fc.oneof(
    { weight: 6, arbitrary: json(objectOf(schema, "right")) },
    { weight: 6, arbitrary: json(objectOf(schema, "mixed")) },
    json(odd),
    oddText,
  );
}

const json = (value: fc.Arbitrary<unknown>): fc.Arbitrary<string> => value.map((each) => JSON.stringify(each));

function pathFor({ method, path }: Route): fc.Arbitrary<string> {
  const names = [...path.matchAll(/\{(\w+)\}/g)].map(([, name = ""]) => name);
  const segments = names.map((name) => {
    const values = method === "DELETE" ? deletable : (known[name] ?? ["x"]);
    return fc.oneof({ weight: 4, arbitrary: fc.constantFrom(...values) }, oddText);
  });
  return fc
    .tuple(...segments)
    .map((values) =>
      names.reduce((rest, name, index) => rest.replace(`{${name}}`, () => encode(values[index] ?? "")), path),
    );
}

function queryFor({ query }: Route): fc.Arbitrary<string> {
  const pair = fc.oneof(
    ...[...query, { in: "query", name: "odd", schema: {} } as const].map(({ name, schema }) =>
      fc.tuple(
        fc.oneof({ weight: 9, arbitrary: fc.constant(name) }, oddText),
        fc.oneof(valueFor(name, schema, "right"), valueFor(name, schema, "mixed")),
      ),
    ),
  );
  const pairs = fc
    .array(pair, { maxLength: 4 })
    .map((list) =>
      list
        .map(([name, value]) => `${encode(name)}=${encode(typeof value === "string" ? value : JSON.stringify(value))}`)
        .join("&"),
    );
  return fc.oneof(
    { weight: 9, arbitrary: pairs },
    oddText.map((text) => text.replaceAll(/[^!-~]|#/g, "")),
  );
}

/** Nearly always as a client sends it; else without a key, with one that is none, or as another type. */
function senderFor({ body }: Route): fc.Arbitrary<Pick<Sending, "key" | "headers">> {
  const right = body === null ? {} : { "content-type": "application/json" };
  const strange = { "content-type": "text/odd" };
  return fc.oneof(
    { weight: 30, arbitrary: fc.constant({ headers: right }) },
    fc.constantFrom<Pick<Sending, "key" | "headers">>(
      { headers: right, key: null },
      { headers: right, key: "fk_of-nobody" },
      { headers: body === null ? {} : strange },
      { headers: { ...right, accept: "text/html, application/xhtml+xml" } },
    ),
  );
}

/** As bytes on the wire; half a surrogate pair as UTF-8 would have it. */
function encode(text: string): string {
  return Array.from(text, (character) => (character.isWellFormed() ? encodeURIComponent(character) : "%ED%A0%80")).join(
    "",
  );
}

/** Null: the answer is as the document says. A provider may refuse what it is sent, or be away: those codes are answers too. */
function faultOf(
  { status, headers, text }: Answer,
  { method, path, statuses }: Route,
  publicUrl: string,
): string | null {
  const about = `${method} ${path} answers ${status}: ${text.slice(0, 300)}`;
  if (status === 500) return about;
  // A path may have become another one, such as `/connections/../..`. Then the document says something else about it, or nothing.
  const isItself = !/\/(\.|%2e){1,2}(\/|$)|\/$|\/\//i.test(path);
  if (isItself && !statuses.includes(status)) return `${about}, which is not documented`;
  const [fault] = faultsOfHeaders(headers, { publicUrl });
  if (fault !== undefined) return `${about}, with ${fault}`;
  const isToken = status === 200 && path.startsWith("/tokens/");
  if (!isToken && /canary-|node_modules/.test(text)) return `${about}, which tells too much`;
  if (status < 400) return null;
  const type = String(headers["content-type"]);
  if (type === "text/html; charset=utf-8" && text.includes("What now?")) return null;
  if (type !== "application/problem+json; charset=utf-8") return `${about}, as ${type}`;
  const { code, detail } = JSON.parse(text) as { code: string; detail: string };
  const passes = ["client_rejected", "provider_unavailable", "refresh_in_progress"];
  if (status >= 500 && !passes.includes(code)) return about;
  return detail === "" ? `${about}, without a detail` : null;
}

async function routesOf({ broker }: WrongInputStage): Promise<Route[]> {
  const { body: document } = await broker.api.api<Document>("/openapi.json");
  const paths = withoutReferences(document.paths, document.components.schemas) as Document["paths"];
  return Object.entries(paths).flatMap(([path, operations]) =>
    Object.entries(operations).map(([method, { parameters = [], requestBody, responses }]) => ({
      method: method.toUpperCase() as Route["method"],
      path,
      query: parameters.filter((parameter) => parameter.in === "query"),
      body: requestBody?.content["application/json"]?.schema ?? null,
      statuses: Object.keys(responses).map(Number),
    })),
  );
}

/** With the schemas themselves where the document names them. */
function withoutReferences(value: unknown, schemas: Record<string, Schema>): unknown {
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return value.map((each) => withoutReferences(each, schemas));
  const [, name] = "$ref" in value ? (/^#\/components\/schemas\/(.+)$/.exec(String(value.$ref)) ?? []) : [];
  if (name !== undefined) return withoutReferences(schemas[name], schemas);
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, withoutReferences(each, schemas)]));
}

/**
 * Requests made up by chance from the OpenAPI document: each operation with values inside, on and outside of the bounds of its schemas, of other
 * types, and hostile. Returns how many of them were answered with each status.
 * @throws with the seed and the smallest request for which the answer is not as the document says
 */
export async function sendRandomRequests(
  stage: WrongInputStage,
  { runs, seed = Math.floor(Math.random() * 2 ** 31) }: { runs: number; seed?: number },
): Promise<Record<number, number>> {
  const answered: Record<number, number> = {};
  // Made once for each route: it is the making that takes time.
  const requests = fc.oneof(
    ...(await routesOf(stage)).map((route) =>
      fc.tuple(
        fc.constant(route),
        pathFor(route),
        queryFor(route),
        route.body === null ? fc.constant(null) : bodyFor(route.body),
        senderFor(route),
      ),
    ),
  );
  const property = fc.asyncProperty(requests, async ([route, path, query, raw, sender]) => {
    const { method } = route;
    const whole = query === "" ? path : `${path}?${query}`;
    // On a slow machine the entry for the audit may come too late, and the request is refused. Whoever asks again gets another answer in the end.
    const answer = await until("the audit takes the entry of the request", async () => {
      const given = await stage.send({ method, path: whole, ...sender, ...(raw !== null && { raw }) });
      return given.text.includes("takes its entry for the audit") ? null : given;
    });
    answered[answer.status] = (answered[answer.status] ?? 0) + 1;
    const fault = faultOf(answer, { ...route, path }, stage.broker.publicUrl);
    if (fault !== null) throw new Error(fault);
  });
  process.stdout.write(`random requests: seed ${seed}\n`);
  await fc.assert(property, { numRuns: runs, seed });
  return answered;
}
