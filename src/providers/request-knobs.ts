import { Type } from "typebox";
import { choice, count, flag, map, mapOrNull, strict, templates, text, textOrNull } from "./knob-types.ts";

const clientAuthNames = ["none", "basic", "body", "private_key_jwt", "tls"] as const;
export const signingAlgorithms = [
  "RS256",
  "RS384",
  "RS512",
  "PS256",
  "PS384",
  "PS512",
  "ES256",
  "ES384",
  "ES512",
  "EdDSA",
] as const;

type OwnWay = { header: string; value?: string } | { basic: string };

const clientAuth = Type.Optional(
  Type.Unsafe<(typeof clientAuthNames)[number] | OwnWay>({
    type: ["string", "object"],
    pattern: `^(${clientAuthNames.join("|")})$`,
    properties: {
      header: { type: "string", minLength: 1 },
      value: { type: "string", minLength: 1 },
      basic: { type: "string", minLength: 1 },
    },
    minProperties: 1,
    additionalProperties: false,
    description:
      "How the client authenticates (RFC 6749, section 2.3; RFC 7523; RFC 8705): none, basic, body, private_key_jwt, tls; { header, value } for a header of its own; { basic: template } for what Basic is made of.",
  }),
);

const assertion = map("The JWT of client_auth: private_key_jwt (RFC 7523, section 3).", {
  alg: choice(signingAlgorithms, "How it is signed; RS256 unless said otherwise."),
  audience: text("Its `aud`: token_url, issuer, or an address; token_url unless said otherwise."),
  life_s: count(3600, "How long it counts, in seconds; 60 unless said otherwise."),
});

/** How one kind of request is written and who it says it is from. */
export const requestKnobs = {
  url: text("Where the request goes."),
  method: choice(["POST", "GET"], "GET goes with encoding: query."),
  encoding: choice(["form", "json", "query"], "How the fields are sent; secrets are refused in query."),
  client_auth: clientAuth,
  basic_percent_encoding: flag(
    "Whether Basic percent-encodes id and secret first, as RFC 6749, section 2.3.1, says and few servers expect.",
  ),
  assertion,
  headers: templates("Header → template. null takes out one that the extended definition has."),
};

const grantType = textOrNull("The `grant_type` that is sent; the grant's own name unless given, none where null.");
const fields = templates("Exactly the fields beside grant_type and the client's own; those of the RFC unless given.");

/** The same, with what is sent. */
export const exchangeKnobs = { ...requestKnobs, grant_type: grantType, fields };

const otherFields = templates("Exactly the fields that are sent; those of the RFC unless given.");

/** A request beside the token endpoint: authenticated as at the top of `token` unless it says otherwise. */
export const sideRequestKnobs = { ...requestKnobs, fields: otherFields };

export const pushed = mapOrNull(
  Type.Object(sideRequestKnobs, {
    ...strict,
    description: "Pushed authorization requests (RFC 9126): the parameters go to `url` first.",
  }),
);

export const device = mapOrNull(
  Type.Object(sideRequestKnobs, {
    ...strict,
    description: "The device authorization endpoint (RFC 8628, section 3.1).",
  }),
);
