import { BrokerError } from "../errors.ts";

const name = "sandbox";

/** What the first steps need of the broker. */
export type FirstStepServices = {
  /** Null: there is none. */
  findConnection(name: string): Promise<{ status: string } | null>;
  createClient(client: { name: string; provider: string; clientId: string; clientSecret: string }): Promise<unknown>;
  createConnection(connection: { name: string; provider: string; client: string }): Promise<unknown>;
};

/**
 * Makes sure that the client and the connection `sandbox` are there, so that a first start has something to try. A client or
 * connection of that name is left as it is.
 */
export async function ensureSandbox(
  services: FirstStepServices,
  credentials: { clientId: string; clientSecret: string },
): Promise<{ connectionName: string; status: string }> {
  const found = await services.findConnection(name);
  if (found) return { connectionName: name, status: found.status };
  await unlessThere(services.createClient({ name, provider: name, ...credentials }));
  await unlessThere(services.createConnection({ name, provider: name, client: name })); // another replica may be first
  return { connectionName: name, status: (await services.findConnection(name))?.status ?? "pending" };
}

async function unlessThere(created: Promise<unknown>): Promise<void> {
  try {
    await created;
  } catch (error) {
    if (!(error instanceof BrokerError && error.code === "conflict")) throw error;
  }
}
