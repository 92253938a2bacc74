import { randomUUID } from "node:crypto";
import { fixedClientId, type ConnectionGrant, type ProviderDefinition } from "../providers/definition.ts";
import type { Grant } from "../providers/grant.ts";
import { hostInputs } from "../providers/requirements.ts";
import { nextGeneration } from "../store/generation.ts";
import type { SealedGrant } from "../store/row-sql.ts";
import type { TokenRow } from "../store/token-row.ts";
import type { TokenVault } from "../vault/token-vault.ts";
import type { AnswerRecord } from "./answer-record.ts";
import { isUselessTo } from "./refresh-token.ts";
import { schedulerFor, sealGrant } from "./sealed-set.ts";
import { grantedFor, placeOf, provenCaptures } from "./destination.ts";
import type { Sendable } from "./sending.ts";

/** One answer of a token endpoint, and the row that it is for. */
export type Granted = { sendable: Sendable; grant: Grant; record: AnswerRecord };

/** A set that a person handed over, or that was granted to one: nothing of the set before is kept with it. */
type Handed = {
  grant: Grant;
  captured: Record<string, string>;
  redirectUri: string | null;
  definition: ProviderDefinition;
  sentAt: Date;
};

export type Sealing = { vault: TokenVault; random: () => number };

export function sealHanded({ vault, random }: Sealing, row: TokenRow, handed: Handed): SealedGrant {
  const { grant, captured, redirectUri, definition, sentAt } = handed;
  const rules = definition.refresh;
  const base = {
    ...row,
    captured,
    redirectUri,
    rotation: rules.rotation,
    refreshToken: null,
    noRefreshTokenSince: null,
    impliedScopes: row.scopes,
    authorizedAt: sentAt,
  };
  return sealGrant(vault, base, {
    grant,
    sentAt,
    scheduler: schedulerFor(rules, random),
    hosts: hostInputs(definition),
    isUseless: isUselessTo(definition, row.grant),
  });
}

type Asked = Pick<Handed, "grant" | "captured" | "redirectUri">;

/** A grant as it is kept. */
export function granted(sealing: Sealing, sendable: Sendable, { grant, captured, redirectUri }: Asked): Granted {
  const { row, definition } = sendable;
  const rules = definition.refresh;
  // A further token has no account of its own that could be the same.
  const mayKeep = row.parentId === null && rules.rotation === "never" && grant.refreshToken === undefined;
  const proven = { ...row, ...provenCaptures(sealing.vault, row) };
  const handed = { captured, redirectUri, definition, sentAt: row.now };
  const seal = (one: Grant) => sealHanded(sealing, proven, { grant: one, ...handed });
  const record: AnswerRecord = {
    kind: "grant",
    connectionId: row.id,
    generation: row.generation,
    authorization: row.authorization,
    attemptId: randomUUID(),
    event: row.generation === 0 ? "connected" : "reconnected",
    sealedFor: nextGeneration(row),
    destination: grantedFor(row, hostInputs(definition)),
    grant: seal(grant),
    clientId: clientIdOf(sendable),
    ...(rules.rotation !== "never" && { exclusive: true }),
    ...(mayKeep && { mayKeepRefreshToken: true }),
  };
  const other = otherGrant(grant);
  if (other !== null) record.other = otherRecord(record, seal(other));
  return { sendable, grant, record };
}

/** The set that an answer may have meant that names two refresh tokens, without its access token; null: it names one. */
export function otherGrant({ otherRefreshToken, tokenType, scopes, captured }: Grant): Grant | null {
  if (otherRefreshToken === undefined) return null;
  const unstated = { kind: "unstated" } as const;
  const lives = { accessExpiry: unstated, refreshExpiry: unstated };
  return { refreshToken: otherRefreshToken, tokenType, ...lives, ...(scopes && { scopes }), captured };
}

/** It belongs where the answer does, as an attempt of its own. */
export function otherRecord(record: AnswerRecord, grant: SealedGrant): AnswerRecord {
  const { connectionId, generation, authorization, sealedFor, destination } = record;
  const place = { connectionId, generation, authorization, sealedFor, destination };
  return { kind: "refresh", event: "refreshed", attemptId: randomUUID(), ...place, grant };
}

/** The client id that a grant is given to; null: there is none. */
export function clientIdOf({ row, client, definition }: Sendable): string | null {
  return client?.clientId ?? fixedClientId(definition, row.grant as ConnectionGrant);
}

/** The further tokens that came with a grant, each for a row of its own. */
export function furtherGranted(
  sealing: Sealing,
  { chains = [] }: Pick<Sendable, "chains">,
  { grant, captured, redirectUri }: Asked,
): Granted[] {
  return chains.flatMap((chain) => {
    const extra = grant.extras?.[chain.row.chain ?? ""];
    return extra === undefined ? [] : [granted(sealing, chain, { grant: extra, captured, redirectUri })];
  });
}

type Opening = Pick<TokenVault, "openAccessToken" | "openRefreshToken">;
type Tokens = Pick<Grant, "accessToken" | "refreshToken">;

/**
 * Whether a row lives by one of these tokens: revoking them would end what is in use. Null: nobody can tell, what the row holds
 * does not open here.
 */
export function livesBy(vault: Opening, row: TokenRow, { accessToken, refreshToken }: Tokens): boolean | null {
  const place = placeOf(row);
  try {
    const refresh = row.refreshToken === null ? null : vault.openRefreshToken(row.refreshToken, place);
    const access = row.accessToken === null ? null : vault.openAccessToken(row.accessToken, place);
    return (
      (refreshToken !== undefined && refreshToken === refresh) || (accessToken !== undefined && accessToken === access)
    );
  } catch {
    return null;
  }
}
