import { publicName } from "../text.ts";
import { eachAlone } from "../concurrency.ts";
import { deletedGeneration } from "../coordination/marks.ts";
import { BrokerError, isStorageUnavailable, openedOrNull, UnreadableSecretError } from "../errors.ts";
import type { ApiKeyRow, ApiKeys } from "../store/api-keys.ts";
import type { TokenRow } from "../store/token-row.ts";
import type { TokenStatements } from "../store/token-statements.ts";
import type { TokenCache } from "../tokens/cache.ts";
import { placeOf } from "../tokens/seal.ts";
import type { TokenVault } from "../vault/vault.ts";
import { boundsOf, coversName, type Principal, requireUnbound } from "../callers/principal.ts";

/** A connection whose row comes from a restored database. Its refresh token has most likely been spent. */
export type SuspendedConnection = {
  name: string;
  provider: string;
  status: string;
  /** How many token sets newer than the row's were stored before; null: the connection had been deleted. */
  setsLost: number | null;
  accessTokenExpiresAt: Date | null;
};

export type RestoredRowsService = ReturnType<typeof createRestoredRowsService>;

type Parts = {
  rows: Pick<TokenStatements, "goneBack" | "releaseGoneBack">;
  vault: TokenVault;
  cache: Pick<TokenCache, "learn">;
  keys: Pick<ApiKeys, "working">;
  nowMs: () => number;
};

export function createRestoredRowsService({ rows, vault, cache, keys, nowMs }: Parts) {
  const release = async (row: TokenRow, by: string): Promise<void> => {
    const { goneBackFrom } = row;
    if (goneBackFrom === null) return;
    // The row gets the generation of its mark, so that it is no longer behind it.
    const opened = openTokens(vault, row);
    const sealed = vault.resealTokens(
      {
        accessToken: opened.accessToken === null ? null : row.accessToken,
        refreshToken: opened.refreshToken === null ? null : row.refreshToken,
      },
      placeOf(row),
      { ...placeOf(row), generation: goneBackFrom },
    );
    const released = await rows.releaseGoneBack({ ...row, goneBackFrom }, sealed, by);
    if (released !== null) cache.learn(released);
  };

  return {
    /**
     * The suspended connections that the principal's patterns cover. `keys`: the working keys whose patterns lie within the principal's, oldest
     * first, since keys that were revoked after the backup work again. Null: no connection is suspended, not even one of others.
     * @throws BrokerError forbidden for a principal that is bound to labels, as does `release`
     */
    async list(principal: Principal): Promise<{ suspended: SuspendedConnection[]; keys: ApiKeyRow[] | null }> {
      requireUnbound(principal);
      const all = await rows.goneBack();
      const working = all.length === 0 ? null : await keys.working(nowMs(), boundsOf(principal));
      return { suspended: covered(principal, all).map(describe), keys: working };
    },
    /**
     * Releases these connections, so that they are refreshed again, and returns their names. `names` null: all that the principal's patterns cover.
     * @throws BrokerError not_found for a name that is not suspended, without releasing any; unreadable_secret for one whose refresh token
     * does not open, after the others have been released
     */
    async release(principal: Principal, names: readonly string[] | null): Promise<string[]> {
      requireUnbound(principal);
      const suspended = covered(principal, await rows.goneBack());
      const unknown = names?.find((name) => !suspended.some((row) => isNamed(row, name)));
      if (unknown !== undefined) {
        throw new BrokerError("not_found", `connections: "${unknown}" is not held; none was released.`);
      }
      const chosen = suspended.filter((row) => names === null || names.some((name) => isNamed(row, name)));
      // If one cannot be released, the others are. The error names it.
      const failed: unknown[] = [];
      const one = async (row: TokenRow) => await release(row, principal.callerId);
      await eachAlone(chosen, one, { onError: (error) => failed.push(error), isForAll: isStorageUnavailable });
      if (failed.length > 0) throw failed[0];
      return chosen.map(({ name }) => name);
    },
  };
}

function covered(principal: Principal, suspended: readonly TokenRow[]): TokenRow[] {
  return suspended.filter(({ name }) => coversName(principal, publicName(name)));
}

/** An access token that does not open is left out if a refresh can get another one. @throws UnreadableSecretError */
function openTokens(vault: TokenVault, row: TokenRow) {
  const place = placeOf(row);
  const openAccess = () => row.accessToken && vault.openAccessToken(row.accessToken, place);
  try {
    const refreshToken = row.refreshToken && vault.openRefreshToken(row.refreshToken, place);
    return { refreshToken, accessToken: refreshToken === null ? openAccess() : openedOrNull(openAccess) };
  } catch (error) {
    throw error instanceof UnreadableSecretError ? error.of(row.name) : error;
  }
}

/** A connection's further tokens go with it, and may be named by themselves. */
function isNamed(row: TokenRow, name: string): boolean {
  return row.name === name || publicName(row.name) === name;
}

function describe({ name, provider, status, generation, goneBackFrom, expiresAt }: TokenRow): SuspendedConnection {
  const newest = goneBackFrom ?? generation;
  const setsLost = newest >= deletedGeneration ? null : newest - generation;
  return { name, provider, status, setsLost, accessTokenExpiresAt: expiresAt };
}
