import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import { StartupError, UnreadableSecretError } from "../../../src/errors.ts";
import {
  commonKey,
  createKeyList,
  createKeyring,
  keyIdOf,
  type Keyring,
  sealKeyCheck,
  verifyKeyring,
} from "../../../src/vault/keyring.ts";
import { createTokenVault } from "../../../src/vault/vault.ts";

const keyOf = (id: string, seed = id) => ({ id, key: createHash("sha256").update(seed).digest() });
const [old, current] = [keyOf("2025"), keyOf("2026")];
const place = { table: "clients", row: "1", column: "secret_sealed", revision: 0 };

function errorOf(ring: Keyring, record: Uint8Array) {
  try {
    return ring.open(record, place);
  } catch (error) {
    if (!(error instanceof UnreadableSecretError)) throw error;
    expect(error.code).toBe("unreadable_secret");
    return { keyId: error.keyId, reason: error.reason, place: error.place };
  }
}

describe("a keyring", () => {
  it("the first key encrypts, and all decrypt", () => {
    const before = createKeyring([old]).seal("from before", place);
    const rotated = createKeyring([current, old]);
    expect(keyIdOf(rotated.seal("new", place))).toBe("2026");
    expect(rotated.open(before, place)).toBe("from before");
    expect(rotated.open(rotated.seal("new", place), place)).toBe("new");
  });

  const where = { table: "clients", row: "1", column: "secret_sealed" };

  it("a record of a key that is not in the ring does not open, and the error names place and key", () => {
    const record = createKeyring([current]).seal("text", place);
    expect(errorOf(createKeyring([old]), record)).toEqual({ keyId: "2026", reason: "unknown_key", place: where });
  });

  it("a record does not open with other bytes under the same id, nor with a bit changed", () => {
    const record = createKeyring([current]).seal("text", place);
    const unopened = { keyId: "2026", reason: "does_not_open", place: where };
    expect(errorOf(createKeyring([keyOf("2026", "other bytes")]), record)).toEqual(unopened);
    record[record.length - 1]! ^= 1;
    expect(errorOf(createKeyring([current]), record)).toEqual(unopened);
  });

  it("what is no record is told from one, and none of its bytes are repeated", () => {
    const ring = createKeyring([current]);
    for (const bytes of [Buffer.from(""), Buffer.from("garbage"), ring.seal("x", place).subarray(0, 20)]) {
      expect(errorOf(ring, bytes)).toEqual({ keyId: null, reason: "no_record", place: where });
    }
    const odd = Buffer.concat([Buffer.from([1, 4]), Buffer.from("a\nb\0"), Buffer.alloc(64)]);
    expect(errorOf(ring, odd)).toEqual({ keyId: null, reason: "no_record", place: where });
  });

  it("without a key the broker does not start", () => {
    expect(() => createKeyring([])).toThrow(StartupError);
  });

  it("seals and signs with another of its keys as soon as that is the current one", () => {
    const ring = createKeyring([old, current]);
    const before = ring.seal("text", place);
    ring.use("2026");
    expect(ring.current()).toBe("2026");
    expect(keyIdOf(ring.seal("text", place))).toBe("2026");
    expect(ring.sign("forms", "a")).toMatch(/^2026\./);
    expect(ring.open(before, place)).toBe("text");
    expect(() => ring.use("2027")).toThrow(/not in ENCRYPTION_KEYS/);
    expect(ring.current()).toBe("2026");
  });

  it("puts a value under the current key for the same place and the same inputs, and only there", () => {
    const ring = createKeyring([old, current]);
    const host = { name: "c", parent: null, provider: "p", client: null, captured: {}, account: {} };
    const to = (shop: string) => ({ ...place, destination: { ...host, inputs: { shop }, hosts: ["shop"] } });
    const before = ring.seal("text", to("a.test"));
    ring.use("2026");
    const after = ring.reseal(before, { ...to("a.test"), destination: { ...to("a.test").destination, hosts: [] } });
    expect(keyIdOf(after)).toBe("2026");
    expect(ring.open(after, to("a.test"))).toBe("text");
    expect(() => ring.open(after, to("b.test"))).toThrow(UnreadableSecretError);
    expect(() => ring.reseal(before, to("b.test"))).toThrow(UnreadableSecretError);
  });

  it("finds what was noted under any of its keys", () => {
    const noted = createKeyring([old]).sign("codes", "abc");
    const rotated = createKeyring([current, old]).signWithEach("codes", "abc");
    expect(rotated).toEqual([createKeyring([current]).sign("codes", "abc"), noted]);
  });

  it("the current key is the first of the own list that all others have", () => {
    expect(commonKey(["new", "old"], [])).toBe("new");
    expect(commonKey(["new", "old"], [["old"], ["old", "new"]])).toBe("old");
    expect(commonKey(["new", "old"], [["old", "new"]])).toBe("new");
    expect(commonKey(["new"], [["old"]])).toBeNull();
  });
});

describe("a proof", () => {
  const ring = createKeyring([current, old]);

  it("holds for its text and purpose alone, and says with which key it was made", () => {
    const proof = ring.sign("marks", "7:9");
    expect(proof).toMatch(/^2026\.[\w-]{43}$/);
    expect(ring.verify("marks", "7:9", proof)).toBe("authentic");
    expect(ring.verify("marks", "7:99", proof)).toBe("forged");
    expect(ring.verify("links", "7:9", proof)).toBe("forged");
    expect(ring.verify("marks", "7:9", proof.slice(0, -1))).toBe("forged");
    expect(ring.verify("marks", "7:9", "2026.")).toBe("forged");
  });

  it("holds under every key of the ring; of a key that the ring lacks nobody can tell", () => {
    expect(ring.verify("marks", "7:9", createKeyring([old]).sign("marks", "7:9"))).toBe("authentic");
    expect(createKeyring([old]).verify("marks", "7:9", ring.sign("marks", "7:9"))).toBe("unknown_key");
    expect(createKeyring([keyOf("2026", "other bytes")]).verify("marks", "7:9", ring.sign("marks", "7:9"))).toBe(
      "forged",
    );
    for (const odd of ["", ".", "7:9", "2027.AAAA"]) expect(ring.verify("marks", "7:9", odd)).toBe("unknown_key");
  });
});

describe("what hangs together with a proof", () => {
  it("comes from the key that made the proof, after a rotation too, and ends with that key", () => {
    const before = createKeyring([old]);
    const proof = before.sign("forms", "a");
    const derived = before.deriveWith(proof, "verifiers");
    expect(derived).toHaveLength(32);
    expect(createKeyring([current, old]).deriveWith(proof, "verifiers")).toEqual(derived);
    expect(before.deriveWith(proof, "others")).not.toEqual(derived);
    expect(() => createKeyring([current]).deriveWith(proof, "verifiers")).toThrow(/not in ENCRYPTION_KEYS/);
  });
});

describe("a keyring at start", () => {
  const known = [old, current].map((key) => ({ id: key.id, check: sealKeyCheck(createKeyring([key]), key.id) }));

  it("that holds every key of the database is taken, further ones included", () => {
    expect(() => verifyKeyring(createKeyring([keyOf("2027"), current, old]), known)).not.toThrow();
    expect(() => verifyKeyring(createKeyring([current]), [])).not.toThrow();
  });

  it("that lacks one is refused, and the error says which and which there are", () => {
    const ring = createKeyring([current]);
    expect(() => verifyKeyring(ring, known)).toThrow(StartupError);
    expect(() => verifyKeyring(ring, known)).toThrow(/lacks the key "2025".*it has 2026/);
  });

  it("that has other bytes for one is refused, and the error says for which, and no byte", () => {
    const wrong = keyOf("2025", "other bytes");
    const start = () => verifyKeyring(createKeyring([current, wrong]), known);
    expect(start).toThrow(StartupError);
    expect(start).toThrow(/other bytes for the key "2025"/);
    expect(start).not.toThrow(wrong.key.toString("base64"));
  });

  it("a check that was copied from another key does not pass for it", () => {
    const [first] = known;
    const copied = [{ id: "2026", check: first?.check ?? new Uint8Array() }];
    expect(() => verifyKeyring(createKeyring([current, old]), copied)).toThrow(StartupError);
  });
});

describe("the vault", () => {
  const vault = createTokenVault(createKeyring([current]));
  const destination = {
    name: "acme",
    parent: null,
    provider: "own",
    client: null,
    inputs: {},
    hosts: [],
    captured: {},
    account: {},
  };
  const at = { connectionId: "c1", generation: 4, destination };

  it("a token opens in its own generation, column and row only", () => {
    const { accessToken, refreshToken } = vault.sealTokens({ accessToken: "access", refreshToken: "refresh" }, at);
    const [access, refresh] = [accessToken ?? new Uint8Array(), refreshToken ?? new Uint8Array()];
    expect(vault.openAccessToken(access, at)).toBe("access");
    expect(vault.openRefreshToken(refresh, at)).toBe("refresh");
    for (const other of [
      { ...at, generation: 5 },
      { ...at, generation: 3 },
      { ...at, connectionId: "c2" },
    ]) {
      expect(() => vault.openAccessToken(access, other)).toThrow();
      expect(() => vault.openRefreshToken(refresh, other)).toThrow();
    }
    expect(() => vault.openAccessToken(refresh, at)).toThrow();
    expect(() => vault.openRefreshToken(access, at)).toThrow();
  });

  it("what is absent stays absent", () => {
    const none = vault.sealTokens({ accessToken: null, refreshToken: null }, at);
    expect(none).toEqual({ accessToken: null, refreshToken: null });
  });

  it("credentials, client secrets and authorization requests open at their own revision and row only", () => {
    const credentials = vault.sealCredentials(
      { username: "u", password: "p" },
      { connectionId: "c1", revision: 2, destination },
    );
    expect(vault.openCredentials(credentials, { connectionId: "c1", revision: 2, destination })).toEqual({
      username: "u",
      password: "p",
    });
    expect(() => vault.openCredentials(credentials, { connectionId: "c1", revision: 1, destination })).toThrow();
    expect(() => vault.openCredentials(credentials, { connectionId: "c2", revision: 2, destination })).toThrow();
    const secret = vault.sealClientSecret("s", { clientId: "k1", revision: 0, destination });
    expect(vault.openClientSecret(secret, { clientId: "k1", revision: 0, destination })).toBe("s");
    expect(() => vault.openClientSecret(secret, { clientId: "k1", revision: 1, destination })).toThrow();
    expect(() => vault.openClientSecret(secret, { clientId: "k2", revision: 0, destination })).toThrow();
    const request = vault.sealRequest("v", { requestId: "r1" });
    expect(vault.openRequest(request, { requestId: "r1" })).toBe("v");
    expect(() => vault.openRequest(request, { requestId: "r2" })).toThrow();
    const answer = vault.sealAnswer("raw", at);
    expect(() => vault.openAccessToken(answer, at)).toThrow();
  });

  it("a fingerprint tells tokens and clients apart, and cannot be made equal by shifting one into the other", () => {
    const prints = [
      vault.fingerprint("token", "client"),
      vault.fingerprint("token2", "client"),
      vault.fingerprint("token", "client2"),
      vault.fingerprint('","token', "client"),
      vault.fingerprint("token", 'client","'),
    ].map((print) => Buffer.from(print).toString("hex"));
    expect(new Set(prints).size).toBe(prints.length);
    expect(vault.fingerprint("token", "client")).toEqual(vault.fingerprint("token", "client"));
  });
});

describe("a key that this ring lacks", () => {
  it("makes a record silent where the database names it, and absent where it does not", async () => {
    const keys = createKeyList(async () => ["2025", "2026"]);
    expect(await keys.absenceOf("2025")).toBe("silent");
    expect(await keys.absenceOf("2031")).toBe("absent");
    expect(await keys.absenceOf(null)).toBe("absent");
  });

  it("is silent as long as the database does not answer", async () => {
    const keys = createKeyList(async () => await Promise.reject(new Error("away")));
    expect(await keys.absenceOf("2031")).toBe("silent");
  });

  it("is looked for in a list that was read after the question, and all questions of a moment share one", async () => {
    const answers: ((ids: string[]) => void)[] = [];
    const keys = createKeyList(() => new Promise((resolve) => void answers.push(resolve)));
    const early = keys.absenceOf("2026");
    await Promise.resolve();
    const late = [keys.absenceOf("2026"), keys.absenceOf("2026"), keys.absenceOf("2027")];
    answers[0]?.([]); // read before the other replica named its key
    expect(await early).toBe("absent");
    await Promise.resolve();
    answers[1]?.(["2026"]);
    expect(await Promise.all(late)).toEqual(["silent", "silent", "absent"]);
    expect(answers).toHaveLength(2);
  });
});
