import { randomBytes } from "node:crypto";
import { gzipSync } from "node:zlib";
import { expect, test } from "vitest";
import { type Canary, findCanaries } from "../../support/canaries.ts";

const text = `refresh-${randomBytes(24).toString("base64url")}`;
const key = randomBytes(32);
const canaries: Canary[] = [
  { what: "token", value: text },
  { what: "key", value: key },
  { what: "short", value: "pa55 w&rd" },
];

const planted: [string, string, string][] = [
  ["a text", text, "token (plain)"],
  ["a piece of it", text.slice(9, 21), "token (plain)"],
  ["JSON in JSON", JSON.stringify(JSON.stringify({ text: `"${text}"` })), "token (plain)"],
  ["a form", new URLSearchParams({ token: text }).toString(), "token (plain)"],
  ["hex", Buffer.from(text).toString("hex"), "token (hex)"],
  ["a bytea in a dump", String.raw`\x00${Buffer.from(text).toString("hex")}`, "token (hex)"],
  ["upper-case hex", Buffer.from(text).toString("hex").toUpperCase(), "token (hex)"],
  ["a Basic header", `Basic ${Buffer.from(`app:${text}`).toString("base64")}`, "token (base64)"],
  ["a Basic header of a longer id", `Basic ${Buffer.from(`apple:${text}:`).toString("base64")}`, "token (base64)"],
  ["base64url of JSON", Buffer.from(JSON.stringify({ a: text })).toString("base64url"), "token (base64)"],
  ["a logged Buffer", JSON.stringify(Buffer.from(`x${text}`)), "token (bytes)"],
  ["bytes in hex", key.toString("hex"), "key (hex)"],
  ["bytes in base64", `k1:${key.toString("base64")}`, "key (base64)"],
  ["bytes in base64url", `k1:${key.toString("base64url")}`, "key (base64)"],
  ["a short secret", "user:pa55 w&rd@host", "short (plain)"],
];

test.each(planted)("a secret in %s is found", (_name, where, finding) => {
  expect(findCanaries(canaries, [{ where: "there", text: `before ${where} after` }])).toEqual([`${finding} in there`]);
});

test("nothing is found where nothing is", () => {
  const noise = randomBytes(200_000);
  const texts = [
    noise.toString("hex"),
    noise.toString("base64"),
    gzipSync(noise).toString("latin1"),
    text.slice(0, 11),
  ];
  expect(
    findCanaries(
      canaries,
      texts.map((each) => ({ where: "noise", text: each })),
    ),
  ).toEqual([]);
});
