import { randomUUID } from "node:crypto";
import { beforeEach, describe, expect, it } from "vitest";
import { createReplicas, type Replicas } from "../../../src/store/replicas.ts";
import type { StoreStage } from "./stage.ts";

/** As if it had been silent for so long. */
const age = async (stage: StoreStage, { id, seconds }: { id: string; seconds: number }) =>
  await stage.query(
    "UPDATE replicas SET seen_at = seen_at - make_interval(secs => $2::float8) WHERE id = $1::uuid RETURNING 1 AS done",
    id,
    seconds,
  );

/** Which replicas serve tokens from memory, and which ends they have heard of. */
export function replicas(stage: () => StoreStage): void {
  describe("replicas", () => {
    let all: Replicas;
    const keys = { ids: ["k1"], current: "k1", held: [] };
    const self = { id: randomUUID(), name: "one:8080", keys };
    const other = { id: randomUUID(), name: "other:8080", keys };
    beforeEach(async () => {
      all = createReplicas(stage().database);
      for (const { id } of [self, other]) await all.leave(id, []);
    });

    it("know of each other until they leave, or have been silent", async () => {
      expect((await all.beat({ ...self, heardAt: null })).others).toBe(0);
      await all.beat({ ...other, heardAt: null });
      expect((await all.beat({ ...self, heardAt: null })).others).toBe(1);
      expect((await all.others(self.id, 60)).map(({ id, name }) => ({ id, name, keys }))).toEqual([other]);
      await age(stage(), { id: other.id, seconds: 100 });
      expect((await all.beat({ ...self, heardAt: null })).others).toBe(0);
      expect(await all.others(self.id, 60)).toEqual([]);
      const [silent] = await all.others(self.id, 3600);
      expect(silent?.silentMs).toBeGreaterThanOrEqual(100_000);
      // A process that starts again with the same folder is the same replica.
      await all.beat({ ...other, name: "other:9090", heardAt: null });
      expect((await all.others(self.id, 60)).map(({ name }) => name)).toEqual(["other:9090"]);
      await all.leave(other.id, []);
      expect(await all.others(self.id, 3600)).toEqual([]);
      await all.beat({ ...other, heardAt: null });
      await age(stage(), { id: other.id, seconds: 31 * 86_400 });
      await all.beat({ ...self, heardAt: null });
      expect(await all.others(self.id, 60 * 86_400)).toEqual([]);
    });

    it("have heard of what had ended when they last asked, and not of what ends later", async () => {
      const { now: heardAt } = await all.beat({ ...other, heardAt: null });
      await all.beat({ ...other, heardAt });
      const [before] = await all.others(self.id, 60);
      expect(before?.heardAt).toEqual(heardAt);
      const { id, name } = await stage().connect();
      await stage().connections.delete(id);
      const by = await all.now();
      expect(by.getTime()).toBeGreaterThanOrEqual(heardAt.getTime());
      expect(await all.endedSince(heardAt)).toContainEqual({ kind: "connection", id });
      const ended = await all.endedUnder(name);
      expect(ended?.id).toBe(id);
      // For a connection that ended long ago, it is enough that a replica has heard of all ends up to then.
      expect(ended?.by.getTime()).toBeLessThanOrEqual((await all.now()).getTime());
      await stage().query(
        "UPDATE tombstones SET deleted_at = deleted_at - interval '1 hour' WHERE name = $1 RETURNING 1 AS done",
        name,
      );
      expect((await all.endedUnder(name))?.by.getTime()).toBeLessThan(heardAt.getTime());
      expect(await all.endedUnder("never used")).toBeNull();
    });

    it("hear of revoked keys, too", async () => {
      const heardAt = await all.now();
      const id = randomUUID().slice(0, 12);
      const bounds = { abilities: [], connections: ["*"], labels: {}, expiresAt: null };
      const key = { id, name: "n", secretHash: new Uint8Array(32), ...bounds };
      await stage().keys.insert(key, null);
      expect(await all.endedSince(heardAt)).not.toContainEqual({ kind: "key", id });
      await stage().keys.revoke(id, { patterns: ["%"], labels: {} });
      expect(await all.endedSince(heardAt)).toContainEqual({ kind: "key", id });
    });
  });
}
