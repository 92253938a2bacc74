import { type BrokerOptions, type BrokerProcess, startBroker } from "../test/support/broker-process.ts";
import { until } from "../test/support/patience.ts";

/** A broker with the sandbox provider, whose client is made shortly after the broker is ready. */
export async function startSandboxBroker(options: BrokerOptions = {}): Promise<BrokerProcess> {
  const broker = await startBroker({ ...options, env: { SANDBOX: "true", ...options.env } });
  await until("the sandbox's client", async () => (await broker.api.api("/clients/sandbox")).status === 200);
  return broker;
}
