import { UnreadableSecretError } from "../errors.ts";
import type { Proofs, Read } from "../proven-rows.ts";
import type { RowChange, SealedRow, SealedTableName } from "../store/sealed-rows.ts";
import {
  type AnswerRecord,
  clientDestination,
  placeOf,
  readRecord,
  sealRecord,
  sealsIn,
  secretsDestination,
  secretsPlace,
  underCurrentKey,
} from "../tokens/seal.ts";
import { keyIdOfProof, type Keyring, type Place, readableKeyId } from "../vault/keyring.ts";
import * as places from "../vault/vault.ts";

/** A value that stays under its key, since it does not open, or its MAC is not valid. It holds no secret. */
export type Unopened = { table: string; id: string; name: string | null; column: string; keyId: string | null };

/** What a rotation has noted. Who writes to its row makes it hold anything; that counts as nothing. */
export function readUnopened(noted: unknown): Unopened[] {
  return Array.isArray(noted) ? noted.filter(isUnopened) : [];
}

function isUnopened(each: unknown): each is Unopened {
  const { table, id, name, column, keyId } = (each ?? {}) as Record<string, unknown>;
  return [table, id, column].every(isText) && [name, keyId].every((value) => value === null || isText(value));
}

function isText(value: unknown): value is string {
  return typeof value === "string";
}

/** A row as it is to be written; `change` null: it stays as it is. */
type Renewed = { change: RowChange | null; unopened: Unopened[] };

/** Puts the values of a row under the current key, each bound to the same place as before. One that does not open stays as it is. */
export type Resealing = {
  renew<Name extends SealedTableName>(name: Name, row: SealedRow<Name> & { rowId: string }): Renewed;
  record: RecordMover;
};

/**
 * An answer in a spool or a table, with seals within its seal. `keyIds`: every key that it is under afterwards; `isOpen` false: something of it
 * does not open, and stays.
 */
export type RecordMover = (
  record: Uint8Array,
  at: { connectionId: string; generation: number },
) => { record: Uint8Array; isMoved: boolean; isOpen: boolean; keyIds: string[]; keyIdsBefore: string[] };

export function createResealing(keyring: Keyring, vault: places.TokenVault): Resealing {
  const record: RecordMover = (sealed, at) => {
    const outer = readableKeyId(sealed);
    const stays = { record: sealed, isMoved: false };
    let before: AnswerRecord;
    try {
      before = readRecord(vault.openRecord(sealed, at));
    } catch {
      const keyIds = distinct([outer]);
      return { ...stays, isOpen: false, keyIds, keyIdsBefore: keyIds };
    }
    const keyIdsBefore = distinct([outer, ...sealsIn(before).map(readableKeyId)]);
    const isCurrent = (id: string) => id === keyring.current();
    if (keyIdsBefore.every(isCurrent)) return { ...stays, isOpen: true, keyIds: keyIdsBefore, keyIdsBefore };
    const after = underCurrentKey(vault, before);
    const seals = sealsIn(after);
    const keyIds = distinct([keyring.current(), ...seals.map(readableKeyId)]);
    const ofRecord = { isOpen: keyIds.every(isCurrent), keyIds, keyIdsBefore };
    const isMoved = outer !== keyring.current() || sealsIn(before).some((one, index) => one !== seals[index]);
    return isMoved ? { ...ofRecord, isMoved, record: sealRecord(vault, after) } : { ...stays, ...ofRecord };
  };

  const renewers: { [Name in SealedTableName]: (row: SealedRow<Name> & { rowId: string }, renewal: Renewal) => void } =
    {
      connections(row, to) {
        to.seal("access_token_sealed", row.accessToken, places.accessTokenPlace(placeOf(row)));
        to.seal("refresh_token_sealed", row.refreshToken, places.refreshTokenPlace(placeOf(row)));
        const ofSecrets = secretsPlace(row, { revision: row.credentialsRevision });
        to.seal("credentials_sealed", row.credentials, places.credentialsPlace(ofSecrets));
        to.mac(vault.connections, row);
      },
      clients(client, to) {
        const at = { clientId: client.id, destination: clientDestination(client) };
        const revision = client.secretRevision;
        to.seal("secret_sealed", client.secret, places.clientSecretPlace({ ...at, revision }));
        const older = places.clientSecretPlace({ ...at, revision: revision - 1 });
        to.seal("previous_secret_sealed", client.previousSecret, older);
        to.mac(vault.clients, client);
      },
      api_keys: (key, to) => to.mac(vault.keys, key),
      workloads: (workload, to) => to.mac(vault.workloads, workload),
      consent_links: (link, to) => to.mac(vault.links, link),
      held_grants(held, to) {
        to.record("record_sealed", held.record, held);
        to.mac(vault.unconfirmedGrants, held);
      },
      candidates: ({ answer, ...at }, to) => to.record("record_sealed", answer, at),
      unread_answers: ({ answer, ...at }, to) => to.seal("answer_sealed", answer, places.answerPlace(at)),
      device_authorizations(row, to) {
        const { requestId, deviceCode } = row;
        const destination = secretsDestination(row);
        to.seal("device_code_sealed", deviceCode, places.deviceCodePlace({ requestId, destination }));
      },
      authorization_requests: ({ requestId, request }, to) =>
        to.seal("request_sealed", request, places.requestPlace({ requestId })),
    };

  return {
    record,
    renew(name, row) {
      const renewal = createRenewal({ keyring, record, table: name, row });
      renewers[name](row, renewal);
      return renewal.end();
    },
  };
}

type Renewal = {
  seal(column: string, sealed: Uint8Array | null, place: Place): void;
  record(column: string, sealed: Uint8Array, at: { connectionId: string; generation: number }): void;
  mac<Row>(proofs: Proofs<Row>, row: Read<Row>): void;
  end(): Renewed;
};

type RenewalParts = { keyring: Keyring; record: RecordMover; table: string; row: { rowId: string } };

/** Collects the values of one row, in the order of its table's columns. */
function createRenewal({ keyring, record, table, row }: RenewalParts): Renewal {
  const change: { -readonly [Key in keyof RowChange]: RowChange[Key] } & { seals: RowChange["seals"][number][] } = {
    id: row.rowId,
    seals: [],
    mac: null,
  };
  const unopened: Unopened[] = [];
  const name = "name" in row && typeof row.name === "string" ? row.name : null;
  const leave = (column: string, keyId: string | null) => unopened.push({ table, id: row.rowId, name, column, keyId });
  return {
    seal(column, before, place) {
      const renewed = { before, after: before };
      change.seals.push(renewed);
      if (before === null || readableKeyId(before) === keyring.current()) return;
      try {
        renewed.after = keyring.reseal(before, place);
      } catch (error) {
        if (!(error instanceof UnreadableSecretError)) throw error;
        leave(column, error.keyId);
      }
    },
    record(column, before, at) {
      const { record: after, isOpen, keyIds } = record(before, at);
      change.seals.push({ before, after });
      if (isOpen) return;
      const left = keyIds.find((id) => id !== keyring.current());
      // One that is under the current key and does not open keeps no other key in use.
      if (left !== undefined) leave(column, left === unknown ? null : left);
    },
    mac(proofs, read) {
      change.mac = { before: read.mac, after: read.mac };
      if (read.mac === null || keyIdOfProof(read.mac) === keyring.current()) return;
      try {
        proofs.check(read);
        change.mac.after = proofs.sign(read);
      } catch (error) {
        if (!(error instanceof UnreadableSecretError)) throw error;
        leave("mac", error.keyId);
      }
    },
    end() {
      const isChanged = [...change.seals, ...(change.mac === null ? [] : [change.mac])].some(
        ({ before, after }) => before !== after,
      );
      return { change: isChanged ? change : null, unopened };
    },
  };
}

/** Stands for what is no record. No key has such an id. */
const unknown = "?";

function distinct(ids: readonly (string | null)[]): string[] {
  return [...new Set(ids.map((id) => id ?? unknown))];
}
