import { randomUUID } from "node:crypto";
import { describe, expect, it } from "vitest";
import type { SpoolEntry } from "../../../src/coordination/spool.ts";
import { BrokerError, DatabaseBusyError } from "../../../src/errors.ts";
import type { GenerationMark } from "../../../src/store/due.ts";
import type { Tombstone } from "../../../src/store/token-sets.ts";
import type { TokenRow } from "../../../src/store/token-row.ts";
import type { TokenStatements } from "../../../src/store/token-statements.ts";
import type { RefreshObserver } from "../../../src/tokens/core.ts";
import { createRecovery, createSpools } from "../../../src/tokens/recovery.ts";
import type { Sender } from "../../../src/tokens/request.ts";
import { type AnswerRecord, grantDestination, sealRecord } from "../../../src/tokens/seal.ts";
import { noAccounts, noAlarms, noOtherKeys } from "../../support/unasked.ts";
import { define } from "../providers/definitions.ts";
import { answerRecord, vault } from "./answers.ts";
import { memoryMarks, memorySpool } from "./memory-places.ts";
import { tokenRow } from "./token-row.ts";

const row = tokenRow();
const stored = tokenRow({ generation: row.generation + 1 });
const tombstone: Tombstone = { name: "acme", provider: "own", clientRef: null, inputs: {}, captured: {} };

/** A recovery on a store that the test provides. */
class Stage {
  readonly spool = memorySpool();
  readonly folder = memorySpool("data_dir");
  readonly marks = memoryMarks();
  readonly order: string[] = [];
  readonly learnt: TokenRow[] = [];
  readonly revoked: unknown[] = [];
  readonly errors: unknown[] = [];
  /** Whether this process itself holds the answer. */
  held = false;
  tombstone: Tombstone | null = null;
  /** The inputs with which a deleted connection's provider was looked for. */
  readonly asked: unknown[] = [];
  /** Generations as Postgres has them. */
  generations: GenerationMark[] = [];
  kills: "token" | "all" = "all";
  isKnown = true;
  /** Whether another replica has the keys that this one lacks. */
  isForeign = false;
  readonly alarms: string[] = [];
  rows: Partial<TokenStatements> = {
    commitRefresh: async () => {
      this.order.push("stored");
      return stored;
    },
    readForAnswer: async () => ({ row: null, wasStored: false }),
    generationsAfter: async (last, limit) => {
      this.order.push("compared");
      const from = last === null ? 0 : this.generations.findIndex(({ connectionId }) => connectionId === last) + 1;
      return this.generations.slice(from, from + limit);
    },
    suspendRestored: async (marks) =>
      marks.map(({ connectionId, generation }) => tokenRow({ id: connectionId, goneBackFrom: generation })),
  };
  readonly recovery;

  constructor() {
    const observer: Partial<RefreshObserver> = {
      drained: () => void this.order.push("drained"),
      suspendedAfterRestore: ({ id }) => void this.order.push(`held ${id}`),
    };
    const sender: Pick<Sender, "prepare" | "prepareRemains" | "revokeGrant"> = {
      prepare: async (of) => {
        if (!this.isKnown) throw new BrokerError("provider_unavailable", "no definition");
        const definition = define(`revocation: { url: https://login.example/revoke, kills: ${this.kills} }`);
        return { row: of, owner: of, definition, client: null, clientSecrets: [], plan: null };
      },
      prepareRemains: async (remains) => {
        this.asked.push(remains.inputs);
        const { row: _, ...rest } = await sender.prepare(row);
        const left = { ...remains, inputsInForce: remains.inputs, chain: null };
        return { ...rest, row: left, owner: left };
      },
      revokeGrant: async (_context, tokens) => void this.revoked.push(tokens),
    };
    this.recovery = createRecovery({
      rows: new Proxy({}, { get: (_none, name) => Reflect.get(this.rows, name) as unknown }) as TokenStatements,
      accounts: noAccounts,
      vault,
      tombstones: { find: async () => this.tombstone },
      spools: createSpools({ places: [this.spool, this.folder], onError: () => {} }),
      marks: this.marks,
      answerStore: { hasUnstored: () => this.held },
      sender,
      observer: observer as RefreshObserver,
      keys: { ...noOtherKeys, isSilent: async () => this.isForeign },
      alarms: { ...noAlarms, rejected: (kind) => void this.alarms.push(kind) },
      learn: (learnt) => void this.learnt.push(learnt),
      onError: (error) => void this.errors.push(error),
    });
  }

  async spoolOne(of: TokenRow = row, destination = grantDestination(of, [])): Promise<void> {
    const record = answerRecord(of, { attemptId: randomUUID(), destination });
    await this.spool.put({ ...record, record: sealRecord(vault, record) });
  }

  /** Nobody wants the spooled answer: its row is now `found`. */
  async unwanted(found: TokenRow | null, destination?: AnswerRecord["destination"]): Promise<void> {
    this.rows = {
      ...this.rows,
      commitRefresh: async () => null,
      readForAnswer: async () => ({ row: found, wasStored: false }),
    };
    await this.spoolOne(row, destination);
  }
}

describe("what waits in a spool", () => {
  it("is put into its row and then removed; marks, cache and metrics learn of it", async () => {
    const stage = new Stage();
    await stage.spoolOne();
    await stage.recovery.run();
    expect([stage.order, stage.spool.entries.size]).toEqual([["stored", "drained", "compared"], 0]);
    expect([stage.learnt, stage.marks.known.get(stored.id)?.generation]).toEqual([[stored], stored.generation]);
  });

  it("stays there while Postgres is gone", async () => {
    const stage = new Stage();
    await stage.spoolOne();
    stage.rows = { commitRefresh: () => Promise.reject(new BrokerError("storage_unavailable", "gone")) };
    await expect(stage.recovery.run()).rejects.toThrow("gone");
    expect([stage.spool.entries.size, stage.order]).toEqual([1, []]);
  });

  it("and cannot be opened stays there, is reported, and keeps the others from nothing", async () => {
    const stage = new Stage();
    const foreign = { connectionId: row.id, generation: 3, attemptId: "foreign", record: new Uint8Array(40) };
    await stage.spool.put(foreign);
    await stage.spoolOne();
    await stage.recovery.run();
    expect([[...stage.spool.entries.values()], stage.alarms]).toEqual([[foreign], ["spool"]]);
    expect(stage.order).toContain("stored");
  });

  it("and that the store refuses for a fault stays there, and keeps neither the others nor the marks from anything", async () => {
    const stage = new Stage();
    await stage.spoolOne();
    await stage.spoolOne();
    const [faulty] = stage.spool.entries.values();
    stage.rows.commitRefresh = async ({ attemptId }) => {
      if (attemptId === faulty?.attemptId) throw new Error("a text that no column takes");
      return stored;
    };
    await stage.recovery.run().catch(() => undefined);
    expect([[...stage.spool.entries.values()], stage.order]).toEqual([[faulty], ["drained", "compared"]]);
  });

  it("and whose row somebody has locked stays there, to be tried again, and neither others nor the marks wait for it", async () => {
    const stage = new Stage();
    const locked = tokenRow({ id: randomUUID() });
    await stage.spoolOne(locked);
    for (let other = 0; other < 9; other++) await stage.spoolOne(tokenRow({ id: randomUUID() }));
    const freed = Promise.withResolvers<never>();
    stage.rows.commitRefresh = async ({ connectionId }) => (connectionId === locked.id ? await freed.promise : stored);
    const running = stage.recovery.run();
    await expect.poll(() => stage.spool.entries.size).toBe(1);
    freed.reject(new DatabaseBusyError("55P03"));
    expect([await running, stage.errors.length, stage.order.at(-1)]).toEqual([false, 1, "compared"]);
    stage.rows.commitRefresh = async () => stored;
    expect([await stage.recovery.run(), stage.spool.entries.size]).toEqual([true, 0]);
  });

  it("is left to its holder while this process has it in its hands", async () => {
    const stage = new Stage();
    await stage.spoolOne();
    stage.held = true;
    await stage.recovery.run();
    expect([stage.spool.entries.size, stage.order]).toEqual([1, ["compared"]]);
    stage.spool.entries.clear();
    expect(await stage.recovery.clear(row)).toBe("drained");
  });
});

describe("rows behind their marks", () => {
  it("are held without the one that somebody has locked, which is looked at again", async () => {
    const stage = new Stage();
    const ids = ["a", "b", "c"];
    stage.generations = ids.map((connectionId) => ({ connectionId, generation: 1, version: 1 }));
    for (const id of ids) stage.marks.raise(id, { generation: 5, version: 5 });
    const hold = stage.rows.suspendRestored as TokenStatements["suspendRestored"];
    stage.rows.suspendRestored = async (marks) => {
      if (marks.some(({ connectionId }) => connectionId === "b")) throw new DatabaseBusyError("55P03");
      return await hold(marks);
    };
    expect(await stage.recovery.run()).toBe(false);
    expect([stage.order.slice(1), stage.errors.length]).toEqual([["held a", "held c"], 1]);
    stage.rows.suspendRestored = hold;
    expect([await stage.recovery.run(), stage.order.includes("held b")]).toEqual([true, true]);
  });
});

describe("an attempt that may be taken over", () => {
  it("is clear where no spool holds its answer", async () => {
    const stage = new Stage();
    await stage.spoolOne();
    expect(await stage.recovery.clear(stored)).toBe("clear");
  });

  it("is not needed where its answer was in a spool, which is stored first", async () => {
    const stage = new Stage();
    await stage.spoolOne();
    expect(await stage.recovery.clear(row)).toBe("drained");
    expect([stage.order, stage.spool.entries.size]).toEqual([["stored", "drained"], 0]);
  });

  it("is clear where only what nobody of ours wrote stands there, however much", async () => {
    const stage = new Stage();
    const other = tokenRow({ id: randomUUID() });
    const theirs = answerRecord(other, { attemptId: "other" });
    const place = { connectionId: row.id, generation: row.generation };
    for (const [attemptId, record] of [
      ["x", new Uint8Array(40)],
      ["y", new Uint8Array(0)],
      [randomUUID(), sealRecord(vault, theirs)],
    ] as const) {
      await stage.spool.put({ ...place, attemptId, record: new Uint8Array(record) });
    }
    expect(await stage.recovery.clear(row)).toBe("clear");
    expect([stage.spool.entries.size, stage.order, stage.alarms]).toEqual([3, [], ["spool", "spool", "spool"]]);
  });

  it("is uncertain where a record stands there that another replica can open", async () => {
    const stage = new Stage();
    stage.isForeign = true;
    await stage.spool.put({
      connectionId: row.id,
      generation: row.generation,
      attemptId: "x",
      record: new Uint8Array(40),
    });
    expect([await stage.recovery.clear(row), stage.alarms]).toEqual(["silent", []]);
  });

  it("is not needed where a place holds its answer, whatever another place holds under its name", async () => {
    const stage = new Stage();
    await stage.spoolOne();
    const [authentic] = stage.spool.entries.values();
    for (const first of [true, false]) {
      const forged = { ...(authentic as SpoolEntry), record: new Uint8Array(40) };
      stage.order.length = 0;
      stage.spool.entries.clear();
      await stage.spool.put(first ? forged : (authentic as SpoolEntry));
      stage.folder.entries.clear();
      await stage.folder.put(first ? (authentic as SpoolEntry) : forged);
      expect([await stage.recovery.clear(row), stage.order]).toEqual(["drained", ["stored", "drained"]]);
    }
  });

  it("copies of one answer in two places are stored once", async () => {
    const stage = new Stage();
    await stage.spoolOne();
    for (const entry of stage.spool.entries.values()) await stage.folder.put(entry);
    await stage.recovery.run();
    expect(stage.order).toEqual(["stored", "drained", "compared"]);
  });

  it("is uncertain where a place that may hold its answer does not answer", async () => {
    const stage = new Stage();
    stage.spool.isAway = true;
    expect(await stage.recovery.clear(row)).toBe("silent");
  });
});

describe("an answer that waited, and that nobody wants any more", () => {
  const tokens = { accessToken: "a2", refreshToken: "second" };
  const replaced = tokenRow({ accessToken: null, refreshToken: null, authorization: row.authorization + 1 });

  it.each([
    ["of a deleted connection is revoked", { found: null, tombstone, kills: "all" }, [tokens]],
    ["of one deleted more than a day ago is not", { found: null, tombstone: null, kills: "all" }, []],
    ["of a replaced grant is revoked where that ends the token only", { found: replaced, kills: "token" }, [tokens]],
    ["of a replaced grant is not revoked where that ends all", { found: replaced, kills: "all" }, []],
  ] as const)("%s", async (_is, given, revoked) => {
    const stage = new Stage();
    stage.kills = given.kills;
    stage.tombstone = "tombstone" in given ? given.tombstone : null;
    await stage.unwanted(given.found);
    await stage.recovery.run();
    expect([stage.revoked, stage.spool.entries.size]).toEqual([revoked, 0]);
  });

  it("asks nobody whom a tombstone alone names: the record tells the hosts", async () => {
    const inForce = { ...row, inputs: { shop: "ours.example" }, inputsInForce: { shop: "ours.example" } };
    for (const change of [{ provider: "other" }, { clientRef: randomUUID() }, { name: "other" }]) {
      const stage = new Stage();
      stage.tombstone = { ...tombstone, ...change };
      await stage.unwanted(null);
      await stage.recovery.run();
      expect([stage.asked, stage.revoked]).toEqual([[], []]);
    }
    const stage = new Stage();
    stage.tombstone = { ...tombstone, inputs: { shop: "evil.example", kept: "as it is" } };
    await stage.unwanted(null, grantDestination(inForce, ["shop"]));
    await stage.recovery.run();
    expect(stage.asked).toEqual([{ shop: "ours.example", kept: "as it is" }]);
  });

  it("is dropped where the provider's definition is gone", async () => {
    const stage = new Stage();
    stage.isKnown = false;
    stage.tombstone = tombstone;
    await stage.unwanted(null);
    await stage.recovery.run();
    expect([stage.revoked, stage.spool.entries.size]).toEqual([[], 0]);
  });
});

describe("rows behind their marks", () => {
  const generations = Array.from({ length: 2345 }, (_none, index) => ({
    connectionId: `c${String(index).padStart(4, "0")}`,
    generation: 5,
    version: 5,
  }));

  it("are held, and those that have no mark yet are noted, however many there are", async () => {
    const stage = new Stage();
    stage.generations = generations;
    stage.marks.raise("c0001", { generation: 6, version: 9 });
    stage.marks.raise("c2344", { generation: 7, version: 9 });
    stage.marks.raise("c1000", { generation: 4, version: 4 });
    await stage.recovery.run();
    expect(stage.order.filter((line) => line !== "compared")).toEqual(["held c0001", "held c2344"]);
    expect(stage.learnt.map(({ goneBackFrom }) => goneBackFrom)).toEqual([6, 7]);
    expect([stage.marks.known.size, stage.marks.known.get("c1000")?.generation]).toEqual([2345, 5]);
  });

  it("are looked for after draining: a record ahead of a restored row is adopted first", async () => {
    const stage = new Stage();
    await stage.spoolOne();
    await stage.recovery.run();
    expect(stage.order.indexOf("stored")).toBeLessThan(stage.order.indexOf("compared"));
  });

  it("are not held where the marks do not answer", async () => {
    const stage = new Stage();
    stage.generations = generations;
    stage.marks.raise("c0001", { generation: 6, version: 9 });
    stage.marks.isAway = true;
    await stage.recovery.run();
    expect(stage.order.filter((line) => line !== "compared")).toEqual([]);
  });
});
