import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { text as readText } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { parse } from "yaml";
import { configVariables, environmentSchema, readConfig } from "../../src/config.ts";
import { createDatabaseHealth, openPostgres } from "../../src/store/database.ts";
import { compileCache } from "../support/broker-process.ts";
import { query } from "../support/query.ts";
import { temporaryFolder } from "../support/services/guardian.ts";
import { describeWithServices, startPrivatePostgres } from "../support/services/index.ts";
import { lastRest, readDockerfile, readEnv } from "./read-dockerfile.ts";

type Service = {
  build?: string;
  user?: string;
  entrypoint?: string[];
  restart?: string;
  network_mode?: string;
  environment?: Record<string, string>;
  volumes?: string[];
  configs?: { source: string; target: string }[];
  networks?: string[];
  ports?: string[];
  depends_on?: Record<string, { condition: string }>;
  healthcheck?: object;
  stop_grace_period?: string;
  read_only?: boolean;
  cap_drop?: string[];
  security_opt?: string[];
};

type Compose = {
  services: Record<string, Service>;
  volumes: Record<string, unknown>;
  secrets?: unknown;
  configs: Record<string, { file: string }>;
  networks: Record<string, { internal?: boolean } | null>;
};

const root = fileURLToPath(new URL("../..", import.meta.url));
const text = async (file: string) => await readFile(join(root, file), "utf8");
const compose: Compose = parse(await text("docker-compose.yml"), { merge: true });
const image = readDockerfile(await text("Dockerfile")).at(-1) ?? { name: "", instructions: [] };
const imageEnv = readEnv(image, "");
const services = Object.entries(compose.services);
const brokers = services.filter(([name]) => /^broker(-\d+)?$/.test(name));

/** Mounts of volumes. Those of the clone begin with `./`. */
const volumesOf = ({ volumes = [] }: Service) => volumes.filter((mount) => !mount.startsWith("./"));

test("every variable of the brokers exists in the configuration", () => {
  expect(brokers.map(([name]) => name)).toEqual(["broker", "broker-2"]);
  const used = brokers.flatMap(([, { environment = {} }]) => Object.keys(environment));
  expect(used.filter((name) => !configVariables.includes(name))).toEqual([]);
});

test("every variable that the image sets exists in the configuration", () => {
  const { NODE_ENV, PATH, ...ours } = imageEnv;
  expect({ NODE_ENV, PATH }).toEqual({ NODE_ENV: "production", PATH: "/app/bin:" });
  expect(ours).toEqual({ HOST: "0.0.0.0", DATA_DIR: "/data" });
  expect(Object.keys(ours).filter((name) => !configVariables.includes(name))).toEqual([]);
});

test(".env.example names every variable once, with the default it has", async () => {
  const lines = [...(await text(".env.example")).matchAll(/^#?([A-Z][A-Z0-9_]*)=(.*)$/gm)];
  const all = [...configVariables, "NODE_EXTRA_CA_CERTS"]; // which Node itself reads
  expect(new Set(lines.map(([, name]) => name))).toEqual(new Set(all));
  expect(lines).toHaveLength(all.length);
  const written = new Map(lines.map(([, name, value]) => [name, value]));
  const withDefault = Object.entries(environmentSchema.properties).flatMap(([name, schema]) =>
    "default" in schema ? [[name, String(schema.default)] as const] : [],
  );
  expect(withDefault.length).toBeGreaterThan(3);
  for (const [name, value] of withDefault) expect([name, written.get(name)]).toEqual([name, value]);
});

test("each broker has a volume of its own for its data folder", () => {
  const mounts = brokers.map(([, { volumes = [] }]) => volumes.filter((mount) => mount.endsWith(":/data")));
  expect(mounts.map((each) => each.length)).toEqual([1, 1]);
  const names = mounts.flat().map((mount) => mount.split(":")[0] ?? "");
  expect(new Set(names).size).toBe(brokers.length);
  for (const name of names) expect(Object.keys(compose.volumes)).toContain(name);
  for (const [, { environment = {} }] of brokers) expect(environment["DATA_DIR"]).toBe("/data");
  expect(lastRest(image, "VOLUME")).toBe("/data");
});

test("whatever a service mounts, joins or waits for is declared", () => {
  for (const [name, service] of services) {
    for (const { source } of service.configs ?? []) expect(Object.keys(compose.configs), name).toContain(source);
    for (const network of service.networks ?? []) expect(Object.keys(compose.networks), name).toContain(network);
    for (const volume of volumesOf(service)) expect(Object.keys(compose.volumes)).toContain(volume.split(":")[0]);
  }
});

test("a service is waited for until it is healthy, and knows when it is; the one that makes secrets until it has made them", () => {
  const waits = services.flatMap(([, service]) => Object.entries(service.depends_on ?? {}));
  for (const [name, { condition }] of waits) {
    expect([name, condition]).toEqual([
      name,
      name === "secrets" ? "service_completed_successfully" : "service_healthy",
    ]);
    const service = compose.services[name];
    if (service?.healthcheck === undefined) expect([name, service?.build]).toEqual([name, "."]);
  }
  for (const name of ["broker", "broker-2", "postgres", "redis"]) {
    expect([name, Object.keys(compose.services[name]?.depends_on ?? {})]).toEqual([
      name,
      expect.arrayContaining(["secrets"]),
    ]);
  }
  expect(lastRest(image, "HEALTHCHECK")).toContain("/livez");
});

test("docker compose up needs nothing that is not in a fresh clone: no file of secrets, no variable, no .env", async () => {
  const ignored = (await text(".gitignore")).split("\n").filter((line) => line !== "");
  expect(compose.secrets).toBe(undefined);
  const mounts = services.flatMap(([, { volumes = [] }]) => volumes).filter((mount) => /^[./~]/.test(mount));
  expect(mounts.filter((mount) => !/^\.\/[^:]+:[^:]+:ro$/.test(mount))).toEqual([]);
  const mounted = mounts.map((mount) => mount.slice(2, mount.indexOf(":")));
  for (const file of [...Object.values(compose.configs).map((config) => config.file), ...mounted]) {
    expect([file, existsSync(join(root, file)), ignored.some((line) => file.startsWith(line))]).toEqual([
      file,
      true,
      false,
    ]);
  }
  const yaml = await text("docker-compose.yml");
  const variables = [...yaml.replaceAll("$$", "").matchAll(/\$\{?([A-Z_]+)(:-)?/g)];
  expect(variables.filter(([, , fallback]) => fallback === undefined).map(([all]) => all)).toEqual([]);
  const { DATABASE_URL_FILE, SANDBOX } = compose.services["broker"]?.environment ?? {};
  expect([DATABASE_URL_FILE, SANDBOX]).toEqual(["/run/secrets/database_url", "${SANDBOX:-false}"]);
});

test("a broker gets more time to stop than it takes for itself", () => {
  for (const [, { environment = {}, stop_grace_period: grace = "" }] of brokers) {
    expect(grace).toMatch(/^\d+s$/);
    expect(Number.parseInt(grace, 10)).toBeGreaterThan(Number(environment["SHUTDOWN_GRACE_SECONDS"]));
  }
});

test("every service runs with a read-only disk, without capabilities and without ways to more", () => {
  for (const [name, service] of services) {
    expect([name, service]).toEqual([
      name,
      expect.objectContaining({
        read_only: true,
        cap_drop: ["ALL"],
        security_opt: ["no-new-privileges:true"],
        ulimits: { core: 0 },
      }),
    ]);
  }
  expect(lastRest(image, "USER")).toMatch(/^[1-9]\d*:[1-9]\d*$/);
});

test("only the load balancer can be reached from outside, and only on this machine", () => {
  const published = services.flatMap(([name, { ports = [] }]) => ports.map((port) => [name, port]));
  expect(published).toEqual([["load-balancer", "127.0.0.1:8080:8080"]]);
  for (const name of ["postgres", "redis"]) {
    const networks = compose.services[name]?.networks ?? [];
    expect(networks.map((network) => compose.networks[network]?.internal)).toEqual([true]);
  }
});

test("the load balancer asks every broker whether it is ready, repeats nothing that was sent, and logs no address", async () => {
  const config = await text("deploy/haproxy.cfg");
  const servers = [...config.matchAll(/^ +server (\S+) (\S+)$/gm)].map(([, name, address]) => [name, address]);
  expect(servers).toEqual(brokers.map(([name]) => [name, `${name}:8080`]));
  expect(config).toMatch(/^ +http-check send meth GET uri \/readyz /m);
  expect(config.match(/^ +retry-on .*$/gm)).toEqual(["    retry-on conn-failure"]);
  expect(config).toMatch(/^ +log-format /m);
  expect(config).not.toMatch(/option httplog|%(\{[^}]*\})?(HU|HP|HPO|HQ|HV|r)\b|\bpathq?\b(?!,field)|capture/);
});

/** Folders in place of the volumes that hold secrets, as the image gives them to a volume that is new. */
async function secretVolumes() {
  const folder = await temporaryFolder("secrets");
  const mounts = volumesOf(compose.services["secrets"] ?? {}).map((mount) => mount.split(":"));
  const { entrypoint: [program = "", ...given] = [] } = compose.services["secrets"] ?? {};
  const places = new Map(mounts.map(([volume = "", path = ""]) => [volume, join(folder.path, path)]));
  for (const place of places.values()) await mkdir(place, { recursive: true });
  const make = async (args: string[] = [], input = "", env: Record<string, string> = {}) => {
    const placed = given.map((each) => (each.startsWith("/") ? join(folder.path, each) : each));
    const inherited = { ...process.env, NODE_COMPILE_CACHE: compileCache };
    const child = spawn(program, [...placed, ...args], { cwd: root, stdio: "pipe", env: { ...inherited, ...env } });
    child.stdin.end(input);
    const [out, error] = await Promise.all([readText(child.stdout), readText(child.stderr)]);
    if (child.exitCode === null) await once(child, "exit");
    return { code: child.exitCode, out, error };
  };
  // Where the service sees the clone's `deploy`, in which a version before kept its secrets.
  const clone = (compose.services["secrets"]?.volumes ?? []).find((mount) => mount.startsWith("./deploy:"));
  const old = join(folder.path, clone?.split(":")[1] ?? "/nowhere", "secrets");
  /** One process for each input. Each has seen that no file is there before the first of them makes one. */
  const makeAtOnce = async (args: string[], inputs: string[]) => {
    const env = {
      NODE_OPTIONS: `--import=${join(root, "test/support/faults/meet-at-link.ts")}`,
      MEETING: join(folder.path, "meeting"),
      MEETING_SIZE: String(inputs.length),
    };
    await mkdir(env.MEETING);
    return await Promise.all(inputs.map(async (input) => await make(args, input, env)));
  };
  return { places, old, make, makeAtOnce, remove: async () => await folder.remove() };
}

/** Where a path of a container is on this machine, by the container's mounts. */
function pathIn(service: Service | undefined, path: string, places: ReadonlyMap<string, string>): string {
  const mount = (service?.volumes ?? []).find((each) => path.startsWith(`${each.split(":")[1] ?? ""}/`));
  const [volume = "", target = "", mode] = mount?.split(":") ?? [];
  expect([path, mode]).toEqual([path, "ro"]);
  return join(places.get(volume) ?? "", path.slice(target.length));
}

test("the service that makes secrets gives each container its own alone, and brokers, Postgres and Redis fit together", async () => {
  const { places, make, remove } = await secretVolumes();
  const { code, out } = await make();
  expect(code).toBe(0);
  const { postgres, redis } = compose.services;
  const superuserPassword = pathIn(postgres, postgres?.environment?.["POSTGRES_PASSWORD_FILE"] ?? "", places);
  const redisPassword = pathIn(redis, "/run/secrets/redis_password", places);
  for (const [, broker] of brokers) {
    const env = Object.entries({ ...imageEnv, ...broker.environment }).map(([name, value]) => [
      name,
      value.startsWith("/run/secrets/") ? pathIn(broker, value, places) : value.replace("${SANDBOX:-false}", "false"),
    ]);
    const config = readConfig(Object.fromEntries(env));
    const [database, cache] = [new URL(config.databaseUrl ?? ""), new URL(config.redisUrl ?? "")];
    const owner = new URL(config.databaseMigrationUrl ?? "");
    for (const { role, url } of [
      { role: "runtime", url: database },
      { role: "migration", url: owner },
    ]) {
      const password = await readFile(pathIn(postgres, `/run/secrets/postgres_${role}_password`, places), "utf8");
      expect([url.username, url.password]).toEqual([`freshet_${role}`, password]);
      expect(password).not.toBe(await readFile(superuserPassword, "utf8"));
    }
    expect(cache.password).toBe(await readFile(redisPassword, "utf8"));
    expect(Object.keys(compose.services)).toEqual(expect.arrayContaining([database.hostname, cache.hostname]));
    expect(config.adminKeys.map((key) => key.length)).toEqual([64]);
    expect(config.encryptionKeys).toHaveLength(1);
  }
  // Postgres and Redis run as users of their own, and must be able to read their secrets. Only the brokers' user may read those of the brokers.
  const modes = await Promise.all(
    [...places].map(async ([volume, place]) => {
      const names = (await readdir(place)).toSorted();
      return [
        volume,
        await Promise.all(names.map(async (name) => [name, (await stat(join(place, name))).mode & 0o777])),
      ];
    }),
  );
  expect(Object.fromEntries(modes)).toEqual({
    "broker-secrets": ["admin_key", "database_migration_url", "database_url", "encryption_keys", "redis_url"].map(
      (name) => [name, 0o400],
    ),
    "postgres-secrets": ["postgres_migration_password", "postgres_password", "postgres_runtime_password"].map(
      (name) => [name, 0o444],
    ),
    "redis-secrets": [["redis_password", 0o444]],
  });
  for (const place of places.values()) {
    for (const name of await readdir(place)) expect(out).not.toContain(await readFile(join(place, name), "utf8"));
  }
  await remove();
});

test("it keeps what is there, however often it runs, also after it was stopped in the middle", async () => {
  const { places, make, remove } = await secretVolumes();
  const readAll = async () =>
    await Promise.all(
      [...places.values()].map(async (place) => {
        const names = (await readdir(place)).toSorted();
        return await Promise.all(names.map(async (name) => [name, await readFile(join(place, name), "utf8")]));
      }),
    );
  await writeFile(join(places.get("broker-secrets") ?? "", ".admin_key"), "half of it");
  await make(["put", "postgres_runtime_password"], "of-my-own\n");
  await make();
  const before = await readAll();
  expect(JSON.stringify(before)).toContain("postgresql://freshet_runtime:of-my-own@postgres:5432/freshet");
  expect(await make()).toMatchObject({ code: 0, out: expect.not.stringContaining("made") });
  expect(await readAll()).toEqual(before);
  await remove();
});

test("several that run at once make each secret once, and none of them fails", async () => {
  const { places, makeAtOnce, remove } = await secretVolumes();
  const all = await makeAtOnce([], ["", "", "", ""]);
  expect(all.map(({ code, error }) => ({ code, error }))).toEqual(all.map(() => ({ code: 0, error: "" })));
  const lines = all.flatMap(({ out }) => out.split("\n")).filter((line) => /: (made|kept)$/.test(line));
  expect(lines.filter((line) => line.endsWith("made")).toSorted()).toEqual(allSecrets.map((name) => `${name}: made`));
  expect(lines).toHaveLength(all.length * allSecrets.length);
  const files = (await Promise.all([...places.values()].map(async (place) => await readdir(place)))).flat();
  expect(files.toSorted()).toEqual(allSecrets);
  const read = async (volume: string, name: string) => await readFile(join(places.get(volume) ?? "", name), "utf8");
  const password = await read("postgres-secrets", "postgres_runtime_password");
  expect(new URL(await read("broker-secrets", "database_url")).password).toBe(password);
  await remove();
});

test("several that put a secret at once: one is there whole, and who came too late is told", async () => {
  const { places, makeAtOnce, remove } = await secretVolumes();
  const values = ["k1:one", "k1:one", "k1:two", "k1:two"];
  const all = await makeAtOnce(["put", "encryption_keys"], values);
  const kept = await readFile(join(places.get("broker-secrets") ?? "", "encryption_keys"), "utf8");
  expect(values).toContain(kept);
  for (const [index, { code, error }] of all.entries()) {
    if (values[index] === kept) expect({ code, error }).toEqual({ code: 0, error: "" });
    else expect(error).toMatch(/^secrets: encryption_keys: another one is there.*--replace\n$/);
  }
  await remove();
});

/** The files of `deploy/secrets` in a version before, by the same names as now. */
const oldSecrets = [
  "admin_key",
  "database_url",
  "encryption_keys",
  "postgres_password",
  "redis_password",
  "redis_url",
] as const;

const newSecrets = ["database_migration_url", "postgres_migration_password", "postgres_runtime_password"];
const allSecrets = [...oldSecrets, ...newSecrets].toSorted();

test("no secret is made beside those of a version before, until these are put in their places", async () => {
  const { places, old, make, remove } = await secretVolumes();
  await mkdir(old, { recursive: true });
  for (const name of oldSecrets) await writeFile(join(old, name), `old ${name}`);
  const notPut = /^secrets: deploy\/secrets holds .*encryption_keys.*: nothing was made.*docs\/deploy\.md.*\n$/;
  expect(await make()).toEqual({ code: 1, out: "", error: expect.stringMatching(notPut) });
  for (const place of places.values()) expect(await readdir(place)).toEqual([]);
  const [last = "", ...first] = oldSecrets.toReversed();
  for (const name of first) expect(await make(["put", name], `old ${name}`)).toMatchObject({ code: 0 });
  expect(await make()).toMatchObject({ code: 1, out: "", error: expect.stringContaining(`holds ${last},`) });
  await make(["put", last], `old ${last}`);
  const { code, out } = await make();
  const made = [...out.matchAll(/^(\w+): made$/gm)].map(([, name]) => name ?? "").toSorted();
  expect({ code, made }).toEqual({ code: 0, made: newSecrets });
  await remove();
});

test("docs/deploy.md puts the secrets of a version before in their places, and also where new ones were made already", async () => {
  const loops = [...(await text("docs/deploy.md")).matchAll(/^for name in (.*); do\n +(.*)$/gm)];
  expect(loops.map(([, names]) => names?.split(" ").toSorted())).toEqual([oldSecrets, oldSecrets]);
  const put = "docker compose run --rm -T --no-deps secrets put $name";
  expect(loops.map(([, , line]) => line)).toEqual([
    `${put} < deploy/secrets/$name`,
    `${put} --replace < deploy/secrets/$name`,
  ]);
});

test("secrets of one's own are put in its place, and none that is there is replaced unless asked for", async () => {
  const { places, make, remove } = await secretVolumes();
  const file = join(places.get("broker-secrets") ?? "", "encryption_keys");
  expect(await make(["put", "encryption_keys"], "k1:mine\n")).toMatchObject({ code: 0 });
  expect(await readFile(file, "utf8")).toBe("k1:mine");
  expect(await make(["put", "encryption_keys"], "k1:mine\n")).toMatchObject({ code: 0 });
  const refused = await make(["put", "encryption_keys"], "k2:other");
  expect(refused).toMatchObject({ code: 1, error: expect.stringContaining("--replace") });
  expect(refused.error).not.toContain("k2:other");
  expect(await readFile(file, "utf8")).toBe("k1:mine");
  expect(await make(["put", "encryption_keys", "--replace"], "k2:other,k1:mine")).toMatchObject({ code: 0 });
  expect(await readFile(file, "utf8")).toBe("k2:other,k1:mine");
  await remove();
});

test.each([
  { args: ["put", "encryption_key"], input: "x", says: /encryption_key: is not a secret.*encryption_keys/ },
  { args: ["put", "admin_key"], input: "\n", says: /admin_key: nothing came on standard input/ },
  { args: ["get", "admin_key"], input: "", says: /get: .*put NAME/ },
])("it answers $args with one line that says what to do", async ({ args, input, says }) => {
  const { make, remove } = await secretVolumes();
  const { code, error } = await make(args, input);
  expect({ code, lines: error.trim().split("\n") }).toEqual({ code: 1, lines: [expect.stringMatching(says)] });
  await remove();
});

test("a secret that is there and empty is told, not used and not replaced", async () => {
  const { places, make, remove } = await secretVolumes();
  const file = join(places.get("broker-secrets") ?? "", "admin_key");
  await writeFile(file, "");
  expect(await make()).toMatchObject({
    code: 1,
    error: expect.stringMatching(/admin_key: is empty.*put admin_key --replace/),
  });
  expect(await readFile(file, "utf8")).toBe("");
  await remove();
});

test("the service that makes secrets runs once, without a network, from the image, and finds its volumes writable for the image's user", () => {
  const service = compose.services["secrets"];
  expect(service).toMatchObject({ build: ".", restart: "no", network_mode: "none" });
  const script = service?.entrypoint?.[1] ?? "";
  expect(existsSync(join(root, script))).toBe(true);
  const copies = image.instructions.filter(({ name }) => name === "COPY");
  expect(copies.some(({ rest }) => rest.split(/\s+/).includes(script))).toBe(true);
  const user = lastRest(image, "USER");
  for (const mount of volumesOf(service ?? {})) {
    const path = mount.split(":")[1] ?? "";
    const made = copies.find(({ rest }) => rest.endsWith(` ${path}`));
    expect([path, made?.flags["chown"]]).toEqual([path, user]);
  }
});

/** What the documents have a person type, from a heading to the next. */
async function linesUnder(heading: string): Promise<string[]> {
  const [, after = ""] = (await text("docs/deploy.md")).split(`\n${heading}\n`);
  const [, block = ""] = /```sh\n([\s\S]*?)```/.exec(after) ?? [];
  return block
    .replaceAll(/\|\n +/g, "| ")
    .trim()
    .split("\n");
}

const hasPsql = spawnSync("psql", ["--version"]).status === 0;

/** The server as its image makes it for a new volume, with what the service `secrets` has made, and the file that its entrypoint plays. */
async function startPostgresService() {
  const stack = new AsyncDisposableStack();
  const server = stack.use(await startPrivatePostgres());
  const volumes = await secretVolumes();
  stack.defer(async () => await volumes.remove());
  expect(await volumes.make()).toMatchObject({ code: 0 });
  const service = compose.services["postgres"];
  const { POSTGRES_USER: user = "", POSTGRES_DB: name = "" } = service?.environment ?? {};
  await query(server.url, `CREATE ROLE ${user} SUPERUSER LOGIN`);
  await query(server.url, `CREATE DATABASE ${name} OWNER ${user}`);
  const superUrl = Object.assign(new URL(server.url), { username: user, pathname: `/${name}` }).href;
  const secretsFolder = dirname(pathIn(service, "/run/secrets/postgres_password", volumes.places));
  const roles = service?.configs?.find(({ target }) => target.startsWith("/docker-entrypoint-initdb.d/"));
  const sql = (await text(compose.configs[roles?.source ?? ""]?.file ?? "")).replaceAll("/run/secrets", secretsFolder);
  /** As the entrypoint of the image plays files that end with .sql. Passwords are kept in a form that a test can check. */
  const play = async () => {
    const psql = spawn("psql", ["--set=ON_ERROR_STOP=1", "--no-password", "--no-psqlrc", superUrl], {
      env: { ...process.env, PGOPTIONS: "-c password_encryption=md5" },
    });
    psql.stdin.end(sql);
    const [error] = await Promise.all([readText(psql.stderr), readText(psql.stdout)]);
    if (psql.exitCode === null) await once(psql, "exit");
    expect([psql.exitCode, error.replaceAll(/.*(WARNING|DETAIL|HINT).*\n/g, "")]).toEqual([0, ""]);
  };
  /** What the brokers read, with this server in place of the service's name. */
  const addresses = async () => {
    const [, broker] = brokers[0] ?? [];
    const read = async (variable: string) => {
      const file = pathIn(broker, broker?.environment?.[variable] ?? "", volumes.places);
      const { port } = new URL(server.url);
      return Object.assign(new URL(await readFile(file, "utf8")), { hostname: "127.0.0.1", port }).href;
    };
    return { runtimeUrl: await read("DATABASE_URL_FILE"), migrationUrl: await read("DATABASE_MIGRATION_URL_FILE") };
  };
  return { superUrl, volumes, secretsFolder, play, addresses, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

const startWith = async (databaseUrl: string, migrationUrl: string | null) =>
  await (
    await openPostgres(
      databaseUrl,
      createDatabaseHealth(() => 0),
      { migrationUrl },
    )
  ).close();

describeWithServices(["postgres"], "Postgres of docker-compose.yml", () => {
  test.runIf(hasPsql)(
    "a new volume gets two roles, that log in with the brokers' passwords and are no superusers",
    async () => {
      await using service = await startPostgresService();
      await service.play();
      const { runtimeUrl, migrationUrl } = await service.addresses();
      for (const { username, password } of [new URL(runtimeUrl), new URL(migrationUrl)]) {
        const [row] = await query(
          service.superUrl,
          "SELECT rolsuper, rolcanlogin, rolpassword = 'md5' || md5($2 || rolname) AS fits FROM pg_authid WHERE rolname = $1",
          [username, password],
        );
        expect(row).toEqual({ rolsuper: false, rolcanlogin: true, fits: true });
      }
      await startWith(runtimeUrl, migrationUrl);
      expect(await query(runtimeUrl, "SELECT * FROM connections")).toEqual([]);
    },
  );

  test.runIf(hasPsql)(
    "an older volume becomes one of two roles by the lines of docs/deploy.md, and what is in it stays",
    async () => {
      const lines = await linesUnder("#### Two roles for an older volume");
      const [, , , playing = "", replacing = ""] = lines;
      const [roles] = compose.services["postgres"]?.configs ?? [];
      expect(playing).toContain(`--set=ON_ERROR_STOP=1 --file=${roles?.target}`);
      expect(playing).toContain(`psql --username=${compose.services["postgres"]?.environment?.["POSTGRES_USER"]} `);

      await using service = await startPostgresService();
      await startWith(service.superUrl, null);
      await query(service.superUrl, "INSERT INTO encryption_keys (id, check_sealed) VALUES ('older', 'x')");
      await service.volumes.make(["put", "database_url", "--replace"], service.superUrl);
      await service.play();
      await service.play();
      await startWith(service.superUrl, null); // brokers of the older version go on

      const [, print = ""] =
        / sh -c '(.*)' \| docker compose run --rm -T --no-deps secrets put database_url --replace$/.exec(replacing) ??
        [];
      const printed = spawnSync("sh", ["-c", print.replaceAll("/run/secrets", service.secretsFolder)], {
        encoding: "utf8",
      });
      expect(await service.volumes.make(["put", "database_url", "--replace"], printed.stdout)).toMatchObject({
        code: 0,
      });
      const { runtimeUrl, migrationUrl } = await service.addresses();
      await startWith(runtimeUrl, migrationUrl);
      expect(await query(runtimeUrl, "SELECT id FROM encryption_keys")).toEqual([{ id: "older" }]);
      const owners = await query(
        service.superUrl,
        "SELECT DISTINCT tableowner::text AS owner FROM pg_tables WHERE schemaname IN ('public', 'audit')",
      );
      expect(owners).toEqual([{ owner: "freshet_migration" }]);
    },
  );
});
