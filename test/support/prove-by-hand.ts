import type { ProvenUnconfirmedGrant, ProvenKey, ProvenLink } from "../../src/proven-rows.ts";
import { createKeyring } from "../../src/vault/keyring.ts";
import { createTokenVault, type TokenVault } from "../../src/vault/vault.ts";

type Query = <Row extends Record<string, unknown>>(sql: string, values: unknown[]) => Promise<Row[]>;

/** The vault of a broker with these `ENCRYPTION_KEYS`. */
export function vaultOf(encryptionKeys: string): TokenVault {
  const keys = encryptionKeys.split(",").map((entry) => {
    const [id = "", key = ""] = entry.split(":");
    return { id, key: Buffer.from(key, "base64") };
  });
  return createTokenVault(createKeyring(keys));
}

/**
 * Call it after a test has changed times by hand. It signs all links, keys and unconfirmed grants as the broker itself would. Nothing else
 * may write them meanwhile.
 */
export async function proveByHand(
  query: Query,
  vault: Pick<TokenVault, "links" | "keys" | "unconfirmedGrants">,
): Promise<void> {
  const links = await query<ProvenLink>(
    `SELECT id, connection_id::text AS "connectionId", secret_hash AS "secretHash", return_to AS "returnTo", manual, purpose,
       end_user AS "endUser", created_by AS "createdBy", expires_at AS "expiresAt", claimed_by AS "claimedBy" FROM consent_links`,
    [],
  );
  for (const link of links) {
    await query("UPDATE consent_links SET mac = $2 WHERE id = $1", [link.id, vault.links.sign(link)]);
  }
  const keys = await query<ProvenKey>(
    `SELECT id, name, secret_hash AS "secretHash", abilities, connections, labels, expires_at AS "expiresAt", revoked_at AS "revokedAt",
       created_at AS "createdAt" FROM api_keys`,
    [],
  );
  for (const key of keys) await query("UPDATE api_keys SET mac = $2 WHERE id = $1", [key.id, vault.keys.sign(key)]);
  const held = await query<ProvenUnconfirmedGrant>(
    `SELECT attempt_id::text AS "attemptId", connection_id::text AS "connectionId", generation, account,
       account_label AS "accountLabel", link_id AS "linkId", accepted FROM held_grants`,
    [],
  );
  for (const one of held) {
    await query("UPDATE held_grants SET mac = $2 WHERE attempt_id = $1::uuid", [
      one.attemptId,
      vault.unconfirmedGrants.sign(one),
    ]);
  }
}
