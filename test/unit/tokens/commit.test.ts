import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import { BrokerError } from "../../../src/errors.ts";
import type { Expiry, Grant } from "../../../src/providers/grant.ts";
import type { TokenRow } from "../../../src/store/token-row.ts";
import type { SealedGrant, TokenRows } from "../../../src/store/token-rows.ts";
import { commitGrant, refreshBase, sealGrant } from "../../../src/tokens/commit.ts";
import { createKeyring } from "../../../src/vault/keyring.ts";
import { createTokenVault } from "../../../src/vault/token-vault.ts";
import { fakeClock } from "./fake-clock.ts";
import { inSeconds, now, tokenRow } from "./token-row.ts";

const vault = createTokenVault(
  createKeyring([{ id: "k1", key: createHash("sha256").update("commit tests").digest() }]),
);
const { id, generation } = tokenRow();
const here = { connectionId: id, generation };
const next = { connectionId: id, generation: generation + 1 };

const row = tokenRow({
  ...vault.sealTokens({ accessToken: "old access", refreshToken: "kept" }, here),
  captured: { account: "1", shop: "north" },
  scopes: ["asked"],
  now,
});

const grant = (changes: Partial<Grant> = {}): Grant => ({
  accessToken: "new access",
  tokenType: "Bearer",
  accessExpiry: { kind: "in", seconds: 300 },
  refreshExpiry: { kind: "unstated" },
  captured: {},
  ...changes,
});

const seal = (changes: Partial<Grant> = {}, of: TokenRow = row) =>
  sealGrant(vault, refreshBase(vault, of), { grant: grant(changes), sentAt: now });

const openedTokens = ({ accessToken, refreshToken }: SealedGrant, at = next) => ({
  accessToken: accessToken === null ? null : vault.openAccessToken(accessToken, at),
  refreshToken: refreshToken === null ? null : vault.openRefreshToken(refreshToken, at),
});

describe("what is stored of a grant", () => {
  it("a kept refresh token is sealed anew under the next generation, and opens under no other", () => {
    const sealed = seal();
    expect(openedTokens(sealed)).toEqual({ accessToken: "new access", refreshToken: "kept" });
    expect(sealed.refreshToken).not.toEqual(row.refreshToken);
    expect(() => openedTokens(sealed, here)).toThrow();
    expect(sealed.refreshFingerprint).toEqual(vault.fingerprint("kept", row.provider));
  });

  it("a kept refresh token keeps its end, a new one or none has its own", () => {
    const sealed = [seal(), seal({ refreshToken: "rotated" }), seal({}, { ...row, refreshToken: null })];
    expect(sealed.map(({ keepsRefreshToken }) => keepsRefreshToken)).toEqual([true, false, false]);
  });

  it("a new refresh token takes the place of the old one, with its own fingerprint", () => {
    const sealed = seal({ refreshToken: "rotated" });
    expect(openedTokens(sealed).refreshToken).toBe("rotated");
    expect(sealed.refreshFingerprint).toEqual(vault.fingerprint("rotated", row.provider));
  });

  it("a fingerprint tells clients apart, and falls back to the provider where there is none", () => {
    const clientRef = "8c1a7f7e-6a55-4a3b-8a60-0a9a2a1b3c4d";
    expect(seal({}, { ...row, clientRef }).refreshFingerprint).toEqual(vault.fingerprint("kept", clientRef));
    expect(vault.fingerprint("kept", clientRef)).not.toEqual(vault.fingerprint("kept", row.provider));
  });

  it("a refresh token without an access token is stored too, as an expired one", () => {
    const { tokenType, accessExpiry, refreshExpiry, captured } = grant();
    const answer = { refreshToken: "rotated", tokenType, accessExpiry, refreshExpiry, captured };
    const sealed = sealGrant(vault, refreshBase(vault, row), { grant: answer, sentAt: now });
    expect(openedTokens(sealed)).toEqual({ accessToken: null, refreshToken: "rotated" });
    expect(sealed.expiresAt).toEqual(now);
  });

  it("without any refresh token there is no fingerprint", () => {
    const sealed = seal({}, { ...row, refreshToken: null });
    expect([sealed.refreshToken, sealed.refreshFingerprint]).toEqual([null, null]);
  });

  const expiries: { kind: string; expiry: Expiry; access: Date | null; refresh: Date | null }[] = [
    { kind: "never", expiry: { kind: "never" }, access: null, refresh: null },
    { kind: "in", expiry: { kind: "in", seconds: 299 }, access: inSeconds(299), refresh: inSeconds(299) },
    { kind: "in, already over", expiry: { kind: "in", seconds: 0 }, access: now, refresh: now },
    {
      kind: "at",
      expiry: { kind: "at", epochSeconds: now.getTime() / 1000 + 7 },
      access: inSeconds(7),
      refresh: inSeconds(7),
    },
    {
      kind: "in, for ever as a number",
      expiry: { kind: "in", seconds: 1e15 },
      access: inSeconds(315_360_000),
      refresh: inSeconds(315_360_000),
    },
    {
      kind: "at, beyond what a date can hold",
      expiry: { kind: "at", epochSeconds: 1e18 },
      access: inSeconds(315_360_000),
      refresh: inSeconds(315_360_000),
    },
    { kind: "unstated", expiry: { kind: "unstated" }, access: inSeconds(3600), refresh: null },
  ];

  it.each(expiries)("an expiry of kind $kind counts from when the request was sent", ({ expiry, access, refresh }) => {
    const sealed = seal({ accessExpiry: expiry, refreshExpiry: expiry });
    expect([sealed.issuedAt, sealed.expiresAt, sealed.refreshTokenExpiresAt]).toEqual([now, access, refresh]);
  });

  it("what was captured before stays, and the newest value counts", () => {
    expect(seal({ captured: { shop: "south", region: "eu" } }).captured).toEqual({
      account: "1",
      shop: "south",
      region: "eu",
    });
  });

  it("an answer that names no scopes leaves those that were granted before; the first one grants what was asked for", () => {
    expect(seal().grantedScopes).toBeNull();
    expect(seal({ scopes: ["given"] }).grantedScopes).toEqual(["given"]);
    expect(seal({}, { ...row, version: 0, generation: 0, refreshToken: null }).grantedScopes).toEqual(["asked"]);
  });

  it("the first grant of a re-created name, whose version goes on, grants what was asked for as well", () => {
    expect(seal({}, { ...row, version: 7, generation: 0, refreshToken: null }).grantedScopes).toEqual(["asked"]);
  });
});

function gone(): never {
  throw new BrokerError("storage_unavailable", "gone");
}

describe("storing an answer", () => {
  const key = { connectionId: id, generation, attemptId: "3c1e0e5c-6a3b-4a44-9b7e-5f6a7b8c9d10" };
  const moved = tokenRow({ generation: generation + 1, lastAttemptId: key.attemptId });
  function store(given: { commits: (() => TokenRow | null)[]; reads?: (() => TokenRow | null)[] }) {
    const clock = fakeClock();
    const troubles: unknown[] = [];
    const [commits, reads] = [[...given.commits], [...(given.reads ?? [])]];
    const rows = {
      commitRefresh: async () => commits.shift()?.() ?? null,
      readById: async () => reads.shift()?.() ?? null,
    } as unknown as TokenRows;
    const onTrouble = (error: unknown) => void troubles.push(error);
    const result = commitGrant(key, seal(), { rows, clock, random: () => 0.5, onTrouble });
    return { result, clock, troubles, left: commits };
  }

  it("while Postgres is gone it is kept and tried again, ever more slowly, up to two seconds apart", async () => {
    const { result, clock, troubles } = store({ commits: [gone, gone, gone, gone, gone, gone, gone, () => moved] });
    expect(await result).toEqual({ kind: "stored", row: moved });
    expect(clock.slept).toEqual([100, 200, 400, 800, 1600, 2000, 2000]);
    expect(troubles).toHaveLength(7);
  });

  it("a commit whose acknowledgement was lost is recognised and not repeated", async () => {
    const { result, left } = store({ commits: [gone, () => null, () => moved], reads: [() => moved] });
    expect(await result).toEqual({ kind: "stored", row: moved });
    expect(left).toHaveLength(1);
  });

  it("a row that has moved on without the answer is reported as a loss", async () => {
    const other = { ...moved, lastAttemptId: "b8b2f6f0-8d0e-4c58-9f4b-2f6d1f9f4c11" };
    expect(await store({ commits: [() => null], reads: [() => other] }).result).toEqual({ kind: "lost", row: other });
    expect(await store({ commits: [() => null], reads: [() => null] }).result).toEqual({ kind: "lost", row: null });
  });

  it("when Postgres goes between the commit and the look at the row, both are done again", async () => {
    const { result } = store({ commits: [() => null, () => null], reads: [gone, () => moved] });
    expect(await result).toEqual({ kind: "stored", row: moved });
  });
});
