import { randomBytes } from "node:crypto";
import {
  accessSync,
  closeSync,
  constants,
  existsSync,
  fchmodSync,
  fsyncSync,
  linkSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { text } from "node:stream/consumers";

/**
 * Makes the secrets of docker-compose.yml in volumes, one for the brokers, one for Postgres, one for Redis. What is there is kept.
 *
 *   node deploy/secrets.ts FOLDER                       makes what is missing
 *   node deploy/secrets.ts FOLDER put NAME [--replace]  takes one of your own from standard input
 */

/** What a user of another image must read is readable by all: no other container mounts its volume. */
const readableBy = { user: 0o400, all: 0o444 } as const;

const hex = () => randomBytes(32).toString("hex"); // needs no escaping in a URL

/** The roles are those of deploy/postgres-roles.sql. */
const postgresAs = (role: string, password: string) =>
  `postgresql://${role}:${encodeURIComponent(password)}@postgres:5432/freshet`;

type Secret = { file: string; mode: number; make: (read: (name: string) => string) => string };

/** In the order in which they are made: addresses hold passwords. */
const secrets: Readonly<Record<string, Secret>> = {
  postgres_password: { file: "postgres/postgres_password", mode: readableBy.all, make: hex },
  postgres_migration_password: { file: "postgres/postgres_migration_password", mode: readableBy.all, make: hex },
  postgres_runtime_password: { file: "postgres/postgres_runtime_password", mode: readableBy.all, make: hex },
  redis_password: { file: "redis/redis_password", mode: readableBy.all, make: hex },
  database_url: {
    file: "broker/database_url",
    mode: readableBy.user,
    make: (read) => postgresAs("freshet_runtime", read("postgres_runtime_password")),
  },
  database_migration_url: {
    file: "broker/database_migration_url",
    mode: readableBy.user,
    make: (read) => postgresAs("freshet_migration", read("postgres_migration_password")),
  },
  redis_url: {
    file: "broker/redis_url",
    mode: readableBy.user,
    make: (read) => `redis://:${encodeURIComponent(read("redis_password"))}@redis:6379`,
  },
  encryption_keys: {
    file: "broker/encryption_keys",
    mode: readableBy.user,
    make: () => `k1:${randomBytes(32).toString("base64")}`,
  },
  admin_key: { file: "broker/admin_key", mode: readableBy.user, make: hex },
};

/** Nobody can make these: they are there once somebody has put them. */
const optional: Readonly<Record<string, Omit<Secret, "make">>> = {
  https_proxy: { file: "broker/https_proxy", mode: readableBy.user },
  http_proxy: { file: "broker/http_proxy", mode: readableBy.user },
  metrics_key: { file: "broker/metrics_key", mode: readableBy.user },
};

class Refusal extends Error {}

async function main([folder = "", verb, name = "", flag]: string[]): Promise<void> {
  if (folder === "") throw new Refusal("give the folder of the volumes as the first argument");
  if (verb === undefined) return makeMissing(folder);
  if (verb !== "put") throw new Refusal(`${verb}: is not known. Give nothing, or put NAME, or put NAME --replace`);
  put(folder, { name, value: (await text(process.stdin)).trim(), replaces: flag === "--replace" });
}

function makeMissing(folder: string): void {
  requireNoneLeft(folder);
  const read = (name: string) => readSecret(folder, name);
  for (const [name, { file, mode, make }] of Object.entries(secrets)) {
    const path = join(folder, file);
    const isMade = !existsSync(path) && write(path, { value: make(read), mode, replaces: false });
    if (!isMade) read(name);
    say(`${name}: ${isMade ? "made" : "kept"}`);
  }
  say("Nobody can read the stored tokens without encryption_keys: keep a copy, apart from the database's backups.");
  say("This prints them: docker compose exec -T broker cat /run/secrets/encryption_keys");
}

/**
 * A version before kept its secrets in the clone, in `deploy/secrets`. New ones beside them would fit neither the database nor what is
 * sealed in it.
 */
function requireNoneLeft(folder: string): void {
  const old = join(folder, "deploy/secrets"); // docker-compose.yml mounts the clone's `deploy` there
  const missing = Object.entries(secrets).filter(([, { file }]) => !existsSync(join(folder, file)));
  const left = missing.map(([name]) => name).filter((name) => existsSync(old) && mayBeThere(join(old, name)));
  if (left.length === 0) return;
  throw new Refusal(
    `deploy/secrets holds ${left.join(", ")}, of a version before, and the volumes do not: nothing was made. Put them in with the lines in docs/deploy.md, "Secrets"; to begin anew without them, move that folder away`,
  );
}

/** Also where this user may not look: the folder was for the user alone who had made it. */
function mayBeThere(path: string): boolean {
  try {
    return statSync(path, { throwIfNoEntry: false }) !== undefined;
  } catch {
    return true;
  }
}

function put(folder: string, { name, value, replaces }: { name: string; value: string; replaces: boolean }): void {
  const secret = secrets[name] ?? optional[name];
  if (secret === undefined) {
    const known = [...Object.keys(secrets), ...Object.keys(optional)].join(", ");
    throw new Refusal(`${name || "put"}: is not a secret of docker-compose.yml. Those are ${known}`);
  }
  if (value === "") throw new Refusal(`${name}: nothing came on standard input. Give it as in: put ${name} < file`);
  const path = join(folder, secret.file);
  const isThisOne = () => existsSync(path) && readFileSync(path, "utf8") === value;
  if (!isThisOne() && write(path, { value, mode: secret.mode, replaces })) return say(`${name}: put`);
  if (isThisOne()) return say(`${name}: is this one already`);
  throw new Refusal(
    `${name}: another one is there, and was not replaced. To put this one in its place: put ${name} --replace`,
  );
}

function readSecret(folder: string, name: string): string {
  const value = readFileSync(join(folder, secrets[name]?.file ?? ""), "utf8").trim();
  if (value !== "") return value;
  throw new Refusal(`${name}: is empty. Send the right one: put ${name} --replace < file`);
}

/**
 * Whole or not at all, also when the machine loses power: what is sealed with a key that is half written is lost.
 * False: one is there, and this one does not replace it.
 */
function write(path: string, { value, mode, replaces }: { value: string; mode: number; replaces: boolean }): boolean {
  requireWritable(dirname(path));
  // A name of its own: another process that writes the same secret at the same time has another file.
  const half = join(dirname(path), `.${basename(path)}.${randomBytes(8).toString("hex")}`);
  try {
    writeDown(half, value, mode);
    if (replaces) renameSync(half, path);
    else if (!linkIfMissing(half, path)) return false;
    syncFolder(dirname(path));
    return true;
  } finally {
    rmSync(half, { force: true });
  }
}

function writeDown(path: string, value: string, mode: number): void {
  const file = openSync(path, "wx", readableBy.user);
  writeSync(file, value);
  fchmodSync(file, mode); // whatever the umask is
  fsyncSync(file);
  closeSync(file);
}

/** Unlike a rename, a link never replaces what somebody else has put there first. */
function linkIfMissing(from: string, to: string): boolean {
  try {
    linkSync(from, to);
    return true;
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "EEXIST") return false;
    throw error;
  }
}

function syncFolder(path: string): void {
  const folder = openSync(path, "r");
  fsyncSync(folder);
  closeSync(folder);
}

/** A volume that another container has mounted first is not the image's user's. */
function requireWritable(folder: string): void {
  try {
    accessSync(folder, constants.W_OK);
  } catch {
    throw new Refusal(
      `${folder}: cannot be written. Run docker compose down, delete the volume that docker-compose.yml mounts there with docker volume rm, and start again`,
    );
  }
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

try {
  await main(process.argv.slice(2));
} catch (error) {
  const why = error instanceof Error ? error.message : String(error);
  process.stderr.write(`secrets: ${why.replaceAll(/\s+/g, " ")}\n`);
  process.exitCode = 1;
}
