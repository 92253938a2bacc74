import { randomUUID } from "node:crypto";
import { describe, expect, it } from "vitest";
import { BrokerError } from "../../../src/errors.ts";
import type { Grant, TokenAnswer } from "../../../src/providers/oauth/token-answer.ts";
import { createAccountRows } from "../../../src/store/accounts.ts";
import type { TokenRow } from "../../../src/store/token-row.ts";
import { placeOf } from "../../../src/tokens/seal.ts";
import { sealedGrant, type StoreStage } from "../store/stage.ts";
import { connectExpired, granted, RefreshBench, vault } from "./bench.ts";

const goneStore = () => Promise.reject(new BrokerError("storage_unavailable", "gone"));

function tokenOf(changes: Partial<Grant>): Grant {
  const answer = granted(changes);
  if (answer.kind !== "granted") throw new Error("it was not granted");
  return answer.grant;
}

/** An answer with a further token "user" of this name; with a refresh token where `refreshes`. */
function along(name: string, { refreshes = true } = {}): TokenAnswer {
  const { refreshToken, ...rest } = tokenOf({ accessToken: name, refreshToken: `refresh ${name}` });
  return granted({
    furtherTokens: { user: { ...rest, ...(refreshes && refreshToken !== undefined && { refreshToken }) } },
  });
}

async function reconnect(stage: StoreStage, id: string): Promise<void> {
  const row = await stage.row(id);
  const event = { type: "reconnected" as const, detail: {} };
  await stage.rows.replaceGrant({ ...row, attemptId: randomUUID() }, sealedGrant(), { event, exclusive: false });
}

async function userRow(stage: StoreStage, id: string): Promise<TokenRow> {
  const [row] = await createAccountRows(stage.database, vault).readFurtherTokens(id);
  if (row === undefined) throw new Error("there is no row of it");
  return row;
}

async function countCandidates(stage: StoreStage, { id }: TokenRow): Promise<number> {
  return (await stage.query("SELECT 1 AS one FROM candidates WHERE connection_id = $1::uuid", id)).length;
}

/** Further tokens that come along with a refresh of their connection. */
export function further(stage: () => StoreStage): void {
  const userOf = async (id: string) => await userRow(stage(), id);
  const servedTo = async (id: string): Promise<string | null> => {
    const row = await userOf(id);
    return row.accessToken === null ? null : vault.openAccessToken(row.accessToken, placeOf(row));
  };

  describe("a further token that comes along with a refresh", () => {
    const giving = { givesUser: true };

    it("is stored when the connection's own is, and once", async () => {
      const { id } = await connectExpired(stage());
      const bench = new RefreshBench(stage(), giving);
      const outcome = await bench.run(id, [along("first")]);
      await bench.answerStore.idle();
      expect([outcome.kind, await servedTo(id)]).toEqual(["moved", "first"]);
      expect(await userOf(id)).toMatchObject({ status: "connected", version: 1 });
    });

    it("without a refresh token takes the place of the one before at once", async () => {
      const { id } = await connectExpired(stage());
      const bench = new RefreshBench(stage(), giving);
      for (const name of ["first", "second", "third"]) await bench.run(id, [along(name, { refreshes: false })]);
      await bench.answerStore.idle();
      expect([await servedTo(id), (await userOf(id)).version]).toEqual(["third", 3]);
      expect(await countCandidates(stage(), await userOf(id))).toBe(0);
    });

    it("waits to be tried where the one before refreshes itself, and takes its place where that has ended", async () => {
      const { id } = await connectExpired(stage());
      const bench = new RefreshBench(stage(), giving);
      await bench.run(id, [along("first")]);
      await bench.run(id, [along("second")]);
      await bench.answerStore.idle();
      expect([await servedTo(id), await countCandidates(stage(), await userOf(id))]).toEqual(["first", 1]);
      await stage().set(
        (await userOf(id)).id,
        "status = 'needs_reauthorization', enabled_status = 'needs_reauthorization'",
      );
      await bench.run(id, [along("third")]);
      await bench.answerStore.idle();
      expect([await servedTo(id), (await userOf(id)).status]).toEqual(["third", "connected"]);
    });

    it("that is the one in use is no news, however often it comes", async () => {
      const { id } = await connectExpired(stage());
      const bench = new RefreshBench(stage(), giving);
      for (let time = 0; time < 3; time++) await bench.run(id, [along("the same")]);
      await bench.answerStore.idle();
      expect(await countCandidates(stage(), await userOf(id))).toBe(0);
      expect((await userOf(id)).generation).toBe(1);
    });

    it("is spooled with the connection's own while Postgres is gone, and found after a restart", async () => {
      const { id } = await connectExpired(stage());
      const store = { away: true };
      const rows = (known: StoreStage["rows"]) => ({
        commitRefresh: async (...given: Parameters<typeof known.commitRefresh>) =>
          store.away ? await goneStore() : await known.commitRefresh(...given),
      });
      const holder = new RefreshBench(stage(), { ...giving, rows });
      await holder.run(id, [along("kept")]);
      expect(await servedTo(id)).toBeNull();
      const restarted = new RefreshBench(stage(), giving);
      for (const entry of holder.spool.entries.values()) await restarted.spool.put(entry);
      await restarted.recovery.run();
      expect(await servedTo(id)).toBe("kept");
      store.away = false;
      await holder.answerStore.idle();
      expect([await servedTo(id), (await userOf(id)).generation]).toEqual(["kept", 1]);
    });

    it("is stored although the process ended between the connection's own and it", async () => {
      const { id } = await connectExpired(stage());
      const store = { away: true };
      const rows = (known: StoreStage["rows"]) => ({
        promoteLate: async (...given: Parameters<typeof known.promoteLate>) =>
          store.away ? await goneStore() : await known.promoteLate(...given),
      });
      const holder = new RefreshBench(stage(), { ...giving, rows });
      await holder.run(id, [along("half way")]);
      expect([(await stage().row(id)).generation, await servedTo(id)]).toEqual([2, null]);
      const restarted = new RefreshBench(stage(), giving);
      for (const entry of holder.spool.entries.values()) await restarted.spool.put(entry);
      await restarted.recovery.run();
      expect(await servedTo(id)).toBe("half way");
      store.away = false;
      await holder.answerStore.idle();
    });

    it("of a grant that a person has replaced meanwhile is not stored over the new one, nor beside it", async () => {
      const { id } = await connectExpired(stage());
      const bench = new RefreshBench(stage(), giving);
      await bench.run(id, [along("first")]);
      const late = async () => {
        await reconnect(stage(), id);
        return along("the old account's");
      };
      await bench.run(id, [late]);
      await bench.answerStore.idle();
      expect([await servedTo(id), await countCandidates(stage(), await userOf(id))]).toEqual([null, 0]);
    });

    it.each([
      { before: "none", earlier: [] },
      { before: "one", earlier: ["first"] },
    ])(
      "is not stored where a person's grant came between the connection's own and it: $before before",
      async ({ earlier }) => {
        const { id } = await connectExpired(stage());
        await new RefreshBench(stage(), giving).run(id, [granted()]);
        for (const name of earlier) await new RefreshBench(stage(), giving).run(id, [along(name)]);
        const rows = (known: StoreStage["rows"]) => ({
          commitRefresh: async (...given: Parameters<typeof known.commitRefresh>) => {
            const stored = await known.commitRefresh(...given);
            await reconnect(stage(), id);
            return stored;
          },
        });
        const bench = new RefreshBench(stage(), { ...giving, rows });
        await bench.run(id, [along("the old account's")]);
        await bench.answerStore.idle();
        expect([await servedTo(id), await countCandidates(stage(), await userOf(id))]).toEqual([null, 0]);
      },
    );
  });
}
