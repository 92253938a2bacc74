import type { FailureCode } from "../../../src/providers/oauth/token-answer.ts";

/** Writes a text again and again, until all is written or the client has gone. */
export type Repeated = { repeat: string | Buffer; times: number; everyMs?: number };

/** One thing that a hostile server does on its socket. After the last step it closes the connection, unless a step says otherwise. */
export type Step = string | Buffer | { waitMs: number } | Repeated | { end: "reset" | "left open" };

/** What must come of an answer. */
export type Outcome =
  /** Its tokens are taken; `expiresIn` as a caller sees it, give or take the seconds that passed; "over": it has run out. */
  | { takes: string; refreshToken?: string; expiresIn: number | "over" }
  /** It is refused with one of these codes in `last_error`; `says`: what the detail must hold. */
  | { code: FailureCode | readonly FailureCode[]; says?: RegExp };

/** An answer of a token endpoint, byte by byte, as no honest one would give it. */
export type HostileAnswer = {
  is: string;
  steps: readonly Step[] | ((request: string) => readonly Step[]);
  /** When it begins: with the connection, with the first bytes of the request, or after the whole of it. */
  begins?: "connected" | "first bytes" | "request";
  /** The `response` of the provider's definition, where it is not the standard one. */
  response?: Record<string, unknown>;
  outcome: Outcome;
};

/** The tokens of every answer that has tokens. They are too short to be recognised as tokens by their looks. */
export const accessToken = "taken-access-7d1f";
export const refreshToken = "taken-refresh-7d1f";
const tenYears = 315_360_000;
export const lives = { stated: 1800, unstated: 3600, longest: tenYears } as const;

export const tokens = {
  access_token: accessToken,
  token_type: "Bearer",
  expires_in: lives.stated,
  refresh_token: refreshToken,
};

export const taken = { takes: accessToken, expiresIn: lives.stated } satisfies Outcome;
export const unreadable = { code: "unreadable_answer" } satisfies Outcome;
export const lost = { code: "outcome_unknown" } satisfies Outcome;
export const transient = { code: "provider_unavailable" } satisfies Outcome;

type Message = { status?: string; headers?: readonly string[]; body?: string | Buffer };

/** The head of an answer that says nothing of its length. */
export function head({ status = "200 OK", headers = [] }: Message = {}): string {
  return `${[`HTTP/1.1 ${status}`, ...headers].join("\r\n")}\r\n\r\n`;
}

/** A whole answer, with its length. */
export function answer({ status = "200 OK", headers = [], body = "" }: Message): Buffer {
  const bytes = Buffer.from(body);
  return Buffer.concat([
    Buffer.from(head({ status, headers: [...headers, `content-length: ${bytes.length}`] }), "latin1"),
    bytes,
  ]);
}

/** A whole answer in JSON; what is given as text goes out as it is. */
export function json(body: unknown, { status = "200 OK", headers = [] }: Message = {}): Buffer {
  const text = typeof body === "string" || Buffer.isBuffer(body) ? body : JSON.stringify(body);
  return answer({ status, headers: ["content-type: application/json", ...headers], body: text });
}

/** The standard tokens with these changes, as JSON text. */
export function granted(changes: Record<string, unknown> = {}): string {
  return JSON.stringify({ ...tokens, ...changes });
}

/** The same, with a value that JSON.stringify would not write. */
export function withRaw(name: string, raw: string): string {
  const { [name as keyof typeof tokens]: _left, ...rest } = tokens;
  return `{"${name}":${raw},${JSON.stringify(rest).slice(1)}`;
}
