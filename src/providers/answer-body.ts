import type { TokenResponse } from "./token-response.ts";

/** Reads a body as JSON or a form. Null: it is neither. Of one that was cut off, only whole JSON counts. */
export function parseAnswer(response: TokenResponse, format: "auto" | "json" | "form"): unknown {
  const text = response.body.replace(/^\uFEFF/, "").trim();
  const saysForm = /^application\/x-www-form-urlencoded/i.test(response.headers["content-type"] ?? "");
  if (format === "form" || (format === "auto" && saysForm)) return parseForm(text, response.complete);
  const json = parseJson(text);
  if (json !== null || format === "json") return json;
  return /^[\w.~%+-]+=/.test(text) ? parseForm(text, response.complete) : null;
}

function parseJson(text: string): unknown {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" ? value : null;
  } catch {
    return null;
  }
}

function parseForm(text: string, complete = true): unknown {
  // A form that was cut reads as a shorter one, with a token cut short in it.
  return complete ? Object.fromEntries(new URLSearchParams(text)) : null;
}

/** The value at a JSON pointer (RFC 6901); undefined: there is none. */
export function readPointer(value: unknown, pointer: string): unknown {
  let at = value;
  for (const part of pointer.split("/").slice(1)) {
    const key = part.replaceAll("~1", "/").replaceAll("~0", "~");
    if (typeof at !== "object" || at === null || !Object.hasOwn(at, key)) return undefined;
    at = Reflect.get(at, key);
  }
  return at;
}
