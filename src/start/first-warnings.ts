import { once } from "node:events";
import { createServer } from "node:net";
import { type Config, configVariables, type Environment, isLoopbackName, secretVariables } from "../config.ts";
import { cannotListen, StartupError } from "../errors.ts";
import { describeNearMiss, findNearMisses, withSource } from "./env-file.ts";

/** Settings with which a start goes on although they are most likely a mistake: one line for the log each, with its variable or file. */
export type FirstWarning = { variable?: string; file?: string; text: string };

/** Node reads this one by itself, once, before the broker runs. */
const certificates = "NODE_EXTRA_CA_CERTS";

/** Of the variables that are set, never with a value. */
export function firstWarnings({ env, file }: Environment): FirstWarning[] {
  const known = [...configVariables, certificates];
  const nearMisses = findNearMisses(env, known).map((each) => ({
    variable: each.variable,
    text: withSource(describeNearMiss(each), file),
  }));
  const twice = secretVariables
    .filter((name) => env[name] && env[`${name}_FILE`] && name !== "ENCRYPTION_KEYS") // which is refused
    .map((name) => ({
      variable: `${name}_FILE`,
      text: withSource(
        `${name} and ${name}_FILE are both set, and ${name} counts: take the one away that you do not mean`,
        file,
      ),
    }));
  const tooLate = file?.values[certificates] !== undefined;
  const passedOver = file?.problems.map((text) => ({ file: file.path, text })) ?? [];
  return [...passedOver, ...nearMisses, ...twice, ...(tooLate ? [lateCertificates] : [])];
}

const lateCertificates = {
  variable: certificates,
  text: `${certificates} comes too late in .env, since Node reads it before: set it in the environment`,
};

/** In a container, where HOST is a wildcard, another port of the machine may lead to PORT. So may a proxy that speaks TLS. */
export function addressWarnings(
  { host, port, publicUrl }: Pick<Config, "host" | "port" | "publicUrl">,
  file: Environment["file"],
): FirstWarning[] {
  const { protocol, hostname, port: written } = new URL(publicUrl);
  const publicPort = Number(written || 80);
  const isDirect = protocol === "http:" && isLoopbackName(hostname) && !["0.0.0.0", "::"].includes(host);
  if (!isDirect || publicPort === port) return [];
  const remedy = `leave PUBLIC_URL away, or set it to http://${hostname}:${port}, unless a proxy passes on what comes to port ${publicPort}`;
  const text = `PUBLIC_URL leads to port ${publicPort} of this machine, and Freshet listens on PORT ${port}: ${remedy}`;
  return [{ variable: "PUBLIC_URL", text: withSource(text, file) }];
}

/**
 * Node's debugger, which is for developers. `address`: where it listens; undefined: it does not.
 * @throws StartupError where others than this machine reach the broker
 */
export function debuggerWarnings(
  { publicUrl }: Pick<Config, "publicUrl">,
  address: string | undefined,
): FirstWarning[] {
  if (address === undefined) return [];
  const told =
    "Node's debugger listens (--inspect, in the command or in NODE_OPTIONS), and whoever reaches it reads every key";
  if (!isLoopbackName(new URL(publicUrl).hostname)) throw new StartupError(`${told}: take it away`);
  return [{ variable: "NODE_OPTIONS", text: `${told}: this is for development alone` }];
}

/** Where the role of the running broker may do all that the owner of its tables may. The embedded database has one role, and no other way. */
export function roleWarnings({
  databaseUrl,
  databaseMigrationUrl,
}: Pick<Config, "databaseUrl" | "databaseMigrationUrl">): FirstWarning[] {
  if (databaseUrl === null || databaseMigrationUrl !== null) return [];
  return [{ variable: "DATABASE_MIGRATION_URL", text: oneRole }];
}

const oneRole =
  "DATABASE_MIGRATION_URL is not set, so one role of Postgres owns the tables and runs the broker: whoever takes the broker over can drop tables, " +
  'and remove entries of the audit, which only their proofs then show; for two roles see docs/deploy.md, "Two database roles"';

/**
 * Tries the ports before a database is made, so that somebody who starts a second broker by mistake learns it at once. They are taken later.
 * @throws StartupError for a port that cannot be listened on
 */
export async function requireFreePorts({
  host,
  port,
  metricsPort,
}: Pick<Config, "host" | "port" | "metricsPort">): Promise<void> {
  await requireFreePort("PORT", { host, port });
  if (metricsPort !== null) await requireFreePort("METRICS_PORT", { host, port: metricsPort });
}

async function requireFreePort(
  variable: "PORT" | "METRICS_PORT",
  address: { host: string; port: number },
): Promise<void> {
  const probe = createServer((socket) => void socket.destroy()); // an open connection would delay `close`
  try {
    await once(probe.listen(address), "listening");
  } catch (error) {
    throw cannotListen(variable, address, error);
  }
  probe.close();
  await once(probe, "close");
}
