import { invisible } from "../readable.ts";
import { isDenial } from "./authorization-request.ts";
import type { ProviderDefinition } from "./definition.ts";
import { readPointer } from "./answer-body.ts";

/** What a person is shown, and what the broker asks with (RFC 8628, section 3.2). `deviceCode` is a secret. */
export type DeviceAuthorization = {
  deviceCode: string;
  userCode: string;
  verificationUri: string;
  /** The same address with the code in it. */
  verificationUriComplete: string | null;
  expiresInSeconds: number;
  intervalSeconds: number;
};

const longestSeconds = 86_400;
const shown = new RegExp(`^[^${invisible}]{1,2000}$`, "u");

/** Reads the answer of a device authorization endpoint; null: it lacks what is needed. */
export function readDeviceAuthorization(body: unknown): DeviceAuthorization | null {
  const text = (pointer: string) => {
    const value = readPointer(body, pointer);
    return typeof value === "string" && shown.test(value) ? value : null;
  };
  const seconds = (pointer: string, usual: number) => {
    const value = Number(readPointer(body, pointer) ?? usual);
    return Number.isFinite(value) && value > 0 ? Math.min(Math.ceil(value), longestSeconds) : usual;
  };
  const deviceCode = text("/device_code");
  const userCode = text("/user_code");
  // The second spelling is that of drafts before the RFC, which some servers still use.
  const verificationUri = webAddress(text("/verification_uri") ?? text("/verification_url"));
  if (deviceCode === null || userCode === null || verificationUri === null) return null;
  return {
    deviceCode,
    userCode,
    verificationUri,
    verificationUriComplete: webAddress(text("/verification_uri_complete") ?? text("/verification_url_complete")),
    expiresInSeconds: seconds("/expires_in", 600),
    intervalSeconds: seconds("/interval", 5),
  };
}

/** It is shown as a link: nothing but a web address may stand there. */
function webAddress(text: string | null): string | null {
  const url = text === null ? null : URL.parse(text);
  return url && (url.protocol === "https:" || url.protocol === "http:") ? url.href : null;
}

/** What an answer to a poll asks for (RFC 8628, section 3.5); null: it is not about waiting. */
export function readPollState(
  definition: ProviderDefinition,
  oauthError: string | undefined,
): "authorization_pending" | "slow_down" | "access_denied" | "expired_token" | null {
  if (oauthError !== undefined && isDenial(definition, oauthError)) return "access_denied";
  switch (oauthError) {
    case "authorization_pending":
    case "slow_down":
    case "expired_token":
      return oauthError;
    default:
      return null;
  }
}
