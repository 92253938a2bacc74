import { Client } from "pg";
import { until } from "../../support/patience.ts";
import { answerBytes, bodyOf, CuttingProvider } from "../cutting-server.ts";
import { openGround } from "../fleets.ts";
import type { Row } from "../row.ts";
import { connectMany, readUntilServed } from "../tools.ts";

/** A replay does no harm, so that a lost answer is recovered after lease and quiet period. */
const switches = { reuse: "grace", graceSeconds: 600 } as const;

export const row: Row = {
  number: 35,
  title: "one row locked by somebody else, another connection's answer cut",
  promised: "recovers while the row is locked, as it does without the lock",
  alone: true,
  plays: { how: "in turn", provider: ({ id }) => new CuttingProvider({ id, switches }) },
  onlyFull:
    "its figure is a time, and it waits out two permits; test/contract/locked-row.test.ts proves the statements",
  async run(given) {
    await using ground = await openGround(given, row, { replicas: 1 });
    const { stage, databaseUrl } = ground;
    const provider = stage.provider as CuttingProvider;
    const [locked, healthy, beside] = await connectMany(stage, 3);
    if (locked === undefined || healthy === undefined || beside === undefined) throw new Error("no connections");
    const recoverySeconds = async ({ name, refreshToken }: typeof healthy) => {
      const bytes = Math.floor(answerBytes(bodyOf(provider.issueTokenSet()), "length").length / 2);
      provider.cuts.set(refreshToken, { framing: "length", bytes });
      const [ms = 0] = await readUntilServed(stage.first, [name]);
      return Math.round(ms / 1000);
    };
    const without = await recoverySeconds(healthy);
    given.log(`recovered in ${without} s without a lock`);

    const other = new Client({ connectionString: databaseUrl });
    await other.connect();
    await other.query("BEGIN");
    await other.query("SELECT 1 FROM connections WHERE name = $1 FOR UPDATE", [locked.name]);
    const reading = { isOn: true, refused: 0 };
    const readLocked = (async () => {
      while (reading.isOn) if ((await stage.first.api.token(locked.name)).status !== 200) reading.refused += 1;
    })();
    await until("the locked row to be refused once", () => reading.refused > 0);
    const withLock = await recoverySeconds(beside);
    await other.query("ROLLBACK");
    await other.end();
    reading.isOn = false;
    await readLocked;
    await readUntilServed(stage.first, [locked.name]);
    return {
      // The lock is given back only after the other connection has its token: that it comes at all is the promise.
      ok: reading.refused > 0 && provider.ledger.reuses.length === 0,
      figure: `recovered in ${withLock} s with the lock held, ${without} s without; ${reading.refused} reads of the locked row refused meanwhile, served after it`,
    };
  },
};
