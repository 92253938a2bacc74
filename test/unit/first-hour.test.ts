import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { pino } from "pino";
import { afterAll, describe, expect, it } from "vitest";
import type { WakingSignal } from "../../src/clock.ts";
import { type Environment, readConfig, readEnvironment, type Variables } from "../../src/config.ts";
import { StartupError } from "../../src/errors.ts";
import { loadCatalog } from "../../src/providers/load/catalog.ts";
import { withSource } from "../../src/start/env-file.ts";
import { addressWarnings, firstWarnings, roleWarnings } from "../../src/start/first-warnings.ts";
import { readFirstHour } from "../support/error-table.ts";
import { withPrintedKeyring } from "../../src/start/keys-command.ts";
import { canary, type Cases, expectTold, refusalOf, rowsOf, type Told } from "../support/first-hour.ts";

const folder = mkdtempSync(join(tmpdir(), "freshet-first-hour-"));
const key = (id: string) => `${id}:${Buffer.alloc(32, 7).toString("base64")}`;
const adminKey = `${canary}-${"k".repeat(32)}`;

afterAll(() => {
  rmSync(folder, { recursive: true });
});

let made = 0;
function write(name: string, content: string | Buffer): string {
  const own = join(folder, String(++made));
  mkdirSync(own);
  writeFileSync(join(own, name), content);
  return own;
}

const refused = (env: Variables) => () => refusalOf(() => readConfig(env));

/** A start with these variables: what it warns of, and that it is not refused. */
const warned =
  (env: Variables, file: Environment["file"] = null) =>
  (): Told => {
    const config = readConfig(env);
    const warnings = [...firstWarnings({ env, file }), ...addressWarnings(config, file), ...roleWarnings(config)];
    return { lines: warnings.map(({ text }) => text), exit: null };
  };

const dotenv = (content: string | Buffer) => () => startWith(join(write(".env", content), ".env"));

/** A start in a folder that holds only this file. */
async function startWith(path: string): Promise<Told> {
  const lines: string[] = [];
  const start = () => {
    const { file } = readEnvironment(path);
    lines.push(...firstWarnings({ env: file?.values ?? {}, file }).map(({ text }) => text));
    try {
      readConfig(file?.values);
    } catch (error) {
      throw new StartupError(withSource((error as Error).message, file)); // as src/main.ts prints it
    }
  };
  const goesOn = { lines, exit: null };
  return await refusalOf(start).catch(() => goesOn);
}

const builtinFolder = fileURLToPath(new URL("../../providers", import.meta.url));
const load = (extraFolder: string) => refusalOf(() => loadCatalog({ builtinFolder, extraFolder, sandbox: null }));
const provider = (yaml: string) => () => load(write("acme.yaml", yaml));

const database = `postgresql://u:${canary}@db:5432/freshet`;
const variables: Cases = {
  "`PORT=http`": refused({ PORT: "http" }),
  "`PORT=70000`": refused({ PORT: "70000" }),
  "`PORT` in quotes that Docker keeps": refused({ PORT: '"8080"' }),
  "`PORT` that Kubernetes sets": refused({ PORT: "tcp://10.0.0.1:8080" }),
  "`HOST` with a scheme": refused({ HOST: "http://0.0.0.0" }),
  "`HOST` with a port": refused({ HOST: "0.0.0.0:8080" }),
  "`HOST` in brackets": refused({ HOST: "[::1]" }),
  "`PUBLIC_URL` without a scheme": refused({ PUBLIC_URL: "broker.example.com" }),
  "`PUBLIC_URL` with a path": refused({ PUBLIC_URL: "https://a.example/oauth" }),
  "`PUBLIC_URL` of another machine with `http://`": refused({ PUBLIC_URL: "http://broker.example.com" }),
  "`PUBLIC_URL` with another port than `PORT`": warned({ PUBLIC_URL: "http://localhost:3000" }),
  "`DATABASE_URL` without a scheme": refused({ DATABASE_URL: `u:${canary}@localhost:5432/freshet` }),
  "`DATABASE_URL` of MySQL": refused({ DATABASE_URL: `mysql://u:${canary}@db/freshet` }),
  "`DATABASE_URL` in quotes": refused({ DATABASE_URL: `"${database}"` }),
  "`DATABASE_URL` whose password has a slash": refused({ DATABASE_URL: `postgresql://u:${canary}/p@db:5432/freshet` }),
  "`DATABASE_URL` that is a line end alone": refused({ DATABASE_URL: "\n" }),
  "`DATABASE_URL` of a Redis": refused({ DATABASE_URL: `redis://:${canary}@localhost:6379` }),
  "`DATABASE_URL` that is the path of a socket": refused({ DATABASE_URL: `/var/run/${canary}` }),
  "`DATABASE_URL` of a socket without a host": refused({ DATABASE_URL: `postgresql://${canary}@/freshet?host=/tmp` }),
  "`DATABASE_URL` with `sslmode=maybe`": refused({ DATABASE_URL: `${database}?connect_timeout=3&sslmode=maybe` }),
  "`DATABASE_URL` with `${PASSWORD}`": refused({ DATABASE_URL: "postgresql://u:${PASSWORD}@db:5432/freshet" }),
  "`DATABASE_URL` without `ENCRYPTION_KEYS`": refused({ DATABASE_URL: database }),
  "`DATABASE_URL` without `DATABASE_MIGRATION_URL`": warned({ DATABASE_URL: database, ENCRYPTION_KEYS: key("k1") }),
  "`DATABASE_MIGRATION_URL` without `DATABASE_URL`": refused({ DATABASE_MIGRATION_URL: database }),
  "`REDIS_URL` without a scheme": refused({ REDIS_URL: `:${canary}@localhost:6379` }),
  "`REDIS_URL` of a Postgres": refused({ REDIS_URL: database }),
  "`REDIS_URL` with a database's name": refused({ REDIS_URL: `redis://:${canary}@localhost:6379/freshet` }),
  "`ENCRYPTION_KEYS` without an id": refused({ ENCRYPTION_KEYS: canary }),
  "`ENCRYPTION_KEYS` that is short": refused({ ENCRYPTION_KEYS: "k1:Y2FuYXJ5LXBhc3N3b3Jk" }),
  "`ENCRYPTION_KEYS` in hex": refused({ ENCRYPTION_KEYS: `k1:${"c4".repeat(32)}` }),
  "`ENCRYPTION_KEYS` with an id twice": refused({ ENCRYPTION_KEYS: `${key("k1")},${key("k1")}` }),
  "`ENCRYPTION_KEYS` and `ENCRYPTION_KEYS_FILE`": refused({ ENCRYPTION_KEYS: key("k1"), ENCRYPTION_KEYS_FILE: folder }),
  "`ENCRYPTION_KEYS_FILE` and a command": refused({
    ENCRYPTION_KEYS_FILE: join(write("keys", key("k1")), "keys"),
    ENCRYPTION_KEYS_COMMAND: `echo ${canary}`,
  }),
  "`ADMIN_KEY` that is short": refused({ ADMIN_KEY: canary }),
  "`ADMIN_KEY` with a space": refused({ ADMIN_KEY: `${adminKey} x` }),
  "`ADMIN_KEY` that is a command": refused({ ADMIN_KEY: "$(openssl rand -hex 32)" }),
  "`ADMIN_KEY_FILE` that is not there": refused({ ADMIN_KEY_FILE: join(folder, "nowhere") }),
  "`ADMIN_KEY_FILE` that is empty": () =>
    refusalOf(() => readConfig({ ADMIN_KEY_FILE: join(write("key", "\n"), "key") })),
  "`ADMIN_KEY_FILE` that is a folder": refused({ ADMIN_KEY_FILE: folder }),
  "`SANDBOX=yes`": refused({ SANDBOX: "yes" }),
  "`LOG_LEVEL=verbose`": refused({ LOG_LEVEL: "verbose" }),
  "`METRICS_PORT` that is `PORT`": refused({ PORT: "9000", METRICS_PORT: "9000" }),
  "`METRICS_KEY` that is short": refused({ METRICS_KEY: canary }),
  "`TRUST_PROXY=true`": refused({ TRUST_PROXY: "true" }),
  "`PROVIDER_NETWORKS` without a length": refused({ PROVIDER_NETWORKS: "10.0.0.0" }),
  "`RETURN_ORIGINS` with a path": refused({ RETURN_ORIGINS: "https://a.example/done" }),
  "`HTTPS_PROXY` without a scheme": refused({ HTTPS_PROXY: `u:${canary}@proxy:3128` }),
  "`SHUTDOWN_GRACE_SECONDS=60s`": refused({ SHUTDOWN_GRACE_SECONDS: "60s" }),
};

/** What a start with this command says, as soon as its first run is over, or at its end. Its pauses pass at once. */
const commanded =
  (command: string, { isLate = false, lastOnly = false } = {}) =>
  async (): Promise<Told> => {
    const lines: string[] = [];
    const log = pino({}, { write: (line) => void lines.push((JSON.parse(line) as { msg: string }).msg) });
    let nowMs = 0;
    const clock = {
      monotonicMs: () => nowMs,
      sleep: async (ms: number, signal?: WakingSignal) => {
        // The limit of a run, which passes where a test says so, or a pause.
        if (signal !== undefined) return isLate ? undefined : await new Promise<void>(() => {});
        nowMs += ms;
        if (!lastOnly) throw new Error("enough is told");
      },
    };
    const config = readConfig({ ENCRYPTION_KEYS_COMMAND: command });
    const start = withPrintedKeyring(config, { env: { PATH: process.env["PATH"] }, log, clock });
    if (lastOnly) return await refusalOf(() => start);
    await expect(start).rejects.toThrow("enough is told");
    return { lines, exit: null };
  };

const commands: Cases = {
  "a command that fails": commanded(`echo ${canary}; exit 1`),
  "a program that is not there": commanded(`no-such-program ${canary}`),
  "a program that is killed": commanded(`echo ${canary}; kill -9 $$`),
  "a program that does not answer": commanded("sleep 1000", { isLate: true }),
  "a command that prints nothing": commanded(`echo ${canary} >&2`),
  "a command that prints something else": commanded(`echo ${canary}`),
  "a command that never prints the keys": commanded(`echo ${canary}; exit 1`, { lastOnly: true }),
};

const certificates = { NODE_EXTRA_CA_CERTS: "/etc/ca.pem" };
const spellings: Cases = {
  "`DATABSE_URL`": warned({ DATABSE_URL: database }),
  "`DB_URL`": warned({ DB_URL: database }),
  "`REDIS_URI`": warned({ REDIS_URI: canary }),
  "`ENCRYPTION_KEY`": warned({ ENCRYPTION_KEY: canary }),
  "`ADMIN_KEYS_FILE`": warned({ ADMIN_KEYS_FILE: canary }),
  "`port`": warned({ port: "9000" }),
  "`FRESHET_PORT`": warned({ FRESHET_PORT: "9000" }),
  "`https_proxy`": warned({ https_proxy: canary }),
  "`PROVIDER_DIR`": warned({ PROVIDER_DIR: canary }),
  "`PUBLIC_URL_FILE`, which is no secret": warned({ PUBLIC_URL_FILE: canary }),
  "`ADMIN_KEY` and `ADMIN_KEY_FILE`": warned({ ADMIN_KEY: adminKey, ADMIN_KEY_FILE: "/nowhere" }),
  "`NODE_EXTRA_CA_CERTS` in `.env`": warned(certificates, { path: ".env", values: certificates, problems: [] }),
};

const first = `ADMIN_KEY=${adminKey}\n`;
const envFiles: Cases = {
  "a line without `=`": dotenv(`${first}${canary}\n`),
  "a name with a space": dotenv(`${first}DATABASE URL=${canary}\n`),
  "a quote that is not closed": dotenv(`${first}REDIS_URL="${canary}\nPORT=1\n`),
  "text after the closing quote": dotenv(`${first}REDIS_URL="a"${canary}\n`),
  "a line of a shell": dotenv(`${first}. ./${canary}.sh\n`),
  "a value that is not allowed": dotenv(`${first}PORT=http\n`),
  "a value that names another": dotenv(`${first}PUBLIC_URL=https://\${DOMAIN}\n`),
  "a secret that is not allowed": dotenv(`ADMIN_KEY=${canary}\n`),
  "a secret's file that is not there": dotenv(`${first}METRICS_KEY_FILE=/nowhere/metrics_key\n`),
  "a secret's file in a container": dotenv(`${first}METRICS_KEY_FILE=/run/secrets/no_such_key\n`),
  "a name that is misspelt": dotenv(`${first}PROVIDER_DIR=${canary}\n`),
  "a folder": () => startWith(folderNamed(".env")),
  "UTF-16": dotenv(Buffer.from(`\uFEFF${first}`, "utf16le")),
};

function folderNamed(name: string): string {
  const path = join(write("beside", ""), name);
  mkdirSync(path);
  return path;
}

const providerFiles: Cases = {
  "a tab that indents": provider("id: acme\n\tname: A\n"),
  "a bracket that is not closed": provider("id: acme\nname: [A\n"),
  "an empty file": provider(""),
  "no id": provider("name: Acme\nextends: oauth2\n"),
  "a setting that is misspelt": provider("id: acme\nextends: oauth2\ngrant: [authorization_code]\n"),
  "a value that is not allowed": provider(
    "id: acme\nextends: oauth2\ntoken:\n  url: https://a.example\n  encoding: xml\n",
  ),
  "the id of a built-in provider": provider("id: bol\nname: A\n"),
  "`extends` of a provider that is not there": provider("id: acme\nextends: oauth\n"),
  "a folder that is not there": () => load(join(folder, "nowhere")),
  "a file in place of the folder": () => load(join(write("acme.yaml", ""), "acme.yaml")),
};

/** Played by test/integration/first-hour.test.ts. */
const elsewhere = ["Folders, ports and Node.js", "Postgres", "Redis"];
const here: Record<string, Cases> = {
  Variables: variables,
  "A command that prints the keys": commands,
  "Names of variables": spellings,
  "The file .env": envFiles,
  "Provider files": providerFiles,
};

describe("docs/first-hour.md: one line each, that names the thing and the remedy", () => {
  it("has sixty rows at least, and every section is played", () => {
    const rows = readFirstHour();
    expect(rows.length).toBeGreaterThanOrEqual(60);
    expect([...new Set(rows.map(({ section }) => section))].sort()).toEqual(
      [...Object.keys(here), ...elsewhere].sort(),
    );
  });

  describe.each(Object.entries(here))("%s", (section, cases) => {
    it.for(rowsOf(section, cases))("$wrong", async (row) => {
      expectTold(row, await row.play());
    });
  });
});

const told = (env: Variables) => firstWarnings({ env, file: null }).map(({ variable }) => variable);

it("a PUBLIC_URL behind TLS, in a container, of another machine, or at PORT needs no warning", () => {
  const env = { PORT: "9000", PUBLIC_URL: "http://localhost:3000" };
  const good = [
    { PUBLIC_URL: "https://localhost" },
    { HOST: "0.0.0.0" },
    { PUBLIC_URL: "https://broker.example.com" },
    { PUBLIC_URL: "http://127.0.0.1:9000" },
    { PUBLIC_URL: "" },
    { PORT: "80", PUBLIC_URL: "http://localhost" },
  ];
  expect(good.flatMap((more) => addressWarnings(readConfig({ ...env, ...more }), null))).toEqual([]);
});

describe("names that are near to ours", () => {
  it("foreign variables are not told", () => {
    const names = Object.keys(process.env).filter((name) => !/^https?_proxy$|^no_proxy$/.test(name));
    names.push(
      "PATH",
      "HOSTNAME",
      "HOSTS",
      "POST",
      "FTP_PROXY",
      "ALL_PROXY",
      "BASE_URL",
      "POSTGRES_PASSWORD",
      "PGHOST",
    );
    names.push("REDIS_PORT", "REDIS_HOST", "DATABASE_NAME", "API_KEY", "npm_config_noproxy", "NODE_ENV", "PUBLIC_KEY");
    names.push("NODE_EXTRA_CA_CERTS", "LOG_FORMAT", "TERM", "LANG", "USER", "DATABASE_PORT", "CLIENT_SECRET");
    const foreign = Object.fromEntries(names.map((name) => [name, "x"]));
    expect(told(foreign)).toEqual([]);
  });

  it("nor are the command line's own, what Kubernetes sets, what is empty, and what stands beside the right one", () => {
    expect(told({ FRESHET_URL: "x", FRESHET_KEY: "x", FRESHET_KEY_FILE: "x", FRESHET_PASSWORD: "x" })).toEqual([]);
    expect(told({ FRESHET_PORT: "tcp://10.0.0.1:8080" })).toEqual([]);
    expect(told({ REDIS_URI: "" })).toEqual([]);
    expect(told({ https_proxy: "x", HTTPS_PROXY: "http://proxy:1" })).toEqual([]);
    expect(told({ REDIS_URI: "x", REDIS_URL_FILE: "/run/secrets/redis_url" })).toEqual([]);
  });

  it.each([
    [
      "DATABASE_URL",
      ["DATABASEURL", "DATABASE_ULR", "DATABASE_URI", "database_url", "database-url", "FRESHET_DATABASE_URL"],
    ],
    ["ENCRYPTION_KEYS", ["ENCRYPTION_KEY", "ENCRYPTIONKEYS", "ENCYRPTION_KEYS"]],
    ["DATABASE_URL_FILE", ["DATABSE_URL_FILE", "DB_URL_FILE"]],
    ["LOG_LEVEL", ["LOGLEVEL", "LOG_LEVELS", "log_level"]],
    ["DATA_DIR", ["DATADIR", "DATA_DIRS"]],
    ["RETURN_ORIGINS", ["RETURN_ORIGIN", "RETURN_ORGINS"]],
    ["TRUST_PROXY", ["TRUSTED_PROXY", "TRUSTED_PROXIES"]],
    ["ORGANISATION_NAME", ["ORGANIZATION_NAME"]],
  ])("%s is meant by %j", (meant, misspelt) => {
    for (const name of misspelt) {
      const [warning] = firstWarnings({ env: { [name]: "x" }, file: null });
      expect([name, warning?.text]).toEqual([name, expect.stringContaining(`did you mean ${meant}?`)]);
    }
  });
});

/** The variables of a start in a folder that holds this file. */
const read = (content: string, env: Variables = {}): Variables => {
  const path = join(write(".env", content), ".env");
  const before = { ...process.env };
  Object.assign(process.env, env);
  try {
    return readEnvironment(path).env;
  } finally {
    for (const name of Object.keys(env)) if (before[name] === undefined) delete process.env[name];
  }
};

describe("the file .env", () => {
  it("adds to the environment, which wins, with either form of a secret", () => {
    const content = "RETURN_ORIGINS=https://a.example\nADMIN_KEY=x\nMETRICS_KEY_FILE=/x\n";
    const env = { RETURN_ORIGINS: "", ADMIN_KEY_FILE: "/y", METRICS_KEY: "z" };
    expect(read(content)).toMatchObject({ RETURN_ORIGINS: "https://a.example", ADMIN_KEY: "x" });
    const both = read(content, env);
    expect(both).toMatchObject(env);
    expect([both["ADMIN_KEY"], both["METRICS_KEY_FILE"]]).toEqual([undefined, undefined]);
  });

  it("may hold comments, quotes, several lines in quotes, `export`, empty values, and line ends of Windows", () => {
    const content = `# a comment\r\n\r\nexport ORGANISATION_NAME="A # B" # a comment\r\nREDIS_URL=\r\nDATA_DIR='two\nlines'\nHOST=::1 # c\n`;
    const env = read(content);
    const expected = { ORGANISATION_NAME: "A # B", REDIS_URL: "", DATA_DIR: "two\nlines", HOST: "::1" };
    expect(env).toMatchObject(expected);
    expect(readConfig({ ...expected }).redisUrl).toBeNull();
  });

  it("is read on after a line that is no variable, and each of those is told by its number alone", () => {
    const content = `. ./${canary}.sh\nPORT=9000\nif [ -n "$A" ]; then\nexport PATH\nfi\nHOST=::1\n`;
    const given = readEnvironment(join(write(".env", content), ".env"));
    expect(given.file?.values).toEqual({ PORT: "9000", HOST: "::1" });
    const texts = firstWarnings({ file: given.file, env: {} }).map(({ text }) => text);
    expect(texts.map((text) => /:(\d+): is not NAME=value/.exec(text)?.[1])).toEqual(["1", "3", "4", "5"]);
    expect(texts.join()).not.toContain(canary);
  });

  it("takes a # in a value as Compose and shells do: only after a space it begins a comment", () => {
    const env = read("REDIS_URL=redis://:pass#word@redis # a comment\nHOST= # none\nORGANISATION_NAME=#1\n");
    expect(env).toMatchObject({ REDIS_URL: "redis://:pass#word@redis", HOST: "", ORGANISATION_NAME: "#1" });
  });

  it("is named where a refused value comes from it, and only there", () => {
    const file = { path: "/srv/.env", values: { PORT: "http" }, problems: [] };
    expect(withSource('PORT must be 1, not "http"', file)).toBe(
      'PORT must be 1, not "http"; PORT comes from /srv/.env',
    );
    expect(withSource("HOST must be a name", file)).toBe("HOST must be a name");
    expect(withSource("PORT must be 1", null)).toBe("PORT must be 1");
  });

  it("need not be there", () => {
    expect(readEnvironment(join(folder, "no.env"))).toEqual({ env: process.env, file: null });
    expect(readEnvironment(null).file).toBeNull();
  });
});
