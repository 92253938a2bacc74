import { randomUUID } from "node:crypto";
import { beforeAll, describe, expect, it } from "vitest";
import { type AccountRows, createAccountRows } from "../../../src/store/accounts.ts";
import { sealedBytes, sealedGrant, type StoreStage, vault } from "./stage.ts";

const ids = (held: readonly { attemptId: string }[]) => held.map(({ attemptId }) => attemptId);

const givenUpBy = (connectionId: string) => ({ connectionId, provider: "own", clientRef: null });

async function age(stage: StoreStage, attemptId: string, interval: string): Promise<void> {
  await stage.query(
    `UPDATE held_grants SET created_at = created_at - interval '${interval}' WHERE attempt_id = $1::uuid RETURNING 1 AS done`,
    attemptId,
  );
}

/** Grants that wait until a person confirms them. */
export function unconfirmedGrants(stage: () => StoreStage): void {
  describe("a grant that waits for a person's word", () => {
    let accounts: AccountRows;
    beforeAll(() => {
      accounts = createAccountRows(stage().database, vault);
    });

    /** A connection, and a grant that came by way of this consent link. */
    async function hold(linkId: string | null = null, connectionId?: string) {
      const { id } = connectionId === undefined ? await stage().connect() : { id: connectionId };
      const attemptId = randomUUID();
      await accounts.addUnconfirmed({ attemptId, connectionId: id, generation: 1, record: sealedBytes() });
      await accounts.describeUnconfirmed(attemptId, { account: "bob", label: null, linkId });
      return { connectionId: id, attemptId };
    }

    it("with a yes cannot be declined any more, and may be accepted as often as one likes until it is dropped", async () => {
      const { attemptId } = await hold();
      for (let time = 0; time < 2; time++) {
        expect(await accounts.acceptUnconfirmed(attemptId)).toMatchObject({ attemptId });
      }
      expect(await accounts.declineUnconfirmed(attemptId)).toBe(false);
      expect(await accounts.findUnconfirmed({ attemptId })).toMatchObject({ account: "bob" });
      await accounts.dropUnconfirmed(attemptId);
      expect(await accounts.acceptUnconfirmed(attemptId)).toBeNull();
    });

    it("with a no is gone: nobody can accept it, and one of two who decline it has done so", async () => {
      const { attemptId } = await hold();
      expect(
        await Promise.all([accounts.declineUnconfirmed(attemptId), accounts.declineUnconfirmed(attemptId)]),
      ).toEqual(expect.arrayContaining([true, false]));
      expect(await accounts.acceptUnconfirmed(attemptId)).toBeNull();
    });

    it("of a yes and a no at once one counts, whichever comes first", async () => {
      for (let round = 0; round < 10; round++) {
        const { attemptId } = await hold();
        const yes = () => accounts.acceptUnconfirmed(attemptId);
        const no = () => accounts.declineUnconfirmed(attemptId);
        const words = round % 2 === 0 ? [yes(), no()] : [no(), yes()];
        const counted = (await Promise.all(words)).filter((word) => word !== null && word !== false);
        expect(counted).toHaveLength(1);
      }
    });

    it("is found by the link that it came by, and by no other; where no link is named, by its connection", async () => {
      const { connectionId, attemptId } = await hold("its link");
      expect(await accounts.findUnconfirmed({ connectionId, linkId: "its link" })).toMatchObject({ attemptId });
      expect(await accounts.findUnconfirmed({ connectionId, linkId: "another" })).toBeNull();
      expect(await accounts.findUnconfirmed({ connectionId })).toMatchObject({ attemptId });
      await hold(null, connectionId);
      expect(await accounts.findUnconfirmed({ connectionId, linkId: "its link" })).toMatchObject({ attemptId });
    });

    it("is given up after an hour, unless somebody has accepted it: that one is for its store to be finished", async () => {
      const [forgotten, accepted, fresh] = [await hold(), await hold(), await hold()];
      await accounts.acceptUnconfirmed(accepted.attemptId);
      for (const { attemptId } of [forgotten, accepted]) await age(stage(), attemptId, "61 minutes");
      const taken = ids(await accounts.takeForgottenUnconfirmed());
      expect(taken).toContain(forgotten.attemptId);
      expect(taken).not.toContain(accepted.attemptId);
      expect(taken).not.toContain(fresh.attemptId);
      expect(ids(await accounts.acceptedUnconfirmed())).toContain(accepted.attemptId);
    });

    it("is left to who has just accepted it for five minutes", async () => {
      const { attemptId } = await hold();
      await accounts.acceptUnconfirmed(attemptId);
      expect(ids(await accounts.acceptedUnconfirmed())).not.toContain(attemptId);
      await age(stage(), attemptId, "6 minutes");
      expect(ids(await accounts.acceptedUnconfirmed())).toContain(attemptId);
    });
  });

  describe("a grant that is to be revoked", () => {
    let accounts: AccountRows;
    beforeAll(() => {
      accounts = createAccountRows(stage().database, vault);
    });

    it("is in use where any connection holds its refresh token", async () => {
      const { id } = await stage().connect();
      const { refreshFingerprint } = sealedGrant();
      const asked = { ...givenUpBy(randomUUID()), refreshFingerprint, account: null, mayBeSame: false };
      expect(await accounts.isStillNeeded(asked)).toBe(false);
      const hex = Buffer.from(refreshFingerprint ?? []).toString("hex");
      await stage().set(id, `refresh_fingerprint = decode('${hex}', 'hex')`);
      expect(await accounts.isStillNeeded(asked)).toBe(true);
    });

    it.each([
      ["another connection's that is connected", "account = 'ann'", true],
      ["another connection's that is switched off", "account = 'ann', status = 'disabled'", true],
      ["another connection's that has ended", "account = 'ann', enabled_status = 'needs_reauthorization'", false],
      ["another account's", "account = 'ben'", false],
      ["nobody's known account", "account = NULL", false],
      ["another provider's", "account = 'ann', provider = 'other'", false],
    ])("is in use by its account where that is %s: %s, %s", async (_is, change, inUse) => {
      const { id } = await stage().connect();
      await stage().set(id, change);
      const asked = { refreshFingerprint: null, account: "ann", mayBeSame: false };
      expect(await accounts.isStillNeeded({ ...givenUpBy(randomUUID()), ...asked })).toBe(inUse);
      expect(await accounts.isStillNeeded({ ...givenUpBy(id), ...asked })).toBe(false);
      await stage().set(id, "account = NULL");
    });

    it.each([
      { when: "this one is not found out, and the other is", change: "account = 'ann'", account: null, inUse: true },
      { when: "the other is not found out", change: "account = NULL", account: "ann", inUse: true },
      { when: "neither is", change: "account = NULL", account: null, inUse: true },
      { when: "both are, and differ", change: "account = 'ben'", account: "ann", inUse: false },
      {
        when: "the other has ended",
        change: "account = 'ann', enabled_status = 'needs_reauthorization'",
        account: null,
        inUse: false,
      },
    ])("may be in use where accounts are looked up and $when: $inUse", async ({ change, account, inUse }) => {
      const { id } = await stage().connect();
      // At a provider of its own, so that the other connections of the stage do not count.
      const provider = `looked-up-${id}`;
      await stage().set(id, `${change}, provider = '${provider}'`);
      const asked = { ...givenUpBy(randomUUID()), provider, refreshFingerprint: null, account, mayBeSame: true };
      expect(await accounts.isStillNeeded(asked)).toBe(inUse);
      expect(await accounts.isStillNeeded({ ...asked, connectionId: id })).toBe(false);
    });
  });
}
