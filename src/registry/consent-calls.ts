import type { ConsentService } from "../consent/consent-service.ts";
import { BrokerError } from "../errors.ts";
import type { ConnectionRecord } from "../store/connections.ts";
import type { ConnectionService } from "./connection-service.ts";
import type { Principal } from "./principal.ts";

type LinkWish = { expiresInSeconds?: number; returnTo?: string; manual?: boolean };

/** How ops have a person's consent asked for, or hand in what it gave. All throw BrokerError. */
export type ConsentCalls = {
  createLink(principal: Principal, name: string, wish: LinkWish): Promise<{ id: string; url: string; expiresAt: Date }>;
  /** A code that a person copied from a page of the provider. */
  submitCode(principal: Principal, name: string, code: string): Promise<ConnectionRecord>;
};

type Options = {
  consent: Pick<ConsentService, "createLink" | "exchangeCopiedCode">;
  connections: Pick<ConnectionService, "get">;
};

export function createConsentCalls({ consent, connections }: Options): ConsentCalls {
  const find = async (principal: Principal, name: string): Promise<ConnectionRecord> => {
    const record = await connections.get(principal, name);
    if (record.grant === "authorization_code") return record;
    const detail = `A ${record.grant} connection is not connected by consent.`;
    throw new BrokerError("grant_not_applicable", detail, { connection: name });
  };

  return {
    async createLink(principal, name, wish) {
      const { id } = await find(principal, name);
      return await consent.createLink({ ...wish, connectionId: id, createdBy: principal.keyId });
    },

    async submitCode(principal, name, code) {
      const { id, status } = await find(principal, name);
      if (status === "disabled") {
        throw new BrokerError("connection_disabled", "This connection is disabled; enable it first.", {
          connection: name,
        });
      }
      await consent.exchangeCopiedCode({ connectionId: id, code });
      return await connections.get(principal, name);
    },
  };
}
