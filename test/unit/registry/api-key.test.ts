import { createHash, randomBytes } from "node:crypto";
import { describe, expect, it } from "vitest";
import { hashSecret, makeApiKey, matchesHash, parseApiKey } from "../../../src/registry/api-key.ts";

const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/** Bytes that look random and are the same in every run. */
function repeatableBytes() {
  let counter = 0;
  return (size: number) => {
    const blocks = Array.from({ length: Math.ceil(size / 32) }, () =>
      createHash("sha256").update(String(counter++)).digest(),
    );
    return Buffer.concat(blocks).subarray(0, size);
  };
}

describe("an API key", () => {
  it("is frt_<id>_<secret>_<checksum> in base62, and is read back", () => {
    const { key, id, secret } = makeApiKey(randomBytes);
    expect(key).toMatch(/^frt_[0-9A-Za-z]{12}_[0-9A-Za-z]{40}_[0-9A-Za-z]{6}$/);
    expect(parseApiKey(key)).toEqual({ id, secret });
  });

  it("is another one every time", () => {
    const keys = Array.from({ length: 500 }, () => makeApiKey(randomBytes));
    expect(new Set(keys.map(({ id }) => id)).size).toBe(500);
    expect(new Set(keys.map(({ secret }) => secret)).size).toBe(500);
  });

  it("uses every character equally often", () => {
    const bytes = repeatableBytes();
    const counts = new Map([...alphabet].map((character) => [character, 0]));
    for (let made = 0; made < 2000; made++) {
      const { id, secret } = makeApiKey(bytes);
      for (const character of id + secret) counts.set(character, (counts.get(character) ?? 0) + 1);
    }
    expect(counts.size).toBe(62);
    const expected = (2000 * 52) / 62;
    const chiSquare = [...counts.values()].reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0);
    expect(chiSquare).toBeLessThan(113); // 61 degrees of freedom: exceeded by chance once in 20,000 times
  });

  it("a mistyped, cut or reordered one is known without asking anybody", () => {
    const { key, id, secret } = makeApiKey(randomBytes);
    const checksum = key.slice(-6);
    for (let at = 4; at < key.length; at++) {
      if (key[at] === "_") continue;
      const other = key[at] === "x" ? "y" : "x";
      expect(parseApiKey(key.slice(0, at) + other + key.slice(at + 1)), `at ${at}`).toBeNull();
      expect(parseApiKey(key.slice(0, at)), `cut at ${at}`).toBeNull();
    }
    const wrong = [`${key} `, `${key}\n`, `frt_${secret}_${id}_${checksum}`, `FRT${key.slice(3)}`, "", "frt___"];
    expect(wrong.map(parseApiKey)).toEqual(wrong.map(() => null));
  });

  it("its secret is kept as a hash that matches it and nothing else", () => {
    const { secret } = makeApiKey(randomBytes);
    const hash = hashSecret(secret);
    expect(hash).toHaveLength(32);
    expect([matchesHash(secret, hash), matchesHash(`${secret}x`, hash), matchesHash("", hash)]).toEqual([
      true,
      false,
      false,
    ]);
  });
});
