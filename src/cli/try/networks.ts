import type net from "node:net";
import { parseNetworks } from "../../providers/egress.ts";
import { UsageError } from "../errors.ts";
import type { Settings } from "../settings.ts";

/** The networks that every provider may reach beside public addresses, as at the broker; null: none. @throws UsageError */
export function readNetworks({ providerNetworks }: Pick<Settings, "providerNetworks">): net.BlockList | null {
  try {
    return providerNetworks === null ? null : parseNetworks(providerNetworks);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw new UsageError(`PROVIDER_NETWORKS must be a comma list of CIDR blocks: ${error.message}`);
  }
}
