import { createHash } from "node:crypto";
import type { Place } from "./envelope.ts";
import type { Keyring } from "./keyring.ts";

/** The two tokens of one generation, in the clear. */
type TokenSet = { accessToken: string | null; refreshToken: string | null };

/** The same as they stand in the row. */
type SealedTokenSet = {
  accessToken: Uint8Array<ArrayBuffer> | null;
  refreshToken: Uint8Array<ArrayBuffer> | null;
};

/** Turns secrets into sealed records for one place, and back. The only room that knows both. */
export type TokenVault = {
  sealTokens(tokens: TokenSet, at: { connectionId: string; generation: number }): SealedTokenSet;
  openAccessToken(record: Uint8Array, at: { connectionId: string; generation: number }): string;
  openRefreshToken(record: Uint8Array, at: { connectionId: string; generation: number }): string;
  /** An answer on its way to the row, with all that belongs to it. */
  sealRecord(text: string, at: { connectionId: string; generation: number }): Uint8Array<ArrayBuffer>;
  openRecord(record: Uint8Array, at: { connectionId: string; generation: number }): string;
  sealAnswer(rawAnswer: string, at: { connectionId: string; generation: number }): Uint8Array<ArrayBuffer>;
  sealCredentials(
    values: Record<string, string>,
    at: { connectionId: string; revision: number },
  ): Uint8Array<ArrayBuffer>;
  openCredentials(record: Uint8Array, at: { connectionId: string; revision: number }): Record<string, string>;
  sealClientSecret(secret: string, at: { clientId: string; revision: number }): Uint8Array<ArrayBuffer>;
  openClientSecret(record: Uint8Array, at: { clientId: string; revision: number }): string;
  /** An authorization request with all that it binds, its code verifier included. */
  sealRequest(text: string, at: { requestId: string }): Uint8Array<ArrayBuffer>;
  openRequest(record: Uint8Array, at: { requestId: string }): string;
  sealDeviceCode(code: string, at: { requestId: string }): Uint8Array<ArrayBuffer>;
  openDeviceCode(record: Uint8Array, at: { requestId: string }): string;
  /** SHA-256 over client and refresh token: tells equal tokens apart from different ones without opening any. */
  fingerprint(refreshToken: string, clientId: string): Uint8Array<ArrayBuffer>;
};

type TokenPlace = { connectionId: string; generation: number };
type SecretPlace = { connectionId: string; revision: number };

const tokenPlace = (column: string, { connectionId, generation }: TokenPlace): Place => ({
  table: "connections",
  row: connectionId,
  column,
  revision: generation,
});
const credentialsPlace = ({ connectionId, revision }: SecretPlace): Place => ({
  table: "connections",
  row: connectionId,
  column: "credentials_sealed",
  revision,
});
const clientSecretPlace = ({ clientId, revision }: { clientId: string; revision: number }): Place => ({
  table: "clients",
  row: clientId,
  column: "secret_sealed",
  revision,
});
const requestPlace = ({ requestId }: { requestId: string }): Place => ({
  table: "authorization_requests",
  row: requestId,
  column: "request_sealed",
  revision: 0,
});

const deviceCodePlace = ({ requestId }: { requestId: string }): Place => ({
  table: "device_authorizations",
  row: requestId,
  column: "device_code_sealed",
  revision: 0,
});

export function createTokenVault(keyring: Pick<Keyring, "seal" | "open">): TokenVault {
  const sealOrNull = (text: string | null, place: Place) => (text === null ? null : keyring.seal(text, place));
  return {
    sealTokens: ({ accessToken, refreshToken }, at) => ({
      accessToken: sealOrNull(accessToken, tokenPlace("access_token_sealed", at)),
      refreshToken: sealOrNull(refreshToken, tokenPlace("refresh_token_sealed", at)),
    }),
    openAccessToken: (record, at) => keyring.open(record, tokenPlace("access_token_sealed", at)),
    openRefreshToken: (record, at) => keyring.open(record, tokenPlace("refresh_token_sealed", at)),
    sealRecord: (text, at) => keyring.seal(text, tokenPlace("record", at)),
    openRecord: (record, at) => keyring.open(record, tokenPlace("record", at)),
    sealAnswer: (rawAnswer, at) => keyring.seal(rawAnswer, tokenPlace("attempt_answer_sealed", at)),
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
