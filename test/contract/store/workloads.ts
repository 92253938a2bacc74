import { randomUUID } from "node:crypto";
import { describe, expect, it } from "vitest";
import { createReplicas } from "../../../src/store/replicas.ts";
import { createWorkloads } from "../../../src/store/workloads.ts";
import { nameNewerKey, replicasOf } from "./keys-and-links.ts";
import { newWorkload, type StoreStage } from "./stage.ts";

/** Every statement on workloads, and on those who give rights. */
export function workloads(stage: () => StoreStage): void {
  const insert = async (fields: Parameters<typeof newWorkload>[0] = {}) => {
    const row = await stage().workloads.insert(newWorkload(fields), null);
    if (row === null) throw new Error("the workload was not declared");
    return row;
  };
  const found = async (id: string) => (await stage().workloads.all()).find((row) => row.id === id);
  const change = async (id: string, sets: string) =>
    await stage().query(`UPDATE workloads SET ${sets} WHERE id = $1::uuid RETURNING 1 AS done`, id);

  const give = async (id: string) => {
    const find = async () => await stage().workloads.giver(id);
    const key = { id: randomUUID(), name: "k", abilities: [], connections: ["acme-*"], labels: {}, expiresAt: null };
    return [
      await stage().workloads.insert(newWorkload(), find),
      await stage().keys.insert({ ...key, secretHash: new Uint8Array(32) }, find),
    ].map((row) => row !== null);
  };

  describe("a workload", () => {
    it("is found as it was declared, newest first, until it is deleted", async () => {
      const declared = newWorkload({ expiresAt: new Date("2030-01-01") });
      const row = await stage().workloads.insert(declared, null);
      const later = await insert();
      expect(await found(declared.id)).toEqual(row);
      expect(row).toMatchObject(declared);
      const ids = (await stage().workloads.all()).map(({ id }) => id);
      expect(ids.indexOf(later.id)).toBeLessThan(ids.indexOf(declared.id));
      if (row === null) throw new Error("not declared");
      expect(await stage().workloads.delete(row)).toBe(true);
      expect([await found(declared.id), await stage().workloads.findByName(declared.name)]).toEqual([undefined, null]);
      // Whoever read it before does not delete it twice.
      expect(await stage().workloads.delete(row)).toBe(false);
    });

    it("has a name of its own, which is free again when it is deleted", async () => {
      const first = await insert();
      expect(await stage().workloads.insert(newWorkload({ name: first.name }), null)).toBeNull();
      await stage().workloads.delete(first);
      const second = await stage().workloads.insert(newWorkload({ name: first.name, audience: "other" }), null);
      expect(second).toMatchObject({ name: first.name, audience: "other", deletedAt: null });
      expect(await found(second?.id ?? "")).toEqual(second);
    });

    it("that has ended is told to the other replicas by its id", async () => {
      const row = await insert();
      const since = await createReplicas(stage().database).now();
      await stage().workloads.delete(row);
      const ended = await createReplicas(stage().database).endedSince(since);
      expect(ended).toContainEqual({ kind: "workload", id: row.id });
    });

    it.each([
      "name = 'w-' || gen_random_uuid()",
      "issuer = 'https://evil.example'",
      `jwks = '{"keys":[]}'`,
      "jwks_uri = 'https://evil.example/keys'",
      "ca = 'x'",
      "networks = '{0.0.0.0/0}'",
      "audience = 'others'",
      "algorithms = '{ES256}'",
      `"match" = '{"sub":"*"}'`,
      "abilities = '{tokens,connections,admin}'",
      "connections = '{*}'",
      "labels = '{}'",
      "labels = '[]'",
      "expires_at = now() + interval '1 year'",
      "created_at = now()",
      "mac = NULL",
    ])("is as good as unknown if somebody has changed it: %s", async (sets) => {
      const { id } = await insert();
      await change(id, sets);
      expect(await found(id)).toBeUndefined();
      expect(await stage().workloads.giver(id)).toBeNull();
    });

    it("that was deleted does not come back with its mark alone", async () => {
      const row = await insert();
      await stage().workloads.delete(row);
      await change(row.id, "deleted_at = NULL");
      expect(await found(row.id)).toBeUndefined();
    });

    it("that is proven with an encryption key which this replica lacks is left to the replicas that have it", async () => {
      const { newer, lacking } = replicasOf(stage());
      const [theirs, here] = [createWorkloads(stage().database, newer), createWorkloads(stage().database, lacking)];
      const row = await theirs.insert(newWorkload(), null);
      const id = row?.id ?? "";
      const known = async () => (await here.all()).find((each) => each.id === id);
      await stage().query("DELETE FROM encryption_keys WHERE id = 'newest' RETURNING 1 AS done");
      expect(await known()).toBeUndefined();
      await nameNewerKey(stage());
      expect(await known()).toEqual({ ...row, isSilent: true });
      await expect(here.giver(id)).rejects.toMatchObject({ code: "encryption_key_missing" });
    });
  });

  describe("what a workload gives", () => {
    it("takes effect only while its own row stands", async () => {
      const row = await insert();
      expect(await give(row.id)).toEqual([true, true]);
      await stage().workloads.delete(row);
      expect(await give(row.id)).toEqual([false, false]);
      // Another declaration under its name gives by its own rights.
      const next = await insert({ name: row.name });
      expect([await give(row.id), await give(next.id)]).toEqual([
        [false, false],
        [true, true],
      ]);
      const over = await insert({ expiresAt: new Date("2020-01-01") });
      expect(await give(over.id)).toEqual([false, false]);
    });
  });
}
