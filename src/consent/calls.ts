import { BrokerError } from "../errors.ts";
import type { ConnectionService } from "../services/connections.ts";
import { namingHolders, type Principal } from "../services/principal.ts";
import type { ConnectionRecord } from "../store/connections.ts";
import { readableName } from "../text.ts";
import type { Establish } from "../tokens/connect.ts";
import type { DeviceCode, Devices } from "../tokens/devices.ts";
import type { ConsentService } from "./consent-service.ts";
import type { OtherAccount } from "./context.ts";

type LinkWish = { expiresInSeconds?: number; returnTo?: string; manual?: boolean; purpose?: string };

/** How ops have a person's consent asked for, or hand in what it gave. All throw BrokerError. */
export type ConsentCalls = {
  createLink(principal: Principal, name: string, wish: LinkWish): Promise<{ id: string; url: string; expiresAt: Date }>;
  /** A code that a person copied from a page of the provider. */
  submitCode(principal: Principal, name: string, code: string): Promise<ConnectionRecord>;
  /** A word on the other account that a reconnect was made with. */
  decideAccount(principal: Principal, name: string, accepted: boolean): Promise<ConnectionRecord>;
  /** A code that a person types in at the provider (RFC 8628). */
  beginDevice(principal: Principal, name: string): Promise<DeviceCode>;
};

type Options = {
  consent: Pick<ConsentService, "createLink" | "exchangeHandedCode">;
  connections: Pick<ConnectionService, "get" | "getToUse">;
  devices: Pick<Devices, "begin">;
  decide: Establish["decide"];
};

export function createConsentCalls({ consent, connections, devices, decide }: Options): ConsentCalls {
  const find = async (principal: Principal, name: string): Promise<ConnectionRecord> => {
    const record = await connections.getToUse(principal, name);
    if (record.grant === "authorization_code" || record.grant === "device_code") return record;
    const detail = `A ${record.grant} connection is not connected by consent.`;
    throw new BrokerError("grant_not_applicable", detail, { connection: name });
  };

  return {
    async decideAccount(principal, name, accepted) {
      const { id } = await (accepted ? connections.getToUse : connections.get)(principal, name);
      await namingHolders(principal, () => decide({ connectionId: id }, accepted));
      return await connections.get(principal, name);
    },

    async beginDevice(principal, name) {
      const { id } = await connections.getToUse(principal, name);
      return await devices.begin(id, null);
    },

    async createLink(principal, name, wish) {
      const { id } = await find(principal, name);
      return await consent.createLink({ ...wish, connectionId: id, createdBy: principal.keyId });
    },

    async submitCode(principal, name, code) {
      const record = await find(principal, name);
      requireCode(record);
      const { id, status } = record;
      if (status === "disabled") {
        throw new BrokerError("connection_disabled", "This connection is disabled; enable it first.", {
          connection: name,
        });
      }
      const exchange = () => consent.exchangeHandedCode({ connectionId: id, code });
      const { held } = await namingHolders(principal, exchange);
      if (held !== null) throw otherAccount(record, held);
      return await connections.get(principal, name);
    },
  };
}

function requireCode({ grant, name }: ConnectionRecord): void {
  if (grant === "authorization_code") return;
  throw new BrokerError("grant_not_applicable", `A ${grant} connection takes no code.`, { connection: name });
}

function otherAccount({ name, account }: ConnectionRecord, held: OtherAccount): BrokerError {
  const other = readableName(held.label ?? held.account);
  const is = other === null ? "an account that the provider does not name" : `another account, ${other}`;
  const detail = `The code belongs to ${is}; this connection is ${readableName(account) ?? "somebody else"}'s. Confirm or decline it: POST /connections/${name}/account.`;
  return new BrokerError("account_changed", detail, { connection: name });
}
