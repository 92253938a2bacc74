import { editDistance } from "./nearest.ts";

/** A variable that is set and that nobody reads, and the one that was most likely meant. */
export type NearMiss = { variable: string; meant: string };

type Environment = Readonly<Record<string, string | undefined>>;

/** The command line's own variables. */
const ofCommandLine =
  /^FRESHET_(URL|KEY|KEY_FILE|CLIENT_SECRET|PASSWORD|ACCESS_TOKEN|REFRESH_TOKEN|(CREDENTIAL|INPUT)_.*)$/;

/** Names from elsewhere for the same thing, which no spelling leads to. */
const otherNames: Readonly<Record<string, string>> = {
  DB_URL: "DATABASE_URL",
  PG_URL: "DATABASE_URL",
  POSTGRES_URL: "DATABASE_URL",
  POSTGRESQL_URL: "DATABASE_URL",
  DATABASE_DSN: "DATABASE_URL",
  BROKER_URL: "PUBLIC_URL",
  TRUSTED_PROXIES: "TRUST_PROXY",
};

/** So near to one of ours, and another program's. */
const foreign = new Set(["FTP_PROXY", "ALL_PROXY", "WS_PROXY", "WSS_PROXY"]);

/**
 * Variables that look like one of `known` and are none: another spelling, lower case, with the prefix `FRESHET_`. Those that name one
 * that is set as well say nothing: whoever set that knows its name.
 */
export function findNearMisses(env: Environment, known: readonly string[]): NearMiss[] {
  const names = Object.keys(env).filter((name) => env[name] && !known.includes(name) && !ofCommandLine.test(name));
  return names.sort().flatMap((variable) => {
    if (isOfKubernetes(env[variable] ?? "")) return [];
    const meant = meantBy(variable, known);
    return meant === null || isSet(env, { meant, variable }) ? [] : [{ variable, meant }];
  });
}

/** One line, without the value. */
export function describeNearMiss({ variable, meant }: NearMiss): string {
  const name = variable.replaceAll(/[^\x21-\x7E]/g, "?");
  return `${name} is set, and Freshet reads no variable of this name: did you mean ${meant}? Rename it, or take it away`;
}

function meantBy(variable: string, known: readonly string[]): string | null {
  const plain = variable
    .toUpperCase()
    .replaceAll(/[-. ]/g, "_")
    .replace(/^FRESHET_+/, "");
  if (foreign.has(plain)) return null;
  if (known.includes(plain)) return plain;
  const withoutFile = plain.replace(/_FILE$/, "");
  const other = otherNames[plain] ?? otherNames[withoutFile];
  if (other !== undefined) return plain === withoutFile ? other : `${other}_FILE`;
  // Only secrets come from files.
  if (plain !== withoutFile && known.includes(withoutFile)) return withoutFile;
  const near = known.filter((name) => editDistance(plain, name) <= mostEdits(name));
  return near.sort((one, two) => editDistance(plain, one) - editDistance(plain, two))[0] ?? null;
}

/** Of a short name, every other one is near: HOST, POST and COST. */
function mostEdits(name: string): number {
  return name.length < 7 ? 0 : name.length < 10 ? 1 : 2;
}

/** The variable itself, or its other form: its value or the file that holds it. */
function isSet(env: Environment, { meant, variable }: NearMiss): boolean {
  const value = meant.replace(/_FILE$/, "");
  return [value, `${value}_FILE`].some((name) => name !== variable && Boolean(env[name]));
}

/** Kubernetes sets variables such as FRESHET_PORT in each container, for a service that is called freshet. */
export function isOfKubernetes(value: string): boolean {
  return /^(tcp|udp|sctp):\/\/[\d.:[\]a-f]+$/i.test(value);
}
