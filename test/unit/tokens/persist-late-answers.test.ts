import { describe, expect, it } from "vitest";
import { BrokerError } from "../../../src/errors.ts";
import type { TokenRow } from "../../../src/store/token-row.ts";
import type { TokenStatements } from "../../../src/store/token-statements.ts";
import { placeAnswer } from "../../../src/tokens/persist.ts";
import { type AnswerRecord, placeOf } from "../../../src/tokens/seal.ts";
import { retentionTimes } from "../../../src/time.ts";
import { noAccounts } from "../../support/unasked.ts";
import { answerRecord, attemptId, vault } from "./answers.ts";
import { inSeconds, tokenRow } from "./token-row.ts";

const base = tokenRow({ attemptId });
const record = answerRecord(base);
const others = "b8b2f6f0-8d0e-4c58-9f4b-2f6d1f9f4c11";

const goneStore = () => Promise.reject(new BrokerError("storage_unavailable", "gone"));

type Given = { found: (TokenRow | null)[]; wasStored?: boolean; changes?: Partial<TokenStatements>; of?: AnswerRecord };

/** Places an answer whose compare-and-swap has failed. Each look at the row finds the next of these rows. */
async function place({ found, wasStored = false, changes = {}, of = record }: Given) {
  const calls: string[] = [];
  const looks = [...found];
  const rows: Partial<TokenStatements> = {
    commitRefresh: async () => null,
    readForAnswer: async () => {
      const row = (looks.length > 1 ? looks.shift() : looks[0]) ?? null;
      return { row, wasStored };
    },
    promoteLate: async (row, _grant, { generation }) => {
      calls.push(`promoted to ${generation} of ${row.generation}`);
      return tokenRow({ generation });
    },
    addCandidate: async ({ baseGeneration }) => {
      calls.push(`candidate of ${baseGeneration}`);
      return true;
    },
    replaceGrant: async (row) => {
      calls.push(`replaced ${row.generation}`);
      return tokenRow({ generation: row.generation + 1 });
    },
    ...changes,
  };
  const placement = await placeAnswer({ rows: rows as TokenStatements, accounts: noAccounts, vault }, of);
  return { kind: placement.kind, calls, row: placement.row };
}

const moved = (changes: Partial<TokenRow> = {}) =>
  tokenRow({ generation: base.generation + 1, lastAttemptId: others, ...changes });

describe("an answer whose permit is gone", () => {
  it("is stored already where the row, or its history, tells of its attempt", async () => {
    expect(await place({ found: [moved()], wasStored: true })).toMatchObject({ kind: "stored", calls: [] });
  });

  it("becomes the newest set while the row is still at its base generation, whoever has the permit", async () => {
    const taken = tokenRow({ attemptId: others });
    expect(await place({ found: [taken] })).toMatchObject({ kind: "promoted", calls: ["promoted to 4 of 3"] });
  });

  it("becomes the newest set where the grant has ended for want of it", async () => {
    const ended = moved({ status: "needs_reauthorization", lastErrorCode: "refresh_outcome_lost" });
    expect(await place({ found: [ended] })).toMatchObject({ kind: "promoted", calls: ["promoted to 5 of 4"] });
  });

  it("waits as a candidate beside a newer set that lives, or that ended for another reason", async () => {
    for (const row of [moved(), moved({ status: "needs_reauthorization", lastErrorCode: "invalid_grant" })]) {
      expect(await place({ found: [row] })).toMatchObject({ kind: "candidate", calls: ["candidate of 3"] });
    }
  });

  it("is unwanted where the connection is gone, or a person has replaced its grant", async () => {
    expect(await place({ found: [null] })).toMatchObject({ kind: "unwanted", calls: [], row: null });
    const replaced = moved({ authorization: base.authorization + 1 });
    expect(await place({ found: [replaced] })).toMatchObject({ kind: "unwanted", calls: [], row: replaced });
  });

  it("is adopted by a row that went back in time, where it is ahead of all that was stored", async () => {
    const back = tokenRow({ generation: 1, goneBackFrom: 4 });
    expect(await place({ found: [back] })).toMatchObject({ kind: "promoted", calls: ["promoted to 4 of 1"] });
    const further = tokenRow({ generation: 1, goneBackFrom: 5 });
    expect(await place({ found: [further] })).toMatchObject({ kind: "candidate" });
  });

  it("that is so old that nobody knows whether it was stored becomes a candidate at most", async () => {
    const old = new Date(base.now.getTime() - (retentionTimes.storedAnswerDays * 24 + 1) * 3600 * 1000);
    const ofOld = (changes: Partial<AnswerRecord> = {}) => {
      const { grant, ...rest } = answerRecord(base, changes);
      return { ...rest, grant: { ...grant, issuedAt: old } };
    };
    const taken = tokenRow({ attemptId: others });
    for (const of of [ofOld(), ofOld({ kind: "grant", event: "reconnected" }), ofOld({ kind: "further" })]) {
      const found = [of.kind === "further" ? tokenRow({ refreshToken: null }) : taken];
      expect(await place({ found, of })).toMatchObject({ kind: "candidate", calls: ["candidate of 3"] });
    }
  });

  it("is looked at again when the row moves under it", async () => {
    const promotions = [null, moved()];
    const promoteLate: TokenStatements["promoteLate"] = async () => promotions.shift() ?? null;
    expect((await place({ found: [tokenRow(), tokenRow()], changes: { promoteLate } })).kind).toBe("promoted");
    const replaced = moved({ authorization: base.authorization + 1 });
    const addCandidate: TokenStatements["addCandidate"] = async ({ authorization }) =>
      authorization === replaced.authorization;
    expect((await place({ found: [moved(), replaced], changes: { addCandidate } })).kind).toBe("unwanted");
  });

  it("comes to an end where the database has forgotten the authorization that it is of", async () => {
    const restored = tokenRow({ generation: 1, authorization: base.authorization - 1, goneBackFrom: 9 });
    let asked = 0;
    const addCandidate: TokenStatements["addCandidate"] = async ({ authorization }) => {
      if (++asked > 10) throw new Error("asked again and again");
      return authorization === restored.authorization;
    };
    await expect(place({ found: [restored], changes: { addCandidate } })).resolves.toBeDefined();
  });

  it("is tried again by its keeper where Postgres goes in between", async () => {
    await expect(place({ found: [], changes: { readForAnswer: goneStore } })).rejects.toThrow("gone");
  });
});

describe("the answer to a person's code", () => {
  const of = answerRecord(base, { kind: "grant", event: "reconnected" });

  it("takes the place of what is there, a newer refresh of the old grant included", async () => {
    expect(await place({ of, found: [moved()] })).toMatchObject({ kind: "stored", calls: ["replaced 4"] });
  });

  it("is stored once, and never over a newer one of a person", async () => {
    expect(await place({ of, found: [moved()], wasStored: true })).toMatchObject({ kind: "stored", calls: [] });
    const newer = moved({ authorization: base.authorization + 1, authorizedAt: inSeconds(1) });
    expect(await place({ of, found: [newer] })).toMatchObject({ kind: "unwanted", calls: [] });
    expect(await place({ of, found: [null] })).toMatchObject({ kind: "unwanted", row: null });
  });

  it("takes the place of an older one that was only slower to be exchanged: who began last has the last word", async () => {
    const slower = moved({ authorization: base.authorization + 1, authorizedAt: inSeconds(-1) });
    expect(await place({ of, found: [slower] })).toMatchObject({ kind: "stored", calls: ["replaced 4"] });
  });

  it("is placed again when the row moves under it", async () => {
    const answers = [null, moved()];
    const replaceGrant: TokenStatements["replaceGrant"] = async () => answers.shift() ?? null;
    expect(await place({ of, found: [base], changes: { replaceGrant } })).toMatchObject({ kind: "stored" });
  });
});

const consent = (changes: Partial<AnswerRecord> = {}): AnswerRecord => {
  const lacking = { refreshToken: null, refreshFingerprint: null, noRefreshTokenSince: record.grant.issuedAt };
  const grant = { ...record.grant, ...lacking, grantedScopes: ["read", "write"] };
  const account = { account: "ada", label: "Ada" };
  return { ...record, grant, kind: "grant", clientId: "app", mayKeepRefreshToken: true, account, ...changes };
};

describe("a consent of the same account that brought no refresh token", () => {
  const held = placeOf({ ...base, captured: record.grant.captured });
  const old = vault.sealTokens({ accessToken: "a1", refreshToken: "first" }, held);
  const row = (changes: Partial<TokenRow> = {}) =>
    tokenRow({
      ...old,
      captured: record.grant.captured,
      account: "ada",
      authorizedClientId: "app",
      grantedScopes: ["read"],
      keepAliveAt: inSeconds(77),
      lastAttemptId: others,
      ...changes,
    });

  type Stored = Parameters<TokenStatements["replaceGrant"]>;
  async function stored(found: TokenRow, of: AnswerRecord): Promise<{ grant: Stored[1]; given: Stored[2] }> {
    const calls: { grant: Stored[1]; given: Stored[2] }[] = [];
    const replaceGrant: TokenStatements["replaceGrant"] = async (_row, grant, given) => {
      calls.push({ grant, given });
      return tokenRow({ generation: found.generation + 1 });
    };
    expect(await place({ found: [found], of, changes: { replaceGrant } })).toMatchObject({ kind: "stored" });
    const [call] = calls;
    if (call === undefined) throw new Error("nothing was stored");
    return call;
  }

  it("goes on with the one from before, sealed anew, with its fingerprint and its keep-alive; it counts as lacking still", async () => {
    const { grant, given } = await stored(row(), consent());
    const next = placeOf({ ...base, captured: grant.captured, generation: base.generation + 1 });
    expect(vault.openRefreshToken(grant.refreshToken ?? new Uint8Array(), next)).toBe("first");
    expect(vault.openAccessToken(grant.accessToken ?? new Uint8Array(), next)).toBe("a2");
    expect(grant).toMatchObject({
      keepsRefreshToken: true,
      refreshFingerprint: vault.fingerprint("first", base.provider),
      keepAliveAt: inSeconds(77),
      noRefreshTokenSince: record.grant.issuedAt,
    });
    expect(given).toMatchObject({ oldTokenOf: "ada", clientId: "app" });
  });

  it.each<[string, { row?: Partial<TokenRow>; consent?: Partial<AnswerRecord> }]>([
    ["the definition does not say that refresh tokens stay", { consent: { mayKeepRefreshToken: false } }],
    ["the account was not known before", { row: { account: null } }],
    ["nobody knows whose the new grant is", { consent: { account: { account: null, label: null } } }],
    ["neither is known", { row: { account: null }, consent: { account: { account: null, label: null } } }],
    ["it is another account's, accepted by a person", { consent: { account: { account: "bob", label: null } } }],
    ["the client id is another one", { consent: { clientId: "app-2" } }],
    ["nobody knows the client id of the former grant", { row: { authorizedClientId: null } }],
    ["neither client id is known", { row: { authorizedClientId: null }, consent: { clientId: null } }],
    ["the former grant was refused", { row: { status: "needs_reauthorization", lastErrorCode: "invalid_grant" } }],
    ["its loss was found out", { row: { status: "needs_reauthorization", lastErrorCode: "refresh_outcome_lost" } }],
    ["the connection is disabled", { row: { status: "disabled" } }],
    ["the row went back in time", { row: { goneBackFrom: 9 } }],
    ["it had scopes that are not granted now", { row: { grantedScopes: ["read", "admin"] } }],
    ["there is none", { row: { refreshToken: null } }],
    ["it does not open", { row: { refreshToken: new Uint8Array([1, 2, 3]) } }],
  ])("does not keep it where %s", async (_why, changes) => {
    const { grant, given } = await stored(row(changes.row), consent(changes.consent));
    expect([grant.refreshToken, grant.keepsRefreshToken, given.oldTokenOf]).toEqual([null, false, undefined]);
    expect(grant.noRefreshTokenSince).toEqual(record.grant.issuedAt);
  });

  it("does not send it to a host that the new consent names", async () => {
    const captured = { shop: "south" };
    const south = vault.sealTokens({ accessToken: "a1", refreshToken: "first" }, placeOf({ ...base, captured }));
    const { grant, given } = await stored(row({ ...south, captured }), consent());
    expect([grant.refreshToken, given.oldTokenOf]).toEqual([null, undefined]);
  });

  it("is judged by the row that it is stored into: what was read before may have been refused since", async () => {
    const refused = row({ status: "needs_reauthorization", lastErrorCode: "invalid_grant" });
    const kept: (string | undefined)[] = [];
    const replaceGrant: TokenStatements["replaceGrant"] = async (_row, _grant, { oldTokenOf }) => {
      kept.push(oldTokenOf);
      return kept.length === 1 ? null : tokenRow();
    };
    await place({ found: [row(), refused], of: consent(), changes: { replaceGrant } });
    expect(kept).toEqual(["ada", undefined]);
  });
});
