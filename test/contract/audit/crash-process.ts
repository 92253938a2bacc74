import { randomUUID } from "node:crypto";
import { writeSync } from "node:fs";
import { setImmediate } from "node:timers/promises";
import { createAudit } from "../../../src/audit/audit.ts";
import { systemClock } from "../../../src/clock.ts";
import { createAuditStore } from "../../../src/store/audit.ts";
import { deafHealth, openPostgres } from "../../../src/store/database.ts";
import { createKeyring, keyIdOfProof } from "../../../src/vault/keyring.ts";

/** Reads and changes as fast as it can until it is killed, and says what it knows to be durable, each on a line. */
const [databaseUrl = "", migrationUrl = "", folder = "", key = "", round = ""] = process.argv.slice(2);
const say = (...words: (string | number)[]): void => {
  const line = Buffer.from(`${words.join(" ")}\n`);
  for (let from = 0; from < line.length;) {
    try {
      from += writeSync(1, line, from);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EAGAIN") throw error; // the pipe is full
    }
  }
};
const caller = { kind: "key", id: "k", name: "n" } as const;
let counted = 0;

const inner = createAuditStore(await openPostgres(databaseUrl, deafHealth, { migrationUrl }));
const audit = createAudit({
  store: {
    ...inner,
    async write(id, work) {
      let taken = 0;
      const result = await inner.write(id, async (transaction) => {
        return await work({
          ...transaction,
          async insertCounts(flush, counts) {
            taken = counts.flatMap((each) => each.counts).reduce((sum, count) => sum + count, 0);
            await transaction.insertCounts(flush, counts);
          },
        });
      });
      if (taken > 0) say("flushed", taken);
      return result;
    },
  },
  folder,
  keyring: createKeyring([{ id: "k1", key: Buffer.from(key, "base64") }]),
  keyIdOf: keyIdOfProof,
  self: { replica: randomUUID(), name: "crash", version: "1.0.0" },
  process: randomUUID(),
  retentionDays: 400,
  clock: systemClock,
  onHead() {},
  onTrouble: (error) => say("trouble", String(error)),
  onWell() {},
  onDiskTrouble: (error) => say("trouble", String(error)),
  onDiskWell() {},
  onRejected: ({ lines }) => say("trouble", lines),
});
await audit.start();

for (let lane = 0; lane < 4; lane++) void change(lane);
for (;;) {
  for (let read = 0; read < 200; read++) {
    counted += 1;
    audit.countRead({ actor: caller, connection: `c${read % 50}`, result: "ok" });
  }
  say("counted", counted);
  await setImmediate();
}

async function change(lane: number): Promise<void> {
  for (let number = 0; ; number++) {
    const mark = `${round}-${lane}-${number}`;
    const entry = { actor: caller, action: "keys.create", target: null, address: null, detail: { mark } } as const;
    const begun = await audit.begin(entry);
    say("begun", mark);
    await setImmediate();
    await audit.end(begun, { result: "ok" });
    say("ended", mark);
  }
}
