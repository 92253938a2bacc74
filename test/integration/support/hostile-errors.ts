import { answer, head, json, lost, transient, unreadable, type HostileAnswer } from "./hostile-steps.ts";

const refused = { status: "400 Bad Request" };
const over = { code: "invalid_grant" } as const;
const controls = "line\r\n\u0000\u0007\u001b[31mred\u2028\u202e\ud800\u0085end";
const pairs = (request: string) => new URLSearchParams(request.split("\r\n\r\n")[1]);
const bodyOf = (request: string) => request.split("\r\n\r\n")[1] ?? "";
const everySecret = (request: string) => [...pairs(request).values()].join(" ");
/** Scrubbing each of these values replaces a part of what scrubbing an earlier one has written. */
const bomb = Array.from({ length: 300 }, (_, index) => (index % 2 === 0 ? "[" : "…"));
const words = Array.from({ length: 4000 }, (_, index) => `t${index.toString(36)}`);

/** Refusals. */
export const errors: readonly HostileAnswer[] = [
  {
    is: "an error_description of 1 MB",
    steps: [json({ error: "invalid_request", error_description: "x ".repeat(500_000) }, refused)],
    outcome: transient,
  },
  {
    is: "an error_description of 50 KB",
    steps: [json({ error: "invalid_request", error_description: "x ".repeat(25_000) }, refused)],
    outcome: { ...transient, says: /x x x.*…$/ },
  },
  {
    is: "an error of control characters",
    steps: [json({ error: controls, error_description: controls }, refused)],
    outcome: { ...transient, says: /red/ },
  },
  {
    is: "a dead grant told with control characters",
    steps: [json({ error: "invalid_grant", error_description: controls }, refused)],
    outcome: over,
  },
  { is: "a dead grant with 200", steps: [json({ error: "invalid_grant" })], outcome: over },
  { is: "an error as an object", steps: [json({ error: { code: "invalid_grant" } }, refused)], outcome: transient },
  { is: "an error as a list", steps: [json({ error: ["invalid_grant"] }, refused)], outcome: transient },
  { is: "an error called __proto__", steps: [json({ error: "__proto__" }, refused)], outcome: transient },
  { is: "an error called constructor with 200", steps: [json({ error: "constructor" })], outcome: unreadable },
  {
    is: "the request's secrets in an error",
    steps: (request) => [json({ error: "invalid_request", error_description: everySecret(request) }, refused)],
    outcome: { ...transient, says: /\[…\]/ },
  },
  {
    is: "the request's body as an error",
    steps: (request) => [json({ error: bodyOf(request) }, refused)],
    outcome: { ...transient, says: /\[…\]/ },
  },
  {
    is: "the request's body in a page of 500",
    steps: (request) => [answer({ status: "500 Oops", body: `Traceback: ${bodyOf(request)}` })],
    outcome: { ...lost, says: /answered 500$/ },
  },
  {
    is: "the request's body with 200",
    steps: (request) => [json(`[${JSON.stringify(bodyOf(request))}, ${JSON.stringify(everySecret(request))}`)],
    outcome: unreadable,
  },
  {
    is: "the secrets in a dead grant, in JSON escapes",
    steps: (request) => [
      json(`{"error":"invalid_grant","error_description":"${escaped(everySecret(request))}"}`, refused),
    ],
    outcome: over,
  },
  {
    is: "the secrets in a refusal, in HTML escapes",
    steps: (request) => [
      json({ error: "invalid_request", error_description: htmlEscaped(everySecret(request)) }, refused),
    ],
    outcome: transient,
  },
  {
    is: "the secrets in a refusal, in JSON in JSON",
    steps: (request) => [
      json(
        { error: "invalid_request", error_description: JSON.stringify(JSON.stringify(everySecret(request))) },
        refused,
      ),
    ],
    outcome: transient,
  },
  {
    is: "the secrets in the reason of the status",
    steps: (request) => [answer({ status: `400 ${everySecret(request).replaceAll(/[^!-~]/g, "")}` })],
    outcome: transient,
  },
  {
    is: "the secrets as a token type of a refusal",
    steps: (request) => [json({ token_type: everySecret(request), message: everySecret(request) }, refused)],
    outcome: { ...transient, says: /answered 400: / },
  },
  {
    is: "a client refused in control characters",
    steps: [json({ error: "invalid_client", error_description: controls }, { status: "401 No" })],
    outcome: { code: "invalid_client" },
  },
  {
    is: "Retry-After of a century",
    steps: [json({}, { status: "429 Slow", headers: ["retry-after: 999999999"] })],
    outcome: { code: "rate_limited" },
  },
  {
    is: "Retry-After of nonsense",
    steps: [json({}, { status: "503 Away", headers: ["retry-after: -1, soon", "date: never"] })],
    outcome: transient,
  },
  {
    is: "Retry-After at the end of time",
    steps: [
      json(
        {},
        {
          status: "503 Away",
          headers: ["retry-after: Fri, 31 Dec 275760 23:59:59 GMT", "date: Thu, 01 Jan 1970 00:00:00 GMT"],
        },
      ),
    ],
    outcome: transient,
  },
  ...["301", "302", "303", "307", "308"].map((status): HostileAnswer => ({
    is: `a redirect to itself with ${status}`,
    steps: [head({ status: `${status} Moved`, headers: ["location: /token", "content-length: 0"] })],
    outcome: transient,
  })),
  {
    is: "thousands of values that call themselves tokens",
    steps: [json({ error: "x", error_description: "tt ".repeat(9000), token: words }, refused)],
    outcome: transient,
  },
  {
    is: "values called tokens that grow as they are hidden",
    steps: [json({ error: "[", token: bomb }, refused)],
    outcome: transient,
  },
];

function escaped(text: string): string {
  return Array.from(text, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`).join("");
}

function htmlEscaped(text: string): string {
  return text.replaceAll(/[&<>"]/g, (character) => `&#${character.charCodeAt(0)};`);
}
