import { execFile } from "node:child_process";
import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { parse } from "yaml";
import { configVariables, environmentSchema, readConfig } from "../../src/config.ts";
import { temporaryFolder } from "../support/services/guardian.ts";
import { lastRest, readDockerfile, readEnv } from "./read-dockerfile.ts";

type Service = {
  build?: string;
  user?: string;
  environment?: Record<string, string>;
  volumes?: string[];
  secrets?: string[];
  configs?: { source: string }[];
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
  secrets: Record<string, { file: string }>;
  configs: Record<string, { file: string }>;
  networks: Record<string, { internal?: boolean } | null>;
};

const text = async (file: string) => await readFile(new URL(`../../${file}`, import.meta.url), "utf8");
const compose: Compose = parse(await text("docker-compose.yml"), { merge: true });
const image = readDockerfile(await text("Dockerfile")).at(-1) ?? { name: "", instructions: [] };
const imageEnv = readEnv(image, "");
const services = Object.entries(compose.services);
const brokers = services.filter(([, service]) => service.build !== undefined);

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
    for (const secret of service.secrets ?? []) expect(Object.keys(compose.secrets), name).toContain(secret);
    for (const { source } of service.configs ?? []) expect(Object.keys(compose.configs)).toContain(source);
    for (const network of service.networks ?? []) expect(Object.keys(compose.networks)).toContain(network);
    for (const volume of service.volumes ?? []) expect(Object.keys(compose.volumes)).toContain(volume.split(":")[0]);
  }
});

test("a service is waited for until it is healthy, and knows when it is", () => {
  const waits = services.flatMap(([, service]) => Object.entries(service.depends_on ?? {}));
  expect(new Set(waits.map(([, { condition }]) => condition))).toEqual(new Set(["service_healthy"]));
  for (const [name] of waits) {
    const service = compose.services[name];
    if (service?.healthcheck === undefined) expect([name, service?.build]).toEqual([name, "."]);
  }
  expect(lastRest(image, "HEALTHCHECK")).toContain("/livez");
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
      expect.objectContaining({ read_only: true, cap_drop: ["ALL"], security_opt: ["no-new-privileges:true"] }),
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

test("the script makes every secret, readable in a container and by nobody else here, and the brokers start with them", async () => {
  const folder = await temporaryFolder("secrets");
  const secrets = join(folder.path, "secrets");
  const script = new URL("../../deploy/make-secrets.sh", import.meta.url).pathname;
  const run = async () => (await promisify(execFile)("sh", [script, secrets])).stdout;
  const printed = await run();
  const files = (await readdir(secrets)).toSorted();
  expect(files).toEqual(Object.keys(compose.secrets).toSorted());
  for (const [name, { file }] of Object.entries(compose.secrets)) expect(file).toBe(`deploy/secrets/${name}`);
  expect((await stat(secrets)).mode & 0o777).toBe(0o700);
  for (const file of files) expect((await stat(join(secrets, file))).mode & 0o777).toBe(0o444);

  for (const [, { environment = {}, secrets: mounted = [] }] of brokers) {
    const env = Object.entries({ ...imageEnv, ...environment }).map(([name, value]) => {
      const secret = /^\/run\/secrets\/(.+)$/.exec(value)?.[1];
      if (secret !== undefined) expect(mounted).toContain(secret);
      return [name, secret === undefined ? value : join(secrets, secret)];
    });
    const config = readConfig(Object.fromEntries(env));
    const database = new URL(config.databaseUrl ?? "");
    expect(database.password).toBe(await readFile(join(secrets, "postgres_password"), "utf8"));
    expect(new URL(config.redisUrl ?? "").password).toBe(await readFile(join(secrets, "redis_password"), "utf8"));
    expect(Object.keys(compose.services)).toEqual(
      expect.arrayContaining([database.hostname, new URL(config.redisUrl ?? "").hostname]),
    );
    expect(config.adminKeys.map((key) => key.length)).toEqual([64]);
    expect(config.encryptionKeys).toHaveLength(1);
  }

  const before = await Promise.all(files.map((file) => readFile(join(secrets, file), "utf8")));
  expect(await run()).not.toContain("created");
  expect(await Promise.all(files.map((file) => readFile(join(secrets, file), "utf8")))).toEqual(before);
  for (const secret of before) expect(printed).not.toContain(secret);
  await folder.remove();
});
