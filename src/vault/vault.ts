import { createHash } from "node:crypto";
import type { RowProofs } from "../proven-rows.ts";
import { type Destination, type Keyring, type Place, readableKeyId } from "./keyring.ts";
import { createRowProofs, type Telling } from "./row-proofs.ts";

/** The two tokens of one generation, in plain text. */
type TokenSet = { accessToken: string | null; refreshToken: string | null };

/** The same, sealed, as in the row. */
type SealedTokenSet = {
  accessToken: Uint8Array<ArrayBuffer> | null;
  refreshToken: Uint8Array<ArrayBuffer> | null;
};

/** Where the tokens of one generation are stored, and to whom they are sent. */
export type TokenPlace = { connectionId: string; generation: number; destination: Destination };
/** The same of the secrets of a connection. */
export type SecretsPlace = { connectionId: string; revision: number; destination: Destination };
type RecordPlace = { connectionId: string; generation: number };
type ClientPlace = { clientId: string; revision: number; destination: Destination };
type DevicePlace = { requestId: string; destination: Destination };

/** Seals secrets for one place and one destination, and opens them. No other room has both keys and plain text. */
export type TokenVault = RowProofs & {
  sealTokens(tokens: TokenSet, at: TokenPlace): SealedTokenSet;
  openAccessToken(record: Uint8Array, at: TokenPlace): string;
  openRefreshToken(record: Uint8Array, at: TokenPlace): string;
  /** Seals the same tokens for another place of their connection, bound to the same inputs. */
  resealTokens(
    sealed: { accessToken: Uint8Array | null; refreshToken: Uint8Array | null },
    from: TokenPlace,
    to: TokenPlace,
  ): SealedTokenSet;
  /** Whether the current key has sealed it, or there is none. False also for what is no record. */
  isCurrent(record: Uint8Array | null): boolean;
  /** The inputs that a record is bound to. With others it does not open. */
  hostsOf(record: Uint8Array): string[];
  /** An answer that is not in its row yet, with everything that belongs to it. */
  sealRecord(text: string, at: RecordPlace): Uint8Array<ArrayBuffer>;
  openRecord(record: Uint8Array, at: RecordPlace): string;
  sealAnswer(rawAnswer: string, at: RecordPlace): Uint8Array<ArrayBuffer>;
  sealCredentials(values: Record<string, string>, at: SecretsPlace): Uint8Array<ArrayBuffer>;
  openCredentials(record: Uint8Array, at: SecretsPlace): Record<string, string>;
  sealClientSecret(secret: string, at: ClientPlace): Uint8Array<ArrayBuffer>;
  openClientSecret(record: Uint8Array, at: ClientPlace): string;
  /** An authorization request with everything that the consent is bound to, its code verifier included. */
  sealRequest(text: string, at: { requestId: string }): Uint8Array<ArrayBuffer>;
  openRequest(record: Uint8Array, at: { requestId: string }): string;
  sealDeviceCode(code: string, at: DevicePlace): Uint8Array<ArrayBuffer>;
  openDeviceCode(record: Uint8Array, at: DevicePlace): string;
  /** SHA-256 over client and refresh token: shows whether two tokens are equal without opening them. */
  fingerprint(refreshToken: string, clientId: string): Uint8Array<ArrayBuffer>;
};

export const accessTokenPlace = (at: TokenPlace) => tokenPlace("access_token_sealed", at);
export const refreshTokenPlace = (at: TokenPlace) => tokenPlace("refresh_token_sealed", at);
export const recordPlace = (at: RecordPlace) => rowPlace("record", at);
/** The name of an older column: answers that were stored there are sealed for it. */
export const answerPlace = (at: RecordPlace) => rowPlace("attempt_answer_sealed", at);
export const credentialsPlace = ({ connectionId, revision, destination }: SecretsPlace): Place => ({
  table: "connections",
  row: connectionId,
  column: "credentials_sealed",
  revision,
  destination,
});
export const clientSecretPlace = ({ clientId, revision, destination }: ClientPlace): Place => ({
  table: "clients",
  row: clientId,
  column: "secret_sealed",
  revision,
  destination,
});
export const deviceCodePlace = ({ requestId, destination }: DevicePlace): Place => ({
  table: "device_authorizations",
  row: requestId,
  column: "device_code_sealed",
  revision: 0,
  destination,
});
export const requestPlace = ({ requestId }: { requestId: string }): Place => ({
  table: "authorization_requests",
  row: requestId,
  column: "request_sealed",
  revision: 0,
});

function rowPlace(column: string, { connectionId, generation }: RecordPlace): Place {
  return { table: "connections", row: connectionId, column, revision: generation };
}

function tokenPlace(column: string, at: TokenPlace): Place & { destination: Destination } {
  return { ...rowPlace(column, at), destination: at.destination };
}

/** @param telling default: no other replica has a key that this one lacks */
export function createTokenVault(
  keyring: Pick<Keyring, "seal" | "open" | "hostsOf" | "sign" | "verify" | "current">,
  telling: Partial<Telling> = {},
): TokenVault {
  const sealOrNull = (text: string | null, place: Place) => (text === null ? null : keyring.seal(text, place));
  const reseal = (record: Uint8Array | null, from: Place, to: Place & { destination: Destination }) => {
    if (record === null) return null;
    const text = keyring.open(record, from);
    return keyring.seal(text, { ...to, destination: { ...to.destination, hosts: keyring.hostsOf(record) } });
  };
  return {
    ...createRowProofs(keyring, { onForged: () => undefined, isSilent: async () => false, ...telling }),
    isCurrent: (record) => record === null || readableKeyId(record) === keyring.current(),
    hostsOf: (record) => keyring.hostsOf(record),
    sealTokens: ({ accessToken, refreshToken }, at) => ({
      accessToken: sealOrNull(accessToken, accessTokenPlace(at)),
      refreshToken: sealOrNull(refreshToken, refreshTokenPlace(at)),
    }),
    openAccessToken: (record, at) => keyring.open(record, accessTokenPlace(at)),
    openRefreshToken: (record, at) => keyring.open(record, refreshTokenPlace(at)),
    resealTokens: ({ accessToken, refreshToken }, from, to) => ({
      accessToken: reseal(accessToken, accessTokenPlace(from), accessTokenPlace(to)),
      refreshToken: reseal(refreshToken, refreshTokenPlace(from), refreshTokenPlace(to)),
    }),
    sealRecord: (text, at) => keyring.seal(text, recordPlace(at)),
    openRecord: (record, at) => keyring.open(record, recordPlace(at)),
    sealAnswer: (rawAnswer, at) => keyring.seal(rawAnswer, answerPlace(at)),
    sealCredentials: (values, at) => keyring.seal(JSON.stringify(values), credentialsPlace(at)),
    openCredentials: (record, at) => JSON.parse(keyring.open(record, credentialsPlace(at))) as Record<string, string>,
    sealClientSecret: (secret, at) => keyring.seal(secret, clientSecretPlace(at)),
    openClientSecret: (record, at) => keyring.open(record, clientSecretPlace(at)),
    sealRequest: (text, at) => keyring.seal(text, requestPlace(at)),
    openRequest: (record, at) => keyring.open(record, requestPlace(at)),
    sealDeviceCode: (text, at) => keyring.seal(text, deviceCodePlace(at)),
    openDeviceCode: (record, at) => keyring.open(record, deviceCodePlace(at)),
    fingerprint: (refreshToken, clientId) =>
      new Uint8Array(
        createHash("sha256")
          .update(JSON.stringify([clientId, refreshToken]))
          .digest(),
      ),
  };
}
