import { brotliCompressSync, constants, deflateSync, gzipSync } from "node:zlib";
import {
  accessToken,
  answer,
  granted,
  head,
  json,
  lives,
  lost,
  refreshToken,
  taken,
  tokens,
  transient,
  unreadable,
  withRaw,
  type HostileAnswer,
  type Outcome,
} from "./hostile-steps.ts";

const html = "<!doctype html><html><head><title>Sign in</title></head><body><h1>Sign in</h1></body></html>";
const megabyte = 1_048_576;
const zeros = Buffer.alloc(50 * megabyte);
const form = new URLSearchParams({ ...tokens, expires_in: String(tokens.expires_in) }).toString();
const fields = (count: number) => Array.from({ length: count }, (_, index) => `f${index}=${index}`).join("&");
const nested = (depth: number) => "[".repeat(depth) + "]".repeat(depth);

function compressed(encoding: string, body: Buffer): Buffer {
  return answer({ headers: ["content-type: application/json", `content-encoding: ${encoding}`], body });
}

/** What is not JSON, or not plain. */
export const bodies: readonly HostileAnswer[] = [
  {
    is: "an HTML page with 200",
    steps: [answer({ headers: ["content-type: text/html"], body: html })],
    outcome: { ...unreadable, says: /page/ },
  },
  {
    is: "an HTML page with 502",
    steps: [answer({ status: "502 Bad Gateway", body: html })],
    outcome: { ...lost, says: /502.*page/ },
  },
  { is: "an HTML page that says it is JSON", steps: [json(html)], outcome: unreadable },
  {
    is: "XML",
    steps: [
      answer({
        headers: ["content-type: application/xml"],
        body: `<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><token>&b;</token>`,
      }),
    ],
    outcome: { ...unreadable, says: /page/ },
  },
  { is: "nothing at all with 200", steps: [answer({})], outcome: unreadable },
  { is: "204 without a body", steps: [head({ status: "204 No Content" })], outcome: unreadable },
  { is: "204 with a body", steps: [json(granted(), { status: "204 No Content" })], outcome: unreadable },
  { is: "206 with tokens", steps: [json(granted(), { status: "206 Partial Content" })], outcome: taken },
  { is: "304", steps: [head({ status: "304 Not Modified" })], outcome: transient },
  {
    is: "a body of 50 MB",
    steps: [
      head({ headers: [`content-length: ${50 * megabyte}`] }),
      { repeat: Buffer.alloc(megabyte, "x"), times: 50 },
    ],
    outcome: unreadable,
  },
  {
    is: "50 MB behind whole tokens",
    steps: [
      head({ headers: [`content-length: ${50 * megabyte}`] }),
      granted(),
      { repeat: Buffer.alloc(megabyte, " "), times: 50 },
    ],
    outcome: taken,
  },
  { is: "a gzip bomb", steps: [compressed("gzip", gzipSync(zeros))], outcome: unreadable },
  { is: "a deflate bomb", steps: [compressed("deflate", deflateSync(zeros))], outcome: unreadable },
  {
    is: "a br bomb",
    steps: [compressed("br", brotliCompressSync(zeros, { params: { [constants.BROTLI_PARAM_QUALITY]: 1 } }))],
    outcome: unreadable,
  },
  { is: "gzip that was not asked for", steps: [compressed("gzip", gzipSync(granted()))], outcome: taken },
  { is: "gzip in gzip", steps: [compressed("gzip, gzip", gzipSync(gzipSync(granted())))], outcome: taken },
  {
    is: "gzip in gzip that says it is one",
    steps: [compressed("gzip", gzipSync(gzipSync(granted())))],
    outcome: taken,
  },
  { is: "an unknown encoding", steps: [compressed("zstd-x", Buffer.from(granted()))], outcome: taken },
  { is: "JSON that says it is gzip", steps: [compressed("gzip", Buffer.from(granted()))], outcome: taken },
  { is: "gzip cut in half", steps: [compressed("gzip", gzipSync(granted()).subarray(0, 40))], outcome: unreadable },
  { is: "JSON, 100 000 levels deep", steps: [json(nested(100_000))], outcome: unreadable },
  { is: "tokens beside 30 000 levels", steps: [json(withRaw("x", nested(30_000)))], outcome: taken },
  {
    is: "an error beside 30 000 levels",
    steps: [json(`{"error":"invalid_request","x":${nested(30_000)}}`, { status: "400 Bad Request" })],
    outcome: transient,
  },
  { is: "tokens twice", steps: [json(`{"access_token":"first-of-two",${granted().slice(1)}`)], outcome: taken },
  {
    is: "NUL bytes in a text",
    steps: [json(granted({ scope: "a\0b" }).replace("\\u0000", "\0"))],
    outcome: taken,
  },
  {
    is: "NUL, escaped, in every text",
    steps: [json(granted({ scope: "read a\0b", token_type: "Be\0arer", note: "\0" }))],
    outcome: taken,
  },
  { is: "lone surrogates", steps: [json(withRaw("scope", String.raw`"read \ud800 \udc00\ud800"`))], outcome: taken },
  {
    is: "UTF-16",
    steps: [json(Buffer.from(granted(), "utf16le"), { headers: ["content-type: application/json; charset=utf-16"] })],
    outcome: taken,
  },
  { is: "Latin-1", steps: [json(Buffer.from(granted({ scope: "für café" }), "latin1"))], outcome: taken },
  { is: "a byte order mark", steps: [json(`\uFEFF${granted()}`)], outcome: taken },
  { is: "trailing garbage", steps: [json(`${granted()};alert(1)`)], outcome: unreadable },
  {
    is: "JSON twice",
    steps: [json(granted() + granted())],
    outcome: { ...unreadable, says: /several objects/ },
  },
  { is: "JSONP", steps: [json(`callback(${granted()})`)], outcome: taken },
  { is: "a guard before JSON", steps: [json(`)]}',\n${granted()}`)], outcome: taken },
  { is: "a notice before JSON", steps: [json(`<br />\n<b>Notice</b>: {odd} in a.php\n${granted()}`)], outcome: taken },
  {
    is: "a notice that echoes tokens before JSON",
    steps: [json(`You typed ${granted({ access_token: "typed" })}\n${granted()}`)],
    outcome: { ...unreadable, says: /several objects/ },
  },
  { is: "JSON in a JSON string", steps: [json(JSON.stringify(granted()))], outcome: taken },
  { is: "JSON cut off, whole by its length", steps: [json(granted().slice(0, -4))], outcome: unreadable },
  { is: "a list", steps: [json([tokens])], outcome: taken },
  { is: "a number", steps: [json("17")], outcome: unreadable },
  { is: "null", steps: [json("null")], outcome: unreadable },
  { is: "a form that says it is JSON", steps: [json(form)], outcome: taken },
  {
    is: "JSON that says it is a form",
    steps: [answer({ headers: ["content-type: application/x-www-form-urlencoded"], body: granted() })],
    outcome: taken,
  },
  {
    is: "tokens under other names",
    steps: [json({ access: accessToken, refresh: refreshToken })],
    outcome: { ...unreadable, says: /answered 200$/ },
  },
  {
    is: "JSON that says it is a page",
    steps: [answer({ headers: ["content-type: text/html"], body: granted() })],
    outcome: taken,
  },
  {
    is: "a form of 5000 fields",
    steps: [answer({ headers: ["content-type: application/x-www-form-urlencoded"], body: `${fields(5000)}&${form}` })],
    outcome: taken,
  },
  {
    is: "a form of 100 000 fields",
    steps: [
      answer({ headers: ["content-type: application/x-www-form-urlencoded"], body: `${form}&${fields(100_000)}` }),
    ],
    outcome: unreadable,
  },
  {
    is: "a form with odd escapes",
    steps: [
      answer({ headers: ["content-type: application/x-www-form-urlencoded"], body: `%=%zz&&=&__proto__=1&${form}` }),
    ],
    outcome: taken,
  },
];

const says = (takes: string) => ({ takes, expiresIn: lives.stated }) satisfies Outcome;
const expires = (raw: string, expiresIn: number | "over"): HostileAnswer => ({
  is: `expires_in ${raw.length > 30 ? `of ${raw.length} characters` : raw}`,
  steps: [json(withRaw("expires_in", raw))],
  outcome: { takes: accessToken, expiresIn },
});
const expiresAt = (raw: string, expiresIn: number | "over"): HostileAnswer => ({
  is: `expires_at ${raw}`,
  steps: [json(withRaw("expires_at", raw))],
  response: { expires: { from: "expires_at", pointer: "/expires_at" } },
  outcome: { takes: accessToken, expiresIn },
});
const refreshExpires = (raw: string): HostileAnswer => ({
  is: `a refresh token that ends at ${raw}`,
  steps: [json(withRaw("refresh_expires_at", raw))],
  response: { refresh_expires: { from: "expires_at", pointer: "/refresh_expires_at" } },
  outcome: taken,
});

/** JSON whose values are not what they should be. */
export const values: readonly HostileAnswer[] = [
  {
    is: "an access token of 60 KB",
    steps: [json(granted({ access_token: "a".repeat(60_000) }))],
    outcome: says("a".repeat(60_000)),
  },
  {
    is: "an access token of 100 KB",
    steps: [json(granted({ access_token: "a".repeat(100_000) }))],
    outcome: says("a".repeat(100_000)),
  },
  {
    is: "a refresh token of 100 KB",
    steps: [json(granted({ refresh_token: "r".repeat(100_000) }))],
    outcome: { ...taken, refreshToken: "r".repeat(100_000) },
  },
  {
    is: "an access token of 1.1 MB",
    steps: [json(granted({ access_token: "a".repeat(1_100_000) }))],
    outcome: { ...unreadable, says: /more than 1 MiB, which is too long/ },
  },
  {
    is: "a token with a line break and a header in it",
    steps: [json(granted({ access_token: "a\r\nx-injected: 1" }))],
    outcome: says("a\r\nx-injected: 1"),
  },
  {
    is: "a token of control characters",
    steps: [json(granted({ access_token: "\u0000\u0001\u001b[31m\u007f" }))],
    outcome: says("\u0000\u0001\u001b[31m\u007f"),
  },
  {
    is: "a token as a number",
    steps: [json(granted({ access_token: 12_345, refresh_token: 1 }))],
    outcome: unreadable,
  },
  {
    is: "a token as an object",
    steps: [json(granted({ access_token: { value: "a" }, refresh_token: {} }))],
    outcome: unreadable,
  },
  { is: "a token as a list", steps: [json(granted({ access_token: ["a"], refresh_token: [] }))], outcome: unreadable },
  { is: "a token as true", steps: [json(granted({ access_token: true, refresh_token: null }))], outcome: unreadable },
  { is: "empty tokens", steps: [json(granted({ access_token: "", refresh_token: "" }))], outcome: unreadable },
  {
    is: "a refresh token alone",
    steps: [json({ refresh_token: refreshToken })],
    outcome: { takes: "", expiresIn: "over" },
  },
  expires("1e308", lives.longest),
  expires("1e999", lives.longest),
  expires("-1e999", "over"),
  expires("-1", "over"),
  expires("0", "over"),
  expires("0.5", "over"),
  expires(`"abc"`, lives.unstated),
  expires(`""`, lives.unstated),
  expires(`"1800 "`, lives.stated),
  expires(`"${"9".repeat(5000)}"`, lives.longest),
  expires("NaN", lives.unstated),
  expires("{}", lives.unstated),
  expires("[1800]", lives.unstated),
  expires("true", lives.unstated),
  expires("null", lives.unstated),
  expiresAt(`"tomorrow"`, lives.unstated),
  expiresAt("1e308", lives.longest),
  expiresAt("-1e308", "over"),
  expiresAt("-1e12", "over"),
  expiresAt("-99999999999", "over"),
  expiresAt("0", "over"),
  expiresAt(`"0001-01-01T00:00:00Z"`, "over"),
  expiresAt(`"9999-99-99T99:99:99Z"`, lives.unstated),
  expiresAt(`{"$date":1}`, lives.unstated),
  refreshExpires("-1e308"),
  refreshExpires("-1e12"),
  refreshExpires("1e308"),
  { is: "a scope of 1 MB", steps: [json(granted({ scope: "read ".repeat(200_000) }))], outcome: taken },
  {
    is: "a scope of 12 000 words",
    steps: [json(granted({ scope: Array.from({ length: 12_000 }, (_, index) => index.toString(36)).join(" ") }))],
    outcome: taken,
  },
  { is: "a scope of objects", steps: [json(granted({ scope: [{ read: true }, null, 1, ["read"]] }))], outcome: taken },
  {
    is: "__proto__ and constructor as keys",
    steps: [
      json(
        `{"__proto__":{"access_token":"polluted","isAdmin":true},"constructor":{"prototype":{"access_token":"polluted"}},${granted().slice(1)}`,
      ),
    ],
    outcome: taken,
  },
  { is: "tokens in __proto__ only", steps: [json(`{"__proto__":${granted()}}`)], outcome: unreadable },
  { is: "a token type of 60 KB", steps: [json(granted({ token_type: "t".repeat(60_000) }))], outcome: taken },
  { is: "a token type as an object", steps: [json(granted({ token_type: { toString: "x" } }))], outcome: taken },
];
