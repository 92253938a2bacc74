import { classifyRefusal } from "./classify.ts";
import type { ProviderDefinition } from "./definition.ts";
import type { Grant, TokenAnswer } from "./grant.ts";
import { parseAnswer, readPointer } from "./answer-body.ts";
import { readLifetime } from "./lifetime.ts";
import { splitScopes } from "./scopes.ts";
import { describeAnswer } from "./scrub.ts";

/** An answer of a token endpoint. Header names in lower case. Its body may hold tokens. */
export type TokenResponse = {
  status: number;
  headers: Readonly<Record<string, string>>;
  body: string;
  /** False: cut off, too long or not to be inflated; then `body` is what there is of it. */
  complete?: boolean;
};

/**
 * Turns an answer of a token endpoint into a grant or a failure (RFC 6749, sections 5.1 and 5.2), classified for good:
 * nobody after this looks at an HTTP status. A 2xx that holds a token is a grant whatever else is odd about it, since the
 * old token is spent. Never throws.
 */
export function processTokenResponse(options: {
  definition: ProviderDefinition;
  response: TokenResponse;
  /** Every secret that was sent: none may stand in the failure's text. */
  secrets: readonly string[];
}): TokenAnswer {
  const { definition, response, secrets } = options;
  const body = parseAnswer(response, definition.response.format);
  const ok = response.status >= 200 && response.status < 300;
  const grant = ok ? readGrant(definition, body) : null;
  if (grant) return { kind: "granted", grant };
  const failure = classifyRefusal({ definition, response, body });
  const detail = describeAnswer({ response, body, secrets });
  const whole = { ...failure, detail, status: response.status };
  if (failure.class === "unknown") {
    Object.defineProperty(whole, "rawAnswer", { value: response.body, enumerable: false });
  }
  return { kind: "failed", failure: whole };
}

/** The tokens of a 2xx; null when there is neither an access token nor a refresh token in it. */
function readGrant(definition: ProviderDefinition, body: unknown): Grant | null {
  const { response } = definition;
  const accessToken = readToken(body, response.accessToken);
  const refreshToken = readToken(body, response.refreshToken);
  if (accessToken === undefined && refreshToken === undefined) return null;
  const scopes = readScopes(definition, body);
  return {
    ...(accessToken !== undefined && { accessToken }),
    ...(refreshToken !== undefined && { refreshToken }),
    tokenType: readTokenType(readPointer(body, response.tokenType)),
    accessExpiry: readLifetime(response.expires, body),
    // Without a new refresh token the one in use keeps the end that it has.
    refreshExpiry: refreshToken === undefined ? { kind: "unstated" } : readLifetime(response.refreshExpires, body),
    ...(scopes && { scopes }),
    captured: readCaptured(response.capture, body),
  };
}

function readToken(body: unknown, pointer: string): string | undefined {
  const value = readPointer(body, pointer);
  return typeof value === "string" && value !== "" ? value : undefined;
}

/** `Bearer` is case-insensitive on the way in (RFC 6749, section 7.1) and not everywhere on the way out. */
function readTokenType(value: unknown): string {
  if (typeof value !== "string" || !/^[\w.~+-]{1,64}$/.test(value)) return "Bearer";
  return value.toLowerCase() === "bearer" ? "Bearer" : value;
}

function readScopes(definition: ProviderDefinition, body: unknown): string[] | null {
  const value = readPointer(body, definition.response.scope);
  const scopes =
    typeof value === "string"
      ? splitScopes(definition, value)
      : Array.isArray(value)
        ? value.filter((scope) => typeof scope === "string" && scope !== "")
        : [];
  const readable = scopes.filter((scope) => !/[\p{Cc}\p{Cs}]/u.test(scope)); // the store cannot keep the others
  return readable.length > 0 ? [...new Set<string>(readable)] : null;
}

/** What later templates use. Values that could not stand in a header, a URL or the store are left out. */
function readCaptured(capture: Readonly<Record<string, string>>, body: unknown): Record<string, string> {
  const captured: Record<string, string> = {};
  for (const [name, pointer] of Object.entries(capture)) {
    const value = readPointer(body, pointer);
    const text = typeof value === "number" ? String(value) : value;
    if (typeof text === "string" && /^[^\p{Cc}\p{Cs}]{1,2000}$/u.test(text)) captured[name] = text;
  }
  return captured;
}
