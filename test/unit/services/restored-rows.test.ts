import { describe, expect, it } from "vitest";
import type { Principal } from "../../../src/callers/principal.ts";
import { createRestoredRowsService } from "../../../src/services/restored-rows.ts";
import type { ApiKeyRow } from "../../../src/store/api-keys.ts";
import type { TokenRow } from "../../../src/store/token-row.ts";
import { placeOf } from "../../../src/tokens/seal.ts";
import { vault } from "../tokens/answers.ts";
import { tokenRow } from "../tokens/token-row.ts";

const admin = { callerId: "admin", labels: {}, abilities: ["admin"], connections: ["*"] } as unknown as Principal;

/** A suspended row. Its tokens open unless they are damaged. */
function heldRow(name: string, damaged: { accessToken?: Uint8Array; refreshToken?: Uint8Array } = {}): TokenRow {
  const row = tokenRow({ name, id: name, generation: 3, goneBackFrom: 5 });
  const sealed = vault.sealTokens({ accessToken: "a", refreshToken: "r" }, placeOf(row));
  return { ...row, ...sealed, ...damaged };
}

function recovering(rows: TokenRow[]) {
  const released: { name: string; accessToken: string | null; refreshToken: string | null }[] = [];
  const service = createRestoredRowsService({
    rows: {
      goneBack: async () => rows,
      releaseGoneBack: async ({ id, goneBackFrom }, { accessToken, refreshToken }) => {
        const at = placeOf(tokenRow({ name: id, id, generation: goneBackFrom }));
        released.push({
          name: id,
          accessToken: accessToken && vault.openAccessToken(accessToken, at),
          refreshToken: refreshToken && vault.openRefreshToken(refreshToken, at),
        });
        return null;
      },
    },
    keys: {
      working: async (nowMs, { patterns }) => [{ id: `at ${nowMs} for ${patterns.join()}` } as ApiKeyRow],
    },
    nowMs: () => 7,
    vault,
    cache: { learn: () => ({ row: tokenRow(), accessToken: null, unreadable: null, askedAt: 0, asOf: null }) },
  });
  return { service, released };
}

const garbage = new Uint8Array(60);

describe("releasing connections that a restored database holds", () => {
  it("one whose refresh token does not open keeps no other suspended, and is named", async () => {
    const { service, released } = recovering([
      heldRow("one"),
      heldRow("bad", { refreshToken: garbage }),
      heldRow("two"),
    ]);
    const failed = service.release(admin, null);
    await expect(failed).rejects.toMatchObject({ code: "unreadable_secret", context: { connection: "bad" } });
    expect(released.map(({ name }) => name)).toEqual(["one", "two"]);
  });

  it("one whose access token alone does not open is released without it", async () => {
    const { service, released } = recovering([heldRow("one", { accessToken: garbage })]);
    expect(await service.release(admin, ["one"])).toEqual(["one"]);
    expect(released).toEqual([{ name: "one", accessToken: null, refreshToken: "r" }]);
  });

  it("nothing of one that has only an access token, which does not open, is lost", async () => {
    const { service, released } = recovering([{ ...heldRow("one", { accessToken: garbage }), refreshToken: null }]);
    await expect(service.release(admin, ["one"])).rejects.toMatchObject({ code: "unreadable_secret" });
    expect(released).toEqual([]);
  });
});

describe("listing what a restored database holds", () => {
  it("lists the keys of the caller's patterns while anything is suspended, of others as well", async () => {
    const { service } = recovering([heldRow("other")]);
    const team = { ...admin, connections: ["team-*"] };
    const { suspended, keys } = await service.list(team);
    expect(suspended).toEqual([]);
    expect(keys).toEqual([{ id: "at 7 for team-%" }]);
  });

  it("lists none while nothing is suspended", async () => {
    expect(await recovering([]).service.list(admin)).toEqual({ suspended: [], keys: null });
  });
});
