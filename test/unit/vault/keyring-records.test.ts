import { createCipheriv, createHash, hkdfSync, randomBytes } from "node:crypto";
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { hostsOf, keyIdOf, open, seal, type Destination, type Place } from "../../../src/vault/keyring.ts";

const key = createHash("sha256").update("envelope tests").digest();
const place: Place = { table: "connections", row: "row-1", column: "access_token_sealed", revision: 7 };
const destination: Destination = {
  name: "acme",
  parent: null,
  provider: "shop",
  client: "client-1",
  inputs: { host: "north.example", note: "n" },
  hosts: ["host"],
  captured: { tenant: "t1" },
  account: { dc: "us1" },
};
const sealed = (plaintext = "a secret token") => seal(plaintext, { keyId: "k1", key, place, random: randomBytes });

/** Version, length of the key id, key id, length of names, names, salt. */
const saltStart = 1 + 1 + 2 + 2 + 2;
const tagStart = saltStart + 32;

describe("a sealed record", () => {
  it("opens where it was sealed, whatever the text", () => {
    const property = fc.property(fc.string({ unit: "grapheme", maxLength: 5000 }), (text) => {
      expect(open(sealed(text), key, place)).toBe(text);
    });
    fc.assert(property);
  });

  it("names the key that sealed it, and holds nothing readable of the text", () => {
    expect(keyIdOf(sealed())).toBe("k1");
    expect(sealed().includes("secret")).toBe(false);
  });

  it("does not open once a single bit of it has changed", () => {
    const record = sealed();
    for (let bit = 0; bit < record.length * 8; bit++) {
      const changed = Buffer.from(record);
      changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      expect(() => open(changed, key, place), `bit ${bit}`).toThrow();
    }
  });

  it("does not open when it was cut off anywhere, or when something was added", () => {
    const record = sealed();
    for (let length = 0; length < record.length; length++) {
      expect(() => open(record.subarray(0, length), key, place), `${length} bytes`).toThrow();
    }
    expect(() => open(Buffer.concat([record, Buffer.alloc(1)]), key, place)).toThrow();
  });

  it("has a tag of 16 bytes: a shorter one, though right, is refused", () => {
    const whole = sealed("");
    expect(whole).toHaveLength(tagStart + 16);
    const header = whole.subarray(0, tagStart);
    const additional = Buffer.concat([header, Buffer.from(JSON.stringify([...Object.values(place), null]))]);
    const derived = Buffer.from(
      hkdfSync("sha256", key, whole.subarray(saltStart, tagStart), "freshet sealed record 2", 44),
    );
    for (const authTagLength of [4, 8, 12, 13, 14, 15, 16]) {
      const cipher = createCipheriv("aes-256-gcm", derived.subarray(0, 32), derived.subarray(32), { authTagLength });
      cipher.setAAD(additional);
      cipher.final();
      const record = Buffer.concat([header, cipher.getAuthTag()]);
      if (authTagLength === 16) expect(open(record, key, place)).toBe("");
      else expect(() => open(record, key, place), `${authTagLength} bytes`).toThrow();
    }
  });

  it.each<Partial<Place>>([
    { table: "clients" },
    { row: "row-2" },
    { column: "refresh_token_sealed" },
    { revision: 8 },
    { revision: 6 },
  ])("does not open in another place: %o", (change) => {
    expect(() => open(sealed(), key, { ...place, ...change })).toThrow();
  });

  it("the parts of a place cannot be shifted into one another", () => {
    const shifted = { ...place, table: 'connections","row', row: "-1" };
    const record = seal("text", { keyId: "k1", key, place: shifted, random: randomBytes });
    expect(() => open(record, key, { ...place, table: "connections", row: 'row","-1' })).toThrow();
    expect(open(record, key, shifted)).toBe("text");
  });

  it("does not open with another key", () => {
    expect(() => open(sealed(), randomBytes(32), place)).toThrow();
  });

  it("is never the same twice, nor is the salt that its key comes from", () => {
    const records = Array.from({ length: 200 }, () => sealed());
    const nonces = records.map((record) => record.subarray(saltStart, tagStart).toString("hex"));
    expect(new Set(nonces).size).toBe(200);
    expect(new Set(records.map((record) => record.toString("hex"))).size).toBe(200);
  });

  it("what is no record is refused, whatever it is", () => {
    const property = fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => {
      expect(() => open(bytes, key, place)).toThrow();
    });
    fc.assert(property);
  });

  it("a record inside a larger buffer is read within its own bounds", () => {
    const record = sealed();
    const around = Buffer.concat([Buffer.alloc(5, 1), record, Buffer.alloc(5, 2)]);
    const view = new Uint8Array(around.buffer, around.byteOffset + 5, record.length);
    expect(open(view, key, place)).toBe("a secret token");
  });
});

const bound = (text = "secret", at: Destination = destination) =>
  seal(text, { keyId: "k1", key, place: { ...place, destination: at }, random: randomBytes });
const openFor = (record: Buffer, at?: Destination) => open(record, key, at ? { ...place, destination: at } : place);

describe("a record that is bound to a destination", () => {
  it("opens for it, whatever the order of names, and whichever inputs fill hosts by now", () => {
    const captured = { tenant: "t1", zone: "z" };
    const record = bound("text", { ...destination, captured });
    expect(openFor(record, { ...destination, captured: { zone: "z", tenant: "t1" }, hosts: [] })).toBe("text");
    expect(hostsOf(record)).toEqual(["host"]);
  });

  it("leaves those inputs free that filled no host when it was sealed", () => {
    expect(openFor(bound("text"), { ...destination, inputs: { host: "north.example", note: "other" } })).toBe("text");
  });

  it.each<Partial<Destination>>([
    { name: "other" },
    { parent: "p" },
    { provider: "evil" },
    { client: "client-2" },
    { client: null },
    { inputs: { host: "evil.example", note: "n" } },
    { inputs: { note: "n" } },
    { captured: {} },
    { captured: { tenant: "t2" } },
    { captured: { tenant: "t1", host: "evil.example" } },
    { account: { dc: "evil.example/" } },
    { account: {} },
  ])("opens for no other: %o", (change) => {
    expect(() => openFor(bound(), { ...destination, ...change })).toThrow();
  });

  it("opens not without one, nor does one that was sealed without open with one", () => {
    expect(() => openFor(bound())).toThrow();
    expect(() => openFor(sealed(), destination)).toThrow();
  });

  it("cannot be told of other inputs: their names are part of what is sealed", () => {
    const [one, other] = [bound("text", { ...destination, hosts: [] }), bound("text")];
    const renamed = Buffer.concat([other.subarray(0, 4), one.subarray(4, 8), other.subarray(saltStart)]);
    expect(() => openFor(renamed, destination)).toThrow();
  });
});
