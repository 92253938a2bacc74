import type { SealedGrant } from "../store/row-sql.ts";
import type { EventType } from "../store/event-types.ts";
import type { TokenRow } from "../store/token-row.ts";
import type { Destination } from "../vault/envelope.ts";
import type { TokenPlace, TokenVault } from "../vault/token-vault.ts";
import { provenCaptures } from "./destination.ts";

/** What a token endpoint granted, with all that is needed to put it into its row, now or after a restart. */
export type AnswerRecord = {
  /** `refresh`: got under a permit. `grant`: got by a person's code. `held`: the same, and it waits for the person's word. `further`: it came along with a refresh of its connection. */
  kind: "refresh" | "grant" | "held" | "further";
  connectionId: string;
  /** The generation that it was asked for under, and the authorization that stood then. */
  generation: number;
  authorization: number;
  attemptId: string;
  /** The type of its line in the history. */
  event: EventType;
  /** The generation that the tokens are sealed for. */
  sealedFor: number;
  /** Where the tokens are sent, beside what is captured: they are never sealed for another. */
  destination: Omit<Destination, "captured" | "account">;
  grant: SealedGrant;
  /** Of a person's grant: the client id that it was given to. */
  clientId?: string | null;
  /** It holds no refresh token, and at this provider the row's stays good: see late-answers. */
  mayKeepRefreshToken?: boolean;
  /** Of a person's grant: another connection that holds its refresh token is in its way. */
  exclusive?: boolean;
  /** Whose it is, where a person has said so, or nobody can. */
  account?: { account: string | null; label: string | null };
  /** The same answer with the refresh token that it names first, where it names two: tried when the provider refuses the last. */
  other?: AnswerRecord;
  /** Records of further tokens that came with it, unless they are kept by themselves. */
  further?: AnswerRecord[];
};

const dates = [
  "issuedAt",
  "expiresAt",
  "refreshTokenExpiresAt",
  "refreshDueAt",
  "keepAliveAt",
  "noRefreshTokenSince",
] as const;
const binaries = ["accessToken", "refreshToken", "refreshFingerprint"] as const;

/** Sealed as a whole: what is spooled cannot be read, nor moved to another connection or generation. */
export function sealRecord(vault: TokenVault, record: AnswerRecord): Uint8Array<ArrayBuffer> {
  return vault.sealRecord(JSON.stringify(toJson(record)), record);
}

function toJson({ further, other, ...record }: AnswerRecord): Record<string, unknown> {
  const grant: Record<string, unknown> = { ...record.grant };
  for (const name of binaries) {
    const bytes = record.grant[name];
    grant[name] = bytes === null ? null : Buffer.from(bytes).toString("base64");
  }
  return { ...record, grant, ...(other && { other: toJson(other) }), ...(further && { further: further.map(toJson) }) };
}

/** @throws Error when it does not belong to this place, or its key is not in the ring */
export function openRecord(
  vault: TokenVault,
  sealed: Uint8Array,
  at: { connectionId: string; generation: number },
): AnswerRecord {
  return readRecord(vault.openRecord(sealed, at));
}

export function readRecord(text: string): AnswerRecord {
  return fromJson(JSON.parse(text) as AnswerRecord);
}

function fromJson({ further, other, ...record }: AnswerRecord): AnswerRecord {
  // What was spooled by an earlier version says nothing of it.
  const grant: Record<string, unknown> = { ...record.grant };
  grant["unreadableLifetime"] ??= false;
  grant["lastError"] ??= null;
  for (const name of dates) if (grant[name] !== null) grant[name] = new Date(grant[name] as string);
  for (const name of binaries) {
    if (grant[name] !== null) grant[name] = new Uint8Array(Buffer.from(grant[name] as string, "base64"));
  }
  const more = { ...(other && { other: fromJson(other) }), ...(further && { further: further.map(fromJson) }) };
  return { ...record, grant: grant as SealedGrant, ...more };
}

/** The tokens of a record, in the clear. */
export function openTokens(vault: TokenVault, record: AnswerRecord) {
  const { accessToken, refreshToken } = record.grant;
  const place = placeIn(record, record.sealedFor, record.grant.accountCaptured);
  return {
    accessToken: accessToken === null ? null : vault.openAccessToken(accessToken, place),
    refreshToken: refreshToken === null ? null : vault.openRefreshToken(refreshToken, place),
  };
}

/**
 * The same set for another generation of its row. It stays bound to the inputs that it was got with: in a row that has others
 * now, it does not open. What was looked up is the row's, unless the set comes with an account of its own.
 */
export function resealFor(
  vault: TokenVault,
  record: AnswerRecord,
  { row, generation }: { row: TokenRow; generation: number },
): SealedGrant {
  const accountCaptured = record.account === undefined ? provenCaptures(vault, row).accountCaptured : {};
  if (generation === record.sealedFor && isSame(accountCaptured, record.grant.accountCaptured)) return record.grant;
  const from = placeIn(record, record.sealedFor, record.grant.accountCaptured);
  const to = placeIn(record, generation, accountCaptured);
  return { ...record.grant, accountCaptured, ...vault.resealTokens(record.grant, from, to) };
}

function isSame(one: Record<string, string>, other: Record<string, string>): boolean {
  const names = Object.keys(one);
  return names.length === Object.keys(other).length && names.every((name) => one[name] === other[name]);
}

function placeIn(record: AnswerRecord, generation: number, account: Record<string, string>): TokenPlace {
  const destination = { ...record.destination, captured: record.grant.captured, account };
  return { connectionId: record.connectionId, generation, destination };
}
