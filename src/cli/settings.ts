import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { ProxySettings } from "../providers/http/outbound-proxy.ts";
import { errorCode, UsageError } from "./errors.ts";

export type Environment = Readonly<Record<string, string | undefined>>;

/** Variables that hold a secret for one command, so that it stands in no list of processes. */
export type SecretVariable =
  | "FRESHET_CLIENT_SECRET"
  | "FRESHET_PASSWORD"
  | "FRESHET_ACCESS_TOKEN"
  | "FRESHET_REFRESH_TOKEN"
  /** Of `providers try`: credentials beside a password, and inputs that are secrets, by their names in upper case. */
  | `FRESHET_CREDENTIAL_${string}`
  | `FRESHET_INPUT_${string}`;

/** What the command line takes from the environment. Beside `src/config.ts` this is the only reader of it. */
export type Settings = {
  /** The broker's address, without a trailing slash. */
  brokerUrl: string;
  /** @throws UsageError naming every place where a key was looked for. */
  readKey: () => string;
  /** Where that key comes from, for a person whose key the broker refuses. */
  keyPlace: () => string;
  secret: (variable: SecretVariable) => string | undefined;
  /** The broker's PROVIDERS_DIR, for definition files that extend one in there. */
  providersDir: string | null;
  /** The broker's PROVIDER_NETWORKS, for providers in networks that are not public; as it stands there. */
  providerNetworks: string | null;
  /** The broker's way out to providers, for `providers try`. Requests to the broker itself do not go through it. */
  proxy: () => ProxySettings;
};

/** @throws UsageError when FRESHET_URL is no address of a broker. */
export function readSettings(given: Environment): Settings {
  // As the broker reads them. The secrets of one command go to a provider as they are.
  const env = trimmed(given);
  const brokerUrl = parseBrokerUrl(env["FRESHET_URL"] || `http://${nearHost(env["HOST"])}:8080`);
  const findKey = () => findKeyPlace(env, isLoopback(new URL(brokerUrl).hostname));
  return {
    brokerUrl,
    readKey: () => checkKey(findKey().read()),
    keyPlace: () => findKey().place,
    secret: (variable) => given[variable] || undefined,
    providersDir: env["PROVIDERS_DIR"] || null,
    providerNetworks: env["PROVIDER_NETWORKS"] || null,
    proxy: () => readProxySettings(env),
  };
}

/** Where a broker on this machine listens. `localhost` may not lead to the loopback address that HOST names. */
function nearHost(host = ""): string {
  const name = host.includes(":") ? `[${host}]` : host;
  return isLoopback(name) ? name : "localhost";
}

function trimmed(env: Environment): Environment {
  return Object.fromEntries(Object.entries(env).map(([name, value]) => [name, value?.trim()]));
}

/** @throws UsageError for a file that cannot be read, and for a word that PROXY_CONNECT does not have */
function readProxySettings(env: Environment): ProxySettings {
  const secretOf = (name: string) => {
    const file = env[`${name}_FILE`];
    return env[name] || (file ? readSecretFile(file, `${name}_FILE`) : null);
  };
  const proxyConnect = env["PROXY_CONNECT"] || "by_address";
  if (proxyConnect !== "by_address" && proxyConnect !== "by_name") {
    throw new UsageError("PROXY_CONNECT must be by_address or by_name");
  }
  const noProxy = env["NO_PROXY"] || null;
  return { httpsProxy: secretOf("HTTPS_PROXY"), httpProxy: secretOf("HTTP_PROXY"), noProxy, proxyConnect };
}

function parseBrokerUrl(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : null;
  const plain = url !== null && !url.username && !url.password && !url.search && !url.hash;
  if (!plain || !/^https?:$/.test(url.protocol)) {
    throw new UsageError(
      "FRESHET_URL must be an address like https://broker.example.com, without user, query or fragment",
    );
  }
  return url.href.replace(/\/+$/, "");
}

type KeyPlace = { place: string; read: () => string };

/** The broker's own files are read only for a broker on this machine: their key is sent nowhere else. */
function findKeyPlace(env: Environment, local: boolean): KeyPlace {
  const own = placeOf(env, "FRESHET_KEY");
  if (own !== null) return own;
  const ofBroker = local ? placeOf(env, "ADMIN_KEY") : null;
  // The first of two, while one replaces the other.
  if (ofBroker !== null) return { ...ofBroker, read: () => ofBroker.read().split(",", 1)[0] ?? "" };
  const dataFile = join(env["DATA_DIR"] || "data", "admin-key");
  if (local && existsSync(dataFile)) return { place: `the file ${dataFile}`, read: () => readKeyFile(dataFile) };
  const looked = local ? `, and there is no file ${dataFile}` : "";
  throw new UsageError(`No key: set FRESHET_KEY, or FRESHET_KEY_FILE to a file that holds one${looked}`);
}

/** A variable, or else the file that it names with `_FILE`; null: neither is set. */
function placeOf(env: Environment, name: string): KeyPlace | null {
  const key = env[name];
  if (key) return { place: name, read: () => key };
  const file = env[`${name}_FILE`];
  return file ? { place: `${name}_FILE (${file})`, read: () => readKeyFile(file) } : null;
}

function readKeyFile(path: string): string {
  return readSecretFile(path, "The key file");
}

function readSecretFile(path: string, what: string): string {
  try {
    return readFileSync(path, "utf8").trim();
  } catch (error) {
    throw new UsageError(`${what} ${path} cannot be read (${errorCode(error)})`);
  }
}

/** A key that cannot be a header value is refused here: the error of a later call would quote it. */
function checkKey(key: string): string {
  if (!/^[\x21-\x7e]+$/.test(key)) throw new UsageError("The key is empty or holds characters that no key has");
  return key;
}

function isLoopback(hostname: string): boolean {
  return hostname === "localhost" || hostname === "[::1]" || /^127(\.\d+){3}$/.test(hostname);
}
