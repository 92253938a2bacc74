import { randomUUID } from "node:crypto";
import type { TokenRow } from "../../../src/store/token-row.ts";
import { freely, sealedBytes, type StoreStage } from "./stage.ts";

type Make = (clientRef: string | null) => Promise<TokenRow>;

/** Connections that hold something which is sent to the provider's hosts, or are about to get it: one of each kind. */
export function holding(stage: StoreStage): Record<string, Make> {
  const beside =
    (sql: string): Make =>
    async (clientRef) => {
      const row = await stage.insert({ clientRef });
      const link = { id: randomUUID(), secretHash: sealedBytes(), connectionId: row.id, createdBy: "k1" };
      const rest = { returnTo: null, manual: false, purpose: null, endUser: null, expiresInSeconds: 60 };
      await stage.links.insert({ ...link, ...rest });
      const values = [row.id, link.id].filter((_value, index) => sql.includes(`$${index + 1}`));
      await stage.database.prisma.$executeRawUnsafe(sql, ...values);
      return row;
    };
  const withSet =
    (assignments: string): Make =>
    async (clientRef) => {
      const { id } = await stage.connect({ clientRef });
      await stage.set(id, assignments);
      return await stage.row(id);
    };
  return {
    "tokens, disabled": async (clientRef) => {
      const row = await stage.connect({ clientRef });
      return (await stage.connections.update(row, { disabled: true }, freely)) ?? row;
    },
    "a refresh token whose grant has ended": withSet(
      "status = 'needs_reauthorization', enabled_status = 'needs_reauthorization', access_token_sealed = NULL",
    ),
    "an access token that has expired": withSet(
      "expires_at = clock_timestamp() - interval '1 year', refresh_token_sealed = NULL",
    ),
    credentials: async (clientRef) => await stage.insert({ clientRef, grant: "password", credentials: sealedBytes() }),
    "a request under way": async (clientRef) => {
      const { id } = await stage.insert({ clientRef, grant: "client_credentials" });
      await stage.set(
        id,
        `attempt_id = '${randomUUID()}', attempt_started_at = clock_timestamp(), lease_until = clock_timestamp()`,
      );
      return await stage.row(id);
    },
    "a further token": async (clientRef) => {
      const row = await stage.insert({ clientRef });
      const further = await stage.connect({ clientRef });
      await stage.set(further.id, `parent_id = '${row.id}', chain = 'user', name = '${row.name}#user'`);
      return row;
    },
    "a candidate":
      beside(`INSERT INTO candidates (attempt_id, connection_id, authorization_seq, base_generation, record_sealed)
      VALUES (gen_random_uuid(), $1::uuid, 0, 0, 'x')`),
    "a grant that waits for a person's word":
      beside(`INSERT INTO held_grants (attempt_id, connection_id, generation, record_sealed)
      VALUES (gen_random_uuid(), $1::uuid, 1, 'x')`),
    "a device code":
      beside(`INSERT INTO device_authorizations (connection_id, id, device_code_sealed, user_code, verification_uri,
        interval_s, next_poll_at, expires_at)
      VALUES ($1::uuid, gen_random_uuid(), 'x', 'u', 'v', 5, clock_timestamp(), clock_timestamp())`),
    "a person at the provider":
      beside(`INSERT INTO authorization_requests (id, state_hash, connection_id, link_id, browser_hash, request_sealed, expires_at)
      VALUES (gen_random_uuid(), decode(md5($2), 'hex'), $1::uuid, $2, 'x', 'y', clock_timestamp() + interval '1 minute')`),
    "a code that is being exchanged":
      beside(`INSERT INTO consent_attempts (attempt_hash, browser_hash, link_id, expires_at)
      SELECT decode(md5($2), 'hex'), 'x', $2, clock_timestamp() + interval '1 minute' WHERE $1::uuid IS NOT NULL`),
    "a link by which a code is copied": beside(
      "UPDATE consent_links SET manual = true WHERE id = $2 AND connection_id = $1::uuid",
    ),
  };
}
