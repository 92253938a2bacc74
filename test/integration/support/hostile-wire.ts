import {
  accessToken,
  answer,
  granted,
  head,
  json,
  lives,
  lost,
  taken,
  transient,
  unreadable,
  type HostileAnswer,
} from "./hostile-steps.ts";

const whole = granted();
const size = Buffer.byteLength(whole);
const chunk = (text: string) => `${Buffer.byteLength(text).toString(16)}\r\n${text}\r\n`;
const chunked = "transfer-encoding: chunked";
const reset = { end: "reset" } as const;
const often = 100_000;

/** What is wrong below the body. */
export const wire: readonly HostileAnswer[] = [
  {
    is: "a connection that is reset at once",
    begins: "connected",
    steps: [reset],
    outcome: { code: ["outcome_unknown", "connect_failed"] },
  },
  {
    is: "a connection that is hung up at once",
    begins: "connected",
    steps: [],
    outcome: { code: ["outcome_unknown", "connect_failed"] },
  },
  { is: "a reset at the first bytes of the request", begins: "first bytes", steps: [reset], outcome: lost },
  { is: "a reset after the request", steps: [reset], outcome: lost },
  { is: "a hang-up after the request", steps: [], outcome: lost },
  { is: "a reset in the status line", steps: ["HTTP/1.1 20", reset], outcome: lost },
  { is: "a reset in the headers", steps: ["HTTP/1.1 200 OK\r\ncontent-ty", reset], outcome: lost },
  {
    is: "a reset after the headers",
    steps: [head({ headers: [`content-length: ${size}`] }), reset],
    outcome: unreadable,
  },
  {
    is: "a reset in the body",
    steps: [head({ headers: [`content-length: ${size}`] }), whole.slice(0, 40), reset],
    outcome: unreadable,
  },
  {
    is: "a reset in the size of a chunk",
    steps: [head({ headers: [chunked] }), chunk(whole.slice(0, 40)), "1", reset],
    outcome: unreadable,
  },
  { is: "a reset before the last chunk", steps: [head({ headers: [chunked] }), chunk(whole), reset], outcome: taken },
  { is: "an answer before the request is whole", begins: "first bytes", steps: [json(whole)], outcome: taken },
  {
    is: "a content-length too large",
    steps: [head({ headers: [`content-length: ${size + 1000}`] }), whole],
    outcome: taken,
  },
  { is: "a content-length too small", steps: [head({ headers: ["content-length: 40"] }), whole], outcome: unreadable },
  {
    is: "two content-lengths",
    steps: [head({ headers: [`content-length: ${size}`, "content-length: 3"] }), whole],
    outcome: lost,
  },
  { is: "a content-length of nonsense", steps: [head({ headers: ["content-length: -1"] }), whole], outcome: lost },
  {
    is: "a content-length of 10^30",
    steps: [head({ headers: [`content-length: ${"9".repeat(30)}`] }), whole],
    outcome: lost,
  },
  {
    is: "a length and chunks",
    steps: [head({ headers: ["content-length: 3", chunked] }), chunk(whole), "0\r\n\r\n"],
    outcome: lost,
  },
  {
    is: "an unknown transfer-encoding",
    steps: [head({ headers: ["transfer-encoding: gzip, x"] }), whole],
    outcome: taken,
  },
  { is: "chunks of nonsense", steps: [head({ headers: [chunked] }), "zz\r\n", whole], outcome: unreadable },
  { is: "a chunk of 2^64", steps: [head({ headers: [chunked] }), "fffffffffffffffff\r\n", whole], outcome: unreadable },
  {
    is: "endless chunks",
    steps: [head({ headers: [chunked] }), { repeat: chunk("x".repeat(1000)), times: often }],
    outcome: unreadable,
  },
  {
    is: "endless chunks of one byte",
    steps: [head({ headers: [chunked] }), { repeat: chunk("x").repeat(100), times: often }],
    outcome: unreadable,
  },
  {
    is: "an endless chunk extension",
    steps: [head({ headers: [chunked] }), "1;", { repeat: "x".repeat(10_000), times: 1000 }],
    outcome: unreadable,
  },
  {
    is: "endless trailers",
    steps: [
      head({ headers: [chunked] }),
      chunk(whole),
      "0\r\n",
      { repeat: `t: ${"x".repeat(1000)}\r\n`, times: often },
    ],
    outcome: taken,
  },
  {
    is: "endless headers",
    steps: ["HTTP/1.1 200 OK\r\n", { repeat: `x-a: ${"x".repeat(1000)}\r\n`, times: often }],
    outcome: lost,
  },
  {
    is: "an endless header",
    steps: ["HTTP/1.1 200 OK\r\nx-a: ", { repeat: "x".repeat(10_000), times: 1000 }],
    outcome: lost,
  },
  {
    is: "an endless status line",
    steps: ["HTTP/1.1 200 ", { repeat: "x".repeat(10_000), times: 1000 }],
    outcome: { code: ["outcome_unknown"] },
  },
  {
    is: "a flood of cookies",
    steps: [json(whole, { headers: Array.from({ length: 5000 }, (_, index) => `set-cookie: c${index}=1`) })],
    outcome: lost,
  },
  {
    is: "300 cookies",
    steps: [json(whole, { headers: Array.from({ length: 300 }, (_, index) => `set-cookie: c${index}=1`) })],
    outcome: taken,
  },
  {
    is: "a flood of 103",
    steps: [{ repeat: "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n", times: 5000 }, json(whole)],
    outcome: taken,
  },
  { is: "100 Continue before the answer", steps: ["HTTP/1.1 100 Continue\r\n\r\n", json(whole)], outcome: taken },
  {
    is: "100 Continue before a dead grant",
    steps: ["HTTP/1.1 100 Continue\r\n\r\n", json({ error: "invalid_grant" }, { status: "400 Bad Request" })],
    outcome: { code: "invalid_grant" },
  },
  { is: "a header of 40 KB", steps: [json(whole, { headers: [`x-a: ${"x".repeat(40_000)}`] })], outcome: taken },
  {
    is: "a body that comes 7 s after its headers",
    steps: [head({ headers: [`content-length: ${size}`] }), { waitMs: 7000 }, whole],
    outcome: taken,
  },
  {
    is: "101 and another protocol",
    steps: [
      "HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n",
      Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ],
    outcome: lost,
  },
  { is: "status 999", steps: [json(whole, { status: "999 Odd" })], outcome: lost },
  { is: "status 000", steps: [json(whole, { status: "000 Odd" })], outcome: lost },
  { is: "status 20", steps: [json(whole, { status: "20 Odd" })], outcome: lost },
  {
    is: "status 600 with a dead grant",
    steps: [json({ error: "invalid_grant" }, { status: "600 Odd" })],
    outcome: lost,
  },
  { is: "HTTP/0.9", steps: [whole], outcome: lost },
  { is: "HTTP/7.3", steps: [`HTTP/7.3 200 OK\r\ncontent-length: ${size}\r\n\r\n${whole}`], outcome: lost },
  { is: "HTTP/1.0 that ends with the connection", steps: [`HTTP/1.0 200 OK\r\n\r\n${whole}`], outcome: taken },
  { is: "HTTP/2 frames", steps: [Buffer.from("00001204000000000000030000006400040010000000", "hex")], outcome: lost },
  { is: "a TLS alert", steps: [Buffer.from("15030300020228", "hex")], outcome: lost },
  {
    is: "an SSH banner",
    begins: "connected",
    steps: ["SSH-2.0-OpenSSH_9.6\r\n", { waitMs: 300 }],
    outcome: { code: ["outcome_unknown", "connect_failed"] },
  },
  {
    is: "random bytes",
    steps: [Buffer.from(Array.from({ length: 4096 }, (_, index) => (index * 7919 + 13) % 256))],
    outcome: lost,
  },
  {
    is: "a header with a line break in it",
    steps: [head({ headers: ["x-a: b\rx-injected: 1", `content-length: ${size}`] }), whole],
    outcome: lost,
  },
  {
    is: "a header with NUL in it",
    steps: [head({ headers: ["x-a: b\0c", `content-length: ${size}`] }), whole],
    outcome: lost,
  },
  {
    is: "a header without a name",
    steps: [head({ headers: [": b", `content-length: ${size}`] }), whole],
    outcome: lost,
  },
  {
    is: "headers called __proto__ and constructor",
    steps: [json(whole, { headers: ["__proto__: x", "constructor: y", "__proto__: z"] })],
    outcome: taken,
  },
  {
    is: "a second answer behind the first",
    steps: [Buffer.concat([json(whole), json(granted({ access_token: "smuggled" }))])],
    outcome: taken,
  },
  {
    is: "a second answer in the place of the body",
    steps: [Buffer.concat([answer({}), json(granted({ access_token: "smuggled" }))])],
    outcome: unreadable,
  },
  { is: "a whole answer, and the line left open", steps: [json(whole), { end: "left open" }], outcome: taken },
  {
    is: "an answer that trickles in",
    steps: [head({ headers: [`content-length: ${size}`] }), ...trickle(whole, 8, 100)],
    outcome: taken,
  },
  {
    is: "a head that trickles in",
    steps: [...trickle(head({ headers: [`content-length: ${size}`] }), 6, 100), whole],
    outcome: taken,
  },
  {
    is: "an answer that never ends",
    steps: [head({ headers: [`content-length: ${size}`] }), { repeat: "x", times: often, everyMs: 200 }],
    outcome: unreadable,
  },
  {
    is: "whole tokens in an answer that never ends",
    steps: [head({ headers: [chunked] }), chunk(whole), { repeat: chunk(" "), times: often, everyMs: 200 }],
    outcome: { takes: accessToken, expiresIn: lives.stated },
  },
  {
    is: "a dead grant in an answer that is cut off",
    steps: [head({ status: "400 Bad", headers: ["content-length: 100"] }), `{"error":"invalid_grant"`, reset],
    outcome: transient,
  },
];

function trickle(text: string, pieces: number, waitMs: number) {
  const length = Math.ceil(text.length / pieces);
  return Array.from({ length: pieces }, (_, index) => text.slice(index * length, (index + 1) * length)).flatMap(
    (piece) => [piece, { waitMs }],
  );
}
