import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import * as fc from "fast-check";
import { afterAll, describe, expect, test } from "vitest";
import { configVariables, environmentSchema, readConfig } from "../../src/config.ts";
import { StartupError } from "../../src/errors.ts";

const folder = mkdtempSync(join(tmpdir(), "freshet-config-"));
const key = (id: string, byte = 7) => `${id}:${Buffer.alloc(32, byte).toString("base64")}`;
const secrets = [
  "DATABASE_URL",
  "DATABASE_MIGRATION_URL",
  "REDIS_URL",
  "ENCRYPTION_KEYS",
  "ADMIN_KEY",
  "METRICS_KEY",
  "HTTPS_PROXY",
  "HTTP_PROXY",
] as const;

afterAll(() => {
  rmSync(folder, { recursive: true });
});

/** What a start with this environment prints. */
function refusal(env: Record<string, string>): string {
  try {
    readConfig(env);
  } catch (error) {
    if (error instanceof StartupError) return error.message;
    throw error;
  }
  throw new Error(`accepted: ${JSON.stringify(env)}`);
}

function file(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

describe("what is not set has its default", () => {
  test("an empty environment is an embedded broker on loopback with the sandbox", () => {
    expect(readConfig({})).toEqual({
      host: "127.0.0.1",
      port: 8080,
      publicUrl: "http://localhost:8080",
      databaseUrl: null,
      databaseMigrationUrl: null,
      redisUrl: null,
      encryptionKeys: null,
      encryptionKeysCommand: null,
      adminKeys: [],
      dataDir: resolve("data"),
      providersDir: null,
      providerNetworks: [],
      workloadsFile: null,
      proxy: { httpsProxy: null, httpProxy: null, noProxy: null, proxyConnect: "by_address" },
      sandbox: true,
      logLevel: "info",
      metricsPort: null,
      metricsKey: null,
      returnOrigins: [],
      consentCompletion: "any",
      trustProxy: [],
      linkPostsPerMinute: 10,
      linkOpenRequests: 5,
      linkPagesPerMinute: 120,
      callbacksPerMinute: 60,
      organisation: { name: null, contact: null },
      keyTrustSeconds: 3600,
      auditRetentionDays: 400,
      shutdownGraceSeconds: 60,
    });
  });

  test("an empty value is the same as none", () => {
    const empty = Object.fromEntries(configVariables.map((name) => [name, ""]));
    expect(readConfig(empty)).toEqual(readConfig({}));
  });

  test("spaces and line ends around a value, as echo leaves them in a Kubernetes Secret, are no part of it", () => {
    const plain = {
      DATABASE_URL: "postgresql://u:p@db:5432/freshet",
      REDIS_URL: "redis://redis:6379/0",
      ENCRYPTION_KEYS: key("k1"),
      ADMIN_KEY: "a".repeat(32),
      PORT: "9000",
      SANDBOX: "true",
      LOG_LEVEL: "warn",
      DATA_DIR: "./elsewhere",
      ORGANISATION_NAME: "Acme",
      METRICS_KEY_FILE: file("metrics-key", "m".repeat(16)),
    };
    for (const [before, after] of [
      ["", "\n"],
      ["", " "],
      ["", "\r\n"],
      [" ", "\t"],
    ] as const) {
      const surrounded = Object.entries(plain).map(([name, value]) => [name, `${before}${value}${after}`]);
      expect(readConfig(Object.fromEntries(surrounded))).toEqual(readConfig(plain));
    }
  });

  test("a setting that is nothing but spaces is the same as none; a secret of that kind is refused, as an empty file is", () => {
    const blank = configVariables.filter((name) => !secrets.some((secret) => name.startsWith(secret)));
    expect(readConfig(Object.fromEntries(blank.map((name) => [name, " \n"])))).toEqual(readConfig({}));
    for (const name of secrets) {
      expect(refusal({ [name]: "\n" })).toBe(
        `${name} holds nothing but spaces or line ends: write its value, or leave it away`,
      );
    }
  });

  test("the public address follows the port, and the sandbox is off with a database of one's own", () => {
    expect(readConfig({ PORT: "9000" }).publicUrl).toBe("http://localhost:9000");
    const served = { DATABASE_URL: "postgres://u:p@db/freshet", ENCRYPTION_KEYS: key("k1") };
    expect(readConfig(served).sandbox).toBe(false);
    expect(readConfig({ ...served, SANDBOX: "true" }).sandbox).toBe(true);
  });

  test("nobody can change it afterwards", () => {
    expect(Object.isFrozen(readConfig({}))).toBe(true);
  });
});

describe("what is set is read", () => {
  test.each([
    ["HOST", "0.0.0.0", { host: "0.0.0.0" }],
    ["HOST", "::", { host: "::" }],
    ["HOST", "broker.internal", { host: "broker.internal" }],
    ["PUBLIC_URL", "https://broker.example", { publicUrl: "https://broker.example" }],
    ["PUBLIC_URL", "https://broker.example:8443/", { publicUrl: "https://broker.example:8443" }],
    ["PUBLIC_URL", "http://127.1.2.3:8080", { publicUrl: "http://127.1.2.3:8080" }],
    ["PUBLIC_URL", "http://[::1]:8080", { publicUrl: "http://[::1]:8080" }],
    ["PROVIDER_NETWORKS", "10.0.0.0/8, fd00::/8,", { providerNetworks: ["10.0.0.0/8", "fd00::/8"] }],
    [
      "RETURN_ORIGINS",
      "https://a.example,https://b.example",
      { returnOrigins: ["https://a.example", "https://b.example"] },
    ],
    ["HTTPS_PROXY", "http://u:p@proxy:3128", { proxy: { httpsProxy: "http://u:p@proxy:3128", httpProxy: null } }],
    ["NO_PROXY", "a.example,10.0.0.0/8", { proxy: { noProxy: "a.example,10.0.0.0/8" } }],
    ["PROXY_CONNECT", "by_name", { proxy: { proxyConnect: "by_name" } }],
    ["TRUST_PROXY", "10.0.0.1,fd00::/8,loopback", { trustProxy: ["10.0.0.1", "fd00::/8", "loopback"] }],
    ["SANDBOX", "false", { sandbox: false }],
    ["LOG_LEVEL", "silent", { logLevel: "silent" }],
    ["REDIS_URL", "rediss://u:p%2F@redis:6380/3", { redisUrl: "rediss://u:p%2F@redis:6380/3" }],
    ["REDIS_URL", "redis+sentinel://:p@a:1,b:2,[::1]:3/main", { redisUrl: "redis+sentinel://:p@a:1,b:2,[::1]:3/main" }],
    ["REDIS_URL", "redis+cluster://a,b", { redisUrl: "redis+cluster://a,b" }],
    ["METRICS_PORT", "9100", { metricsPort: 9100 }],
    ["ENCRYPTION_KEYS_COMMAND", " cat $(ls ${HOME}/key)\n", { encryptionKeysCommand: "cat $(ls ${HOME}/key)" }],
  ])("%s=%s", (name, value, expected) => {
    expect(readConfig({ [name]: value })).toMatchObject(expected);
  });

  test("keys for encryption come in order, in either alphabet of base64", () => {
    const { encryptionKeys } = readConfig({
      ENCRYPTION_KEYS: `${key("new", 251)}, old:${Buffer.alloc(32, 251).toString("base64url")}`,
    });
    expect(encryptionKeys).toEqual([
      { id: "new", key: Buffer.alloc(32, 251) },
      { id: "old", key: Buffer.alloc(32, 251) },
    ]);
  });

  test("every secret may stand in a file of its own instead, with white space around it", () => {
    const values = {
      DATABASE_URL: "postgresql://u:p@db/freshet",
      DATABASE_MIGRATION_URL: "postgresql://owner:p@db/freshet",
      REDIS_URL: "redis://redis",
      ENCRYPTION_KEYS: key("k1"),
      ADMIN_KEY: "a".repeat(32),
      METRICS_KEY: "m".repeat(16),
      HTTPS_PROXY: "http://user:password@proxy:3128",
      HTTP_PROXY: "http://user:password@proxy:3129",
    };
    const files = Object.entries(values).map(([name, value]) => [`${name}_FILE`, file(name, `\n${value} \n`)]);
    expect(readConfig(Object.fromEntries(files))).toEqual(readConfig(values));
  });

  test("every variable has a name that is known, and those of secrets a second one", () => {
    const all = Object.keys(environmentSchema.properties);
    expect(configVariables.toSorted()).toEqual([...all, ...secrets.map((name) => `${name}_FILE`)].toSorted());
  });
});

const database = { DATABASE_URL: "postgres://u:p@db/freshet" };

test("a command in place of the keys is enough for a database of one's own", () => {
  const config = readConfig({ ...database, ENCRYPTION_KEYS_COMMAND: "cat keys" });
  expect(config).toMatchObject({ encryptionKeys: null, encryptionKeysCommand: "cat keys" });
});

describe("a wrong value stops the start with the variable's name and what is allowed", () => {
  test.each<[Record<string, string>, string]>([
    [
      { PROVIDER_NETWORKS: "10.0.0.0/8,10.0.0.0" },
      'PROVIDER_NETWORKS must be a comma list of CIDR blocks: "10.0.0.0" is not a CIDR block such as 10.0.0.0/8 or fd00::/8',
    ],
    [{ HOST: "256.1.1.1" }, 'HOST must be an address or a host name, without scheme and port, not "256.1.1.1"'],
    [{ PORT: "http" }, 'PORT must be a whole number from 1 to 65535, not "http"'],
    [{ PORT: "0" }, 'PORT must be a whole number from 1 to 65535, not "0"'],
    [{ PORT: "65536" }, 'PORT must be a whole number from 1 to 65535, not "65536"'],
    [{ PORT: "80.5" }, 'PORT must be a whole number from 1 to 65535, not "80.5"'],
    [{ PORT: "true" }, 'PORT must be a whole number from 1 to 65535, not "true"'],
    [{ PORT: "80\n81" }, 'PORT must be a whole number from 1 to 65535, not "80\\n81"'],
    [{ METRICS_PORT: "-1" }, 'METRICS_PORT must be a whole number from 1 to 65535, not "-1"'],
    [{ METRICS_PORT: "8080" }, "METRICS_PORT must be another port than PORT"],
    [{ SHUTDOWN_GRACE_SECONDS: "1h" }, 'SHUTDOWN_GRACE_SECONDS must be a whole number from 1 to 3600, not "1h"'],
    [{ SANDBOX: "maybe" }, 'SANDBOX must be true or false, not "maybe"'],
    [{ LOG_LEVEL: "loud" }, 'LOG_LEVEL must be fatal, error, warn, info, debug, trace or silent, not "loud"'],
    [{ PUBLIC_URL: "http://broker.example" }, "PUBLIC_URL must be https unless it is a loopback address"],
    [{ PUBLIC_URL: "http://127.evil.example" }, "PUBLIC_URL must be https unless it is a loopback address"],
    [
      { PUBLIC_URL: "https://broker.example/freshet" },
      "PUBLIC_URL must be an origin like https://broker.example.com, without a path",
    ],
    [{ PUBLIC_URL: "broker.example" }, "PUBLIC_URL must be an origin"],
    [{ PUBLIC_URL: "https://user@broker.example" }, "PUBLIC_URL must be an origin"],
    [
      { RETURN_ORIGINS: "https://a.example,https://b.example/x" },
      'RETURN_ORIGINS must be an origin like https://broker.example.com, without a path, not "https://b.example/x"',
    ],
    [
      { TRUST_PROXY: "everyone" },
      'TRUST_PROXY must be a comma list of addresses, CIDR blocks, loopback, linklocal, uniquelocal, not "everyone"',
    ],
    [{ TRUST_PROXY: "10.0.0.0/33" }, 'not "10.0.0.0/33"'],
    [{ TRUST_PROXY: "10.0.0.0/8/8" }, 'not "10.0.0.0/8/8"'],
    [{ ADMIN_KEY: "short" }, "ADMIN_KEY must be at least 32 printable ASCII characters, no spaces or commas; or two"],
    [{ ADMIN_KEY: `${"a".repeat(32)},short` }, "ADMIN_KEY must be at least 32 printable ASCII characters, no spaces"],
    [
      { ADMIN_KEY: ["a", "b", "c"].map((letter) => letter.repeat(32)).join() },
      "ADMIN_KEY must be at least 32 printable ASCII characters",
    ],
    [
      { ADMIN_KEY: "a key that no header can carry \u{1f511}" },
      "ADMIN_KEY must be at least 32 printable ASCII characters",
    ],
    [{ METRICS_KEY: "short" }, "METRICS_KEY must be at least 16 printable ASCII characters, no spaces"],
    [{ DATABASE_URL: "mysql://u:p@db/x" }, "DATABASE_URL must be a URL that begins with postgres:// or postgresql://"],
    [{ DATABASE_URL: "postgres://u:p/w@db/x" }, "DATABASE_URL must be a URL postgres://user:password@host:port"],
    [{ DATABASE_URL: "postgres://" }, "DATABASE_URL must be a URL postgres://user:password@host:port"],
    [
      { DATABASE_MIGRATION_URL: "mysql://u:p@db/x" },
      "DATABASE_MIGRATION_URL must be a URL that begins with postgres:// or postgresql://",
    ],
    [
      { DATABASE_MIGRATION_URL: "postgres://u:p@db/x?sslmode=maybe" },
      "DATABASE_MIGRATION_URL has an sslmode that there is not",
    ],
    [
      { ENCRYPTION_KEYS: key("k1"), ENCRYPTION_KEYS_FILE: "/nowhere", ENCRYPTION_KEYS_COMMAND: "cat" },
      "ENCRYPTION_KEYS, ENCRYPTION_KEYS_FILE and ENCRYPTION_KEYS_COMMAND are set, and only one of them may be",
    ],
    [database, "ENCRYPTION_KEYS is required with DATABASE_URL: a comma list of id:base64(32 bytes)"],
    [
      { REDIS_URL: "http://redis" },
      "REDIS_URL must be a URL that begins with redis:// or rediss:// or redis+sentinel://",
    ],
    [{ REDIS_URL: "redis://redis:99999" }, "REDIS_URL must be a URL redis://user:password@host:port"],
    [{ REDIS_URL: "redis+cluster://a:1,b:x" }, "REDIS_URL must be a URL redis+cluster://user:password@host:port"],
    [{ ENCRYPTION_KEYS: "," }, "ENCRYPTION_KEYS must hold at least one id:base64(32 bytes)"],
    [{ ENCRYPTION_KEYS: `${key("k1")},k2` }, "ENCRYPTION_KEYS entry 2 must be id:base64(32 bytes)"],
    [{ ENCRYPTION_KEYS: "k1:not base64!" }, "ENCRYPTION_KEYS entry 1 must be id:base64(32 bytes)"],
    [{ ENCRYPTION_KEYS: "k1:c2hvcnQ=" }, "ENCRYPTION_KEYS entry 1 must be id:base64(32 bytes), it has 5 bytes"],
    [{ ENCRYPTION_KEYS: `${key("k1")},${key("k1", 8)}` }, 'ENCRYPTION_KEYS names the key "k1" twice'],
    [
      { ADMIN_KEY_FILE: join(folder, "nowhere") },
      `ADMIN_KEY_FILE names a file that cannot be read: ${join(folder, "nowhere")} (ENOENT)`,
    ],
    [{ ADMIN_KEY_FILE: folder }, `ADMIN_KEY_FILE names a file that cannot be read: ${folder} (EISDIR)`],
    [{ METRICS_KEY_FILE: file("empty", " \n") }, `METRICS_KEY_FILE names an empty file: ${join(folder, "empty")}`],
  ])("%o", (env, expected) => {
    const text = refusal(env);
    expect(text).toContain(expected);
    expect(text).not.toMatch(/[\n\r]/);
  });

  test.each([
    "PUBLIC_URL",
    "RETURN_ORIGINS",
    "HOST",
    "PORT",
    "TRUST_PROXY",
    "NO_PROXY",
    "LOG_LEVEL",
    "PROVIDER_NETWORKS",
  ])("and without the password of a URL that has come into %s", (name) => {
    const text = "postgresql://me:hunter2@x/y@host.example/z";
    expect(() => readConfig({ [name]: text })).toThrow(new RegExp(`^${name} `));
    expect(() => readConfig({ [name]: text })).not.toThrow(/hunter2|x\/y/);
  });

  test("and never with the value of a secret, wherever that stands", () => {
    const canary = fc.stringMatching(/^[!-~]{8,60}$/).map((text) => `canary${text}`);
    const sent = fc
      .constantFrom("", "postgres://u:", "redis://:", "redis+sentinel://:", "k1:")
      .chain((start) => canary.map((text) => start + text));
    fc.assert(
      fc.property(fc.constantFrom(...secrets), sent, fc.boolean(), (name, value, inFile) => {
        const env = inFile ? { [`${name}_FILE`]: file("canary", value) } : { [name]: value };
        try {
          readConfig(env);
        } catch (error) {
          expect(error).toBeInstanceOf(StartupError);
          expect((error as StartupError).message).not.toContain("canary");
        }
      }),
      { numRuns: 300 },
    );
  });
});
