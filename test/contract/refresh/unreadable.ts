import { randomBytes, randomUUID } from "node:crypto";
import { describe, expect, it } from "vitest";
import { secretsPlace, placeOf } from "../../../src/tokens/seal.ts";
import { createKeyring } from "../../../src/vault/keyring.ts";
import { createTokenVault } from "../../../src/vault/vault.ts";
import { freely, type StoreStage } from "../store/stage.ts";
import { abandoned, connectExpired, dead, granted, RefreshBench, tokensOf, vault } from "./bench.ts";

/** A keyring with a key that this replica does not have. */
const theirs = createTokenVault(createKeyring([{ id: "k2", key: randomBytes(32) }]));

const flip = (column: string) => `${column} = set_byte(${column}, 20, get_byte(${column}, 20) # 1)`;

/** A connection that has a good late answer waiting, and a newer one that does not open. */
async function withCandidates(stage: StoreStage, record: (sealed: Uint8Array) => Uint8Array<ArrayBuffer>) {
  const { id } = await connectExpired(stage);
  const [frozen, other] = [new RefreshBench(stage), new RefreshBench(stage)];
  await frozen.run(id, [
    async () => {
      await stage.set(id, abandoned);
      await other.run(id, [granted({ refreshToken: "the other's" })]);
      return granted({ refreshToken: "the late one's" });
    },
  ]);
  const good = await stage.rows.newestCandidate(id, 1);
  if (good === null) throw new Error("nothing waits");
  const bad = { ...good, attemptId: randomUUID(), record: record(good.record) };
  await stage.rows.addCandidate(bad, {});
  return id;
}

async function foreignSet(stage: StoreStage, id: string): Promise<void> {
  const place = placeOf(await stage.row(id));
  const { refreshToken } = theirs.sealTokens({ accessToken: null, refreshToken: "first" }, place);
  await stage.set(id, `refresh_token_sealed = decode('${Buffer.from(refreshToken ?? []).toString("hex")}', 'hex')`);
}

/** What a refresh does if a stored secret does not open. */
export function unreadable(stage: () => StoreStage): void {
  describe("a refresh token that does not open", () => {
    it("is not sent, gives the permit back, and is told as the connection's last error", async () => {
      const { id } = await connectExpired(stage());
      await stage().set(id, flip("refresh_token_sealed"));
      const bench = new RefreshBench(stage());
      const { kind, row } = await bench.run(id, []);
      expect([kind, bench.sent]).toEqual(["failed", []]);
      expect(row).toMatchObject({ status: "connected", attemptId: null, lastErrorCode: "unreadable_secret" });
    });

    it("is left to a replica that may have its key: no permit is taken, and nothing is noted that would keep that one", async () => {
      const { id } = await connectExpired(stage());
      await foreignSet(stage(), id);
      const before = await stage().row(id);
      const bench = new RefreshBench(stage(), { othersHaveKeys: true });
      await expect(bench.run(id, [])).rejects.toMatchObject({ code: "unreadable_secret", keyId: "k2" });
      const { now: _before, ...rest } = before;
      expect(await stage().row(id)).toMatchObject(rest);
      expect(bench.sent).toEqual([]);
    });

    it("gives way to a login with the stored credentials", async () => {
      const { id } = await connectExpired(stage(), { grant: "password" });
      const own = await stage().row(id);
      const credentials = vault.sealCredentials({ username: "u", password: "p" }, secretsPlace(own, { revision: 1 }));
      await stage().connections.update(own, { credentials }, freely);
      await stage().set(id, flip("refresh_token_sealed"));
      const bench = new RefreshBench(stage());
      const { kind, row } = await bench.run(id, [granted({ refreshToken: "logged in" })]);
      expect([kind, bench.requests, tokensOf(row)?.[1]]).toEqual(["moved", ["password"], "logged in"]);
    });
  });

  describe("an access token that does not open", () => {
    it("is replaced by the good refresh token", async () => {
      const { id } = await connectExpired(stage());
      await stage().set(id, flip("access_token_sealed"));
      const bench = new RefreshBench(stage());
      const { kind, row } = await bench.run(id, [granted({ refreshToken: "second" })]);
      expect([kind, bench.requests, tokensOf(row)?.[1]]).toEqual(["moved", ["first"], "second"]);
    });
  });

  describe("late answers, of which one does not open", () => {
    it("are tried without it", async () => {
      const id = await withCandidates(stage(), () => new Uint8Array(60));
      const bench = new RefreshBench(stage());
      const { kind, row } = await bench.run(id, [dead, granted({ refreshToken: "third" })]);
      expect([kind, tokensOf(row)?.[1]]).toEqual(["moved", "third"]);
      expect(bench.requests).toEqual(["the other's", "the late one's"]);
    });

    it("end no grant where another replica can open it: the permit is left to that one", async () => {
      const id = await withCandidates(stage(), () =>
        theirs.sealRecord("{}", { connectionId: randomUUID(), generation: 1 }),
      );
      const bench = new RefreshBench(stage(), { othersHaveKeys: true });
      await expect(bench.run(id, [dead])).rejects.toMatchObject({ code: "unreadable_secret", keyId: "k2" });
      expect(await stage().row(id)).toMatchObject({ status: "connected", attemptId: expect.any(String) });
    });
  });
}
