import { readFileSync } from "node:fs";
import { isIP } from "node:net";
import { resolve } from "node:path";
import { type Static, type TSchema, Type } from "typebox";
import { Value } from "typebox/value";
import { StartupError, whyNotOnDisk } from "./errors.ts";
import type { CompletionRule } from "./grant-types.ts";
import { looksLikeJwt } from "./jwt-form.ts";
import { parseNetworks } from "./providers/http/egress.ts";
import { type ProxySettings, readProxies } from "./providers/http/outbound-proxy.ts";
import { addedBy, type EnvFile, isOfKubernetes, readEnvFile } from "./start/env-file.ts";
import { quotedSetting, readableLine } from "./text.ts";
import { callerTimes, misfitsOf, processTimes, retentionTimes, times } from "./time.ts";

const secret = { secret: true };
/** What a bearer token may consist of: RFC 6750, section 2.1, and a little more. */
const bearer = (length: number) =>
  Type.String({
    ...secret,
    pattern: `^[\\x21-\\x7E]{${length},}$`,
    allowed: `at least ${length} printable ASCII characters, no spaces`,
  });
/** What people read on a page. */
const line = (longest: number) =>
  Type.String({
    pattern: readableLine(longest),
    allowed: `one line of 1 to ${longest} characters with a letter or a digit in it, without control or invisible characters`,
  });
const url = (description: string) => Type.String({ description });
const whole = (minimum: number, maximum: number, options: object) =>
  Type.Integer({ minimum, maximum, allowed: `a whole number from ${minimum} to ${maximum}`, ...options });

/** Every variable that the broker reads; .env.example explains each. `secret` ones also come as `<NAME>_FILE`. */
export const environmentSchema = Type.Object({
  HOST: Type.String({ default: "127.0.0.1", minLength: 1, allowed: "an address or host name to listen on" }),
  PORT: whole(1, 65535, { default: 8080 }),
  PUBLIC_URL: Type.Optional(url("the address browsers reach")),
  DATABASE_URL: Type.Optional(Type.String({ ...secret })),
  DATABASE_MIGRATION_URL: Type.Optional(Type.String({ ...secret })),
  REDIS_URL: Type.Optional(Type.String({ ...secret })),
  ENCRYPTION_KEYS: Type.Optional(Type.String({ ...secret })),
  ENCRYPTION_KEYS_COMMAND: Type.Optional(Type.String({ isCommand: true })),
  ADMIN_KEY: Type.Optional(
    Type.String({
      ...secret,
      pattern: "^[\\x21-\\x2B\\x2D-\\x7E]{32,}(,[\\x21-\\x2B\\x2D-\\x7E]{32,})?$",
      allowed:
        "at least 32 printable ASCII characters, no spaces or commas; or two such keys with a comma between them",
    }),
  ),
  DATA_DIR: Type.String({ default: "./data", minLength: 1, allowed: "a folder" }),
  PROVIDERS_DIR: Type.Optional(Type.String({ minLength: 1, allowed: "a folder" })),
  PROVIDER_NETWORKS: Type.Optional(Type.String()),
  WORKLOADS_FILE: Type.Optional(Type.String({ minLength: 1, allowed: "a file" })),
  HTTPS_PROXY: Type.Optional(Type.String({ ...secret })),
  HTTP_PROXY: Type.Optional(Type.String({ ...secret })),
  NO_PROXY: Type.Optional(Type.String()),
  PROXY_CONNECT: Type.Union([Type.Literal("by_address"), Type.Literal("by_name")], {
    default: "by_address",
    allowed: "by_address or by_name",
  }),
  SANDBOX: Type.Optional(Type.Boolean({ allowed: "true or false" })),
  LOG_LEVEL: Type.Union(
    ["fatal", "error", "warn", "info", "debug", "trace", "silent"].map((level) => Type.Literal(level)),
    { default: "info", allowed: "fatal, error, warn, info, debug, trace or silent" },
  ),
  METRICS_PORT: Type.Optional(whole(1, 65535, {})),
  METRICS_KEY: Type.Optional(bearer(16)),
  RETURN_ORIGINS: Type.Optional(Type.String()),
  CONSENT_COMPLETION: Type.Union([Type.Literal("any"), Type.Literal("app")], { default: "any", allowed: "any or app" }),
  TRUST_PROXY: Type.Optional(Type.String()),
  LINK_POSTS_PER_MINUTE: whole(1, 60_000, { default: 10 }),
  LINK_OPEN_REQUESTS: whole(1, 1000, { default: 5 }),
  LINK_PAGES_PER_MINUTE: whole(1, 60_000, { default: 120 }),
  CALLBACKS_PER_MINUTE: whole(1, 60_000, { default: 60 }),
  ORGANISATION_NAME: Type.Optional(line(100)),
  ORGANISATION_CONTACT: Type.Optional(line(200)),
  KEY_TRUST_SECONDS: whole(0, callerTimes.keyTrustMaxSeconds, { default: callerTimes.keyTrustSeconds }),
  AUDIT_RETENTION_DAYS: whole(1, retentionTimes.auditMaxDays, { default: retentionTimes.auditDays }),
  SHUTDOWN_GRACE_SECONDS: whole(1, 3600, { default: processTimes.shutdownGraceSeconds }),
});

type Values = Static<typeof environmentSchema>;
/** `isCommand`: a shell reads it, so it may name variables that the shell fills in. */
type Annotations = { secret?: boolean; isCommand?: boolean; allowed?: string; default?: unknown };

const variables = Object.entries(environmentSchema.properties) as [keyof Values, TSchema & Annotations][];

/** All accepted names, the `_FILE` forms of secrets included. */
export const configVariables: readonly string[] = variables.flatMap(([name, schema]) =>
  schema.secret ? [name, `${name}_FILE`] : [name],
);

/** Those that also come as `<NAME>_FILE`. */
export const secretVariables: readonly string[] = variables.flatMap(([name, schema]) => (schema.secret ? [name] : []));

export type Variables = Readonly<Record<string, string | undefined>>;

/** Where the variables come from. `file`: what it adds to the process's own; null: none was read. */
export type Environment = { env: Variables; file: EnvFile | null };

/**
 * The process's environment, and below it the variables of a file, if there is that file.
 * @throws StartupError for a file that cannot be read or understood
 */
export function readEnvironment(envFile: string | null): Environment {
  const path = envFile === null ? null : resolve(envFile);
  const file = path === null ? null : readEnvFile(path);
  if (file === null) return { env: process.env, file: null };
  const values = addedBy(file.values, process.env);
  return { env: { ...values, ...process.env }, file: { ...file, values } };
}

/** A key of the keyring: 32 bytes under a name that stands in every record it seals. */
export type EncryptionKeySetting = { id: string; key: Buffer };

/** What the environment says, checked. Null means: not set. */
export type Config = Readonly<{
  host: string;
  port: number;
  /** An origin, without a trailing slash. */
  publicUrl: string;
  databaseUrl: string | null;
  /** Of the role that owns the schema, for the start alone. Null: `databaseUrl`'s role does both, or the database is embedded. */
  databaseMigrationUrl: string | null;
  redisUrl: string | null;
  /** Null also until `encryptionKeysCommand` has printed them (start/keys-command.ts). */
  encryptionKeys: readonly EncryptionKeySetting[] | null;
  encryptionKeysCommand: string | null;
  /** Two while one replaces the other. None: there is no bootstrap key, or one is made. */
  adminKeys: readonly string[];
  dataDir: string;
  providersDir: string | null;
  /** CIDR ranges. */
  providerNetworks: readonly string[];
  workloadsFile: string | null;
  /** The way out to providers. The URLs may hold a password. */
  proxy: Readonly<ProxySettings>;
  sandbox: boolean;
  logLevel: string;
  metricsPort: number | null;
  metricsKey: string | null;
  returnOrigins: readonly string[];
  /** `app`: a person's grant counts only if an app completes it for its signed-in user. */
  consentCompletion: CompletionRule;
  trustProxy: readonly string[];
  /** For each consent link. */
  linkPostsPerMinute: number;
  /** Authorization requests of one consent link that wait for their callback. */
  linkOpenRequests: number;
  /** For each address. */
  linkPagesPerMinute: number;
  /** For each address. */
  callbacksPerMinute: number;
  /** Who asks, on pages that customers see. */
  organisation: Readonly<{ name: string | null; contact: string | null }>;
  /** While Postgres is away, a key that was verified stays good for so long after it was last verified. */
  keyTrustSeconds: number;
  /** No entry of the audit that is younger can be removed. */
  auditRetentionDays: number;
  shutdownGraceSeconds: number;
}>;

/**
 * Reads the whole configuration.
 * @throws StartupError with one line for each wrong variable, that names it and what is allowed, never the value of a secret.
 */
export function readConfig(env: Variables = process.env): Config {
  const [misfit] = misfitsOf(times);
  if (misfit !== undefined) throw new StartupError(`src/time.ts: ${misfit}`);
  const faults = new Map<string, string>();
  /** Goes on after a fault, so that all of them are told. What it returns then is used for nothing. */
  const tried = <Result>(name: string, read: () => Result): Result => {
    try {
      return read();
    } catch (error) {
      if (!(error instanceof StartupError)) throw error;
      faults.set(name, error.message);
      return undefined as Result;
    }
  };
  const raw = variables.map(([name, schema]) => [
    name,
    tried(name, () => readVariable(env, name, schema)) ?? schema.default,
  ]);
  tried("ENCRYPTION_KEYS", () => requireOneKeyring(env));
  const config = parseValues(Object.fromEntries(raw) as Values, { tried, faults });
  if (faults.size > 0) throw new StartupError([...faults.values()].join("; "), [...faults.values()]);
  return Object.freeze(config);
}

type Trying = { tried: <Result>(name: string, read: () => Result) => Result; faults: ReadonlyMap<string, string> };

function parseValues(values: Values, { tried, faults }: Trying): Config {
  const databaseUrl = tried("DATABASE_URL", () => parseDatabaseUrl("DATABASE_URL", values.DATABASE_URL));
  const databaseMigrationUrl = tried("DATABASE_MIGRATION_URL", () => parseMigrationUrl(values));
  const { ENCRYPTION_KEYS: keyring, ENCRYPTION_KEYS_COMMAND: encryptionKeysCommand = null } = values;
  const encryptionKeys = tried("ENCRYPTION_KEYS", () => (keyring === undefined ? null : parseKeyring(keyring)));
  const lacksKeys = encryptionKeys === null && encryptionKeysCommand === null;
  if (databaseUrl && lacksKeys && !faults.has("ENCRYPTION_KEYS")) {
    const problem = `is required with DATABASE_URL: a comma list of id:base64(32 bytes); ${makeKey}`;
    tried("ENCRYPTION_KEYS", () => fail("ENCRYPTION_KEYS", problem));
  }
  if (values.METRICS_PORT === values.PORT && !faults.has("PORT")) {
    const problem = "must be another port than PORT; leave it away to serve /metrics on PORT";
    tried("METRICS_PORT", () => fail("METRICS_PORT", problem));
  }
  return {
    host: tried("HOST", () => parseHost(values.HOST)),
    port: values.PORT,
    publicUrl: tried("PUBLIC_URL", () => parsePublicUrl(values.PUBLIC_URL ?? `http://localhost:${values.PORT}`)),
    databaseUrl,
    databaseMigrationUrl,
    redisUrl: tried("REDIS_URL", () => parseRedisUrl(values.REDIS_URL)),
    encryptionKeys,
    encryptionKeysCommand,
    adminKeys: tried("ADMIN_KEY", () => parseAdminKeys(values.ADMIN_KEY)),
    dataDir: resolve(values.DATA_DIR),
    providersDir: values.PROVIDERS_DIR === undefined ? null : resolve(values.PROVIDERS_DIR),
    providerNetworks: tried("PROVIDER_NETWORKS", () => parseCidrs(values.PROVIDER_NETWORKS)),
    workloadsFile: values.WORKLOADS_FILE === undefined ? null : resolve(values.WORKLOADS_FILE),
    proxy: tried("HTTPS_PROXY", () => checkProxies(values)),
    sandbox: values.SANDBOX ?? databaseUrl === null,
    logLevel: String(values.LOG_LEVEL),
    metricsPort: values.METRICS_PORT ?? null,
    metricsKey: values.METRICS_KEY ?? null,
    returnOrigins: tried("RETURN_ORIGINS", () =>
      splitList(values.RETURN_ORIGINS).map((origin) => parseOrigin("RETURN_ORIGINS", origin)),
    ),
    consentCompletion: values.CONSENT_COMPLETION,
    trustProxy: tried("TRUST_PROXY", () => splitList(values.TRUST_PROXY).map(parseProxy)),
    linkPostsPerMinute: values.LINK_POSTS_PER_MINUTE,
    linkOpenRequests: values.LINK_OPEN_REQUESTS,
    linkPagesPerMinute: values.LINK_PAGES_PER_MINUTE,
    callbacksPerMinute: values.CALLBACKS_PER_MINUTE,
    organisation: Object.freeze({
      name: values.ORGANISATION_NAME ?? null,
      contact: values.ORGANISATION_CONTACT ?? null,
    }),
    keyTrustSeconds: values.KEY_TRUST_SECONDS,
    auditRetentionDays: values.AUDIT_RETENTION_DAYS,
    shutdownGraceSeconds: values.SHUTDOWN_GRACE_SECONDS,
  };
}

const makeKey = 'make one with echo "k1:$(head -c 32 /dev/urandom | base64)", and keep it';

function readVariable(env: Variables, name: string, schema: TSchema & Annotations) {
  const text = valueOf(env, name, schema) || (schema.secret ? readSecretFile(env, name) : "");
  if (text === "") return schema.default;
  const value = convert(schema, text);
  if (Value.Check(schema, value)) return value;
  const given = schema.secret ? "" : `, not ${quotedSetting(text)}`;
  return fail(name, `must be ${schema.allowed ?? "a string"}${given}${adviceOn(text)}`);
}

/** Without the spaces and line ends around it: `echo` leaves one in a Kubernetes Secret. */
function valueOf(env: Variables, name: string, schema: Annotations): string {
  const given = env[name] ?? "";
  const text = given.trim();
  // Somebody who sets an empty secret wanted one, so it must not count as not set.
  if (schema.secret && given !== "" && text === "") {
    fail(name, "holds nothing but spaces or line ends: write its value, or leave it away");
  }
  if (schema.isCommand) return text;
  const [, form] = references.find(([pattern]) => pattern.test(text)) ?? [];
  if (form !== undefined) fail(name, `holds ${form}, which nothing fills in here: write the value itself`);
  return text;
}

/** What a shell, Compose or Kubernetes would put another value in place of. */
const references: readonly [pattern: RegExp, form: string][] = [
  [/\$\{[A-Za-z_]\w*(:?[-?+].*)?\}/s, "${…}"],
  [/\$\([A-Za-z_][\w.-]*( .*)?\)/s, "$(…)"],
];

/** Characters that often get into a value by mistake. */
function adviceOn(text: string): string {
  if (/^(["']).*\1$/s.test(text)) return "; take the quotes around it away: they are part of the value here";
  const remedy = "; Kubernetes has set it for a service of this name: set enableServiceLinks to false";
  return isOfKubernetes(text) ? remedy : "";
}

/** Exactly what is allowed: TypeBox's own conversion takes "80.5" for 80 and "true" for 1. */
function convert(schema: TSchema & { type?: string }, text: string): unknown {
  if (schema.type === "integer" && /^-?\d+$/.test(text)) return Number(text);
  if (schema.type === "boolean" && /^(true|false)$/.test(text)) return text === "true";
  return text;
}

function readSecretFile(env: Variables, name: string): string {
  const path = env[`${name}_FILE`]?.trim();
  if (!path) return "";
  try {
    const text = readFileSync(path, "utf8").trim();
    return text || fail(`${name}_FILE`, `names an empty file: ${path}; write the value of ${name} into it`);
  } catch (error) {
    if (error instanceof StartupError) throw error;
    return fail(`${name}_FILE`, `names a file that cannot be read: ${path} ${whyNotOnDisk(error)}`);
  }
}

/** Where the keyring may come from. If there were two, one of them would count, and only its order in this file would say which. */
const keyringSources = ["ENCRYPTION_KEYS", "ENCRYPTION_KEYS_FILE", "ENCRYPTION_KEYS_COMMAND"];

function requireOneKeyring(env: Variables): void {
  const given = keyringSources.filter((name) => env[name]?.trim());
  if (given.length < 2) return;
  const first = given.slice(0, -1).join(", ");
  fail(`${first} and ${given.at(-1)}`, "are set, and only one of them may be: take away what you do not mean");
}

/** @throws StartupError for what is no keyring; its text may hold ids of keys */
export function parseKeyring(text: string): EncryptionKeySetting[] {
  const keys = splitList(text).map((entry, index) => {
    if (/^([^:]*:)?[0-9a-f]{64}$/i.test(entry)) {
      fail("ENCRYPTION_KEYS", `entry ${index + 1} must be id:base64(32 bytes), and its bytes are in hex; ${makeKey}`);
    }
    const [, id, encoded] = /^([A-Za-z0-9._-]{1,32}):([A-Za-z0-9+/_-]+={0,2})$/.exec(entry) ?? [];
    if (id === undefined || encoded === undefined) {
      return fail("ENCRYPTION_KEYS", `entry ${index + 1} must be id:base64(32 bytes), the id of A-Z a-z 0-9 . _ -`);
    }
    const key = Buffer.from(encoded, "base64");
    if (key.length !== 32) {
      fail("ENCRYPTION_KEYS", `entry ${index + 1} must be id:base64(32 bytes), it has ${key.length} bytes`);
    }
    return { id, key };
  });
  if (keys.length === 0) fail("ENCRYPTION_KEYS", "must hold at least one id:base64(32 bytes)");
  const twice = keys.find((key, index) => keys.findIndex((other) => other.id === key.id) !== index);
  if (twice) fail("ENCRYPTION_KEYS", `names the key "${twice.id}" twice`);
  return keys;
}

function parseAdminKeys(text: string | undefined): string[] {
  const keys = splitList(text);
  if (keys.some(looksLikeJwt)) {
    fail(
      "ADMIN_KEY",
      "has the form of a JWT, which only workloads show: make another, such as with openssl rand -hex 32",
    );
  }
  return keys;
}

function parsePublicUrl(text: string): string {
  const origin = parseOrigin("PUBLIC_URL", text);
  const { protocol, hostname } = new URL(origin);
  if (protocol === "http:" && !isLoopbackName(hostname)) {
    fail("PUBLIC_URL", `must be https unless it is a loopback address, not ${quotedSetting(text)}`);
  }
  return origin;
}

/** True for the names that browsers and RFC 8252, section 8.3 take for this machine. */
export function isLoopbackName(hostname: string): boolean {
  return hostname === "localhost" || hostname === "[::1]" || /^127(\.\d+){3}$/.test(hostname);
}

function parseOrigin(name: string, text: string): string {
  const parsed = URL.canParse(text) ? new URL(text) : null;
  const isOrigin = parsed !== null && /^https?:$/.test(parsed.protocol) && parsed.href === `${parsed.origin}/`;
  if (!isOrigin) {
    return fail(name, `must be an origin like https://broker.example.com, without a path, not ${quotedSetting(text)}`);
  }
  return parsed.origin;
}

function parseHost(text: string): string {
  const isName = /^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?$/.test(text) && URL.canParse(`http://${text}`);
  if (isIP(text) === 0 && !isName) {
    const advice = isIP(text.replaceAll(/[[\]]/g, "")) === 6 ? "; take the brackets around it away" : "";
    fail("HOST", `must be an address or a host name, without scheme and port, not ${quotedSetting(text)}${advice}`);
  }
  return text;
}

function checkProxies({ HTTPS_PROXY, HTTP_PROXY, NO_PROXY, PROXY_CONNECT }: Values): Readonly<ProxySettings> {
  const settings = {
    httpsProxy: HTTPS_PROXY ?? null,
    httpProxy: HTTP_PROXY ?? null,
    noProxy: NO_PROXY ?? null,
    proxyConnect: PROXY_CONNECT,
  };
  try {
    readProxies(settings);
    return Object.freeze(settings);
  } catch (error) {
    throw new StartupError((error as RangeError).message);
  }
}

function parseCidrs(text: string | undefined): string[] {
  try {
    parseNetworks(text ?? "");
  } catch (error) {
    fail("PROVIDER_NETWORKS", `must be a comma list of CIDR blocks: ${(error as Error).message}`);
  }
  return splitList(text);
}

const namedNetworks = ["loopback", "linklocal", "uniquelocal"];

function parseProxy(text: string): string {
  const [address = "", prefix = "0", ...more] = text.split("/");
  const isNetwork =
    isIP(address) !== 0 && /^\d{1,3}$/.test(prefix) && Number(prefix) <= (isIP(address) === 4 ? 32 : 128);
  if ((isNetwork && more.length === 0) || namedNetworks.includes(text)) return text;
  const allowed = `a comma list of addresses, CIDR blocks, ${namedNetworks.join(", ")}`;
  return fail("TRUST_PROXY", `must be ${allowed}, not ${quotedSetting(text)}`);
}

const databaseSchemes = ["postgres", "postgresql"];
const redisSchemes = ["redis", "rediss", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"];

/** Lists of hosts (Sentinel, Cluster) are checked host by host. */
function parseServiceUrl(name: string, text: string | undefined, schemes: string[]): string | null {
  if (text === undefined) return null;
  const [, scheme = "", credentials = "", hosts = "", rest = ""] =
    /^([a-z+]+):\/\/([^/?#]*@)?([^/?#]*)(.*)$/s.exec(text) ?? [];
  if (!schemes.includes(scheme)) {
    const begins = schemes.map((each) => `${each}://`).join(" or ");
    fail(name, `must be a URL that begins with ${begins}${adviceOn(text) || adviceOnService(name, text, scheme)}`);
  }
  const each = scheme.includes("+") ? hosts.split(",") : [hosts];
  if (hosts + rest !== "" && each.every((host) => URL.canParse(`${scheme}://${credentials}${host}${rest}`))) {
    return text;
  }
  const encoded = ", with special characters in its parts percent-encoded";
  const advice = hosts === "" && schemes === databaseSchemes ? onSocket : encoded;
  return fail(name, `must be a URL ${scheme}://user:password@host:port${advice}`);
}

const onSocket = "; for a Unix socket write postgresql://user@localhost/database?host=/folder/of/the/socket";

/** What to do with the address of another service, or of none. */
function adviceOnService(name: string, text: string, scheme: string): string {
  if (redisSchemes.includes(scheme)) return "; this one leads to a Redis: set it as REDIS_URL";
  if (databaseSchemes.includes(scheme)) return "; this one leads to a Postgres: set it as DATABASE_URL";
  return name !== "REDIS_URL" && /^(\/|socket:|unix:)/.test(text) ? onSocket : "";
}

/** The driver takes any other word for `verify-full`. */
const sslModes = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full", "no-verify"];

function parseDatabaseUrl(name: string, text: string | undefined): string | null {
  const address = parseServiceUrl(name, text, databaseSchemes);
  const modes = new URLSearchParams(address?.split("?")[1]).getAll("sslmode");
  if (modes.every((mode) => mode === "" || sslModes.includes(mode))) return address;
  return fail(name, `has an sslmode that there is not: write ${sslModes.join(", ")}, or leave it away`);
}

function parseMigrationUrl({ DATABASE_URL, DATABASE_MIGRATION_URL }: Values): string | null {
  const address = parseDatabaseUrl("DATABASE_MIGRATION_URL", DATABASE_MIGRATION_URL);
  if (address === null || DATABASE_URL !== undefined) return address;
  const problem = "is set, and DATABASE_URL is not: set that one to the address of the role that the broker runs with";
  return fail("DATABASE_MIGRATION_URL", problem);
}

/** With a path that is no number, the Redis client would ask for database NaN, which ends the process. */
function parseRedisUrl(text: string | undefined): string | null {
  const address = parseServiceUrl("REDIS_URL", text, redisSchemes);
  const [, scheme = "", path = ""] = /^([a-z+]+):\/\/[^/?#]*([^?#]*)/.exec(address ?? "") ?? [];
  const parts = path.split("/").slice(scheme.endsWith("sentinel") ? 2 : 1);
  if (scheme.endsWith("cluster") || parts.every((part) => /^\d*$/.test(part))) return address;
  return fail(
    "REDIS_URL",
    "must end with the number of a database, such as /0, or with no path; Redis has no names for them",
  );
}

function splitList(text: string | undefined): string[] {
  return (text ?? "")
    .split(",")
    .map((entry) => entry.trim())
    .filter((entry) => entry !== "");
}

function fail(name: string, problem: string): never {
  throw new StartupError(`${name} ${problem}`);
}
