import { UnreadableSecretError } from "../errors.ts";
import type { Proofs, Read, RowProofs, Standing } from "../proven-rows.ts";
import { type Absence, type Authenticity, keyIdOfProof, type KeyList, type Keyring } from "./keyring.ts";

export type Telling = {
  /** Called for rows whose MAC is not valid. */
  onForged: (error: UnreadableSecretError) => void;
  isSilent: KeyList["isSilent"];
};

/** Each row has one MAC, for its table. An older row of the same id is valid, too: a row from a backup is not recognised (docs/security.md). */
export function createRowProofs(
  { sign, verify }: Pick<Keyring, "sign" | "verify">,
  { onForged, isSilent }: Telling,
): RowProofs {
  const proofs = <Row>(table: string, idOf: (row: Row) => string, partsOf: (row: Row) => unknown[]): Proofs<Row> => {
    const textOf = (row: Row) => JSON.stringify(partsOf(row));
    const judge = (row: Read<Row>): Authenticity => {
      try {
        return row.mac === null ? "forged" : verify(table, textOf(row), row.mac);
      } catch {
        return "forged"; // a column holds a value that this broker never writes
      }
    };
    const check = (row: Read<Row>): void => {
      const authenticity = judge(row);
      if (authenticity === "authentic") return;
      const keyId = row.mac === null ? null : keyIdOfProof(row.mac);
      const reason = authenticity === "unknown_key" ? "unknown_key" : "does_not_open";
      throw new UnreadableSecretError(
        { table, row: idOf(row), column: "mac" },
        { keyId: keyId !== null && /^[\w.-]{1,32}$/.test(keyId) ? keyId : null, reason },
      );
    };
    /** Null: the MAC is valid. */
    const faultOf = (row: Read<Row>): UnreadableSecretError | null => {
      try {
        check(row);
        return null;
      } catch (error) {
        if (!(error instanceof UnreadableSecretError)) throw error;
        onForged(error);
        return error;
      }
    };
    return {
      sign: (row) => sign(table, textOf(row)),
      check,
      isOurs: (row) => faultOf(row) === null,
      async standing(row): Promise<Standing> {
        const fault = faultOf(row);
        if (fault === null) return "ours";
        return (await isSilent(fault)) ? "silent" : "foreign";
      },
    };
  };
  return {
    connections: proofs(
      "connections",
      ({ id }) => id,
      ({
        id,
        name,
        parentId,
        chain,
        provider,
        clientRef,
        grant,
        scopes,
        inputs,
        labels,
        status,
        credentialsRevision,
      }) => [
        { id, name, parentId, chain, provider, clientRef, grant, scopes, credentialsRevision },
        { inputs: textsOf(inputs), labels: textsOf(labels), disabled: status === "disabled" },
      ],
    ),
    clients: proofs(
      "clients",
      ({ id }) => id,
      ({ id, name, provider, clientId, patterns, scopes, inputs, ownRedirectUri, secretRevision }) => [
        { id, name, provider, clientId, patterns, scopes, ownRedirectUri, secretRevision, inputs: textsOf(inputs) },
      ],
    ),
    keys: proofs(
      "api_keys",
      ({ id }) => id,
      ({ id, name, secretHash, abilities, connections, labels, expiresAt, revokedAt, createdAt }) => [
        { id, name, secretHash: hex(secretHash), abilities, connections, expiresAt, revokedAt, createdAt },
        // A key without labels has the text that keys had before there were labels, so those keys go on working. Labels that somebody
        // adds or takes away by hand change the text.
        ...(textsOf(labels).length === 0 ? [] : [{ labels: textsOf(labels) }]),
      ],
    ),
    workloads: proofs(
      "workloads",
      ({ id }) => id,
      ({ id, name, issuer, jwks, jwksUri, ca, networks, audience, algorithms, match, ...row }) => [
        { id, name, issuer, jwks, jwksUri, ca, networks, audience, algorithms, match },
        { abilities: row.abilities, connections: row.connections, labels: textsOf(row.labels) },
        { expiresAt: row.expiresAt, deletedAt: row.deletedAt, createdAt: row.createdAt },
      ],
    ),
    links: proofs(
      "consent_links",
      ({ id }) => id,
      ({ id, connectionId, secretHash, returnTo, manual, purpose, endUser, createdBy, expiresAt, claimedBy }) => [
        // Without an end user the text is that of links from before there were any, so that those stay valid.
        { id, connectionId, returnTo, manual, purpose, ...(endUser !== null && { endUser }), createdBy, expiresAt },
        { secretHash: hex(secretHash), claimedBy: claimedBy && hex(claimedBy) },
      ],
    ),
    unconfirmedGrants: proofs(
      "held_grants",
      ({ attemptId }) => attemptId,
      ({ attemptId, connectionId, generation, account, accountLabel, linkId, accepted }) => [
        { attemptId, connectionId, generation, account, accountLabel, linkId, accepted },
      ],
    ),
  };
}

/** @throws TypeError for a value that this broker never writes there, such as a list, or a number in a map */
function textsOf(map: unknown): [string, string][] {
  const isMap = typeof map === "object" && map !== null && !Array.isArray(map);
  if (!isMap || Object.values(map).some((value) => typeof value !== "string")) throw new TypeError("no map of texts");
  return Object.entries(map as Record<string, string>).sort(([one], [other]) => (one < other ? -1 : 1));
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}

/** MACs for what replicas exchange through places where others may write, too. */
export type SharedProofs = {
  sign(purpose: string, text: string): string;
  /** `silent`: made with a key that this ring lacks and the database names, so another replica can check it. */
  judge(purpose: string, text: string, proof: string): Promise<"authentic" | Absence>;
  /** The id of the key that made it. */
  keyIdOf(proof: string): string;
  /** The id of the key that signs. */
  current(): string;
};

export function createSharedProofs(keyring: Pick<Keyring, "sign" | "verify" | "current">, keys: KeyList): SharedProofs {
  return {
    keyIdOf: keyIdOfProof,
    current: () => keyring.current(),
    sign: (purpose, text) => keyring.sign(purpose, text),
    async judge(purpose, text, proof) {
      const judged = keyring.verify(purpose, text, proof);
      if (judged === "authentic") return judged;
      return judged === "forged" ? "absent" : await keys.absenceOf(keyIdOfProof(proof));
    },
  };
}
