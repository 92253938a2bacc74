import { hostileAnswers } from "../../integration/support/hostile-answers.ts";
import { HostileStage } from "../../integration/support/hostile-stage.ts";
import type { Row } from "../row.ts";

const megabyte = 1_048_576;
const mostMoreMegabytes = 5;

export const row: Row = {
  number: 34,
  title: "every hostile answer of the tests, twice",
  promised: `0 crashes, less than ${mostMoreMegabytes} MB more held the second time`,
  async run({ log }) {
    await using stage = await HostileStage.start(hostileAnswers);
    const first = await stage.playAll();
    const before = (await stage.heldBytes()) / megabyte;
    log(`${first.length} played, ${before.toFixed(1)} MB held`);
    const second = await stage.playAll();
    const after = (await stage.heldBytes()) / megabyte;
    const broken = [...first, ...second].filter((played) => played instanceof Error);
    return {
      // If the probe gives no figure, the row proves nothing.
      ok: broken.length === 0 && before > 10 && after - before < mostMoreMegabytes,
      figure: `${broken.length} of ${first.length + second.length} without an end, ${before.toFixed(1)} MB held, then ${after.toFixed(1)} MB`,
      notes: broken.map(String),
    };
  },
};
