import { randomBytes } from "node:crypto";
import { Readable } from "node:stream";
import { generateKeyPairSync } from "node:crypto";
import { makeApiKey } from "../../src/callers/keys.ts";
import { type Answer, canary, type Sending, type WrongInputStage } from "../support/wrong-input-stage.ts";

/** What is tried, by the text in the column "when" of docs/errors.md. */
export type Cases = Record<string, (stage: WrongInputStage) => Promise<Answer>>;

const nul = "\0";
const halfPair = "\ud800";
const megabyte = 1_000_000;

type Send = (stage: WrongInputStage) => Promise<Answer>;
const send =
  (sending: Sending): Send =>
  async (stage) =>
    await stage.send(sending);
const get = (path: string): Send => send({ path });
const post = (path: string, body: unknown): Send => send({ method: "POST", path, body });
const patch = (path: string, body: unknown): Send => send({ method: "PATCH", path, body });
const raw = (content: Exclude<Sending["raw"], undefined>, type = "application/json"): Send =>
  send({ method: "POST", path: "/connections", raw: content, headers: { "content-type": type } });

const connection = { name: "new", provider: "sandbox", client: "sandbox" };
const newConnection = (fields: object): Send => post("/connections", { ...connection, ...fields });
const newClient = (fields: object): Send =>
  post("/clients", {
    name: "new",
    provider: "bol",
    client_id: "id",
    client_secret: canary("client-secret"),
    ...fields,
  });
const newKey = (fields: object): Send =>
  post("/keys", { name: "new", abilities: ["tokens"], connections: ["*"], ...fields });
const publicKey = generateKeyPairSync("ec", { namedCurve: "P-256" }).publicKey.export({ format: "jwk" });
const tokens = { issuer: "https://issuer.example", audience: "freshet", match: { sub: "new" } };
const newWorkload = (fields: object): Send =>
  post("/workloads", { name: "new", ...tokens, abilities: ["tokens"], connections: ["*"], ...fields });
const change = (fields: object): Send => patch("/connections/acme", fields);
const link = (fields: object, name = "acme"): Send => post(`/connections/${name}/consent-links`, fields);
const forApp = { completion: "app", end_user: "42", return_to: "https://app.example/" };
const hand = (fields: object, name = "acme"): Send => post(`/connections/${name}/import`, fields);
const token = (query: string): Send => get(`/tokens/acme?${query}`);
const list = (query: string): Send => get(`/connections?${query}`);
const cursor = (text: string) => `cursor=${Buffer.from(text).toString("base64url")}`;
const nested = (depth: number) => `{"labels":${"[".repeat(depth)}${"]".repeat(depth)}}`;

const bodies: Cases = {
  "no body": send({ method: "POST", path: "/connections" }),
  "an empty body": raw(""),
  "broken JSON": raw('{"name": "new",'),
  "JSON that is no object": raw('["new"]'),
  "the JSON `null`": raw("null"),
  "a JSON string": raw('"new"'),
  "a body that is not UTF-8": raw(Buffer.from('{"name":"caf\xe9"}', "latin1")),
  "a key `__proto__`": raw('{"name":"new","provider":"sandbox","client":"sandbox","__proto__":{"admin":true}}'),
  "a label `__proto__`": send({
    method: "PATCH",
    path: "/connections/acme",
    raw: '{"labels":{"__proto__":"x"}}',
    headers: { "content-type": "application/json" },
  }),
  "a key `constructor` with a `prototype`": raw('{"constructor":{"prototype":{"admin":true}}}'),
  "a key that every object has": newConnection({ constructor: "x" }),
  "JSON 30,000 levels deep": raw(`{"name":"new","provider":"sandbox",${nested(30_000).slice(1)}`),
  "a body of 1 MB": newConnection({ labels: { team: "x".repeat(megabyte) } }),
  // Several times: a connection that is reset too early is lost in most of them, not in all.
  "a body of 1 MB that does not say how long it is": async (stage) => {
    const halves = Array.from({ length: 2 }, () => "x".repeat(megabyte / 2));
    for (let count = 0; count < 8; count++) await raw(Readable.from(halves))(stage);
    return await raw(Readable.from(halves))(stage);
  },
  "content type `text/plain`": raw(JSON.stringify(connection), "text/plain"),
  "content type of a form": raw("name=new&provider=sandbox", "application/x-www-form-urlencoded"),
  "a content type that is none": raw(JSON.stringify(connection), ";;;"),
  "no content type": send({ method: "POST", path: "/connections", raw: JSON.stringify(connection) }),
};

const fields: Cases = {
  "a field that is not known": newConnection({ clinet: "sandbox" }),
  "a field where there is none to give": post("/connections/acme/device", { force: true }),
  "a number for a name": newConnection({ name: 5 }),
  "a text for a boolean": change({ disabled: "true" }),
  "a text for a list": change({ scopes: "read" }),
  "`null` for a text": newConnection({ client: null }),
  "a map inside a map": change({ labels: { team: { name: "x" } } }),
  "a change of nothing": change({}),
  "a name with a slash": newConnection({ name: "acme/new" }),
  "a name with capitals": newConnection({ name: "Acme" }),
  "a name beyond ASCII": newConnection({ name: "café" }),
  "a name `..`": newConnection({ name: ".." }),
  "a name of 129 characters": newConnection({ name: "a".repeat(129) }),
  "a name with a NUL": newConnection({ name: `acme${nul}` }),
  "a client's name with a space": newClient({ name: "a b" }),
  "a provider with a NUL": newConnection({ provider: `sandbox${nul}` }),
  "a scope with a space": change({ scopes: ["read write"] }),
  "101 scopes": change({ scopes: Array.from({ length: 101 }, (_, index) => `s${index}`) }),
  "a label's name with a space": change({ labels: { "a b": "x" } }),
  "a label's name with a NUL": change({ labels: { [`a${nul}`]: "x" } }),
  "a label with a NUL": change({ labels: { team: `a${nul}` } }),
  "a label with half a surrogate pair": change({ labels: { team: halfPair } }),
  "a label that is too long": change({ labels: { team: "x".repeat(257) } }),
  "3,000 labels": change({
    labels: Object.fromEntries(Array.from({ length: 3000 }, (_, index) => [`l${index}`, "x"])),
  }),
  "an input with a NUL": newConnection({ inputs: { shop_url: `https://shop.example${nul}` } }),
  "an input's name with a NUL": newConnection({ inputs: { [`shop${nul}`]: "x" } }),
  "a credential with a NUL": newConnection({ credentials: { password: `${canary("password")}${nul}` } }),
  "a client id with a NUL": newClient({ client_id: nul }),
  "a client secret with a NUL": newClient({ client_secret: `${canary("client-secret")}${nul}` }),
  "a client secret with half a surrogate pair": patch("/clients/manual", {
    client_secret: `${canary("client-secret")}${halfPair}`,
  }),
  "a client secret that is too long": patch("/clients/manual", { client_secret: canary("x").repeat(3000) }),
  "an empty client id": newClient({ client_id: "" }),
  "a key's name with a NUL": newKey({ name: nul }),
  "a key without abilities": newKey({ abilities: [] }),
  "an ability that there is not": newKey({ abilities: ["root"] }),
  "an ability twice": newKey({ abilities: ["tokens", "tokens"] }),
  "a pattern with a slash": newKey({ connections: ["acme/*"] }),
  "a key that has expired already": newKey({ expires_at: "2020-01-01T00:00:00Z" }),
  "a date without a time": newKey({ expires_at: "2030-01-01" }),
  "a leap second": newKey({ expires_at: "2030-06-30T23:59:60Z" }),
  "a date that is none": newKey({ expires_at: "2030-02-30T00:00:00Z" }),
  "the year 0": hand({ access_token: canary("access-token"), expires_at: "0000-01-01T00:00:00Z" }),
  "the year 10000, by its time zone": newKey({ expires_at: "9999-12-31T23:59:59-12:00" }),
  "the year 275760": newKey({ expires_at: "+275760-09-13T00:00:00Z" }),
};

const registering: Cases = {
  "a provider that is not known": newConnection({ provider: "nope" }),
  "a provider that is only there to be extended": newConnection({ provider: "oauth2" }),
  "a client's provider that is not known": newClient({ provider: "nope" }),
  "a grant that the provider does not offer": newConnection({ grant: "password" }),
  "a grant that there is not": newConnection({ grant: "magic" }),
  "no client where one is needed": post("/connections", { name: "new", provider: "bol" }),
  "a client that is not known": newConnection({ client: "nope" }),
  "a client of another provider": newConnection({ client: "manual" }),
  "a client without a secret where one is needed": newConnection({ provider: "bol", client: "secretless" }),
  "an input that the provider does not have": newConnection({ inputs: { shop_url: "https://shop.example" } }),
  "an input that is missing": post("/connections", {
    name: "new",
    provider: "shopware",
    grant: "password",
    credentials: { username: "u", password: canary("password") },
  }),
  "an input that does not fit its pattern": post("/clients", {
    name: "new",
    provider: "shopware",
    client_id: "id",
    inputs: { shop_url: "shop.example" },
  }),
  "an input that decides where a client's secret goes": newConnection({
    provider: "shopware",
    client: "shop",
    inputs: { shop_url: "https://evil.example" },
  }),
  "an input that is not set on a client": newClient({ inputs: { device_id: "x" } }),
  "another host of a client without a new secret": patch("/clients/shop", {
    inputs: { shop_url: "https://evil.example" },
  }),
  "credentials that are missing": post("/connections", { name: "new", provider: "shopware", grant: "password" }),
  "credentials that nobody asked for": post("/connections", {
    name: "new",
    provider: "shopware",
    grant: "password",
    credentials: { username: "u", password: canary("password"), pin: canary("pin") },
  }),
  "credentials for a grant that has none": change({ credentials: { password: canary("password") } }),
  "a connection's name that is taken": newConnection({ name: "acme" }),
  "a client's name that is taken": newClient({ name: "manual" }),
  "deleting a client that is in use": send({ method: "DELETE", path: "/clients/manual" }),
};

const granting: Cases = {
  "a link for longer than 7 days": link({ expires_in: 604_801 }),
  "a link for no time at all": link({ expires_in: 0 }),
  "a way back to another origin": link({ return_to: "https://evil.example/" }),
  "a way back that is a script": link({ return_to: "javascript:alert(1)" }),
  "a purpose of 201 characters": link({ purpose: "x".repeat(201) }),
  "a purpose of two lines": link({ purpose: "Invoices\nand more" }),
  "a purpose without a word": link({ purpose: " " }),
  "a purpose that is written backwards": link({ purpose: "\u202eseciovnI" }),
  "a link for a copied code where none is shown": link({ manual: true }),
  "a link for an app's user who is not named": link({ completion: "app", return_to: "https://app.example/" }),
  "a link for an app's user of two lines": link({ ...forApp, end_user: "4\n2" }),
  "a user of an app for a plain link": link({ end_user: "42" }),
  "a link for an app without a way back": link({ completion: "app", end_user: "42" }),
  "a link for an app whose way back has a fragment": link({ ...forApp, return_to: "https://app.example/#done" }),
  "a link for an app whose way back has a ticket": link({ ...forApp, return_to: "https://app.example/?ticket=x" }),
  "a link for an app and a copied code": link({ ...forApp, manual: true }),
  "a completion that there is not": link({ ...forApp, completion: "broker" }),
  "a completion without a user": post("/consents/x/complete", {}),
  "a ticket that nobody has": post(`/consents/${canary("ticket")}/complete`, { end_user: "42" }),
  "a link for a connection without consent": link({}, "acme-machine"),
  "a link for a disabled connection": link({}, "acme-off"),
  "a copied code where none is shown": post("/connections/acme/code", { code: canary("code") }),
  "a code with a NUL": post("/connections/acme-copied/code", { code: `${canary("code")}${nul}` }),
  "a word on another account that nobody signed in to": post("/connections/acme/account", { accept: true }),
  "a word that is neither yes nor no": post("/connections/acme/account", { accept: "maybe" }),
  "a user code for a connection that takes none": post("/connections/acme/device", {}),
  "a copied code for a connection that takes none": post("/connections/acme-machine/code", { code: canary("code") }),
  "an import without a token": hand({}),
  "an import with two ends of life": hand({
    access_token: canary("access-token"),
    expires_in: 1,
    expires_at: "2030-01-01T00:00:00Z",
  }),
  "an import with a date that is none": hand({ access_token: canary("access-token"), expires_at: "tomorrow" }),
  "an import that lives longer than ten years": hand({ access_token: canary("access-token"), expires_in: 315_360_001 }),
  "an import that ended before time": hand({ access_token: canary("access-token"), expires_in: -9e15 }),
  "an import that is to be verified without a refresh token": hand({
    access_token: canary("access-token"),
    verify: true,
  }),
  "an import of a token that no header can carry": hand({ access_token: `${canary("access-token")}\n` }),
  "an import with a NUL in its scope": hand({ access_token: canary("access-token"), scope: nul }),
  "an import of a token that another connection holds": hand({ refresh_token: canary("refresh-token") }),
  "an import on a disabled connection": hand({ access_token: canary("access-token") }, "acme-off"),
  "an import where tokens come by themselves": hand({ access_token: canary("access-token") }, "acme-machine"),
  "a refresh of what nobody has connected": send({ method: "POST", path: "/connections/acme/refresh" }),
  "a refresh of what came without a refresh token": send({ method: "POST", path: "/connections/acme-short/refresh" }),
  "another try of what has not ended": post("/connections/acme-short/refresh", { retry_ended: true }),
  "an end of what is not probably dead": post("/connections/acme-short/refresh", { end: true }),
  "another try and an end at once": post("/connections/acme-short/refresh", { retry_ended: true, end: true }),
  "`force` without another try": post("/connections/acme-short/refresh", { force: true }),
  "a token of what nobody has connected": get("/tokens/acme"),
  "a token of a disabled connection": get("/tokens/acme-off"),
  "a token whose stored bytes somebody has changed": get("/tokens/acme-torn"),
};

const queries: Cases = {
  "a parameter that is not known": list("provder=sandbox"),
  "a parameter where there is none to give": get("/connections/acme?verbose=true"),
  "a parameter twice": token("min_ttl=1&min_ttl=2"),
  "a parameter `__proto__`": token("__proto__=1"),
  "`min_ttl` below 0": token("min_ttl=-1"),
  "`min_ttl` above ten years": token("min_ttl=315360001"),
  "`min_ttl` in words": token("min_ttl=soon"),
  "`min_ttl` without a value": token("min_ttl="),
  "`wait` above 30": token("wait=31"),
  "`wait` for ever": token("wait=Infinity"),
  "`rejected_version` 0": token("rejected_version=0"),
  "`rejected_version` 1.5": token("rejected_version=1.5"),
  "`rejected_version` beyond 32 bits": token("rejected_version=2147483648"),
  "a further token that there is not": token("token=user"),
  "a further token by no name": token("token=../x"),
  "`rejected_version` beyond 64 bits": token("rejected_version=99999999999999999999"),
  "`include` of something else": token("include=other"),
  "`limit` 0": list("limit=0"),
  "`limit` 10000": list("limit=10000"),
  "`limit` in words": list("limit=all"),
  "`status` that there is not": list("status=broken"),
  "`label` without a value": list("label=team"),
  "`q` with a NUL": list("q=%00"),
  "`label` with a NUL": list("label=team:%00"),
  "`provider` with a NUL": list("provider=%00"),
  "`client` with a NUL": list("client=%00"),
  "`provider` of clients with a NUL": get("/clients?provider=%00"),
  "`revoke` that is neither": send({ method: "DELETE", path: "/connections/acme?revoke=maybe" }),
  "`cursor` of nobody": list("cursor=zzz"),
  "`cursor` of another list": list(cursor("clients 2026-01-01T00:00:00.000Z 00000000-0000-4000-8000-000000000000")),
  "`cursor` with an id that is none": list(cursor(`connections 2026-01-01T00:00:00.000Z ${"-".repeat(36)}`)),
  "`cursor` from the year 0": get(`/keys?${cursor("keys 0000-01-01T00:00:00.000Z abcdefabcdef")}`),
  "`cursor` of events beyond 64 bits": get("/connections/acme/events?cursor=9999999999999999999"),
};

const paths: Cases = {
  "a route that there is not": get("/connexions"),
  "a method that the route does not take": send({ method: "PUT", path: "/connections/acme", body: {} }),
  "a method that hardly anybody knows": send({ method: "PROPFIND", path: "/connections/acme" }),
  "a connection that there is not": get("/connections/nope"),
  "a token of a connection that there is not": get("/tokens/nope"),
  "a client that there is not": get("/clients/nope"),
  "a provider that there is not": get("/providers/nope"),
  "revoking a key that there is not": send({ method: "DELETE", path: "/keys/nope" }),
  "releasing a connection that is not held": post("/recovery", { connections: ["nope"] }),
  "releasing neither names nor all": post("/recovery", {}),
  "releasing names and all": post("/recovery", { connections: ["acme"], all: true }),
  "releasing no names": post("/recovery", { connections: [] }),
  "releasing a name that cannot be one": post("/recovery", { connections: ["A B"] }),
  "a name with a slash in the path": get("/connections/acme%2Fnew"),
  "a name with capitals in the path": get("/connections/ACME"),
  "a name beyond ASCII in the path": get("/connections/caf%C3%A9"),
  "a name `..` in the path": get("/connections/%2e%2e"),
  "a connection with a NUL in the path": get("/connections/acme%00"),
  "a token's connection with a NUL in the path": get("/tokens/acme%00"),
  "a client with a NUL in the path": get("/clients/manual%00"),
  "a provider with a NUL in the path": get("/providers/bol%00"),
  "a key with a NUL in the path": send({ method: "DELETE", path: "/keys/%00" }),
  "a name of 600 characters in the path": get(`/connections/${"a".repeat(600)}`),
  "bad percent-encoding in the path": get("/connections/%zz"),
  "half a surrogate pair in the path": get("/connections/%ED%A0%80"),
};

const withKey = (key: string | null, headers: Record<string, string> = {}): Send =>
  send({ path: "/tokens/acme", key, headers });
const workloads: Cases = {
  "a token of no workload": async (stage) =>
    await stage.send({ path: "/tokens/acme", key: "eyJhbGciOiJub25lIn0.e30." }),
  "a workload that matches every token": newWorkload({ match: {} }),
  "a workload that matches by its issuer alone": newWorkload({ match: { iss: "*" } }),
  "a workload whose tokens are signed with a shared key": newWorkload({ algorithms: ["HS256"] }),
  "a workload whose keys come by http": newWorkload({ jwks_uri: "http://issuer.example/keys" }),
  "a workload with a network that is none": newWorkload({ networks: ["10.0.0.0"] }),
  "a workload that has ended before it begins": newWorkload({ expires_at: "2020-01-31T00:00:00Z" }),
  "a workload with a private key": newWorkload({ jwks: { keys: [{ ...publicKey, d: canary("jwk") }] } }),
  "a workload of an issuer for everybody, and no owner": newWorkload({
    issuer: "https://gitlab.com",
    match: { ref: "main" },
  }),
  "deleting a workload that there is not": send({ method: "DELETE", path: "/workloads/nope" }),
};

const flipped = (key: string) => key.slice(0, -1) + (key.endsWith("a") ? "b" : "a");

const byManager =
  (method: "POST" | "PATCH", path: string, body: unknown): Send =>
  async (stage) =>
    await stage.send({ method, path, body, key: stage.keys.manager });

const callers: Cases = {
  "no key": withKey(null),
  "another scheme than Bearer": withKey(null, { authorization: `Basic ${btoa(`admin:${canary("password")}`)}` }),
  "an empty key": withKey(null, { authorization: "Bearer " }),
  "a key that is none of ours": withKey(canary("somebody's-key")),
  "a key that is cut off": async (stage) =>
    await stage.send({ path: "/tokens/acme", key: stage.keys.reader.slice(0, -3) }),
  "a key with a wrong checksum": async (stage) =>
    await stage.send({ path: "/tokens/acme", key: flipped(stage.keys.reader) }),
  "a key that nobody made": withKey(makeApiKey(randomBytes).key),
  "a key that has expired": async (stage) => await stage.send({ path: "/tokens/acme", key: stage.keys.expired }),
  "a key that has been revoked": async (stage) => await stage.send({ path: "/tokens/acme", key: stage.keys.revoked }),
  "a key without the ability": async (stage) => await stage.send({ path: "/connections", key: stage.keys.reader }),
  "a key without the ability `admin`": async (stage) =>
    await stage.send({ path: "/clients", key: stage.keys.provisioner }),
  "creating outside the key's patterns": async (stage) =>
    await stage.send({
      method: "POST",
      path: "/connections",
      key: stage.keys.provisioner,
      body: { ...connection, name: "other" },
    }),
  "a client that is not for the key's connections": async (stage) =>
    await stage.send({
      method: "POST",
      path: "/connections",
      key: stage.keys.provisioner,
      body: { ...connection, name: "acme-new" },
    }),
  "giving an ability that one's own key lacks": byManager("POST", "/keys", {
    name: "new",
    abilities: ["tokens"],
    connections: ["acme-*"],
  }),
  "giving a pattern beyond one's own": byManager("POST", "/keys", {
    name: "new",
    abilities: ["admin"],
    connections: ["*"],
  }),
  "the encryption keys, or the verification of the audit, with a key for some connections": async (stage) =>
    await stage.send({ path: "/encryption", key: stage.keys.manager }),
  "opening a client to connections beyond one's own patterns": byManager("PATCH", "/clients/manual", {
    connections: ["acme-*", "foreign"],
  }),
  "changing a client that serves connections beyond one's own patterns": byManager("PATCH", "/clients/others", {
    client_id: "other",
  }),
  "making a client or a key for no connections at all, with a key for some": byManager("POST", "/keys", {
    name: "new",
    abilities: ["admin"],
    connections: [],
  }),
  "changing a client that names no connections, with a key for some": byManager("PATCH", "/clients/secretless", {
    connections: ["acme-*"],
  }),
  "a connection of somebody else": async (stage) =>
    await stage.send({ path: "/tokens/foreign", key: stage.keys.reader }),
  "changing a connection of somebody else": async (stage) =>
    await stage.send({
      method: "PATCH",
      path: "/connections/foreign",
      key: stage.keys.provisioner,
      body: { disabled: true },
    }),
  "more than 10 wrong keys in a minute from one address": async (stage) => {
    const again = async () =>
      await stage.send({ path: "/tokens/acme", key: null, headers: { "x-forwarded-for": "192.0.2.1" } });
    await Promise.all(Array.from({ length: 10 }, again));
    return await again();
  },
};

/** Every wrong request to the API that is answered with a problem. */
export const wrongRequests: Cases = {
  ...bodies,
  ...fields,
  ...registering,
  ...granting,
  ...queries,
  ...paths,
  ...workloads,
  ...callers,
};
