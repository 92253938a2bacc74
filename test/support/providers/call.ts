import type { IncomingMessage } from "node:http";
import { text } from "node:stream/consumers";
import { Fault } from "./fault.ts";

/** A request as a strict server reads it. */
export type Call = {
  method: string;
  path: string;
  query: URLSearchParams;
  headers: Readonly<Record<string, string | undefined>>;
  body: string;
};

export type Fields = ReadonlyMap<string, string>;

export async function readCall(request: IncomingMessage): Promise<Call> {
  const url = new URL(request.url ?? "/", "http://server");
  const headers = Object.entries(request.headers).map(([name, value]) => [name, value?.toString()]);
  return {
    method: request.method ?? "GET",
    path: url.pathname,
    query: url.searchParams,
    headers: Object.fromEntries(headers),
    body: await text(request),
  };
}

/** The fields of a body, which must come in one of `encodings`. @throws Fault for another, a repeated or a broken one. */
export function bodyFields(call: Call, encodings: ("form" | "json")[]): Fields {
  const mediaType = mediaTypeOf(call);
  if (mediaType === "application/x-www-form-urlencoded" && encodings.includes("form")) return formFields(call.body);
  if (mediaType === "application/json" && encodings.includes("json")) return jsonFields(call.body);
  throw new Fault(
    "wrong_content_type",
    `content type ${mediaType || "(none)"}; the body must be ${encodings.join(" or ")}`,
  );
}

/** A request whose parameters stand in the query must bring no body at all. */
export function refuseBody(call: Call): void {
  if (call.body !== "") throw new Fault("invalid_request", "no body is wanted here");
}

/** Each required field is there and not empty, and nothing is there that the documents do not name. */
export function checkFields(
  fields: Fields,
  { required, optional = [] }: { required: string[]; optional?: string[] },
): void {
  for (const name of required) {
    if (!fields.get(name)) throw new Fault("invalid_request", `${name} is missing`);
  }
  for (const name of fields.keys()) {
    if (![...required, ...optional].includes(name)) {
      throw new Fault("invalid_request", `${name} is not documented here`);
    }
  }
}

/** The credentials of a Basic header, unencoded id and secret joined by a colon. */
export function basicCredentials(call: Call): { id: string; secret: string } | undefined {
  const match = /^Basic ([A-Za-z0-9+/=]+)$/.exec(call.headers["authorization"] ?? "");
  if (!match?.[1]) return undefined;
  const decoded = Buffer.from(match[1], "base64").toString("utf8");
  const colon = decoded.indexOf(":");
  return colon < 0 ? undefined : { id: decoded.slice(0, colon), secret: decoded.slice(colon + 1) };
}

/** The token of a Bearer header. @throws Fault without one. */
export function bearerToken(call: Call): string {
  const match = /^Bearer (\S+)$/.exec(call.headers["authorization"] ?? "");
  if (!match?.[1]) throw new Fault("access_token_invalid", "no bearer token in the Authorization header");
  return match[1];
}

export function requireHeader(call: Call, name: string, pattern: RegExp): void {
  const value = call.headers[name];
  if (value === undefined) throw new Fault("invalid_request", `header ${name} is missing`);
  if (!pattern.test(value)) throw new Fault("invalid_request", `header ${name} must match ${pattern.source}`);
}

/** Every field of query and body as far as it can be read, for the ledger. */
export function everyField(call: Call): Record<string, string> {
  const fields = new Map(call.query);
  try {
    for (const [name, value] of bodyFields(call, ["form", "json"])) fields.set(name, value);
  } catch {
    // Unreadable: the check that follows says so to the caller.
  }
  return Object.fromEntries(fields);
}

function mediaTypeOf(call: Call): string {
  return (call.headers["content-type"] ?? "").split(";")[0]?.trim().toLowerCase() ?? "";
}

function formFields(body: string): Fields {
  const fields = new Map<string, string>();
  for (const [name, value] of new URLSearchParams(body)) {
    if (fields.has(name)) throw new Fault("invalid_request", `${name} stands there twice`);
    fields.set(name, value);
  }
  return fields;
}

function jsonFields(body: string): Fields {
  const entries = Object.entries(parseObject(body));
  for (const [name, value] of entries) {
    if (typeof value !== "string") throw new Fault("invalid_request", `${name} must be a string`);
  }
  return new Map(entries.map(([name, value]) => [name, String(value)]));
}

function parseObject(body: string): object {
  try {
    const value: unknown = JSON.parse(body);
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return value;
  } catch {
    // Falls through to the one refusal below.
  }
  throw new Fault("invalid_request", "the body is no JSON object");
}
