import { createHmac, createPrivateKey, type KeyObject, sign } from "node:crypto";
import { readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { exportPKCS8, exportSPKI, importJWK } from "jose";
import { request } from "undici";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parseAllDocuments } from "yaml";
import { type BrokerProcess, startBroker } from "../support/broker-process.ts";
import { IssuerServer } from "../support/issuer-server.ts";
import { makeKeyPair, TokenIssuer } from "../support/issuer.ts";
import { until } from "../support/patience.ts";
import { query } from "../support/query.ts";
import { describeWithServices, useDatabase } from "../support/services/index.ts";
import { temporaryFolder } from "../support/services/guardian.ts";
import { platformClaims } from "./support/platform-tokens.ts";
import { ForeignHost } from "./attackers/support/foreign-host.ts";

const actions = "https://token.actions.githubusercontent.com";
const inlineIssuer = "workloads by keys of their own";

let broker: BrokerProcess;
let databaseUrl: string;
let server: IssuerServer;
let foreign: ForeignHost;
let issuer: TokenIssuer;
let ofActions: TokenIssuer;
let elliptic: Awaited<ReturnType<typeof makeKeyPair>>;
/** An address for each request: wrong tokens count for their address. */
let callers = 0;

type Declaration = {
  name: string;
  issuer: string;
  audience: string;
  jwks?: unknown;
  match: Record<string, unknown>;
};
type Pod = {
  serviceAccountName: string;
  volumes: { name: string; projected: { sources: { serviceAccountToken: unknown }[] } }[];
  containers: { volumeMounts: unknown[] }[];
};

type Answer = { status: number; text: string; challenge: string | undefined };

async function read(token: string, { from, path = "/tokens/acme-shop" }: { from?: string; path?: string } = {}) {
  callers++;
  const address = from ?? `10.${callers >> 16}.${(callers >> 8) & 255}.${callers & 255}`;
  const { statusCode, headers, body } = await request(`${broker.url}${path}`, {
    headers: { authorization: `Bearer ${token}`, "x-forwarded-for": address },
  });
  const challenge = headers["www-authenticate"];
  const answer: Answer = { status: statusCode, text: await body.text(), challenge: challenge?.toString() };
  return answer;
}

const part = (value: unknown) =>
  Buffer.from(typeof value === "string" ? value : JSON.stringify(value)).toString("base64url");

/** Signs any bytes as header and claims, RS256 with the issuer's own key unless told otherwise. */
let privateKey: KeyObject;
const raw = (header: unknown, claims: unknown) => {
  const input = `${part(header)}.${part(claims)}`;
  return `${input}.${sign("sha256", Buffer.from(input), privateKey).toString("base64url")}`;
};
const textOf = (value: unknown) => JSON.stringify(value);
const now = () => Math.floor(new Date().getTime() / 1000);

/** Reads of an open minute: the entry itself comes when that is over. */
const counted = async () =>
  await query(databaseUrl, "SELECT actor_kind, actor_name, result FROM audit.open_reads WHERE actor_id = 'deploy'");
const claims = (changes: Record<string, unknown> = {}) => issuer.claims(changes);
const header = (changes: Record<string, unknown> = {}) => issuer.header(changes);
const signed = (changes: Record<string, unknown>) => async () => await issuer.sign({ claims: changes });
const headed = (changes: Record<string, unknown>) => async () => await issuer.sign({ header: changes });
const headedRaw = (changes: Record<string, unknown>) => () => raw(header(changes), claims());
const hmac = (hash: string, alg: string, secret: () => Promise<string>) => async () => {
  const input = `${part(header({ alg }))}.${part(claims())}`;
  return `${input}.${createHmac(hash, await secret())
    .update(input)
    .digest("base64url")}`;
};
const publicPem = async () => await exportSPKI((await importJWK(issuer.keys.jwk)) as Parameters<typeof exportSPKI>[0]);
const cut = async (change: (parts: string[]) => string[]) => change((await issuer.sign()).split(".")).join(".");
const repository = (sub: string) => async () => await ofActions.sign({ claims: { sub } });

describeWithServices(["postgres"], "callers with the token of their platform", () => {
  beforeAll(async () => {
    [server, foreign] = await Promise.all([IssuerServer.start(), ForeignHost.start()]);
    issuer = await TokenIssuer.create({ url: server.url });
    ofActions = await TokenIssuer.create({ url: actions });
    elliptic = await makeKeyPair("ES256", "es");
    privateKey = createPrivateKey(await exportPKCS8(issuer.keys.privateKey));
    server.documents["/.well-known/openid-configuration"] = { issuer: server.url, jwks_uri: `${server.url}/keys` };
    server.documents["/keys"] = issuer.jwks();
    server.documents["/actions"] = ofActions.jwks();
    const { ca, networks } = server;
    const common = { audience: "freshet", abilities: ["tokens"], connections: ["acme-*"] };
    const here = { ...common, issuer: server.url, ca, networks };
    const file = join((await temporaryFolder("workloads")).path, "workloads.json");
    const match = { sub: "shop:sync" };
    const workloads = [
      { ...here, name: "sync", match },
      { ...here, name: "one", match: { sub: "*:both" } },
      { ...here, name: "other", match: { sub: "both:*" } },
      { ...here, name: "nested", match: { "/kubernetes.io/namespace": "shop" } },
    ];
    await writeFile(file, JSON.stringify({ workloads }));
    databaseUrl = await useDatabase();
    broker = await startBroker({
      databaseUrl,
      env: { WORKLOADS_FILE: file, TRUST_PROXY: "127.0.0.1", SANDBOX: "true", LOG_LEVEL: "debug" },
    });
    const { api } = broker;
    await until("the sandbox is there", async () => (await api.api("/connections/sandbox")).status === 200);
    await api.createConnection({ name: "acme-shop", provider: "sandbox", client: "sandbox" });
    await api.importTokens("acme-shop", { access_token: "of-the-shop", expires_in: 3600 });
    const ofRepository = { sub: "repo:acme/*:ref:refs/heads/main" };
    for (const workload of [
      {
        ...common,
        name: "deploy",
        issuer: actions,
        jwks_uri: `${server.url}/actions`,
        ca,
        networks,
        match: ofRepository,
      },
      { ...common, name: "keyed", issuer: inlineIssuer, jwks: { keys: [elliptic.jwk] }, match },
      { ...here, name: "manager", match: { sub: "shop:manager" }, abilities: ["tokens", "admin"] },
    ]) {
      const { status, body } = await api.api("/workloads", { method: "POST", body: workload });
      expect([status, body]).toEqual([201, expect.objectContaining({ name: workload.name, declared_in: "api" })]);
    }
  });
  afterAll(async () => {
    for (const each of [broker, server, foreign]) await each[Symbol.asyncDispose]();
  });

  it("get what their declaration allows, and no more, whether the API or WORKLOADS_FILE declares them", async () => {
    const es = await TokenIssuer.create({ url: inlineIssuer });
    es.keys = elliptic;
    const tokens = {
      sync: await issuer.sign(),
      nested: await issuer.sign({ claims: { sub: "else", "kubernetes.io": { namespace: "shop" } } }),
      deploy: await ofActions.sign({ claims: { sub: "repo:acme/shop:ref:refs/heads/main" } }),
      keyed: await es.sign(),
      manager: await issuer.sign({ claims: { sub: "shop:manager" } }),
    };
    for (const token of Object.values(tokens)) {
      const answer = await read(token);
      expect(answer).toMatchObject({ status: 200, text: expect.stringContaining("of-the-shop") });
      expect((await read(token, { path: "/tokens/sandbox" })).status).toBe(404);
      expect((await read(token, { path: "/connections" })).status).toBe(403);
    }
    expect((await read(tokens.sync, { path: "/workloads" })).status).toBe(403);
    const listed = JSON.parse((await read(tokens.manager, { path: "/workloads" })).text) as {
      items: { name: string }[];
    };
    const names = ["sync", "one", "other", "nested", "manager", "keyed", "deploy"];
    expect(listed.items.map(({ name }) => name)).toEqual(names);
  });

  it("are counted in the audit by their name and what their token says, and in the log by their name", async () => {
    const entry = { actor_kind: "workload", actor_name: "repo:acme/shop:ref:refs/heads/main", result: "ok" };
    await until("the reads are counted", async () => (await counted()).length > 0);
    expect(await counted()).toContainEqual(entry);
    const { body } = await broker.api.api<{ items: unknown[] }>("/audit?type=workloads.create");
    expect(body.items).toContainEqual(expect.objectContaining({ target: { kind: "workload", name: "deploy" } }));
    expect(broker.stdout).toContain('"key":"workload:deploy"');
  });

  it("give keys that end with their token, and nothing beyond what they have", async () => {
    const key = await issuer.sign({ claims: { sub: "shop:manager" } });
    const make = async (body: unknown) => await broker.api.api("/keys", { method: "POST", body, key });
    const gift = { name: "gift", abilities: ["tokens"], connections: ["acme-shop"] };
    expect((await make(gift)).body).toMatchObject({ code: "forbidden", detail: expect.stringMatching(/^expires_at/) });
    const soon = new Date((now() + 300) * 1000).toISOString();
    expect((await make({ ...gift, connections: ["*"], expires_at: soon })).status).toBe(403);
    const made = await make({ ...gift, expires_at: soon });
    expect(made.status).toBe(201);
    expect((await broker.api.token("acme-shop", { key: String(made.body["key"]) })).status).toBe(200);
    const more = { ...gift, issuer: "more", audience: "freshet", jwks: { keys: [elliptic.jwk] }, match: { sub: "a" } };
    const declare = async (body: unknown) => await broker.api.api("/workloads", { method: "POST", body, key });
    expect((await declare(more)).status).toBe(403);
    expect((await declare({ ...more, expires_at: soon })).status).toBe(201);
    expect((await broker.api.api("/workloads/gift", { method: "DELETE", key })).status).toBe(204);
    // Once it is deleted, what it has given stays, and it gives nothing more.
    expect((await broker.api.api("/workloads/manager", { method: "DELETE" })).status).toBe(204);
    expect((await make({ ...gift, expires_at: soon })).status).toBe(401);
    expect((await broker.api.token("acme-shop", { key: String(made.body["key"]) })).status).toBe(200);
  });

  it("of which one is faulty count as wrong keys of its address", async () => {
    const token = await issuer.sign({ claims: { aud: "else" } });
    const statuses: number[] = [];
    for (let times = 0; times < 11; times++) statuses.push((await read(token, { from: "192.0.2.7" })).status);
    expect(statuses).toEqual([...Array<number>(10).fill(401), 429]);
    expect((await read(await issuer.sign(), { from: "192.0.2.7" })).status).toBe(200);
  });

  describe("as the pages for their platforms say", () => {
    const blocks = ["use-from-kubernetes.md", "use-from-github-actions.md"].flatMap((page) => {
      const text = readFileSync(new URL(`../../docs/${page}`, import.meta.url), "utf8");
      return [...text.matchAll(/```yaml\n([\s\S]*?)```/g)].flatMap(([, block = ""]) =>
        parseAllDocuments(block).map((document) => {
          expect(document.errors, page).toEqual([]);
          return document.toJS() as Record<string, unknown>;
        }),
      );
    });
    const declared = blocks.flatMap(({ workloads = [] }) => workloads as Declaration[]);

    it.for(declared.map((each) => [each.name, each] as const))(
      "%s reads its connections, and nobody else does",
      async ([, each]) => {
        const { ca, networks } = server;
        const keys = await TokenIssuer.create({ url: each.issuer });
        server.documents[`/${each.name}`] = keys.jwks();
        const source =
          each.jwks === undefined ? { jwks_uri: `${server.url}/${each.name}`, ca, networks } : { jwks: keys.jwks() };
        const body = { ...each, ...source };
        const answer = await broker.api.api("/workloads", { method: "POST", body });
        expect([answer.status, answer.body["name"]]).toEqual([201, each.name]);
        const own = platformClaims[each.issuer] ?? {};
        expect(await read(await keys.sign({ claims: own }))).toMatchObject({ status: 200 });
        for (const other of [{ sub: `${String(own["sub"])}-evil` }, { aud: "https://kubernetes.default.svc" }]) {
          expect((await read(await keys.sign({ claims: { ...own, ...other } }))).status).toBe(401);
        }
      },
    );

    it("manifests ask for a token with the audience and the subject of the workload", () => {
      const of = (kind: string) => blocks.find((block) => block["kind"] === kind);
      const [kubernetes] = declared;
      const { metadata, spec } = of("Deployment") as {
        metadata: { namespace: string };
        spec: { template: { spec: Pod } };
      };
      const { serviceAccountName, volumes, containers } = spec.template.spec;
      const [source] = volumes[0]?.projected.sources ?? [];
      expect(source?.serviceAccountToken).toEqual({
        path: "token",
        audience: kubernetes?.audience,
        expirationSeconds: 3600,
      });
      expect(kubernetes?.match["sub"]).toBe(`system:serviceaccount:${metadata.namespace}:${serviceAccountName}`);
      expect(of("ServiceAccount")).toMatchObject({
        metadata: { name: serviceAccountName, namespace: metadata.namespace },
      });
      expect(containers[0]?.volumeMounts[0]).toMatchObject({
        name: volumes[0]?.name,
        mountPath: "/var/run/secrets/freshet",
      });
      expect(of("ClusterRoleBinding")).toMatchObject({ roleRef: { name: "system:service-account-issuer-discovery" } });
      const workflow = blocks.find((block) => block["jobs"] !== undefined);
      expect(workflow?.["permissions"]).toMatchObject({ "id-token": "write" });
      const ofActionsPage = declared.find(({ issuer: url }) => url === actions);
      expect(JSON.stringify(workflow)).toContain(`&audience=${ofActionsPage?.audience}`);
      const job = blocks.find((block) => block["sync"] !== undefined);
      const ofGitlab = declared.find(({ name }) => name.endsWith("gitlab"));
      expect(job?.["sync"]).toMatchObject({ id_tokens: { FRESHET_PROOF: { aud: ofGitlab?.audience } } });
    });
  });

  describe("that nobody has signed, or for somebody else, are all refused alike", () => {
    const cases: Record<string, () => string | Promise<string>> = {
      "alg none, without a signature": () => `${part({ alg: "none" })}.${part(claims())}.`,
      "alg none, with one": async () => raw(header({ alg: "none" }), claims()),
      "alg None": async () => raw(header({ alg: "None" }), claims()),
      "alg empty": () => raw(header({ alg: "" }), claims()),
      "alg in a list": () => raw(header({ alg: ["RS256"] }), claims()),
      "no alg": () => raw({ kid: "k1" }, claims()),
      "HS256 with the public key as PEM": hmac("sha256", "HS256", publicPem),
      "HS512 with the public key as PEM": hmac("sha512", "HS512", publicPem),
      "HS256 with the JWK as text": hmac("sha256", "HS256", async () => textOf(issuer.keys.jwk)),
      "HS256 with the modulus": hmac("sha256", "HS256", async () => issuer.keys.jwk.n ?? ""),
      "HS256 with nothing": hmac("sha256", "HS256", async () => ""),
      "another audience": signed({ aud: "others" }),
      "an audience that begins alike": signed({ aud: "freshet.evil" }),
      "an audience in capitals": signed({ aud: "FRESHET" }),
      "a list of other audiences": signed({ aud: ["a", "b"] }),
      "an empty list of audiences": signed({ aud: [] }),
      "no audience": signed({ aud: undefined }),
      "an audience that is an object": signed({ aud: { freshet: true } }),
      "an audience in a list in a list": signed({ aud: [["freshet"]] }),
      "an issuer that begins alike": () => raw(header(), claims({ iss: `${server.url}.evil.example` })),
      "an issuer that ends alike": () => raw(header(), claims({ iss: `https://evil.example/${server.url}` })),
      "an issuer in capitals": () => raw(header(), claims({ iss: server.url.toUpperCase() })),
      "an issuer with a slash more": () => raw(header(), claims({ iss: `${server.url}/` })),
      "an issuer with a user": () => raw(header(), claims({ iss: server.url.replace("//", "//evil@") })),
      "a foreign issuer": () => raw(header(), claims({ iss: foreign.origin })),
      "issuers in a list": () => raw(header(), claims({ iss: [server.url] })),
      "no issuer": signed({ iss: undefined }),
      "another issuer's name": () => raw(header(), claims({ iss: actions, sub: "repo:acme/shop:ref:refs/heads/main" })),
      "another issuer's key": async () => await ofActions.sign({ claims: { iss: server.url } }),
      "a kid that is a path": headed({ kid: "../../../../dev/null" }),
      "a kid that is SQL": headed({ kid: "k1' UNION SELECT 'secret' --" }),
      "a kid that is an address": () => raw(header({ kid: `${foreign.origin}/keys` }), claims()),
      "a kid that is an object": headedRaw({ kid: { $ne: "" } }),
      "a kid that is a number": headedRaw({ kid: 1 }),
      "a kid of another key": headed({ kid: "es" }),
      "an empty kid": headed({ kid: "" }),
      jku: () => raw(header({ jku: `${foreign.origin}/keys` }), claims()),
      x5u: () => raw(header({ x5u: `${foreign.origin}/certificate` }), claims()),
      jwk: headedRaw({ jwk: { kty: "oct", k: "AA" } }),
      x5c: headedRaw({ x5c: ["MIIB"] }),
      crit: headedRaw({ crit: ["exp"], exp: 1 }),
      "crit that is empty": headedRaw({ crit: [] }),
      b64: headedRaw({ b64: false }),
      zip: headedRaw({ zip: "DEF" }),
      "the type of an access token": headedRaw({ typ: "at+jwt" }),
      "the type of a logout token": headedRaw({ typ: "logout+jwt" }),
      "an exp in the past": signed({ exp: now() - 120 }),
      "an exp far off": signed({ exp: now() + 86_400 * 365 }),
      "an nbf in the future": signed({ nbf: now() + 3600 }),
      "an iat in the future": signed({ iat: now() + 3600 }),
      "a life of more than 24 hours": signed({ iat: now() - 86_400, exp: now() + 3600 }),
      "no exp": signed({ exp: undefined }),
      "an exp as text": () => raw(header(), claims({ exp: String(now() + 600) })),
      "an exp that is NaN": () => raw(header(), textOf(claims()).replace(/"exp":\d+/, '"exp":NaN')),
      "an exp without end": () => raw(header(), textOf(claims()).replace(/"exp":\d+/, '"exp":1e999')),
      "a huge exp": () => raw(header(), textOf(claims()).replace(/"exp":\d+/, '"exp":1e300')),
      "a negative exp": () => raw(header(), claims({ exp: -1 })),
      "exp null": () => raw(header(), claims({ exp: null })),
      "exp true": () => raw(header(), claims({ exp: true })),
      "an nbf as text": () => raw(header(), claims({ nbf: "0" })),
      "an iat as an object": () => raw(header(), claims({ iat: {} })),
      "more than 8 KiB": () => raw(header(), claims({ more: "x".repeat(8192) })),
      "a claim twice": () => raw(header(), textOf(claims()).replace("{", '{"sub":"evil",')),
      "a claim twice, once escaped": () =>
        raw(header(), textOf(claims()).replace("{", String.raw`{"\u0073ub":"evil",`)),
      "a member of the header twice": () => raw(textOf(header()).replace("{", '{"alg":"none",'), claims()),
      "four parts": async () => `${await issuer.sign()}.${part("more")}`,
      "five parts, as a JWE has": async () => `${await issuer.sign()}.${part("more")}.${part("more")}`,
      padding: () => cut(([one = "", ...more]) => [`${one}=`, ...more]),
      "the other base64": () => cut(([one, two, three = ""]) => [one ?? "", two ?? "", `${three.slice(0, -1)}+`]),
      "another spelling of its last bits": () =>
        cut(([one = "", two = "", three = ""]) => [one, two, three.slice(0, -1) + (three.endsWith("w") ? "x" : "B")]),
      "a line end": () => cut(([one = "", two = "", three = ""]) => [one, two, `${three}%0A`]),
      "a signature cut short": () => cut(([one = "", two = "", three = ""]) => [one, two, three.slice(0, -4)]),
      "an empty signature": () => cut(([one = "", two = ""]) => [one, two, ""]),
      "a signature of zeros": () => cut(([one = "", two = ""]) => [one, two, Buffer.alloc(256).toString("base64url")]),
      "other claims than were signed": () =>
        cut(([one = "", , three = ""]) => [one, part(claims({ jti: "another" })), three]),
      "another header than was signed": () =>
        cut(([, two = "", three = ""]) => [part(header({ typ: "JOSE" })), two, three]),
      "the signature of another key of the same kid": async () => await issuer.sign({ with: await makeKeyPair() }),
      "PS256 by the same RSA key": () => {
        const input = `${part(header({ alg: "PS256" }))}.${part(claims())}`;
        const signature = sign("sha256", Buffer.from(input), { key: privateKey, padding: 6, saltLength: 32 });
        return `${input}.${signature.toString("base64url")}`;
      },
      "RS256 that says RS512": headedRaw({ alg: "RS512" }),
      "ES256 with a key of P-384": async () => {
        const key = createPrivateKey(await exportPKCS8((await makeKeyPair("ES384")).privateKey));
        const input = `${part({ alg: "ES256", kid: "es" })}.${part(claims({ iss: inlineIssuer }))}`;
        return `${input}.${sign("sha256", Buffer.from(input), { key, dsaEncoding: "ieee-p1363" }).toString("base64url")}`;
      },
      "ES256 with a signature of zeros": () =>
        `${part({ alg: "ES256", kid: "es" })}.${part(claims({ iss: inlineIssuer }))}.${Buffer.alloc(64).toString("base64url")}`,
      "ES256 with a signature in DER": async () => {
        const key = createPrivateKey(await exportPKCS8(elliptic.privateKey));
        const input = `${part({ alg: "ES256", kid: "es" })}.${part(claims({ iss: inlineIssuer }))}`;
        return `${input}.${sign("sha256", Buffer.from(input), key).toString("base64url")}`;
      },
      "RS256 at an issuer that has an ES256 key": () => raw(header({ kid: "es" }), claims({ iss: inlineIssuer })),
      "another subject": signed({ sub: "shop:sync2" }),
      "a subject that begins before": signed({ sub: "evil:shop:sync" }),
      "a subject in capitals": signed({ sub: "SHOP:SYNC" }),
      "a subject with a letter that looks alike": signed({ sub: "shоp:sync" }),
      "a subject with a line end": signed({ sub: "shop:sync\n" }),
      "a subject with a NUL": signed({ sub: "shop:sync\u0000evil" }),
      "a subject with an invisible character": signed({ sub: "shop:sync\u200b" }),
      "a subject that is a number": () => raw(header(), claims({ sub: 7 })),
      "a subject in a list": () => raw(header(), claims({ sub: ["shop:sync"] })),
      "a subject within another claim": signed({ sub: undefined, act: { sub: "shop:sync" } }),
      "no subject": signed({ sub: undefined }),
      "a namespace that is a list in an object": signed({ sub: "x", "kubernetes.io": { namespace: { shop: "shop" } } }),
      "a namespace at the top": signed({ sub: "x", "/kubernetes.io/namespace": "shop" }),
      "what two workloads match": signed({ sub: "both:both" }),
      "an owner that begins alike": repository("repo:acme-evil/shop:ref:refs/heads/main"),
      "an owner before the owner": repository("repo:evil/acme/shop:ref:refs/heads/main"),
      "a folder more in the repository": repository("repo:acme/evil/shop:ref:refs/heads/main"),
      "a colon more in the repository": repository("repo:acme/shop:evil:ref:refs/heads/main"),
      "another branch": repository("repo:acme/shop:ref:refs/heads/main-evil"),
      "a pull request": repository("repo:acme/shop:pull_request"),
      "a star as the repository of another owner": repository("repo:*/shop:ref:refs/heads/main"),
      "no claims": () => raw(header(), {}),
      "claims that are null": () => raw(header(), "null"),
      "claims in a list": () => raw(header(), [claims()]),
      "claims that are text": () => raw(header(), '"iss"'),
      "claims that are empty": () => raw(header(), ""),
      "a byte order mark": () => raw(header(), `\uFEFF${textOf(claims())}`),
      "a token in a token": async () => raw(header({ cty: "JWT" }), await issuer.sign()),
    };

    const shapes = new Set<string>();
    it.for(Object.entries(cases))("%s", async ([, make]) => {
      const { status, text: body, challenge } = await read(await make());
      expect(status).toBe(401);
      expect(challenge).toBe("Bearer");
      shapes.add(body);
    });

    it("in one shape, without a request to an address that a token names, and almost none to the issuer", async () => {
      expect(Object.keys(cases).length).toBeGreaterThanOrEqual(60);
      expect([...shapes].map((shape) => JSON.parse(shape) as unknown)).toEqual([
        expect.objectContaining({ status: 401, code: "unauthenticated" }),
      ]);
      expect([foreign.connections, foreign.requests]).toEqual([0, []]);
      // At the start, once for an unknown kid of each issuer, and what the clock adds: never one for each token.
      expect(server.requests.length).toBeLessThan(20);
      expect(broker.stdout + broker.stderr).not.toMatch(/eyJ[\w-]{20}/);
      expect((await read(raw(header(), claims()))).status).toBe(200);
    });
  });
});
