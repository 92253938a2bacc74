import type { Captures, Exchange, ExtraToken, Lifetime, ResponseRules, TokenPointers } from "./definition.ts";
import type { CaptureKnobs } from "./knob-types.ts";
import type { ProviderFile } from "./provider-file.ts";

type ResponseKnobs = NonNullable<ProviderFile["response"]>;
type ExtraKnobs = NonNullable<ResponseKnobs["extra_tokens"]>[number];
type PointerKnobs = NonNullable<ExtraKnobs["refreshed"]>;
type LifetimeKnobs = ResponseKnobs["expires"];

/** Where RFC 6749, section 5.1, puts things. */
const standardPointers: TokenPointers = {
  accessToken: "/access_token",
  refreshToken: "/refresh_token",
  tokenType: "/token_type",
  scope: "/scope",
  expires: { from: "expires_in", pointer: "/expires_in", unit: "s", fallbackSeconds: 3600 },
  refreshExpires: { from: "expires_in", pointer: "/refresh_token_expires_in", unit: "s", fallbackSeconds: null },
};

/** What comes beside another token shares nothing with it: two chains with one refresh token would end each other. */
const nowhere: TokenPointers = {
  accessToken: "",
  refreshToken: "",
  tokenType: "",
  scope: "",
  expires: { ...standardPointers.expires, pointer: "" },
  refreshExpires: { ...standardPointers.refreshExpires, pointer: "" },
};

export function resolveResponse(response: ResponseKnobs, separator: string): ResponseRules {
  return {
    ...resolvePointers(response, standardPointers),
    format: response.format ?? "auto",
    scopeSeparator: response.scope_separator ?? separator,
    okWhen: response.ok_when ?? null,
    capture: resolveCaptures(response.capture ?? {}),
  };
}

/** An extra token that comes with the other one has pointers of its own; one that is exchanged for, those of an answer. */
export function resolveExtraToken(knobs: ExtraKnobs, response: ResponseKnobs, exchange: Exchange | null): ExtraToken {
  const usual = resolvePointers(response, standardPointers);
  const granted = resolvePointers(knobs, exchange ? usual : nowhere);
  return {
    name: knobs.name,
    exchange,
    granted,
    refreshed: resolvePointers(knobs.refreshed ?? {}, exchange ? granted : usual),
  };
}

function resolvePointers(knobs: PointerKnobs, usual: TokenPointers): TokenPointers {
  return {
    accessToken: knobs.access_token ?? usual.accessToken,
    refreshToken: knobs.refresh_token ?? usual.refreshToken,
    tokenType: knobs.token_type ?? usual.tokenType,
    scope: knobs.scope ?? usual.scope,
    expires: resolveLifetime(knobs.expires, usual.expires, knobs.access_token ?? usual.accessToken),
    refreshExpires: resolveLifetime(
      knobs.refresh_expires,
      usual.refreshExpires,
      knobs.refresh_token ?? usual.refreshToken,
    ),
  };
}

/** `token`: where the token itself is, which may be a JWT. */
export function resolveLifetime(
  knobs: LifetimeKnobs,
  usual: Pick<Lifetime, "pointer" | "fallbackSeconds"> & Partial<Lifetime>,
  token = "",
): Lifetime {
  const from = knobs?.from ?? usual.from ?? "expires_in";
  const own: Partial<Record<Lifetime["from"], string>> = {
    expires_at: usual.pointer === "" ? "" : "/expires_at",
    jwt_exp: token,
  };
  const pointer = from === usual.from ? usual.pointer : (own[from] ?? usual.pointer);
  return {
    from,
    pointer: knobs?.pointer ?? pointer,
    unit: knobs?.unit ?? usual.unit ?? "s",
    fallbackSeconds: knobs?.fallback ?? usual.fallbackSeconds,
  };
}

export function resolveCaptures(captures: CaptureKnobs): Captures {
  const entries = Object.entries(captures).map(([name, capture]) => {
    const { pointer, param, pattern, enum: allowed, default: standIn } = expandCapture(capture);
    const from = pointer ?? param ?? "";
    return [name, { from, pattern: pattern ?? null, allowed: allowed ?? null, default: standIn ?? null }] as const;
  });
  return Object.fromEntries(entries);
}

function expandCapture(capture: CaptureKnobs[string]): Exclude<CaptureKnobs[string], string> {
  return typeof capture === "string" ? { pointer: capture } : capture;
}
