import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { faultsOfHeaders } from "../support/answer-headers.ts";
import { type ErrorRow, isSaid, readErrorTable } from "../support/error-table.ts";
import { describeWithServices, useDatabase } from "../support/services/index.ts";
import { type Answer, WrongInputStage } from "../support/wrong-input-stage.ts";
import { sendRandomRequests } from "./random-input.ts";
import { wrongBytes, wrongPages } from "./wrong-pages.ts";
import { type Cases, wrongRequests } from "./wrong-requests.ts";

const documented = readErrorTable();
const cases: Cases = { ...wrongRequests, ...wrongPages, ...wrongBytes };
/** In the order of the cases: the last of them use up limits. */
const rows = Object.keys(cases).flatMap((name) => documented.filter(({ wrong }) => wrong === name));

let stage: WrongInputStage;
let stored: unknown;
/** Cases since the last look at what is stored, which is seven requests. */
const unlooked: string[] = [];

async function expectUnchanged(): Promise<void> {
  expect(await stage.stored(), `what is stored after: ${unlooked.splice(0).join("; ")}`).toEqual(stored);
}

it("every row of docs/errors.md has a case, and every case a row", () => {
  expect(documented.map(({ wrong }) => wrong).toSorted()).toEqual(Object.keys(cases).toSorted());
  expect(rows.length).toBeGreaterThanOrEqual(40);
});

describeWithServices(["postgres"], "wrong input", () => {
  beforeAll(async () => {
    stage = await WrongInputStage.start({ databaseUrl: await useDatabase() });
    stored = await stage.stored();
  });

  afterAll(async () => {
    await stage[Symbol.asyncDispose]();
  });

  describe("is answered as docs/errors.md says, and changes nothing", () => {
    it.for(rows)("$wrong", async (row) => {
      const answer = await cases[row.wrong]?.(stage);
      if (answer === undefined) throw new Error("no such case");
      if (row.code === "page") expectPage(answer, row);
      else expectProblem(answer, row);
      expect(faultsOfHeaders(answer.headers, stage.broker)).toEqual([]);
      expect(answer.text).not.toMatch(/canary-|^\s+at |node_modules/m);
      expect((await stage.send({ path: "/livez", key: null })).status).toBe(200);
      unlooked.push(row.wrong);
      if (unlooked.length === 10) await expectUnchanged();
    });

    it("the last cases, too", expectUnchanged);
  });

  describe("beside the table", () => {
    it("a foreign connection and one that does not exist are answered alike, byte for byte", async () => {
      const { reader, provisioner } = stage.keys;
      for (const [path, key] of [
        ["/tokens/", reader],
        ["/connections/", provisioner],
      ] as const) {
        const [foreign, unknown] = await Promise.all(
          ["foreign", "nowhere"].map(async (name) => await stage.send({ path: path + name, key })),
        );
        expect(nameless(foreign as Answer)).toEqual(nameless(unknown as Answer));
      }
    });

    it("a good key goes on working at an address whose wrong ones are held up", async () => {
      const headers = { "x-forwarded-for": "192.0.2.99" };
      const wrong = Array.from({ length: 12 }, () => stage.send({ path: "/tokens/acme", key: "wrong", headers }));
      const statuses = (await Promise.all(wrong)).map(({ status }) => status);
      expect(statuses.toSorted((one, other) => one - other)).toEqual([...Array<number>(10).fill(401), 429, 429]);
      expect((await stage.send({ path: "/connections", headers })).status).toBe(200);
      const elsewhere = { "x-forwarded-for": "192.0.2.100" };
      expect((await stage.send({ path: "/tokens/acme", key: "wrong", headers: elsewhere })).status).toBe(401);
    });

    it("who began a consent before all this can still finish it", async () => {
      const page = await stage.consents.claimed.finish();
      expect({ status: page.status, text: page.text }).toMatchObject({
        status: 200,
        text: expect.stringContaining("Connected"),
      });
    });

    it("of 2,000 requests that are made up by chance from the OpenAPI document none is answered in another way than it says", async () => {
      const answered = await sendRandomRequests(stage, { runs: 2000 });
      // Made up, but not so that the first check refuses all of them.
      const some = [200, 201, 400, 401, 404, 415].map((status) => [status, expect.any(Number)]);
      expect(answered).toMatchObject(Object.fromEntries(some));
    });

    it("nothing of it was unexpected, and no secret got into the log", async () => {
      const { broker, keys } = stage;
      const written = broker.stdout + broker.stderr;
      const faults = written.split("\n").filter((line) => /"level":"(error|fatal)"|unexpected error/.test(line));
      // The log names the row that somebody has changed, with its connection and its key, at most once a minute.
      expect(faults).not.toEqual([]);
      for (const fault of faults) expect(fault).toMatch(/"connection":"acme-torn".*"keyId":"k1".*does not open/);
      for (const secret of ["canary-", broker.adminKey, ...Object.values(keys)]) expect(written).not.toContain(secret);
      expect(written).toContain('"msg":"answered"');
    });
  });
});

function expectProblem({ status, headers, text }: Answer, row: ErrorRow): void {
  expect(headers["content-type"]).toBe("application/problem+json; charset=utf-8");
  const { detail, ...problem } = JSON.parse(text) as Record<string, unknown> & { detail: string };
  expect(problem).toMatchObject({ type: "about:blank", status: row.status, code: row.code });
  expect(status).toBe(row.status);
  expect(isSaid(row.says, detail), detail).toBe(true);
  if (status === 401) expect(headers["www-authenticate"]).toBe("Bearer");
  if (status === 405) expect(headers["allow"]).toBe("GET, HEAD, PATCH, DELETE");
  if (status === 429) expect(Number(headers["retry-after"])).toBeGreaterThanOrEqual(1);
}

function expectPage({ status, headers, text }: Answer, row: ErrorRow): void {
  expect(status).toBe(row.status);
  expect(headers["content-type"]).toBe("text/html; charset=utf-8");
  expect(text).toContain(row.says.replace(/^“|”$/g, ""));
  expect(text).toContain("What now?");
}

function nameless({ status, headers: { date: _date, ...headers }, text }: Answer) {
  return { status, headers, text: text.replaceAll(/"(foreign|nowhere)"/g, '"name"') };
}
