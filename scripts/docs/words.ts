import type { ConnectionGrant, Lifetime } from "../../src/providers/format/definition.ts";

const units = [
  { seconds: 31_536_000, name: "year" },
  { seconds: 86_400, name: "day" },
  { seconds: 3600, name: "hour" },
  { seconds: 60, name: "minute" },
  { seconds: 1, name: "second" },
];

/** In the largest unit that leaves nothing over. */
export function duration(seconds: number): string {
  const unit = units.find((candidate) => seconds >= candidate.seconds && seconds % candidate.seconds === 0);
  if (unit === undefined) return `${seconds} seconds`;
  const count = seconds / unit.seconds;
  return `${count} ${unit.name}${count === 1 ? "" : "s"}`;
}

const grantNames: Record<ConnectionGrant, string> = {
  authorization_code: "a person consents in a browser",
  client_credentials: "the client asks for itself",
  password: "with a user name and password",
  device_code: "a person enters a code on another device",
  import: "a token set is handed over",
};

export function grantName(grant: ConnectionGrant): string {
  return grantNames[grant];
}

/** How long a token lives, by what an answer says and what counts where it says nothing. */
export function lifeOf({ from, fallbackSeconds }: Lifetime): string {
  const otherwise = fallbackSeconds === null ? "" : `; ${duration(fallbackSeconds)} where nothing is said`;
  const words: Record<Lifetime["from"], string> = {
    fixed: `always ${duration(fallbackSeconds ?? 0)}`,
    never: "has no end, unless the answer names one",
    introspect: `as the introspection endpoint says${otherwise}`,
    jwt_exp: `until the \`exp\` that is in the token itself${otherwise}`,
    expires_at: `until the moment that the answer names${otherwise}`,
    expires_in: `as the answer says${otherwise}`,
  };
  return words[from];
}
