import { randomUUID } from "node:crypto";
import { describe, expect, it } from "vitest";
import { openRecord, openTokens, placeOf, resealFor, sealRecord } from "../../../src/tokens/seal.ts";
import { createKeyring } from "../../../src/vault/keyring.ts";
import { createTokenVault } from "../../../src/vault/vault.ts";
import { answerRecord, key, sealedFor, vault } from "./answers.ts";
import { tokenRow } from "./token-row.ts";

const row = tokenRow();

describe("the record of an answer", () => {
  it.each([
    ["with everything in it", sealedFor(row)],
    [
      "with nothing that may be lacking",
      sealedFor(row, {
        accessToken: null,
        refreshToken: null,
        refreshFingerprint: null,
        grantedScopes: null,
        captured: {},
        expiresAt: null,
        refreshTokenExpiresAt: null,
        refreshDueAt: null,
        keepAliveAt: null,
      }),
    ],
  ])("%s comes out as it went in", (_is, grant) => {
    const beside = answerRecord(row, { grant });
    const record = answerRecord(row, { grant, other: beside, further: [beside] });
    expect(openRecord(vault, sealRecord(vault, record), record)).toEqual(record);
  });

  it("shows neither its tokens nor whose they are", () => {
    const sealed = Buffer.from(
      sealRecord(vault, answerRecord(row, { grant: sealedFor(row, { captured: { shop: "canary" } }) })),
    );
    for (const text of ["a2", "second", "canary", row.id]) expect(sealed.includes(text)).toBe(false);
  });

  it("does not open in the place of another connection or generation, nor under another key", () => {
    const record = answerRecord(row);
    const sealed = sealRecord(vault, record);
    expect(() => openRecord(vault, sealed, { ...record, connectionId: randomUUID() })).toThrow();
    expect(() => openRecord(vault, sealed, { ...record, generation: record.generation + 1 })).toThrow();
    const other = createTokenVault(createKeyring([{ id: "k2", key: Buffer.from(key.toReversed()) }]));
    expect(() => openRecord(other, sealed, record)).toThrow();
  });

  it("kept under a key from before opens with its tokens under the current one, those of records in it, too", () => {
    const record = { ...answerRecord(row), other: answerRecord(row), further: [answerRecord(row)] };
    const next = { id: "k2", key: Buffer.from(key.toReversed()) };
    const rotated = createTokenVault(createKeyring([next, { id: "k1", key }]));
    const opened = openRecord(rotated, sealRecord(vault, record), record);
    const alone = createTokenVault(createKeyring([next]));
    for (const one of [opened, opened.other, opened.further?.[0]]) {
      expect(one && openTokens(alone, one)).toEqual({ accessToken: "a2", refreshToken: "second" });
    }
  });

  it("that was tampered with does not open", () => {
    const record = answerRecord(row);
    const sealed = sealRecord(vault, record);
    sealed[sealed.length - 1] = (sealed.at(-1) ?? 0) ^ 1;
    expect(() => openRecord(vault, sealed, record)).toThrow();
  });

  it("is sealed anew for another generation, where its tokens open, and nowhere else", () => {
    const record = answerRecord(row);
    const grant = resealFor(vault, record, { row, generation: 9 });
    expect(openTokens(vault, { ...record, sealedFor: 9, grant })).toEqual({
      accessToken: "a2",
      refreshToken: "second",
    });
    expect(() => openTokens(vault, { ...record, grant })).toThrow();
    expect({ ...grant, accessToken: null, refreshToken: null }).toEqual({
      ...record.grant,
      accessToken: null,
      refreshToken: null,
    });
    expect(resealFor(vault, record, { row, generation: record.sealedFor })).toBe(record.grant);
  });

  it("without an access token, or without a refresh token, is sealed anew all the same", () => {
    const place = placeOf({ ...row, captured: { shop: "north" }, generation: row.generation + 1 });
    for (const tokens of [
      { accessToken: null, refreshToken: "second" },
      { accessToken: "a2", refreshToken: null },
    ]) {
      const record = answerRecord(row, { grant: sealedFor(row, vault.sealTokens(tokens, place)) });
      const again = { ...record, sealedFor: 9, grant: resealFor(vault, record, { row, generation: 9 }) };
      expect(openTokens(vault, again)).toEqual(tokens);
    }
  });
});
