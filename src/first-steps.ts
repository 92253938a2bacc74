import { relative } from "node:path";
import type { Broker } from "./broker.ts";
import type { Config } from "./config.ts";
import type { Principal } from "./registry/principal.ts";
import { ensureSandbox } from "./sandbox/first-steps.ts";

/** Who makes the sandbox's client and connection at the first start. */
const starter: Principal = { keyId: "first start", abilities: ["connections", "admin"], connections: ["*"] };

/** Makes sure that there is something to try, and says in plain text how. */
export async function firstSteps(broker: Broker, config: Config): Promise<string> {
  if (broker.sandbox === null) return "";
  const { connections, clients, records, consent } = broker;
  const { connectionName, status } = await ensureSandbox(
    {
      findConnection: (name) => records.findByName(name),
      createClient: (client) => clients.create({ ...client, scopes: [], inputs: {} }),
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
  const bearer = keyFile === null ? "$ADMIN_KEY" : `$(cat ${relative(process.cwd(), keyFile.path) || keyFile.path})`;
  const lines = [`Freshet is ready at ${config.publicUrl} (API: ${config.publicUrl}/docs)`];
  // Logs are kept and shipped: only a person at a terminal is shown the key itself.
  const showsKey = keyFile?.isNew === true && process.stdout.isTTY;
  if (showsKey) lines.push(`Admin key, shown once and kept in ${keyFile.path}: ${keyFile.value}`);
  else if (keyFile !== null) lines.push(`Admin key: in the file ${keyFile.path}`);
  if (link !== null) {
    lines.push("", '1. Open this link and click "Authorize":', `   ${link}`, "", "2. Then get a token:");
  } else lines.push("", "Get a token:");
  lines.push(`   curl -H "Authorization: Bearer ${bearer}" ${config.publicUrl}/tokens/${connectionName}`);
  return `\n${lines.join("\n")}\n\n`;
}
