import { expect, test } from "vitest";
import { openLoopback } from "../../../src/cli/try/authorize.ts";
import { hangMs } from "../../support/patience.ts";

test.each([true, false])(
  "an answer that is posted is taken where the definition asks for it (%s)",
  async (takesPost) => {
    const loopback = await openLoopback({ port: 0, id: "own", takesPost });
    const came = loopback.wait({ state: "s", timeoutMs: hangMs });
    const post = async (fields: Record<string, string>) =>
      (await fetch(loopback.redirectUri, { method: "POST", body: new URLSearchParams(fields) })).status;
    const statuses = [
      await post({ state: "another", code: "c" }),
      await post({ state: "s", code: "x".repeat(17_000) }),
      await post({ state: "s", code: "c" }),
    ];
    expect(statuses).toEqual(takesPost ? [400, 413, 200] : [404, 404, 404]);
    if (!takesPost) expect((await fetch(`${loopback.redirectUri}?state=s&code=c`)).status).toBe(200);
    expect(await came).toEqual({ state: "s", code: "c" });
    loopback.close();
  },
);
