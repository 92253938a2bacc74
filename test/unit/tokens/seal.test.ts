import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import type { Expiry, Grant } from "../../../src/providers/oauth/token-answer.ts";
import type { SealedGrant } from "../../../src/store/row-sql.ts";
import type { TokenRow } from "../../../src/store/token-row.ts";
import {
  recordOfPersonGrant,
  openTokens,
  placeOf,
  refreshBase,
  schedulerFor,
  sealGrant,
} from "../../../src/tokens/seal.ts";
import { createKeyring } from "../../../src/vault/keyring.ts";
import { createTokenVault } from "../../../src/vault/vault.ts";
import { define } from "../providers/definitions.ts";
import { inSeconds, now, tokenRow } from "./token-row.ts";

const vault = createTokenVault(
  createKeyring([{ id: "k1", key: createHash("sha256").update("sealed-set tests").digest() }]),
);
const plain = tokenRow({ captured: { account: "1", shop: "north" }, scopes: ["asked"], now });
const { generation } = plain;
const here = placeOf(plain);
const next = placeOf({ ...plain, generation: generation + 1 });

const row: TokenRow = { ...plain, ...vault.sealTokens({ accessToken: "old access", refreshToken: "kept" }, here) };

const grant = (changes: Partial<Grant> = {}): Grant => ({
  accessToken: "new access",
  tokenType: "Bearer",
  accessExpiry: { kind: "in", seconds: 300 },
  refreshExpiry: { kind: "unstated" },
  captured: {},
  ...changes,
});

const rules = {
  ...define("").refresh,
  aheadFraction: 0.25,
  minAgeSeconds: 0,
  idleLifeSeconds: 1000,
  absoluteLifeSeconds: null,
};
const scheduler = schedulerFor(rules, () => 0.5);

const seal = (changes: Partial<Grant> = {}, of: TokenRow = row) =>
  sealGrant(vault, refreshBase(vault, of, rules), {
    grant: grant(changes),
    generation: of.generation + 1,
    sentAt: now,
    scheduler,
    hosts: [],
  });

const openedTokens = ({ accessToken, refreshToken }: SealedGrant, at = next) => ({
  accessToken: accessToken === null ? null : vault.openAccessToken(accessToken, at),
  refreshToken: refreshToken === null ? null : vault.openRefreshToken(refreshToken, at),
});

const since = (changes: Partial<TokenRow>, answer: Partial<Grant> = {}, rotation: "always" | "auto" = "auto") =>
  sealGrant(vault, refreshBase(vault, { ...row, ...changes }, { rotation }), {
    grant: grant(answer),
    generation: row.generation + 1,
    sentAt: now,
    scheduler,
    hosts: [],
  }).noRefreshTokenSince;

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

  it.each(["a\r\nb", "caf\u00e9", "\u0000"])(
    "an access token that no header can carry is kept, as one that has run out: %j",
    (odd) => {
      const sealed = seal({ accessToken: odd, refreshToken: odd });
      expect(openedTokens(sealed)).toEqual({ accessToken: odd, refreshToken: odd });
      expect(sealed).toMatchObject({ expiresAt: now, lastError: { code: "unusable_token" } });
      expect(sealed.lastError?.detail).toMatch(/no header can carry.*not handed out/);
      expect(sealed.lastError?.detail).not.toContain(odd);
      expect(seal({ refreshToken: odd }).lastError).toBeNull();
      expect(seal({ accessToken: "printable ~!" }).lastError).toBeNull();
    },
  );

  it("its schedule counts from when the request was sent, and ends with the refresh token that is kept", () => {
    const kept = { ...row, refreshTokenExpiresAt: inSeconds(100) };
    expect([seal().refreshDueAt, seal().keepAliveAt]).toEqual([inSeconds(225), inSeconds(850)]);
    expect(seal({}, kept).keepAliveAt).toEqual(inSeconds(85));
    expect(seal({ refreshToken: "rotated" }, kept).keepAliveAt).toEqual(inSeconds(850));
  });

  it("without any refresh token there is nothing to keep alive", () => {
    expect(seal({}, { ...row, refreshToken: null }).keepAliveAt).toBeNull();
  });

  it("after a database went back in time it is sealed for a generation that no set has had", () => {
    const of = { ...row, goneBackFrom: generation + 5 };
    const context = { row: of, owner: of, definition: define(""), client: null, clientSecrets: [] };
    const given = { grant: grant({ refreshToken: "rotated" }), captured: {}, redirectUri: null };
    const { record } = recordOfPersonGrant({ vault, random: () => 0.5 }, context, given);
    expect([record.sealedFor, openTokens(vault, record).refreshToken]).toEqual([generation + 6, "rotated"]);
  });

  it("a fingerprint tells clients apart, and falls back to the provider where there is none", () => {
    const clientRef = "8c1a7f7e-6a55-4a3b-8a60-0a9a2a1b3c4d";
    const of = { ...plain, clientRef };
    const tokens = vault.sealTokens({ accessToken: "old access", refreshToken: "kept" }, placeOf(of));
    expect(seal({}, { ...of, ...tokens }).refreshFingerprint).toEqual(vault.fingerprint("kept", clientRef));
    expect(vault.fingerprint("kept", clientRef)).not.toEqual(vault.fingerprint("kept", row.provider));
  });

  it("a refresh token without an access token is stored too, as an expired one", () => {
    const { tokenType, accessExpiry, refreshExpiry, captured } = grant();
    const answer = { refreshToken: "rotated", tokenType, accessExpiry, refreshExpiry, captured };
    const sealed = sealGrant(vault, refreshBase(vault, row, rules), {
      grant: answer,
      generation: row.generation + 1,
      sentAt: now,
      scheduler,
      hosts: [],
    });
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

  it("an answer that names no scopes leaves those that were recordOfPersonGrant before; the first one grants what was asked for", () => {
    expect(seal().grantedScopes).toBeNull();
    expect(seal({ scopes: ["given"] }).grantedScopes).toEqual(["given"]);
    expect(seal({}, { ...row, version: 0, generation: 0, refreshToken: null }).grantedScopes).toEqual(["asked"]);
  });

  it("the first grant of a re-created name, whose version goes on, grants what was asked for as well", () => {
    expect(seal({}, { ...row, version: 7, generation: 0, refreshToken: null }).grantedScopes).toEqual(["asked"]);
  });

  describe("that holds no refresh token", () => {
    const none = { refreshToken: null };

    it("the connection lacks one from then on, unless the token never ends or nobody is needed for the next one", () => {
      expect(since(none)).toEqual(now);
      expect(since({ ...none, grant: "device_code" })).toEqual(now);
      expect(since({ ...none, grant: "import" })).toEqual(now);
      expect(since({ ...none, grant: "password", credentials: null })).toEqual(now);
      expect(since(none, { accessExpiry: { kind: "never" } })).toBeNull();
      expect(since({ ...none, grant: "client_credentials" })).toBeNull();
      expect(since({ ...none, grant: "token_exchange" })).toBeNull();
      expect(since({ ...none, grant: "password", credentials: new Uint8Array([1]) })).toBeNull();
    });

    it("the one that was sent has worked: nothing is lacking any more, but where each answer should hold a new one", () => {
      const before = inSeconds(-500);
      expect(since({ noRefreshTokenSince: before })).toBeNull();
      expect(since({}, {}, "always")).toEqual(now);
      expect(since({ noRefreshTokenSince: before }, {}, "always")).toEqual(before);
      expect(since({ noRefreshTokenSince: before }, { refreshToken: "new" }, "always")).toBeNull();
      expect(since({}, { accessExpiry: { kind: "never" } }, "always")).toBeNull();
    });
  });
});
