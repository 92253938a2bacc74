import { compactVerify } from "jose";
import { beforeAll, describe, expect, it } from "vitest";
import { createIssuerKeys } from "../../../src/callers/issuer-keys.ts";
import type { Principal } from "../../../src/callers/principal.ts";
import { checkWorkload, type SharedIssuers, type Workload } from "../../../src/callers/workload.ts";
import { createWorkloadService } from "../../../src/callers/workloads.ts";
import type { End } from "../../../src/coordination/end-messages.ts";
import { BrokerError } from "../../../src/errors.ts";
import type { FindGiver } from "../../../src/store/giving.ts";
import type { FoundWorkload, Workloads } from "../../../src/store/workloads.ts";
import { makeKeyPair, TokenIssuer } from "../../support/issuer.ts";
import { fakeClock } from "../tokens/fake-clock.ts";

const clock = fakeClock();
let issuer: TokenIssuer;

beforeAll(async () => {
  issuer = await TokenIssuer.create({ nowMs: () => clock.wallMs() });
});

const workload = (changes: Partial<Workload> = {}): Workload => ({
  name: "sync",
  issuer: issuer.url,
  jwks: null,
  jwksUri: "https://issuer.example/keys",
  ca: null,
  networks: [],
  audience: "freshet",
  algorithms: ["RS256", "ES256"],
  match: { sub: "shop:sync" },
  abilities: ["tokens"],
  connections: ["acme-*"],
  labels: {},
  expiresAt: null,
  ...changes,
});

const admin: Principal = {
  callerId: "admin",
  actor: { kind: "key", id: "admin", name: "ADMIN_KEY" },
  abilities: ["tokens", "connections", "admin"],
  connections: ["*"],
  labels: {},
  expiresAt: null,
};

const shared: SharedIssuers = [
  { issuers: ["https://all.example", "https://all.example/*"], owner: { sub: "^repo:[^*/:]+/" } },
];

/** As the table has it. */
const found = (
  { match, algorithms, abilities, connections, networks, ...row }: Workload,
  at: number,
): FoundWorkload => ({
  ...row,
  id: `00000000-0000-4000-8000-00000000000${at}`,
  match: JSON.stringify(match),
  algorithms: [...algorithms],
  abilities: [...abilities],
  connections: [...connections],
  networks: [...networks],
  createdAt: new Date(0),
  deletedAt: null,
  mac: "mac",
});

/** The service on a table in memory, which can be away. */
function serve({ file = [], rows = [workload()] }: { file?: Workload[]; rows?: Workload[] } = {}) {
  const state = { isGone: false, queries: 0, verified: 0, fetched: 0, hasEnded: false };
  const refused: string[] = [];
  const table = rows.map(found);
  const keys = { current: issuer.jwks() };
  const listeners: ((end: End) => void)[] = [];
  const tell = (id: string) => {
    for (const listener of listeners) listener({ kind: "workload", id, atMs: clock.wallMs() });
  };
  const workloads = {
    async all() {
      state.queries++;
      if (state.isGone) throw new BrokerError("storage_unavailable", "gone");
      return [...table];
    },
    findByName: async (name: string) => table.find((row) => row.name === name) ?? null,
    async insert(row: FoundWorkload, _giver: FindGiver | null) {
      if (state.hasEnded || table.some(({ name }) => name === row.name)) return null;
      const inserted = { ...row, createdAt: new Date(), deletedAt: null, mac: "mac" };
      table.push(inserted);
      return inserted;
    },
    async delete(row: FoundWorkload) {
      table.splice(table.indexOf(row), 1);
      return true;
    },
    giver: async () => null,
  } as unknown as Workloads;
  const issuerKeys = createIssuerKeys({
    async fetchDocument() {
      state.fetched++;
      return JSON.stringify(keys.current);
    },
    clock,
    onTrouble: () => {},
    onWell: () => {},
  });
  const service = createWorkloadService({
    workloads,
    file,
    shared,
    issuerKeys,
    trustSeconds: 3600,
    peers: {
      listen: (listener) => void listeners.push(listener),
      async tell({ id }) {
        tell(id);
        return [];
      },
      uses: () => {},
    },
    giverOf: () => (state.hasEnded ? async () => null : null),
    clock,
    nowMs: () => clock.wallMs(),
    onRefused: (why) => void refused.push(why),
    async verify(token, { jwk }, algorithm) {
      state.verified++;
      await compactVerify(token, jwk, { algorithms: [algorithm] });
    },
  });
  const codeOf = async (token: string) =>
    await service.authenticate(token).then(
      ({ callerId }) => callerId,
      (error: unknown) => (error instanceof BrokerError ? error.code : String(error)),
    );
  return { service, state, refused, table, keys, tell, codeOf };
}

const refusalOf = async (answer: Promise<unknown>): Promise<[string, string]> =>
  await answer.then(
    () => ["none", ""],
    (error: unknown) => (error instanceof BrokerError ? [error.code, error.message] : ["another", String(error)]),
  );

const now = () => Math.floor(clock.wallMs() / 1000);
const inline = (jwk: unknown) => ({ jwks: JSON.stringify({ keys: [jwk] }), jwksUri: null });
const faultsOf = (changes: Partial<Workload>) =>
  checkWorkload(workload(changes), shared).map(({ path, text }) => `${path.join(".")}: ${text}`);

describe("a token of a workload", () => {
  it("makes its holder the caller that the declaration says, until it ends", async () => {
    const { service } = serve({ rows: [workload({ labels: { customer: "acme" } })] });
    const { exp } = issuer.claims();
    expect(await service.authenticate(await issuer.sign())).toEqual({
      callerId: "workload:sync",
      actor: { kind: "workload", id: "sync", name: "shop:sync" },
      abilities: ["tokens"],
      connections: ["acme-*"],
      labels: { customer: "acme" },
      expiresAt: new Date(Number(exp) * 1000),
      declaration: "00000000-0000-4000-8000-000000000000",
    });
  });

  it("costs one signature check, however often it is shown, and claims and times are looked at each time", async () => {
    const { codeOf, state, refused } = serve();
    const token = await issuer.sign();
    for (let times = 0; times < 100; times++) expect(await codeOf(token)).toBe("workload:sync");
    expect(state).toMatchObject({ verified: 1, fetched: 1, queries: 1 });
    clock.advance(661_000);
    expect(await codeOf(token)).toBe("unauthenticated");
    expect(refused).toEqual(["it has expired"]);
    expect(state.verified).toBe(1);
  });

  it("is known without a question after it was accepted, as the same caller, until its declarations must be read again", async () => {
    const { service, state } = serve();
    const token = await issuer.sign();
    expect(service.known(token)).toBeNull();
    const caller = await service.authenticate(token);
    expect(service.known(token)).toBe(caller);
    expect(service.known(`${token}x`)).toBeNull();
    clock.advance(4001);
    expect(service.known(token)).toBeNull();
    expect(await service.authenticate(token)).toEqual(caller);
    expect(service.known(token)).not.toBeNull();
    expect(state.queries).toBe(2);
  });

  it("is known no more when it is over, and neither when its declaration is", async () => {
    const ending = serve();
    const token = await issuer.sign({ claims: { exp: now() + 1 } });
    await ending.service.authenticate(token);
    clock.advance(62_000);
    await ending.codeOf(await issuer.sign()); // the declarations are trusted again
    expect(ending.service.known(token)).toBeNull();
    const ended = serve({ rows: [workload({ expiresAt: new Date(clock.wallMs() + 1000) })] });
    const other = await issuer.sign();
    await ended.service.authenticate(other);
    expect(ended.service.known(other)).not.toBeNull();
    clock.advance(1000);
    expect(ended.service.known(other)).toBeNull();
  });

  it("is known no more once its declaration is deleted, here or by the message of a peer", async () => {
    const { service, table, tell } = serve();
    const token = await issuer.sign();
    await service.authenticate(token);
    tell(table[0]?.id ?? "");
    expect(service.known(token)).toBeNull();
    const here = serve();
    await here.service.authenticate(token);
    await here.service.delete(admin, "sync");
    expect(here.service.known(token)).toBeNull();
  });

  const day = 86_400;
  it.each<[what: string, claims: () => Record<string, unknown>, why: RegExp | null]>([
    ["no exp", () => ({ exp: undefined }), /exp is missing/],
    ["exp as text", () => ({ exp: String(now() + 600) }), /exp is missing, or no time/],
    ["exp null", () => ({ exp: null }), /exp is missing, or no time/],
    ["a negative exp", () => ({ exp: -1 }), /exp is missing, or no time/],
    ["a huge exp", () => ({ exp: 1e300 }), /24 hours/],
    ["an exp 61 s ago", () => ({ exp: now() - 61 }), /expired/],
    ["an exp 59 s ago", () => ({ exp: now() - 59 }), null],
    ["an nbf in 61 s", () => ({ nbf: now() + 61 }), /not valid yet/],
    ["an nbf in 59 s", () => ({ nbf: now() + 59 }), null],
    ["an nbf as text", () => ({ nbf: "0" }), /nbf is no time/],
    ["an iat in 61 s", () => ({ iat: now() + 61 }), /in the future/],
    ["an iat as a list", () => ({ iat: [0] }), /iat is no time/],
    ["a life of 24 hours", () => ({ iat: now() - day + 10, exp: now() + 10 }), null],
    ["a life of 24 hours and a second", () => ({ iat: now() - day + 9, exp: now() + 10 }), /24 hours/],
    ["no iat, and an exp in 24 hours", () => ({ iat: undefined, exp: now() + day }), null],
    ["no iat, and an exp later", () => ({ iat: undefined, exp: now() + day + 1 }), /24 hours/],
  ])("with %s counts as its times say", async (_what, claims, why) => {
    const { codeOf, refused } = serve();
    expect(await codeOf(await issuer.sign({ claims: claims() }))).toBe(
      why === null ? "workload:sync" : "unauthenticated",
    );
    if (why !== null) expect(refused[0]).toMatch(why);
  });

  it.each<[what: string, claims: () => Record<string, unknown>, why: RegExp]>([
    ["an issuer that begins alike", () => ({ iss: `${issuer.url}.evil.example` }), /issuer/],
    ["an issuer with a slash more", () => ({ iss: `${issuer.url}/` }), /issuer/],
    ["an issuer in capitals", () => ({ iss: issuer.url.toUpperCase() }), /issuer/],
    ["another audience", () => ({ aud: "others" }), /audience/],
    ["an audience that begins alike", () => ({ aud: "freshet-other" }), /audience/],
    ["an audience in capitals", () => ({ aud: "Freshet" }), /audience/],
    ["no audience in its list", () => ({ aud: [] }), /audience/],
    ["another subject", () => ({ sub: "shop:sync2" }), /claims/],
    ["no subject", () => ({ sub: undefined }), /claims/],
  ])("with %s is nobody's, and nothing is fetched or verified for it", async (_what, claims, why) => {
    const { codeOf, refused, state } = serve();
    expect(await codeOf(await issuer.sign({ claims: claims() }))).toBe("unauthenticated");
    expect(refused[0]).toMatch(why);
    expect(state).toMatchObject({ verified: 0 });
  });

  it("is nobody's if it is signed otherwise than the declaration allows", async () => {
    const ps = await makeKeyPair("PS256", "k1");
    const { codeOf, keys, state } = serve();
    keys.current = { keys: [ps.jwk] };
    expect(await codeOf(await issuer.sign({ header: { alg: "PS256" }, with: ps }))).toBe("unauthenticated");
    expect(state.verified).toBe(0);
    const stranger = await makeKeyPair();
    expect(await serve().codeOf(await issuer.sign({ with: stranger }))).toBe("unauthenticated");
  });

  it("ends with its key, when that has left the set, and with its declaration, at once here and after 4 s elsewhere", async () => {
    const { codeOf, keys, table, tell, state } = serve();
    const token = await issuer.sign();
    expect(await codeOf(token)).toBe("workload:sync");
    const [row] = table.splice(0);
    expect(await codeOf(token)).toBe("workload:sync");
    clock.advance(4001);
    expect(await codeOf(token)).toBe("unauthenticated");
    if (row !== undefined) table.push({ ...row, id: "00000000-0000-4000-8000-000000000009" });
    clock.advance(4001);
    expect(await codeOf(token)).toBe("workload:sync");
    state.isGone = true;
    tell("00000000-0000-4000-8000-000000000009");
    expect(await codeOf(token)).toBe("unauthenticated");
    const other = serve();
    const second = await makeKeyPair("RS256", "k2");
    expect(await other.codeOf(token)).toBe("workload:sync");
    other.keys.current = { keys: [second.jwk] };
    // Whoever shows the new key has the set fetched anew.
    expect(await other.codeOf(await issuer.sign({ header: { kid: "k2" }, with: second }))).toBe("workload:sync");
    expect(await other.codeOf(token)).toBe("unauthenticated");
    keys.current = { keys: [] };
  });

  it("goes on counting while Postgres is away for KEY_TRUST_SECONDS, and of WORKLOADS_FILE without Postgres at all", async () => {
    const { codeOf, state } = serve();
    const token = await issuer.sign({ claims: { exp: Math.floor(clock.wallMs() / 1000) + 7200 } });
    expect(await codeOf(token)).toBe("workload:sync");
    state.isGone = true;
    clock.advance(3_500_000);
    expect(await codeOf(token)).toBe("workload:sync");
    clock.advance(200_000);
    expect(await codeOf(token)).toBe("storage_unavailable");
    const filed = serve({ file: [workload({ name: "filed" })], rows: [] });
    filed.state.isGone = true;
    expect(await filed.codeOf(token)).toBe("workload:filed");
    expect(await filed.codeOf(await issuer.sign({ claims: { sub: "else" } }))).toBe("storage_unavailable");
  });

  it("that two workloads match is nobody's, and the log names the two", async () => {
    const { codeOf, refused } = serve({
      rows: [workload(), workload({ name: "both", match: { sub: "shop:*", iss: "*" } })],
    });
    expect(await codeOf(await issuer.sign())).toBe("workload:sync"); // `*` fits no https://…
    const two = serve({ rows: [workload(), workload({ name: "both", match: { sub: "*:sync" } })] });
    expect(await two.codeOf(await issuer.sign())).toBe("unauthenticated");
    expect(two.refused).toEqual(["it matches sync and both"]);
    expect(refused).toEqual([]);
  });

  it("of an issuer whose name two clusters share belongs to the one whose key has signed it", async () => {
    const other = await makeKeyPair();
    const { codeOf } = serve({
      rows: [workload({ name: "one", ...inline(issuer.keys.jwk) }), workload({ name: "two", ...inline(other.jwk) })],
    });
    expect(await codeOf(await issuer.sign())).toBe("workload:one");
    expect(await codeOf(await issuer.sign({ with: other }))).toBe("workload:two");
  });
});

describe("a declaration", () => {
  it("gives nothing beyond what its giver has", async () => {
    const { service } = serve({ rows: [] });
    const giver: Principal = { ...admin, callerId: "k", abilities: ["admin"], connections: ["acme-*"] };
    expect(await refusalOf(service.create(giver, workload()))).toMatchObject([
      "forbidden",
      expect.stringContaining("abilities"),
    ]);
    const beyond = workload({ abilities: ["admin"], connections: ["*"] });
    expect(await refusalOf(service.create(giver, beyond))).toMatchObject([
      "forbidden",
      expect.stringContaining("connections"),
    ]);
    const ends = { ...admin, expiresAt: new Date(clock.wallMs() + 1000) };
    expect(await refusalOf(service.create(ends, workload()))).toMatchObject([
      "forbidden",
      expect.stringContaining("expires_at"),
    ]);
  });

  it("is refused for a name that is taken, for tokens that are another's, and by a giver that has ended", async () => {
    const { service, state } = serve({ file: [workload({ name: "filed", match: { sub: "of:file" } })] });
    expect(await refusalOf(service.create(admin, workload({ match: { sub: "a" } })))).toMatchObject([
      "conflict",
      expect.stringMatching(/^name/),
    ]);
    expect(await refusalOf(service.create(admin, workload({ name: "filed", match: { sub: "a" } })))).toMatchObject([
      "conflict",
      expect.stringContaining("WORKLOADS_FILE"),
    ]);
    for (const match of [{ sub: "shop:*" }, { sub: "shop:sync", ref: "main" }, { sub: "of:file" }]) {
      const answer = await refusalOf(service.create(admin, workload({ name: "more", match })));
      expect(answer).toMatchObject(["conflict", expect.stringMatching(/^match/)]);
    }
    state.hasEnded = true;
    const late = service.create(admin, workload({ name: "more", match: { sub: "a" } }));
    expect((await refusalOf(late))[0]).toBe("unauthenticated");
  });

  it("is seen and deleted by whoever could have made it, and one of the file only there", async () => {
    const { service, codeOf } = serve({ file: [workload({ name: "filed", match: { sub: "of:file" } })] });
    const names = async (principal: Principal) => (await service.list(principal)).map(({ name }) => name);
    const foreign: Principal = { ...admin, callerId: "k", connections: ["other-*"] };
    const bound: Principal = { ...admin, callerId: "k", labels: { customer: "acme" } };
    expect(await names(admin)).toEqual(["filed", "sync"]);
    expect([await names(foreign), await names(bound)]).toEqual([[], []]);
    for (const principal of [foreign, bound]) {
      for (const name of ["sync", "filed", "none"]) {
        expect((await refusalOf(service.delete(principal, name)))[0]).toBe("not_found");
      }
    }
    expect((await refusalOf(service.delete(admin, "filed")))[0]).toBe("conflict");
    const token = await issuer.sign();
    expect(await codeOf(token)).toBe("workload:sync");
    expect(await service.delete(admin, "sync")).toEqual([]);
    expect(await codeOf(token)).toBe("unauthenticated");
  });

  it.each<[what: string, changes: () => Partial<Workload>, fault: RegExp]>([
    ["keys and their address", () => ({ jwks: JSON.stringify(issuer.jwks()) }), /^jwks_uri: either/],
    [
      "an issuer to be asked that is no URL",
      () => ({ issuer: "kubernetes", jwksUri: null }),
      /^issuer: must be an https URL/,
    ],
    ["an issuer by http", () => ({ issuer: "http://issuer.example", jwksUri: null }), /^issuer/],
    ["an issuer with a query", () => ({ issuer: "https://issuer.example?a=b", jwksUri: null }), /^issuer/],
    ["keys by http", () => ({ jwksUri: "http://issuer.example/keys" }), /^jwks_uri: must be an https URL/],
    ["keys from somebody", () => ({ jwksUri: "https://me:secret@issuer.example/keys" }), /^jwks_uri/],
    [
      "a shared key",
      () => ({ jwksUri: null, jwks: '{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}' }),
      /^jwks: holds a private/,
    ],
    [
      "a private key",
      () => ({ jwksUri: null, jwks: JSON.stringify({ keys: [{ ...issuer.keys.jwk, d: "x" }] }) }),
      /^jwks: holds a private/,
    ],
    [
      "no key for its algorithms",
      () => ({ jwksUri: null, jwks: JSON.stringify(issuer.jwks()), algorithms: ["ES256"] }),
      /^jwks: holds no key/,
    ],
    [
      "networks and nothing to fetch",
      () => ({ jwksUri: null, jwks: JSON.stringify(issuer.jwks()), networks: ["10.0.0.0/8"] }),
      /^networks: is for/,
    ],
    [
      "an authority that is none",
      () => ({ ca: "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----" }),
      /^ca: must hold/,
    ],
    ["a network that is none", () => ({ networks: ["10.0.0.0"] }), /^networks\.0/],
    ["two networks in one", () => ({ networks: ["10.0.0.0/8,11.0.0.0/8"] }), /^networks\.0: must be one/],
    ["claims that everybody has", () => ({ match: { iss: "*", "/aud": "*" } }), /^match: must name a claim/],
    ["a pointer that is none", () => ({ match: { sub: "a", "/a~2": "b" } }), /^match\.\/a~2/],
    [
      "an issuer for everybody, and no owner",
      () => ({ issuer: "https://all.example", match: { ref: "main" } }),
      /^match: everybody can get/,
    ],
    [
      "an issuer for everybody, and any owner",
      () => ({ issuer: "https://all.example", match: { sub: "repo:*/shop:ref:*" } }),
      /^match: everybody/,
    ],
    [
      "an issuer for everybody, and one of two without owner",
      () => ({ issuer: "https://all.example", match: { sub: ["repo:acme/a", "*"] } }),
      /^match: everybody/,
    ],
    [
      "an issuer below one for everybody",
      () => ({ issuer: "https://all.example/enterprise", match: { sub: "*" } }),
      /^match: everybody/,
    ],
  ])("is refused with %s", (_what, changes, fault) => {
    expect(faultsOf(changes())).toEqual([expect.stringMatching(fault)]);
  });

  it("is taken with keys, with a private issuer, and with an owner at an issuer for everybody", () => {
    expect(faultsOf({})).toEqual([]);
    expect(
      faultsOf({ issuer: "kubernetes/serviceaccount", jwksUri: null, jwks: JSON.stringify(issuer.jwks()) }),
    ).toEqual([]);
    expect(faultsOf({ networks: ["10.0.0.0/8", "fd00::/8"] })).toEqual([]);
    expect(
      faultsOf({ issuer: "https://all.example", match: { sub: ["repo:acme/shop:ref:*", "repo:acme/*"] } }),
    ).toEqual([]);
  });
});
