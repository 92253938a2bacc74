import { setTimeout } from "node:timers/promises";
import { describe, expect, it, vi } from "vitest";
import type { RefreshNews } from "../../../src/coordination/leases.ts";
import type { SpoolPlace } from "../../../src/coordination/spool.ts";
import { BrokerError } from "../../../src/errors.ts";
import type { TokenRow } from "../../../src/store/token-row.ts";
import type { TokenStatements } from "../../../src/store/token-statements.ts";
import type { RefreshObserver } from "../../../src/tokens/core.ts";
import { type Answer, createAnswerStore, type Persisted } from "../../../src/tokens/persist.ts";
import { createSpools } from "../../../src/tokens/recovery.ts";
import { openRecord, placeOf } from "../../../src/tokens/seal.ts";
import { noAccounts } from "../../support/unasked.ts";
import { define } from "../providers/definitions.ts";
import { answerTo, attemptId, vault } from "./answers.ts";
import { manualClock } from "./manual-clock.ts";
import { memoryMarks, memorySpool } from "./memory-places.ts";
import { tokenRow } from "./token-row.ts";

const row = tokenRow();
const place = { connectionId: row.id, generation: row.generation };
const stored = tokenRow({ generation: row.generation + 1, version: row.version + 1, lastAttemptId: attemptId });
const goneStore = () => Promise.reject(new BrokerError("storage_unavailable", "gone"));

/** The answer store on a database that a test takes away and gives back. */
class Stage {
  readonly clock = manualClock();
  readonly disk = memorySpool("data_dir");
  readonly redis = memorySpool("redis");
  readonly marks = memoryMarks();
  readonly triedMs: number[] = [];
  readonly durableSeconds: number[] = [];
  readonly placements: string[] = [];
  readonly news: RefreshNews[] = [];
  readonly learnt: TokenRow[] = [];
  readonly revoked: unknown[] = [];
  readonly spoolErrors: string[] = [];
  /** What the store does with an answer. */
  commit: TokenStatements["commitRefresh"] = async () => stored;
  find: TokenStatements["readById"] = async () => null;
  readonly answerStore;

  constructor(places?: (stage: Stage) => SpoolPlace[]) {
    const rows: Partial<TokenStatements> = {
      commitRefresh: async (...given) => {
        this.triedMs.push(this.clock.monotonicMs() - 1000);
        return await this.commit(...given);
      },
      readById: async (id) => await this.find(id),
      readForAnswer: async ({ connectionId, attemptId: asked }) => {
        const found = await this.find(connectionId);
        return { row: found, wasStored: found?.lastAttemptId === asked };
      },
    };
    const observer: Partial<RefreshObserver> = {
      commitDelayed: () => {},
      durable: (_row, { seconds }) => void this.durableSeconds.push(seconds),
      cameLate: (_row, placement) => void this.placements.push(placement),
    };
    this.answerStore = createAnswerStore({
      rows: rows as TokenStatements,
      accounts: noAccounts,
      vault,
      leases: { announce: (news) => void this.news.push(news) },
      spools: createSpools({
        places: places?.(this) ?? [this.disk, this.redis],
        onError: (name) => void this.spoolErrors.push(name),
      }),
      marks: this.marks,
      sender: { revokeGrant: async (_context, grant) => void this.revoked.push(grant) },
      clock: this.clock,
      random: () => 0.5,
      observer: observer as RefreshObserver,
      learn: (learnt) => void this.learnt.push(learnt),
    });
  }

  /** Begins to persist the answer. `kept` is set when a caller may have the token. */
  keep(answer: Answer = answerTo(row)) {
    const keeping: { kept: Persisted | null } = { kept: null };
    void this.answerStore.persist(answer).then((kept) => (keeping.kept = kept));
    return keeping;
  }

  get spooled(): number[] {
    return [this.disk.entries.size, this.redis.entries.size];
  }
}

/** A store that is away. */
function away(places?: (stage: Stage) => SpoolPlace[]): Stage {
  const stage = new Stage(places);
  stage.commit = goneStore;
  return stage;
}

describe("an answer that the store takes", () => {
  it("is durable at once, and touches no spool", async () => {
    const stage = new Stage();
    const keeping = stage.keep();
    await stage.clock.pass(0);
    expect(keeping.kept).toEqual({ kind: "stored", row: stored });
    await stage.clock.pass(5000);
    expect([stage.spooled, stage.durableSeconds, stage.triedMs]).toEqual([[0, 0], [0], [0]]);
    expect(stage.marks.known.get(row.id)).toEqual({ generation: stored.generation, version: stored.version });
    expect([stage.learnt, stage.news, stage.placements]).toEqual([[], [], []]);
  });

  it("of a person's code is told to the others at once, so that none of them serves what it has replaced", async () => {
    const stage = new Stage();
    stage.find = async () => stored;
    stage.keep(answerTo(row, { kind: "grant", event: "reconnected" }));
    await stage.clock.pass(0);
    expect(stage.news).toMatchObject([{ connection: row.id, attempt: attemptId, outcome: "stored" }]);
  });

  it("after a delay of less than 200 ms touches no spool either", async () => {
    const stage = away();
    const keeping = stage.keep();
    await stage.clock.pass(99);
    stage.commit = async () => stored;
    await stage.clock.pass(1);
    expect([keeping.kept?.kind, stage.durableSeconds]).toEqual(["stored", [0.1]]);
    await stage.clock.pass(1000);
    expect(stage.spooled).toEqual([0, 0]);
  });
});

describe("an answer that the store does not take", () => {
  it("is spooled everywhere after 200 ms, sealed, and handed out then, as it will be stored", async () => {
    const stage = away();
    const keeping = stage.keep();
    await stage.clock.pass(199);
    expect([stage.spooled, keeping.kept]).toEqual([[0, 0], null]);
    await stage.clock.pass(1);
    expect([stage.spooled, stage.durableSeconds]).toEqual([[1, 1], [0.2]]);
    const { record } = answerTo(row);
    expect(keeping.kept).toMatchObject({
      kind: "spooled",
      row: { generation: row.generation + 1, status: "connected" },
    });
    expect(keeping.kept?.row).toMatchObject({ version: row.version + 1, lastAttemptId: attemptId, attemptId: null });
    const [entry] = [...stage.disk.entries.values()];
    const opened = openRecord(vault, entry?.record ?? new Uint8Array(), place);
    expect({ ...opened, grant: null }).toEqual({ ...record, grant: null });
    expect(keeping.kept?.row?.accessToken).toEqual(opened.grant.accessToken);
  });

  it("is handed out with its first durable copy and not before", async () => {
    const { promise, resolve } = Promise.withResolvers<void>();
    const waiting = (given: SpoolPlace): SpoolPlace => ({
      ...given,
      put: async (entry) => {
        await promise;
        await given.put(entry);
      },
    });
    const stage = away(({ disk, redis }) => [waiting(disk), { ...redis, put: goneStore }]);
    const keeping = stage.keep();
    await stage.clock.pass(5000);
    expect([keeping.kept, stage.spoolErrors]).toEqual([null, ["redis"]]);
    resolve();
    await stage.clock.pass(0);
    expect([keeping.kept?.kind, stage.spooled]).toEqual(["spooled", [1, 0]]);
  });

  it("waits for the store where no spool takes it", async () => {
    const stage = away();
    stage.disk.isAway = stage.redis.isAway = true;
    const keeping = stage.keep();
    await stage.clock.pass(60_000);
    expect([keeping.kept, new Set(stage.spoolErrors)]).toEqual([null, new Set(["data_dir", "redis"])]);
    stage.commit = async () => stored;
    await stage.clock.pass(3000);
    expect(keeping.kept).toEqual({ kind: "stored", row: stored });
  });

  it("is spooled and handed out as soon as a place has room, with the store still away", async () => {
    const stage = away();
    stage.disk.isAway = stage.redis.isAway = true;
    const keeping = stage.keep();
    await stage.clock.pass(5000);
    expect([keeping.kept, stage.spooled]).toEqual([null, [0, 0]]);
    stage.disk.isAway = false;
    await stage.clock.pass(2000);
    expect([keeping.kept?.kind, stage.spooled]).toEqual(["spooled", [1, 0]]);
    stage.commit = async () => stored;
    await stage.clock.pass(5000);
    expect(stage.spooled).toEqual([0, 0]);
    const errors = stage.spoolErrors.length;
    await stage.clock.pass(60_000);
    expect(stage.spoolErrors).toHaveLength(errors);
  });

  it("is tried again ever more slowly, up to two seconds apart, for as long as it takes", async () => {
    const stage = away();
    stage.keep();
    await stage.clock.pass(10_000);
    expect(stage.triedMs).toEqual([0, 100, 300, 700, 1500, 3100, 5100, 7100, 9100]);
    await stage.clock.pass(3_600_000);
    expect(stage.triedMs.at(-1)).toBeGreaterThan(3_600_000);
  });

  it("leaves nothing in a spool once it is stored, and only then the others and the cache learn of it", async () => {
    const stage = away();
    stage.keep();
    await stage.clock.pass(5000);
    expect([stage.learnt, stage.news, stage.marks.known.size]).toEqual([[], [], 0]);
    stage.commit = async () => stored;
    await stage.clock.pass(2000);
    expect([stage.spooled, stage.learnt]).toEqual([[0, 0], [stored]]);
    expect(stage.news).toEqual([
      { connection: row.id, generation: row.generation, attempt: attemptId, outcome: "stored" },
    ]);
    expect(stage.marks.known.get(row.id)?.generation).toBe(stored.generation);
    expect(stage.answerStore.hasUnstored(row.id, row.generation)).toBe(false);
  });

  it("is stored as it is although its spooling is not over, and its copy goes as soon as it is there", async () => {
    const { promise, resolve } = Promise.withResolvers<void>();
    const stage = away(({ disk }) => [
      {
        ...disk,
        put: async (entry) => {
          await promise;
          await disk.put(entry);
        },
      },
    ]);
    const keeping = stage.keep();
    await stage.clock.pass(250);
    stage.commit = async () => stored;
    await stage.clock.pass(2000);
    expect([keeping.kept?.kind, stage.spooled]).toEqual(["stored", [0, 0]]);
    resolve();
    await stage.clock.pass(0);
    expect(stage.spooled).toEqual([0, 0]);
    expect(stage.answerStore.hasUnstored(row.id, row.generation)).toBe(false);
  });

  it("is known to be in this process's hands until the row has it, of its own generation only", async () => {
    const stage = away();
    stage.keep();
    await stage.clock.pass(1000);
    expect(stage.answerStore.hasUnstored(row.id, row.generation)).toBe(true);
    expect(stage.answerStore.hasUnstored(row.id, row.generation + 1)).toBe(false);
    expect(stage.answerStore.hasUnstored(attemptId, row.generation)).toBe(false);
  });

  it("of a person's code is handed out two versions further, and the first one as version 1", async () => {
    const stage = away();
    stage.find = goneStore;
    const unconnected = tokenRow({ version: 0, generation: 0, authorization: 0, status: "pending" });
    const [first, next] = [unconnected, row].map((of) => stage.keep(answerTo(of, { kind: "grant" })));
    await stage.clock.pass(200);
    expect(first?.kept).toMatchObject({ kind: "spooled", row: { version: 1, authorization: 1, status: "connected" } });
    expect(next?.kept?.row).toMatchObject({ version: row.version + 2, authorization: row.authorization + 1 });
  });

  it("of a disabled connection is kept, and does not enable it", async () => {
    const stage = away();
    const keeping = stage.keep(answerTo(tokenRow({ status: "disabled" })));
    await stage.clock.pass(200);
    expect(keeping.kept?.row?.status).toBe("disabled");
  });

  it("without an access token has no version of its own: there is nothing to hand out", async () => {
    const stage = away();
    const { record, ...rest } = answerTo(row);
    const keeping = stage.keep({ ...rest, record: { ...record, grant: { ...record.grant, accessToken: null } } });
    await stage.clock.pass(200);
    expect(keeping.kept?.row).toMatchObject({ version: row.version, accessToken: null });
  });
});

describe("a process that ends", () => {
  it("spools at once what the store has not taken yet", async () => {
    const stage = away();
    stage.keep();
    await stage.clock.pass(10);
    await stage.answerStore.spoolAll();
    expect(stage.spooled).toEqual([1, 1]);
  });

  it("spools what it could not spool before: the disk may have room again", async () => {
    const stage = away();
    stage.disk.isAway = stage.redis.isAway = true;
    stage.keep();
    await stage.clock.pass(1000);
    stage.disk.isAway = false;
    await stage.answerStore.spoolAll();
    expect(stage.spooled).toEqual([1, 0]);
  });

  it("spools again where one place took it: that one may have lost it since, and the other may have room", async () => {
    const stage = away();
    stage.disk.isAway = true;
    stage.keep();
    await stage.clock.pass(1000);
    expect(stage.spooled).toEqual([0, 1]);
    stage.disk.isAway = false;
    await stage.answerStore.spoolAll();
    await stage.clock.pass(0);
    expect(stage.spooled).toEqual([1, 1]);
  });

  it("waits until every answer is stored", async () => {
    const stage = away();
    stage.keep();
    await stage.clock.pass(1000);
    let isSettled = false;
    void stage.answerStore.idle().then(() => (isSettled = true));
    await stage.clock.pass(1000);
    expect(isSettled).toBe(false);
    stage.commit = async () => stored;
    await stage.clock.pass(3000);
    expect([isSettled, stage.spooled]).toEqual([true, [0, 0]]);
  });

  it("waits for what follows the store without keeping the event loop from it", async () => {
    const stage = away(({ disk }) => [
      {
        ...disk,
        remove: async (entry) => {
          await setTimeout(20);
          await disk.remove(entry);
        },
      },
    ]);
    stage.keep();
    await stage.clock.pass(1000);
    stage.commit = async () => stored;
    // A loop of promises alone would never let this test go on, so it ends with an error.
    let turns = 0;
    const allSettled = Promise.allSettled.bind(Promise);
    const spy = vi.spyOn(Promise, "allSettled").mockImplementation(async (values: Iterable<unknown>) => {
      if (++turns > 1000) throw new Error("it goes round and round");
      return await allSettled(values);
    });
    const end = stage.answerStore.idle().then(
      () => "settled",
      (error: unknown) => String(error),
    );
    await stage.clock.pass(3000);
    expect([await end, stage.spooled]).toEqual(["settled", [0, 0]]);
    spy.mockRestore();
  });
});

describe("an answer that nobody wants any more", () => {
  const changed = tokenRow({
    accessToken: null,
    refreshToken: null,
    authorization: row.authorization + 1,
    generation: row.generation + 1,
  });
  it.each([
    ["the connection is gone", { found: null, kills: "all", times: 1 }],
    [
      "a person has replaced the grant, and a revocation ends the token only",
      { found: changed, kills: "token", times: 1 },
    ],
    ["a person has replaced the grant, and a revocation ends all of it", { found: changed, kills: "all", times: 0 }],
  ] as const)("is revoked, or not, where %s", async (_is, { found, kills, times }) => {
    const stage = new Stage();
    stage.commit = async () => null;
    stage.find = async () => found;
    const answer = answerTo(row);
    const definition = define(`revocation: { url: https://login.example/revoke, kills: ${kills} }`);
    const keeping = stage.keep({ ...answer, context: { ...answer.context, definition } });
    await stage.clock.pass(0);
    expect(keeping.kept).toEqual({ kind: "unwanted", row: found });
    expect([stage.placements, stage.revoked]).toEqual([
      ["unwanted"],
      Array.from({ length: times }, () => answer.grant),
    ]);
  });

  it("is not revoked where what took its place is the very same set: that would end what is in use", async () => {
    for (const tokens of [
      { accessToken: "a2", refreshToken: "newer" },
      { accessToken: "newer", refreshToken: "second" },
    ]) {
      const stage = new Stage();
      stage.commit = async () => null;
      const sealed = vault.sealTokens(tokens, placeOf({ ...row, generation: changed.generation }));
      stage.find = async () => ({ ...changed, ...sealed });
      const answer = answerTo(row);
      const definition = define("revocation: { url: https://login.example/revoke, kills: token }");
      stage.keep({ ...answer, context: { ...answer.context, definition } });
      await stage.clock.pass(0);
      expect([stage.placements, stage.revoked]).toEqual([["unwanted"], []]);
    }
  });
});
