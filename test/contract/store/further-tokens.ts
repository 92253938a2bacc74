import { randomUUID } from "node:crypto";
import { beforeAll, describe, expect, it } from "vitest";
import { type AccountRows, createAccountRows } from "../../../src/store/accounts.ts";
import type { TokenRow } from "../../../src/store/token-row.ts";
import { sealedGrant, type StoreStage, vault } from "./stage.ts";

const ended = { status: "pending", accessToken: null, refreshToken: null, expiresAt: null, attemptId: null };

type Given = { issuedAt: Date; account?: { account: string | null; label: string | null } };

async function put(stage: StoreStage, { id }: TokenRow, { issuedAt, account }: Given) {
  const given = { event: { type: "reconnected" as const, detail: {} }, exclusive: false, account };
  const place = { ...(await stage.row(id)), attemptId: randomUUID() };
  return await stage.rows.replaceGrant(place, sealedGrant({ issuedAt }), given);
}

/** What a new grant of a connection ends beside it. */
export function furtherTokens(stage: () => StoreStage): void {
  describe("a new grant of a connection with further tokens", () => {
    let accounts: AccountRows;
    beforeAll(() => {
      accounts = createAccountRows(stage().database, vault);
    });

    /** A connection with a token that came along and one that was exchanged for, all of them of a minute ago. */
    async function connect() {
      const row = await stage().connect();
      const minuteAgo = new Date(row.now.getTime() - 60_000);
      await accounts.ensureFurtherTokens(row, [
        { name: "user", exchange: null },
        { name: "deep", exchange: {} },
      ]);
      const children = await accounts.readFurtherTokens(row.id);
      for (const child of children) await put(stage(), child, { issuedAt: minuteAgo });
      const named = async () => {
        const now = await accounts.readFurtherTokens(row.id);
        const find = (name: string) => now.find(({ chain }) => chain === name) as TokenRow;
        return { user: find("user"), deep: find("deep") };
      };
      return { row, named };
    }

    it("ends those of the grant before with the same statement, whose versions do not come again", async () => {
      const { row, named } = await connect();
      const before = await named();
      await put(stage(), row, { issuedAt: new Date() });
      const after = await named();
      expect(after).toMatchObject({ user: ended, deep: ended });
      for (const name of ["user", "deep"] as const) {
        expect(after[name].generation).toBeGreaterThan(before[name].generation);
        expect(after[name].authorization).toBeGreaterThan(before[name].authorization);
      }
      const again = await put(stage(), after.user, { issuedAt: new Date() });
      expect(again?.version).toBeGreaterThan(before.user.version);
      expect(again).toMatchObject({ status: "connected" });
    });

    it("leaves what came with it, in whichever order they are stored", async () => {
      const { row, named } = await connect();
      const at = new Date();
      await put(stage(), (await named()).user, { issuedAt: at });
      await put(stage(), row, { issuedAt: at });
      expect((await named()).user).toMatchObject({ status: "connected" });
    });

    it("leaves a further token of a disabled connection disabled, and those of other connections alone", async () => {
      const [one, other] = [await connect(), await connect()];
      await stage().set((await one.named()).user.id, "status = 'disabled'");
      await put(stage(), one.row, { issuedAt: new Date() });
      expect((await one.named()).user).toMatchObject({ ...ended, status: "disabled" });
      expect(await other.named()).toMatchObject({ user: { status: "connected" }, deep: { status: "connected" } });
    });

    it("that nobody knows the account of leaves no name, nor what was looked up, of the account before", async () => {
      const { row } = await connect();
      await accounts.learnAccount(row, { account: "ada", label: "Ada", captured: { tenant: "t-ada" } }, sealedGrant());
      expect(await stage().row(row.id)).toMatchObject({ account: "ada", accountCaptured: { tenant: "t-ada" } });
      const stored = await put(stage(), row, { issuedAt: new Date(), account: { account: null, label: null } });
      expect(stored).toMatchObject({ account: null, accountCaptured: {}, lookedUp: null });
      expect(await stage().columns(row.id)).toMatchObject({ account: null, account_label: null });
    });

    it("of the account that it had keeps its name", async () => {
      const { row } = await connect();
      await accounts.learnAccount(row, { account: "ada", label: "Ada", captured: {} }, sealedGrant());
      expect(await put(stage(), row, { issuedAt: new Date() })).toMatchObject({ account: "ada" });
    });
  });
}
