import { BrokerError } from "../errors.ts";

const name = "sandbox";

/** What stands under the name of the sandbox's connection. */
type FoundConnection = { id: string; provider: string; status: string };

/** What the first steps need of the broker. */
export type FirstStepServices = {
  /** Null: there is none. */
  findConnection(name: string): Promise<FoundConnection | null>;
  createClient(client: { name: string; provider: string; clientId: string; clientSecret: string }): Promise<unknown>;
  createConnection(connection: { name: string; provider: string; client: string }): Promise<unknown>;
};

/**
 * Makes sure that the client and the connection `sandbox` are there, so that a first start has something to try. A client or
 * connection of that name is left as it is. @throws BrokerError for one that is somebody's own, at another provider
 */
export async function ensureSandbox(
  services: FirstStepServices,
  credentials: { clientId: string; clientSecret: string },
): Promise<FoundConnection> {
  if ((await services.findConnection(name)) === null) {
    await unlessThere(services.createClient({ name, provider: name, ...credentials }));
    await unlessThere(services.createConnection({ name, provider: name, client: name })); // another replica may be first
  }
  const connection = await services.findConnection(name);
  if (connection === null) throw new BrokerError("conflict", `The connection "${name}" was just deleted.`);
  const { provider } = connection;
  if (provider === name) return connection;
  throw new BrokerError("conflict", `The connection "${name}" is one of the provider "${provider}".`);
}

async function unlessThere(created: Promise<unknown>): Promise<void> {
  try {
    await created;
  } catch (error) {
    if (!(error instanceof BrokerError && error.code === "conflict")) throw error;
  }
}
