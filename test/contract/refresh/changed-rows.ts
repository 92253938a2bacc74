import { describe, expect, it } from "vitest";
import type { TokenAnswer } from "../../../src/providers/oauth/token-answer.ts";
import type { TokenRow } from "../../../src/store/token-row.ts";
import type { TokenStatements } from "../../../src/store/token-statements.ts";
import { placeOf, secretsPlace } from "../../../src/tokens/seal.ts";
import { freely, type StoreStage } from "../store/stage.ts";
import { connectExpired, dead, granted, RefreshBench, tokensOf, vault } from "./bench.ts";

/** What somebody writes into a row, or into its client's, by hand. */
const changes: Record<string, { table: "connections" | "clients"; set: string }> = {
  "an input that decides the host": { table: "connections", set: `inputs = '{"shop": "evil"}'` },
  "an input of its client that decides the host": { table: "clients", set: `inputs = '{"shop": "evil"}'` },
  "its name": { table: "connections", set: "name = 'other-' || name" },
  "its provider": { table: "connections", set: "provider = 'other'" },
  "its client": { table: "connections", set: "client_ref = NULL" },
  "its scopes": { table: "connections", set: "scopes = '{admin}'" },
  "its labels": { table: "connections", set: `labels = '{"team": "b"}'` },
  "what was captured": { table: "connections", set: `captured = '{"host": "evil"}'` },
};
const moments = ["before the permit", "before the request", "before the answer"] as const;

/** A row as it is, to be put back. */
async function snapshot(stage: StoreStage, { table, id }: { table: string; id: string }) {
  const columns = table === "clients" ? "inputs" : "inputs, name, provider, client_ref, scopes, labels, captured";
  const [before] = await stage.query<{ row: object }>(
    `SELECT to_jsonb(t) AS row FROM ${table} t WHERE id = $1::uuid`,
    id,
  );
  return async () => {
    await stage.query(
      `UPDATE ${table} SET (${columns}) = ROW(${columns.replaceAll(/\w+/g, "r.$&")})
        FROM jsonb_populate_record(NULL::${table}, $2::jsonb) r WHERE ${table}.id = $1::uuid RETURNING 1 AS done`,
      id,
      JSON.stringify(before?.row),
    );
  };
}

/** Without a refresh token: the one that was sent stays good. */
function grantedWithout(): TokenAnswer {
  const answer = granted();
  if (answer.kind === "granted") delete answer.grant.refreshToken;
  return answer;
}

/** Around the statement that gives the permit. */
const aroundPermit =
  (given: { before?: () => Promise<void>; after?: () => Promise<void> }) =>
  (rows: TokenStatements): Partial<TokenStatements> => ({
    async takePermit(request) {
      await given.before?.();
      const permitted = await rows.takePermit(request);
      await given.after?.();
      return permitted;
    },
  });

/** A row that was checked, and that somebody changes before its refresh token is sent. */
export function changedRows(stage: () => StoreStage): void {
  const shop = { inputs: { shop: "ours" } };
  const captured = { host: "api.ours" };

  /** One refresh, during which somebody changes the row. Afterwards the row is put right. */
  const refreshOver = async (
    row: TokenRow,
    { moment, change, rules }: { moment: (typeof moments)[number]; change: string; rules: string },
  ) => {
    const { table, set } = changes[change] ?? { table: "connections", set: "" };
    const id = table === "clients" ? (row.clientRef ?? "") : row.id;
    const putBack = await snapshot(stage(), { table, id });
    const write = async () => {
      await stage().query(`UPDATE ${table} SET ${set} WHERE id = $1::uuid RETURNING 1 AS done`, id);
    };
    const hooks = { ...(moment === moments[0] && { before: write }), ...(moment === moments[1] && { after: write }) };
    const bench = new RefreshBench(stage(), { perShop: true, rules, rows: aroundPermit(hooks) });
    const answer = rules.includes("never") ? grantedWithout() : granted({ refreshToken: "second" });
    await bench.run(row.id, [
      async () => {
        if (moment === moments[2]) await write();
        return answer;
      },
    ]);
    await bench.answerStore.idle();
    await putBack();
    await stage().set(row.id, "backoff_until = NULL");
    return bench;
  };

  describe.each(moments)("a row that somebody changes by hand %s", (moment) => {
    it.each(Object.keys(changes))("in %s has lost nothing once it is put right", async (change) => {
      for (const rules of ["{}", "{ rotation: never }"]) {
        const row = await connectExpired(stage(), shop, { captured });
        const bench = await refreshOver(row, { moment, change, rules });
        // Nothing in the row itself counts any more, so no request is made for it.
        if (moment === moments[0] && changes[change]?.table === "connections") expect(bench.sent).toEqual([]);
        const isSpent = bench.sent.length > 0 && rules === "{}";
        const now = await stage().row(row.id);
        expect([rules, tokensOf(now)?.[1]]).toEqual([rules, isSpent ? "second" : "first"]);
        expect(now).toMatchObject({ status: "connected", attemptId: null, captured });
        const next = new RefreshBench(stage(), { perShop: true, rules });
        await next.run(row.id, [granted({ refreshToken: "third" })]);
        expect(next.requests).toEqual([isSpent ? "second" : "first"]);
        const urls = new Set([...bench.sent, ...next.sent].map(({ url }) => url));
        expect(urls).toEqual(new Set(["https://ours.example/token"]));
      }
    });
  });

  it("a refresh token that is sealed anew after it was opened, before the permit, is opened once more", async () => {
    const row = await connectExpired(stage());
    const sealed = vault.sealTokens({ accessToken: null, refreshToken: "sealed anew" }, placeOf(row));
    const sealAnew = async () => {
      await stage().query(
        "UPDATE connections SET refresh_token_sealed = $2 WHERE id = $1::uuid RETURNING 1 AS done",
        row.id,
        sealed.refreshToken,
      );
    };
    const bench = new RefreshBench(stage(), { rows: aroundPermit({ before: sealAnew }) });
    await bench.run(row.id, [granted()]);
    expect(bench.requests).toEqual(["sealed anew"]);
  });

  describe("a connection that a person gives new credentials", () => {
    it("right before its request is sent is not ended because the old ones are refused: the new ones are sent next", async () => {
      const { id } = await connectExpired(stage(), { grant: "password" });
      await stage().set(id, "refresh_token_sealed = NULL");
      const give = async (password: string) => {
        const row = await stage().row(id);
        const place = secretsPlace(row, { revision: row.credentialsRevision + 1 });
        const credentials = vault.sealCredentials({ username: "u", password }, place);
        await stage().connections.update(row, { credentials }, freely);
      };
      await give("old");
      const bench = new RefreshBench(stage(), { rows: aroundPermit({ before: async () => await give("new") }) });
      await bench.run(id, [dead]);
      expect(await stage().row(id)).toMatchObject({ status: "connected", attemptId: null });
      await stage().set(id, "backoff_until = NULL");
      const next = new RefreshBench(stage());
      await next.run(id, [granted()]);
      expect([bench, next].map(({ sent }) => sent[0]?.fields["password"])).toEqual(["old", "new"]);
    });
  });
}
