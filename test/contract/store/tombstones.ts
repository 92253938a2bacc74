import { randomUUID } from "node:crypto";
import { describe, expect, it } from "vitest";
import { sealedGrant, type StoreStage } from "./stage.ts";

async function passHours(stage: StoreStage, id: string, hours: number): Promise<void> {
  await stage.query(
    `UPDATE tombstones SET deleted_at = clock_timestamp() - make_interval(secs => $2::float8) WHERE connection_id = $1::uuid
     RETURNING 1 AS done`,
    id,
    hours * 3600,
  );
}

async function kept(stage: StoreStage, id: string): Promise<unknown> {
  const [found] = await stage.query<{ row: unknown }>(
    "SELECT to_jsonb(t) AS row FROM tombstones t WHERE connection_id = $1::uuid",
    id,
  );
  return found?.row;
}

/** What is left of a deleted connection. */
export function tombstones(stage: () => StoreStage): void {
  describe("a deleted connection", () => {
    it("leaves for a day what is needed to revoke a late answer", async () => {
      const row = await stage().connect({ inputs: { region: "eu" } });
      expect(await stage().tombstones.find(row.id)).toBeNull();
      await stage().set(row.id, `captured = '{"shop":"north"}'`);
      await stage().connections.delete(row.id);
      expect(await stage().tombstones.find(row.id)).toEqual({
        name: row.name,
        provider: "own",
        clientRef: null,
        inputs: { region: "eu" },
        captured: { shop: "north" },
      });
      await passHours(stage(), row.id, 23.9);
      expect(await stage().tombstones.find(row.id)).not.toBeNull();
      await passHours(stage(), row.id, 24.1);
      expect([await stage().tombstones.find(row.id), await stage().tombstones.find(randomUUID())]).toEqual([
        null,
        null,
      ]);
    });

    it("is forgotten after that day but for its last version", async () => {
      const [old, young] = [
        await stage().connect({ inputs: { a: "1" } }),
        await stage().connect({ inputs: { a: "1" } }),
      ];
      for (const { id } of [old, young]) await stage().connections.delete(id);
      await passHours(stage(), old.id, 24.1);
      await stage().rows.tidy();
      expect(await kept(stage(), old.id)).toMatchObject({ inputs: {}, captured: {}, client_ref: null, version: 1 });
      expect(await kept(stage(), young.id)).toMatchObject({ inputs: { a: "1" } });
    });

    it("whose name is used again goes on after every version that was handed out, a restored database's included", async () => {
      const row = await stage().connect();
      await stage().rows.suspendRestored([{ connectionId: row.id, generation: 9, version: 50 }]);
      await stage().connections.delete(row.id);
      const again = await stage().connect({ name: row.name });
      expect(again.version).toBeGreaterThan(50);
    });

    it("whose name is used again goes on after a version that was handed out and never stored", async () => {
      const { row } = await stage().permit();
      // The answer to the second replay is in a spool. A caller got it with a version that is three higher.
      await stage().set(row.id, "attempt_replays = 2");
      await stage().connections.delete(row.id);
      const again = await stage().connect({ name: row.name });
      expect(again.version).toBeGreaterThan(row.version + 3);
    });
  });

  it("old history is let go of, young history stays", async () => {
    const { row, key } = await stage().permit();
    await stage().rows.commitRefresh(key, sealedGrant(), {});
    await stage().query(
      `UPDATE connection_events SET at = clock_timestamp() - interval '91 days'
       WHERE connection_id = $1::uuid AND type <> 'refreshed' RETURNING 1 AS done`,
      row.id,
    );
    await stage().rows.tidy();
    expect(await stage().events(row.id)).toEqual(["refreshed"]);
  });
}
