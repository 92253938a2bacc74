import { beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { AuditReport, Head } from "../../../src/audit/entries.ts";
import { emptyChain, chainTo } from "../../../src/audit/chain.ts";
import type { ChainedEntry } from "../../../src/store/audit.ts";
import { createKeyring } from "../../../src/vault/keyring.ts";
import { type AuditStage, keyOf, type Process } from "./stage.ts";

/** What whoever owns the database can do to the rows of a chain of seven. */
type Attack = { sql: string; found: Pick<AuditReport["faults"][number], "kind" | "from" | "to">[] };

const ofVictim = "process = $1::uuid";
/** Writes one of the rows that are `gone` down as the anchor. What is given takes the place of its own. */
const anchorOf = (row: number, { at = "at", seq = "seq", mac = "mac" } = {}) =>
  `INSERT INTO audit.anchors SELECT ${at}, ${seq}, process, actor_kind, actor_id, actor_name, action, target_kind, target_name, address, result,
    detail, hash, ${mac}, (SELECT p.hash FROM gone p WHERE p.seq = ${row} - 1) FROM gone WHERE seq = ${row}`;
const oldEnough = "at - interval '500 days'";
const attacks: Record<string, Attack> = {
  "a row that was changed": {
    sql: `UPDATE audit.entries SET actor_name = 'mallory' WHERE seq = 4 AND ${ofVictim}`,
    found: [{ kind: "changed", from: 4, to: 4 }],
  },
  "a time that was changed": {
    sql: `UPDATE audit.entries SET at = at - interval '1 hour' WHERE seq = 4 AND ${ofVictim}`,
    found: [{ kind: "changed", from: 4, to: 4 }],
  },
  "a detail that was changed": {
    sql: `UPDATE audit.entries SET detail = '{"mark":1}' WHERE seq = 4 AND ${ofVictim}`,
    found: [{ kind: "changed", from: 4, to: 4 }],
  },
  "a row that was removed": {
    sql: `DELETE FROM audit.entries WHERE seq = 4 AND ${ofVictim}`,
    found: [{ kind: "missing", from: 4, to: 4 }],
  },
  "a row that was removed, and those behind it numbered anew": {
    sql: `WITH gone AS (DELETE FROM audit.entries WHERE seq = 4 AND ${ofVictim})
      UPDATE audit.entries SET seq = seq - 1 WHERE seq > 4 AND ${ofVictim}`,
    found: [
      { kind: "changed", from: 4, to: 4 },
      { kind: "changed", from: 5, to: 5 },
      { kind: "changed", from: 6, to: 6 },
      { kind: "tail_missing", from: 7, to: 7 },
    ],
  },
  "a row that was inserted": {
    sql: `INSERT INTO audit.entries SELECT at, seq, process, actor_kind, 'mallory', actor_name, action, target_kind, target_name, address, result,
      detail, hash, mac FROM audit.entries WHERE seq = 4 AND ${ofVictim}`,
    found: [
      { kind: "repeated", from: 4, to: 4 },
      { kind: "changed", from: 4, to: 4 },
    ],
  },
  "a row that was inserted before the first one": {
    sql: `INSERT INTO audit.entries SELECT at, -1, process, actor_kind, 'mallory', actor_name, action, target_kind, target_name, address, result,
      detail, hash, mac FROM audit.entries WHERE seq = 4 AND ${ofVictim}`,
    found: [
      { kind: "repeated", from: -1, to: -1 },
      { kind: "changed", from: -1, to: -1 },
    ],
  },
  "a row that was copied": {
    sql: `INSERT INTO audit.entries SELECT * FROM audit.entries WHERE seq = 4 AND ${ofVictim}`,
    found: [{ kind: "repeated", from: 4, to: 4 }],
  },
  "two rows that changed places": {
    sql: `UPDATE audit.entries SET seq = 9 - seq WHERE seq IN (4, 5) AND ${ofVictim}`,
    found: [
      { kind: "changed", from: 4, to: 4 },
      { kind: "changed", from: 5, to: 5 },
      { kind: "changed", from: 6, to: 6 },
    ],
  },
  "a first part that was cut off": {
    sql: `DELETE FROM audit.entries WHERE seq < 4 AND ${ofVictim}`,
    found: [{ kind: "missing", from: 1, to: 3 }],
  },
  "a first part that was cut off, with an anchor as if it had been pruned": {
    sql: `WITH gone AS (DELETE FROM audit.entries WHERE seq < 4 AND ${ofVictim} RETURNING *) ${anchorOf(3)}`,
    found: [{ kind: "pruned_too_young", from: 1, to: 3 }],
  },
  "the same, with a time in the anchor that is old enough": {
    sql: `WITH gone AS (DELETE FROM audit.entries WHERE seq < 4 AND ${ofVictim} RETURNING *)
      ${anchorOf(3, { at: oldEnough })}`,
    found: [{ kind: "changed", from: 3, to: 3 }],
  },
  "a chain that was removed, with an anchor under a key that nobody has in its place": {
    sql: `WITH gone AS (DELETE FROM audit.entries WHERE ${ofVictim} RETURNING *)
      ${anchorOf(7, { at: oldEnough, mac: "'gone.' || split_part(mac, '.', 2)" })}`,
    found: [
      { kind: "changed", from: 7, to: 7 },
      { kind: "chain_missing", from: 1, to: 7 },
    ],
  },
  "a chain that was removed, with such an anchor behind its end": {
    sql: `WITH gone AS (DELETE FROM audit.entries WHERE ${ofVictim} RETURNING *)
      ${anchorOf(7, { at: oldEnough, seq: "seq + 1", mac: "'gone.mac'" })}`,
    found: [
      { kind: "changed", from: 8, to: 8 },
      { kind: "chain_missing", from: 1, to: 7 },
    ],
  },
  "a first part that was cut off, with such an anchor": {
    sql: `WITH gone AS (DELETE FROM audit.entries WHERE seq < 4 AND ${ofVictim} RETURNING *)
      ${anchorOf(3, { at: oldEnough, mac: "'gone.mac'" })}`,
    found: [
      { kind: "unproven", from: 3, to: 3 },
      { kind: "changed", from: 3, to: 3 },
    ],
  },
  "a tail that was cut off": {
    sql: `DELETE FROM audit.entries WHERE seq > 5 AND ${ofVictim}`,
    found: [{ kind: "tail_missing", from: 6, to: 7 }],
  },
  "a whole chain that was dropped": {
    sql: `DELETE FROM audit.entries WHERE ${ofVictim}`,
    found: [{ kind: "chain_missing", from: 1, to: 7 }],
  },
};

const faultsOf = ({ faults }: AuditReport, { id }: Process) =>
  faults.filter(({ process }) => process === id).map(({ kind, from, to }) => ({ kind, from, to }));

export function auditProofs(stage: () => AuditStage): void {
  let audit: AuditStage;
  beforeAll(() => void (audit = stage()));
  /** A chain of seven rows, whose process has ended in order, and one that runs. */
  const twoChains = async (): Promise<{ victim: Process; witness: Process; heads: Head[] }> => {
    const victim = await audit.start();
    for (let row = 2; row <= 6; row++) await audit.write(victim, "keys.create", { detail: { row } });
    await audit.stop(victim);
    const witness = await audit.start();
    return { victim, witness, heads: victim.heads };
  };

  describe("of one chain,", () => {
    let scene: Awaited<ReturnType<typeof twoChains>>;
    let rows: ChainedEntry[];
    beforeAll(async () => {
      await audit.empty();
      scene = await twoChains();
      const { victim, witness } = scene;
      const chains = await Promise.all(
        [victim, witness].map(({ id }) => audit.store.chain(id, { from: 0, limit: 10 })),
      );
      rows = chains.flat();
    });
    /** Every attack finds the same chains. */
    beforeEach(async () => {
      await audit.sql("TRUNCATE audit.entries, audit.anchors");
      await audit.store.write(scene.witness.id, async (transaction) => await transaction.insert(rows));
    });

    it.each(Object.entries(attacks))("%s is found, and named", async (_name, { sql, found }) => {
      const { victim, witness, heads } = scene;
      expect(await witness.audit.verify(heads)).toMatchObject({
        ok: true,
        chains: 2,
        rows: 8,
        faults: [],
        openEnds: [],
      });
      expect(await audit.sql(sql, victim.id)).toBeGreaterThan(0);
      const report = await witness.audit.verify(heads);
      expect([report.ok, faultsOf(report, victim)]).toEqual([false, found]);
      expect(faultsOf(report, witness)).toEqual([]);
    });
  });

  describe("of several chains,", () => {
    beforeEach(async () => await audit.empty());

    it("a dropped chain and a cut tail are found without the log, too, since the next process has named its end", async () => {
      const { victim, witness } = await twoChains();
      await audit.sql("DELETE FROM audit.entries WHERE seq = 7 AND process = $1::uuid", victim.id);
      const cut = await witness.audit.verify([]);
      expect(faultsOf(cut, victim)).toEqual([{ kind: "tail_missing", from: 7, to: 7 }]);
      await audit.sql("DELETE FROM audit.entries WHERE process = $1::uuid", victim.id);
      expect(faultsOf(await witness.audit.verify([]), victim)).toEqual([{ kind: "chain_missing", from: 1, to: 7 }]);
    });

    it("and of a chain that no other one has named at its start, since a checkpoint names it", async () => {
      const rotating = await audit.start();
      const named = await audit.start();
      await audit.write(named, "keys.create");
      await audit.stop(named);
      expect(await rotating.audit.checkpoint()).toMatchObject({ ok: true });
      await audit.sql("DELETE FROM audit.entries WHERE seq = 3 AND process = $1::uuid", named.id);
      expect(faultsOf(await rotating.audit.verify([]), named)).toEqual([{ kind: "tail_missing", from: 3, to: 3 }]);
      await audit.sql("DELETE FROM audit.entries WHERE process = $1::uuid", named.id);
      expect(faultsOf(await rotating.audit.verify([]), named)).toEqual([{ kind: "chain_missing", from: 1, to: 3 }]);
    });

    it("a tail that was cut off a chain that nobody has named is told as an open end; with the head in the log it is found", async () => {
      const { witness } = await twoChains();
      const alone = await audit.start();
      for (let row = 2; row <= 4; row++) await audit.write(alone, "keys.create");
      const running = await witness.audit.verify([]);
      expect(running.openEnds.map(({ process }) => process)).toEqual([alone.id]); // it is not among the replicas
      await audit.stop(alone);
      await audit.sql("DELETE FROM audit.entries WHERE seq > 3 AND process = $1::uuid", alone.id);
      expect(await witness.audit.verify([])).toMatchObject({ ok: true, openEnds: [{ process: alone.id, seq: 3 }] });
      const report = await witness.audit.verify(alone.heads);
      expect(faultsOf(report, alone)).toEqual([{ kind: "tail_missing", from: 4, to: 5 }]);
    });

    it("the chain of a replica that runs is no open end", async () => {
      const { witness } = await twoChains();
      const running = await audit.start();
      await audit.sql(
        "INSERT INTO replicas (id, name, heard_at, seen_at) VALUES ($1::uuid, 'other', now(), now())",
        running.replica,
      );
      expect((await witness.audit.verify([])).openEnds).toEqual([]);
      await audit.sql("UPDATE replicas SET seen_at = now() - interval '2 minutes'");
      expect((await witness.audit.verify([])).openEnds.map(({ process }) => process)).toEqual([running.id]);
      await audit.sql("DELETE FROM replicas");
    });

    it.each([
      ["under a key of the same name", "k1", "changed"],
      ["under a key of another name", "k2", "unproven"],
    ] as const)("a whole chain that the database's owner has written anew %s is found", async (_name, key, kind) => {
      const { victim, witness, heads } = await twoChains();
      const rows = await audit.store.chain(victim.id, { from: 0, limit: 100 });
      await audit.sql("DELETE FROM audit.entries WHERE process = $1::uuid", victim.id);
      const forged = chainTo(
        emptyChain(victim.id),
        rows.filter(({ seq }) => seq !== 4),
        createKeyring([keyOf(key)]),
      );
      await audit.store.write(victim.id, async (transaction) => await transaction.insert(forged));
      const report = await witness.audit.verify([]);
      expect(faultsOf(report, victim)[0]).toEqual({ kind, from: 1, to: kind === "changed" ? 1 : 6 });
      expect(faultsOf(await witness.audit.verify(heads), victim)).toContainEqual({
        kind: "tail_missing",
        from: 7,
        to: 7,
      });
    });

    it("rows whose key is gone are proven up to the checkpoint, also through a second one; without it, and where they were changed, they are not", async () => {
      const [second, third] = [keyOf("k2"), keyOf("k3")];
      const old = await audit.start();
      for (let row = 2; row <= 3; row++) await audit.write(old, "keys.create");
      await audit.stop(old);
      const rotating = await audit.start({ keyring: createKeyring([second, audit.key]) });
      const without = await audit.start({ keyring: createKeyring([second]) });
      expect(faultsOf(await without.audit.verify([]), old)).toEqual([{ kind: "unproven", from: 1, to: 4 }]);
      expect(await rotating.audit.checkpoint()).toMatchObject({ ok: true });
      expect(await without.audit.verify(old.heads)).toMatchObject({ ok: true, faults: [] });
      const again = await audit.start({ keyring: createKeyring([third, second]) });
      expect(await again.audit.checkpoint()).toMatchObject({ ok: true });
      for (const process of [rotating, without, again]) await audit.stop(process);
      // What was written under the second key after the second checkpoint is not proven by it.
      const last = await audit.start({ keyring: createKeyring([third]) });
      expect(faultsOf(await last.audit.verify([]), old)).toEqual([]);
      expect(faultsOf(await last.audit.verify([]), without)).toEqual([{ kind: "unproven", from: 2, to: 2 }]);
      await audit.sql(`UPDATE audit.entries SET actor_id = 'mallory' WHERE seq = 2 AND process = $1::uuid`, old.id);
      expect(faultsOf(await last.audit.verify([]), old)).toContainEqual({ kind: "changed", from: 2, to: 2 });
    });

    it("nobody makes the anchor of a chain older than it is, also when the key of its rows is gone", async () => {
      const { victim } = await twoChains();
      const second = keyOf("k2");
      const rotating = await audit.start({ keyring: createKeyring([second, audit.key]) });
      expect(await rotating.audit.checkpoint()).toMatchObject({ ok: true, keysBehindFaults: [] });
      const last = await audit.start({ keyring: createKeyring([second]) });
      expect(await last.audit.verify(victim.heads)).toMatchObject({ ok: true });
      await audit.sql(
        `WITH gone AS (DELETE FROM audit.entries WHERE seq < 4 AND ${ofVictim} RETURNING *)
          ${anchorOf(3, { at: oldEnough, mac: "'k1.x'" })}`,
        victim.id,
      );
      expect(faultsOf(await last.audit.verify([]), victim)).toEqual([{ kind: "changed", from: 3, to: 3 }]);
    });

    it("a checkpoint says which keys rows behind a fault need, since it proves none of these", async () => {
      const { victim } = await twoChains();
      await audit.sql(`DELETE FROM audit.entries WHERE seq = 4 AND ${ofVictim}`, victim.id);
      const rotating = await audit.start({ keyring: createKeyring([keyOf("k2"), audit.key]) });
      expect(await rotating.audit.checkpoint()).toMatchObject({
        ok: false,
        keysBehindFaults: [{ keyId: "k1", process: victim.id }],
      });
    });

    it("a checkpoint proves nothing of a chain from its first fault on", async () => {
      const { victim } = await twoChains();
      await audit.sql("UPDATE audit.entries SET actor_id = 'mallory' WHERE seq = 4 AND process = $1::uuid", victim.id);
      const second = keyOf("k2");
      const rotating = await audit.start({ keyring: createKeyring([second, audit.key]) });
      expect(await rotating.audit.checkpoint()).toMatchObject({ ok: false });
      const last = await audit.start({ keyring: createKeyring([second]) });
      expect(faultsOf(await last.audit.verify([]), victim)).toEqual([
        { kind: "changed", from: 4, to: 4 },
        { kind: "unproven", from: 4, to: 7 },
      ]);
    });

    it.each(["4611686018427387904", "9223372036854775807", "-9223372036854775808"])(
      "more rows than a batch that were inserted under the number %s are found",
      async (seq) => {
        const { victim, witness } = await twoChains();
        await audit.sql(
          `INSERT INTO audit.entries SELECT at, ${seq}, process, actor_kind, 'mallory', actor_name, action, target_kind, target_name, address,
            result, detail, hash, mac FROM audit.entries, generate_series(1, 1001) WHERE seq = 7 AND process = $1::uuid`,
          victim.id,
        );
        const report = await witness.audit.verify([]);
        expect([report.ok, faultsOf(report, victim)[0]?.kind]).toEqual([
          false,
          seq.startsWith("-") ? "repeated" : "missing",
        ]);
      },
    );

    it("a checkpoint does not prove rows that nothing has proven before it", async () => {
      const { victim } = await twoChains();
      const seven = (await audit.store.chain(victim.id, { from: 7, limit: 1 }))[0] as ChainedEntry;
      const end = { process: victim.id, seq: 7, hash: seven.hash, mac: seven.mac };
      const forged = chainTo(end, [{ ...seven, action: "keys.create" }], createKeyring([keyOf("gone")]));
      await audit.store.write(victim.id, async (transaction) => await transaction.insert(forged));
      const second = keyOf("k2");
      const rotating = await audit.start({ keyring: createKeyring([second, audit.key]) });
      expect(await rotating.audit.checkpoint()).toMatchObject({ ok: false });
      const last = await audit.start({ keyring: createKeyring([second]) });
      expect(faultsOf(await last.audit.verify([]), victim)).toEqual([{ kind: "unproven", from: 8, to: 8 }]);
    });

    it("says whether the database itself refuses the broker to change entries", async () => {
      const process = await audit.start();
      expect((await process.audit.verify([])).appendOnly).toBe(audit.hasRoles);
    });

    it("verifies chains longer than one batch, and tells how far it is", async () => {
      const process = await audit.start();
      const contents = Array.from({ length: 2600 }, (_row, row) => ({
        at: new Date(1_790_000_000_000 + row),
        actorKind: "key",
        actorId: "k",
        actorName: "n",
        action: "keys.create",
        targetKind: null,
        targetName: null,
        address: null,
        result: "ok",
        detail: null,
      }));
      const long = "11111111-1111-4111-8111-111111111111";
      await audit.store.write(long, async (transaction) => {
        await transaction.insert(chainTo(emptyChain(long), contents, audit.keyring));
      });
      const progress: number[] = [];
      const report = await process.audit.verify([], { onProgress: (rows) => void progress.push(rows) });
      expect(report).toMatchObject({ ok: true, chains: 2, rows: 2601 });
      expect(progress.length).toBeGreaterThan(2);
      await audit.sql("DELETE FROM audit.entries WHERE seq IN (1000, 2001) AND process = $1::uuid", long);
      const { faults } = await process.audit.verify([]);
      expect(faults.map(({ kind, from, to }) => [kind, from, to])).toEqual([
        ["missing", 1000, 1000],
        ["missing", 2001, 2001],
      ]);
    });
  });
}
