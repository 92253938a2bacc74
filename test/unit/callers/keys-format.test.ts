import { createHash, randomBytes } from "node:crypto";
import { describe, expect, it } from "vitest";
import { hasGoodChecksum, hashKey, isSameHash, makeApiKey, readKeyId } from "../../../src/callers/keys.ts";

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

function secretOf({ key }: { key: string }): string {
  return key.split("_")[2] ?? "";
}

describe("an API key", () => {
  it("is frt_<id>_<secret>_<checksum> in base62, and is read back", () => {
    const { key, id } = makeApiKey(randomBytes);
    expect(key).toMatch(/^frt_[0-9A-Za-z]{12}_[0-9A-Za-z]{40}_[0-9A-Za-z]{6}$/);
    expect([readKeyId(key), hasGoodChecksum(key)]).toEqual([id, true]);
  });

  it("is another one every time", () => {
    const keys = Array.from({ length: 500 }, () => makeApiKey(randomBytes));
    expect(new Set(keys.map(({ id }) => id)).size).toBe(500);
    expect(new Set(keys.map(secretOf)).size).toBe(500);
  });

  it("uses every character equally often", () => {
    const bytes = repeatableBytes();
    const counts = new Map(Array.from(alphabet, (character) => [character, 0]));
    for (let made = 0; made < 2000; made++) {
      const { id, key } = makeApiKey(bytes);
      for (const character of id + secretOf({ key })) counts.set(character, (counts.get(character) ?? 0) + 1);
    }
    expect(counts.size).toBe(62);
    const expected = (2000 * 52) / 62;
    const chiSquare = [...counts.values()].reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0);
    expect(chiSquare).toBeLessThan(113); // 61 degrees of freedom: exceeded by chance once in 20,000 times
  });

  it("a mistyped, cut or reordered one is known without asking anybody", () => {
    const { key, id } = makeApiKey(randomBytes);
    for (let at = 4; at < key.length; at++) {
      if (key[at] === "_") continue;
      const other = key[at] === "x" ? "y" : "x";
      expect(hasGoodChecksum(key.slice(0, at) + other + key.slice(at + 1)), `at ${at}`).toBe(false);
      expect(readKeyId(key.slice(0, at)), `cut at ${at}`).toBeNull();
    }
    const reordered = `frt_${secretOf({ key })}_${id}_${key.slice(-6)}`;
    const wrong = [`${key} `, ` ${key}`, `${key}\n`, reordered, `FRT${key.slice(3)}`, "", "frt___"];
    expect(wrong.map(readKeyId)).toEqual(wrong.map(() => null));
    expect(wrong.map(hasGoodChecksum)).toEqual(wrong.map(() => false));
  });

  it("it is kept as a hash that matches it and nothing else", () => {
    const { key } = makeApiKey(randomBytes);
    const hash = hashKey(key);
    expect(hash).toHaveLength(32);
    const same = [key, `${key}x`, key.toLowerCase(), ""].map((text) => isSameHash(hashKey(text), hash));
    expect(same).toEqual([true, false, false, false]);
    expect(isSameHash(hash.subarray(1), hash)).toBe(false);
  });
});
