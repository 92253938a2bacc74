import { beforeAll, describe, expect, it } from "vitest";
import { createIssuerKeys, type FetchDocument, type KeySource, readKeys } from "../../../src/callers/issuer-keys.ts";
import { BrokerError } from "../../../src/errors.ts";
import { makeKeyPair, TokenIssuer } from "../../support/issuer.ts";
import { fakeClock } from "../tokens/fake-clock.ts";

const uri = "https://issuer.example/keys";
const source: KeySource = { issuer: "https://issuer.example", jwks: null, jwksUri: uri, ca: null, networks: [] };
const wanted = { keyId: "k1", algorithm: "RS256" } as const;
let issuer: TokenIssuer;

beforeAll(async () => {
  issuer = await TokenIssuer.create();
});

/** Keys of an issuer that may be away. `documents`: what it serves. */
function serve(documents: Record<string, unknown> = { [uri]: issuer.jwks() }, isAway = false) {
  const state = { isAway, asked: [] as string[], troubles: [] as string[], well: 0 };
  const fetchDocument: FetchDocument = async (url) => {
    state.asked.push(url);
    if (state.isAway) throw new Error("issuer.example could not be reached (ECONNREFUSED)");
    const document = documents[url];
    return typeof document === "string" ? document : JSON.stringify(document);
  };
  const clock = fakeClock();
  // The loop's own sleep must not move the clock, which the test holds.
  const waiting: (() => void)[] = [];
  const sleep = async () => await new Promise<void>((resolve) => void waiting.push(resolve));
  const keys = createIssuerKeys({
    fetchDocument,
    clock: { ...clock, monotonicMs: () => clock.monotonic, sleep },
    onTrouble: ({ detail }) => void state.troubles.push(detail),
    onWell: () => void (state.well += 1),
  });
  keys.keep([source]);
  keys.start();
  /** Lets time pass, second by second, as the loop sees it. */
  const pass = async (seconds: number) => {
    for (let second = 0; second < seconds; second++) {
      clock.advance(1000);
      for (const wake of waiting.splice(0)) wake();
      await settled();
    }
  };
  return { keys, state, clock, pass, documents };
}

/** What has been begun in this turn is done. */
const settled = async () => await new Promise((resolve) => void setImmediate(resolve));

const codeOf = async (answer: Promise<unknown>) =>
  await answer.then(
    (key) => (key === null ? "none" : "found"),
    (error: unknown) => (error instanceof BrokerError ? error.code : String(error)),
  );

describe("the keys of an issuer", () => {
  it("are fetched before anybody needs them, once for all callers, and again every 15 minutes", async () => {
    const { keys, state, pass } = serve();
    await settled();
    expect(state.asked).toEqual([uri]);
    await Promise.all(Array.from({ length: 10_000 }, () => keys.find(source, wanted)));
    await pass(899);
    expect(state.asked.length).toBe(1);
    await pass(1);
    expect(state.asked.length).toBe(2);
  });

  it("stay for an hour without the issuer; known callers go on, unknown keys find none, and there is no storm", async () => {
    const { keys, state, pass } = serve();
    await settled();
    const before = await keys.find(source, wanted);
    state.isAway = true;
    state.asked.length = 0;
    for (let minute = 0; minute < 60; minute++) {
      await pass(60);
      const known = await Promise.all(Array.from({ length: 100 }, () => keys.find(source, wanted)));
      expect(new Set(known)).toEqual(new Set([before]));
      const unknown = Array.from({ length: 100 }, (_, at) =>
        keys.find(source, { ...wanted, keyId: `u${minute}-${at}` }),
      );
      expect(new Set(await Promise.all(unknown))).toEqual(new Set([null]));
    }
    // 15 minutes until the first try, or a minute until an unknown key asks; then after 1, 2, 4 … 60 s each.
    expect(state.asked.length).toBeLessThanOrEqual(70);
    expect(state.troubles.length).toBe(1);
    state.isAway = false;
    await pass(60);
    expect(state.well).toBe(1);
  });

  it("that were never fetched are unavailable, not unknown, however many ask", async () => {
    const { keys, state, pass } = serve(undefined, true);
    await pass(1);
    state.asked.length = 0;
    for (let second = 0; second < 120; second++) {
      const asked = Array.from({ length: 100 }, () => codeOf(keys.find(source, wanted)));
      expect(new Set(await Promise.all(asked))).toEqual(new Set(["issuer_unavailable"]));
      await pass(1);
    }
    expect(state.asked.length).toBeLessThanOrEqual(9);
    state.isAway = false;
    await pass(60);
    expect(await codeOf(keys.find(source, wanted))).toBe("found");
  });

  it("are fetched for a key that is not among them, once a minute, and all who wait get the new set", async () => {
    const { keys, state, pass, documents } = serve();
    await settled();
    const next = await makeKeyPair("RS256", "k2");
    documents[uri] = { keys: [next.jwk] };
    const all = Array.from({ length: 100 }, () => keys.find(source, { ...wanted, keyId: "k2" }));
    expect((await Promise.all(all)).every((key) => key?.id === "k2")).toBe(true);
    expect(state.asked.length).toBe(2);
    await Promise.all(Array.from({ length: 1000 }, (_, at) => keys.find(source, { ...wanted, keyId: `u${at}` })));
    expect(state.asked.length).toBe(2);
    await pass(60);
    await keys.find(source, { ...wanted, keyId: "u" });
    expect(state.asked.length).toBe(3);
  });

  it("count no more once they have left the set, and a key that stays is the same one", async () => {
    const { keys, pass, documents } = serve();
    await settled();
    const key = await keys.find(source, wanted);
    if (key === null) throw new Error("no key");
    await pass(900);
    expect(keys.has(source, key)).toBe(true);
    const next = await makeKeyPair("RS256", "k1");
    documents[uri] = { keys: [next.jwk] };
    await pass(900);
    expect(keys.has(source, key)).toBe(false);
    expect((await keys.find(source, wanted))?.jwk.n).toBe(next.jwk.n);
  });

  it("stay as they were if the answer is none, or a set without a key that can be used", async () => {
    const { keys, state, pass, documents } = serve();
    await settled();
    const key = await keys.find(source, wanted);
    for (const answer of ["<html>", "[]", '{"keys":[]}', '{"keys":[],"keys":[]}', '{"keys":{}}', "null"]) {
      documents[uri] = answer;
      await pass(960);
      expect(await keys.find(source, wanted)).toBe(key);
    }
    expect(state.troubles.length).toBe(1);
  });

  it("of an issuer without an address of its keys are where its metadata say, if these name the same issuer", async () => {
    const place = "https://issuer.example/.well-known/openid-configuration";
    const found = { ...source, jwksUri: null };
    const good = { issuer: source.issuer, jwks_uri: uri };
    for (const [metadata, code] of [
      [good, "found"],
      [{ ...good, issuer: `${source.issuer}/` }, "issuer_unavailable"],
      [{ ...good, issuer: "https://evil.example" }, "issuer_unavailable"],
      [{ ...good, jwks_uri: "http://issuer.example/keys" }, "issuer_unavailable"],
      [{ issuer: source.issuer }, "issuer_unavailable"],
      ["<html>", "issuer_unavailable"],
    ] as const) {
      const { keys } = serve({ [place]: metadata, [uri]: issuer.jwks() });
      keys.keep([found]);
      expect(await codeOf(keys.find(found, wanted))).toBe(code);
    }
  });

  it("of different places are kept apart, whatever the issuer's name, and those that nobody names are forgotten", async () => {
    const { keys } = serve();
    const other = await makeKeyPair("RS256", "k1");
    const inline = { ...source, jwks: JSON.stringify({ keys: [other.jwk] }), jwksUri: null };
    keys.keep([source, inline]);
    const [one, two] = [await keys.find(source, wanted), await keys.find(inline, wanted)];
    expect(two?.jwk.n).toBe(other.jwk.n);
    expect(one?.jwk.n).not.toBe(other.jwk.n);
    if (one === null) throw new Error("no key");
    keys.keep([inline]);
    expect(keys.has(source, one)).toBe(false);
  });
});

describe("a set of keys", () => {
  it("holds what verifies signatures: RSA of 2048 bits or more, EC and Ed25519, each for its algorithms", async () => {
    const [rsa, p256, p384, ed] = await Promise.all([
      makeKeyPair("PS256", "rsa"),
      makeKeyPair("ES256", "p256"),
      makeKeyPair("ES384", "p384"),
      makeKeyPair("EdDSA", "ed"),
    ]);
    const { alg: _alg, use: _use, ...bare } = rsa.jwk;
    const { kid: _kid, ...unnamed } = bare;
    const keys = [
      { ...bare, kid: "any" },
      rsa.jwk,
      { ...p256.jwk, use: "jwt-svid" },
      p384.jwk,
      ed.jwk,
      unnamed,
      { ...bare, kid: "encrypts", use: "enc" },
      { ...bare, kid: "wraps", key_ops: ["wrapKey"] },
      { ...bare, kid: "verifies", key_ops: ["verify"] },
      { ...p256.jwk, kid: "wrong alg", alg: "ES384" },
      { ...p256.jwk, kid: "wrong curve", crv: "P-384", alg: "ES384" },
      { kty: "oct", k: "c2VjcmV0", kid: "shared" },
      { kty: "OKP", crv: "X25519", x: ed.jwk.x, kid: "agrees" },
      { kty: "RSA", n: bare.n?.slice(0, 170), e: "AQAB", kid: "short" },
      { ...bare, kid: 7 },
      "text",
      null,
    ];
    const read = readKeys(JSON.stringify({ keys }));
    const named = (algorithm: Parameters<(typeof read)[0]["fits"]>[0]) =>
      read.filter((key) => key.fits(algorithm)).map(({ id }) => id);
    expect(read.map(({ id }) => id)).toEqual(["any", "rsa", "p256", "p384", "ed", null, "verifies"]);
    expect(named("RS256")).toEqual(["any", null, "verifies"]);
    expect(named("PS256")).toEqual(["any", "rsa", null, "verifies"]);
    expect(named("ES256")).toEqual(["p256"]);
    expect(named("ES384")).toEqual(["p384"]);
    expect(named("EdDSA")).toEqual(["ed"]);
  });

  it("names one key by its kid, or the only one for an algorithm, and else none", async () => {
    const { keys } = serve();
    const [a, b] = await Promise.all([makeKeyPair("RS256", "a"), makeKeyPair("ES256", "b")]);
    const find = async (jwks: unknown[], keyId: string | null) => {
      const set = { ...source, jwks: JSON.stringify({ keys: jwks }), jwksUri: null };
      return (await keys.find(set, { keyId, algorithm: "RS256" }))?.id ?? null;
    };
    expect(await find([a.jwk, b.jwk], null)).toBe("a");
    expect(await find([a.jwk, b.jwk], "b")).toBeNull();
    expect(await find([a.jwk, b.jwk], "A")).toBeNull();
    expect(await find([a.jwk, a.jwk], "a")).toBeNull();
    expect(await find([a.jwk, { ...a.jwk, kid: "c" }], null)).toBeNull();
  });
});
