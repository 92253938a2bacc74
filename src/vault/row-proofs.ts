import type { Proofs, Read, RowProofs } from "../proven-rows.ts";
import { sorted } from "./envelope.ts";
import type { Authenticity, Keyring } from "./keyring.ts";
import { UnreadableSecretError } from "../unreadable.ts";

/** Every row has one proof for its table. An older row of the same id holds as well: a replay is not told apart (docs/security.md). */
export function createRowProofs({ sign, verify }: Pick<Keyring, "sign" | "verify">): RowProofs {
  const proofs = <Row>(table: string, idOf: (row: Row) => string, partsOf: (row: Row) => unknown[]): Proofs<Row> => {
    const textOf = (row: Row) => JSON.stringify(partsOf(row));
    const judge = (row: Read<Row>): Authenticity => {
      try {
        return row.mac === null ? "forged" : verify(table, textOf(row), row.mac);
      } catch {
        return "forged"; // a column holds what this broker never writes there
      }
    };
    return {
      sign: (row) => sign(table, textOf(row)),
      check(row) {
        const authenticity = judge(row);
        if (authenticity === "authentic") return;
        const keyId = row.mac === null ? null : row.mac.slice(0, Math.max(row.mac.lastIndexOf("."), 0));
        const reason = authenticity === "unknown_key" ? "unknown_key" : "does_not_open";
        throw new UnreadableSecretError(
          { table, row: idOf(row), column: "mac" },
          { keyId: keyId !== null && /^[\w.-]{1,32}$/.test(keyId) ? keyId : null, reason },
        );
      },
    };
  };
  return {
    connections: proofs(
      "connections",
      ({ id }) => id,
      (row) => [
        ...[row.id, row.name, row.parentId, row.chain, row.provider, row.clientRef, row.grant, row.scopes],
        ...[sorted(row.inputs), sorted(row.labels), row.status === "disabled", row.credentialsRevision],
      ],
    ),
    clients: proofs(
      "clients",
      ({ id }) => id,
      (row) => [
        ...[row.id, row.name, row.provider, row.clientId, row.patterns, row.scopes],
        ...[sorted(row.inputs), row.ownRedirectUri, row.secretRevision],
      ],
    ),
    keys: proofs(
      "api_keys",
      ({ id }) => id,
      (row) => [
        ...[row.id, row.name, hex(row.secretHash), row.abilities, row.connections],
        ...[row.expiresAt, row.revokedAt, row.createdAt].map((time) => time?.toISOString() ?? null),
      ],
    ),
    links: proofs(
      "consent_links",
      ({ id }) => id,
      (row) => [
        ...[row.id, row.connectionId, hex(row.secretHash), row.returnTo, row.manual, row.purpose, row.createdBy],
        ...[row.expiresAt.toISOString(), row.claimedBy === null ? null : hex(row.claimedBy)],
      ],
    ),
    heldGrants: proofs(
      "held_grants",
      ({ attemptId }) => attemptId,
      (row) => [
        ...[row.attemptId, row.connectionId, row.generation, row.account, row.accountLabel, row.linkId, row.accepted],
      ],
    ),
  };
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}
