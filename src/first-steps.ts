import { relative } from "node:path";
import type { Broker } from "./broker.ts";
import type { Config } from "./config.ts";
import type { Principal } from "./registry/principal.ts";
import { ensureSandbox } from "./sandbox/first-steps.ts";

/** Who makes the sandbox's client and connection at the first start. */
const starter: Principal = {
  keyId: "first start",
  abilities: ["connections", "admin"],
  connections: ["*"],
  expiresAt: null,
};

/** Makes sure that there is something to try, and says in plain text how. */
export async function firstSteps(broker: Broker, config: Config): Promise<string> {
  if (broker.sandbox === null) return "";
  const { connections, clients, records, consent } = broker;
  const { connectionName, status } = await ensureSandbox(
    {
      findConnection: (name) => records.findByName(name),
      createClient: (client) => clients.create(starter, { ...client, scopes: [], patterns: [], inputs: {} }),
      createConnection: (connection) =>
        connections.create(starter, {
          ...connection,
          grant: null,
          scopes: null,
          inputs: {},
          credentials: null,
          labels: {},
        }),
    },
    broker.sandbox,
  );
  const record = await records.findByName(connectionName);
  const mustConnect = record !== null && (status === "pending" || status === "needs_reauthorization");
  const link = mustConnect ? await consent.createLink({ connectionId: record.id, createdBy: starter.keyId }) : null;
  return describe({ link: link?.url ?? null, keyFile: broker.adminKeyFile, config, connectionName });
}

type FirstSteps = {
  link: string | null;
  keyFile: Broker["adminKeyFile"];
  config: Config;
  connectionName: string;
};

function describe({ link, keyFile, config, connectionName }: FirstSteps): string {
  const bearer = keyFile === null ? "${ADMIN_KEY%%,*}" : `$(cat ${shellWord(nearPath(keyFile.path))})`;
  const curl = `   curl -H "Authorization: Bearer ${bearer}" ${config.publicUrl}/tokens/${connectionName}`;
  const ready = `Freshet is ready at ${config.publicUrl} (the API: ${config.publicUrl}/docs)`;
  const steps =
    link === null
      ? ["Get a token of the sandbox account (in a second terminal, in this folder):", curl]
      : [
          "Try it with the built-in sandbox provider.",
          '1. Open this link in your browser, press "Continue", then "Authorize":',
          `   ${link}`,
          "2. Get a token (in a second terminal, in this folder):",
          curl,
          "3. Run the same line again after 90 seconds: that token is over, and Freshet hands out the next one.",
        ];
  return `\n${[ready, ...describeKey(keyFile), "", ...steps].join("\n")}\n\n`;
}

/** Logs are kept and shipped: only a person at a terminal is shown the key itself. */
function describeKey(keyFile: Broker["adminKeyFile"]): string[] {
  if (keyFile === null) return [];
  const { path, value, isNew } = keyFile;
  if (isNew && process.stdout.isTTY) return [`Admin key, shown this once and kept in ${path}: ${value}`];
  return [`Admin key: in the file ${path}`];
}

/** As short as it can be from the folder that the broker was started in. */
function nearPath(path: string): string {
  const near = relative(process.cwd(), path);
  return /^(\.\.|-)/.test(near) ? path : near;
}

/** One word of a POSIX shell, also inside `"$(…)"`. */
function shellWord(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", String.raw`'\''`)}'`;
}
