import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { headIn } from "../../../src/cli/commands/audit.ts";
import { temporaryFolder } from "../../support/services/guardian.ts";
import { run } from "./run.ts";
import { problem, startStubBroker } from "./stub-broker.ts";

const entry = (more: object) => ({
  id: "p1:2",
  at: "2027-01-31T12:00:00.000Z",
  actor: { kind: "key", id: "4kZt", name: "orders" },
  action: "connections.delete",
  target: { kind: "connection", name: "acme" },
  address: "10.0.0.7",
  result: "ok",
  detail: {},
  ...more,
});
const report = (more: object = {}) => ({
  report: { ok: true, chains: 2, rows: 9, faults: [], open_ends: [], append_only: true, ...more },
});
const lines = (...documents: object[]) => documents.map((each) => `${JSON.stringify(each)}\n`).join("");
const line = (process: string, seq: number) =>
  JSON.stringify({ level: "info", audit_head: { process, seq, mac: `k1.${process}-${seq}` }, msg: "the newest entry" });

const page = (count: number, next: string | null) => ({
  body: { items: Array.from({ length: count }, () => entry({})), next_cursor: next },
});
const fault = (process: string) => ({ kind: "tail_missing", process, from: 1, to: 2 });
/** Where the broker answers with these lines; `asked`: how often it was asked. */
const verify = async (raw: string, ...args: string[]) => {
  await using broker = await startStubBroker({ "GET /audit/verify": { raw } });
  const result = await run(["audit", "verify", ...args], { env: { FRESHET_URL: broker.url } });
  return { ...result, asked: broker.requests.length };
};

async function fileOf(...text: string[]): Promise<string> {
  const path = join((await temporaryFolder("cli")).path, "broker.log");
  await writeFile(path, text.join("\n"));
  return path;
}

describe("freshet audit list", () => {
  const system = entry({
    actor: { kind: "system", id: null, name: null },
    target: null,
    address: null,
    action: "system.start",
  });

  test("shows who did what, to what, from where and with which result, a line for each entry", async () => {
    const items = [entry({ detail: { fields: ["labels"] } }), system];
    await using broker = await startStubBroker({ "GET /audit": { body: { items, next_cursor: null } } });
    const { out, exitCode } = await run(["audit", "list"], { env: { FRESHET_URL: broker.url } });
    const [heading, first, second] = out.split("\n");
    expect([exitCode, heading?.split(/\s{2,}/)]).toEqual([
      0,
      ["AT", "WHO", "ACTION", "TARGET", "RESULT", "FROM", "DETAIL"],
    ]);
    expect(first).toMatch(/key orders \(4kZt\) +connections\.delete +connection acme +ok +10\.0\.0\.7 +fields=labels$/);
    expect(second).toMatch(/ system +system\.start +- +ok +- +-$/);
  });

  test("asks with all filters, page by page, and for no more than the limit", async () => {
    await using broker = await startStubBroker({ "GET /audit": [page(200, "c1"), page(50, "c2")] });
    const args = ["--since", "2027-01-01T00:00:00Z", "--until", "2027-02-01T00:00:00Z", "--actor", "admin"];
    const more = ["--connection", "acme", "--type", "connections.delete", "--limit", "250", "--json"];
    const { out } = await run(["audit", "list", ...args, ...more], { env: { FRESHET_URL: broker.url } });
    const given = { since: args[1], until: args[3], actor: "admin", connection: "acme", type: "connections.delete" };
    expect(broker.requests.map(({ query }) => query)).toEqual([
      { ...given, limit: "200" },
      { ...given, limit: "50", cursor: "c1" },
    ]);
    expect(JSON.parse(out)).toMatchObject({ items: { length: 250 }, next_cursor: "c2" });
  });
});

describe("freshet audit export", () => {
  test("passes every line on as it came", async () => {
    const raw = lines(entry({}), entry({ id: "p1:3" }));
    await using broker = await startStubBroker({ "GET /audit/export": { raw } });
    const { out, exitCode } = await run(["audit", "export", "--type", "keys.create"], {
      env: { FRESHET_URL: broker.url },
    });
    expect([exitCode, out]).toEqual([0, raw]);
    expect(broker.requests[0]?.query).toEqual({ type: "keys.create" });
  });

  test("says the broker's own reason where it refuses", async () => {
    await using broker = await startStubBroker({
      "GET /audit/export": problem(403, "forbidden", "Not with this key."),
    });
    const result = await run(["audit", "export"], { env: { FRESHET_URL: broker.url } });
    expect(result).toEqual({ exitCode: 1, out: "", err: "freshet: Not with this key. (forbidden)\n" });
  });
});

describe("freshet audit verify", () => {
  test("ends well where nothing is wrong, and tells on stderr how far it is", async () => {
    const raw = lines({ rows: 4 }, { rows: 5 }, { rows: 9 }, report());
    expect(await verify(raw)).toEqual({
      exitCode: 0,
      out: "Nothing is wrong. Entries: 9; processes: 2.\n",
      err: "4 entries so far …\n9 entries so far …\n",
      asked: 1,
    });
  });

  test("shows first what is wrong, then open ends, and fails", async () => {
    const faults = [{ kind: "missing", process: "p1", from: 3, to: 4 }];
    const open_ends = [{ process: "p2", seq: 7, at: "2027-01-31T12:00:00.000Z" }];
    const { exitCode, out, err } = await verify(lines(report({ ok: false, faults, open_ends, append_only: false })));
    expect(exitCode).toBe(1);
    expect(out.split("\n").map((each) => each.replaceAll(/ {2,}/g, " "))).toEqual([
      "FAULT PROCESS FROM TO",
      "missing p1 3 4",
      "OPEN END OF LAST AT",
      "p2 7 2027-01-31T12:00:00.000Z",
      "Something is wrong. Entries: 9; processes: 2.",
      "",
    ]);
    expect(err).toMatch(/--heads FILE[^]*own role can change entries[^]*not whole: 1 fault.*\(audit_faulty\)\n$/);
  });

  test("with --json answers with the whole report, and fails as well", async () => {
    const faults = [{ kind: "changed", process: "p1", from: 3, to: 3 }];
    const { exitCode, out } = await verify(lines(report({ ok: false, faults })), "--json");
    expect([exitCode, JSON.parse(out)]).toEqual([
      1,
      { ok: false, chains: 2, rows: 9, faults, open_ends: [], append_only: true, heads: 0 },
    ]);
  });

  test("names the newest head of each process in one question; only of more than 5,000 processes it asks in parts, and joins what they have found", async () => {
    const processes = Array.from(
      { length: 5250 },
      (_, index) => `0190f6a0-0000-4000-8000-${`${index}`.padStart(12, "0")}`,
    );
    const [first = "", second = ""] = processes;
    // What no broker can have written would make the broker refuse the question.
    const foreign = [line("p0", 9), line(`${first},`, 9), line(first, 9.5), line(first, 1e15), line(second, -1)];
    const log = ["not JSON", ...foreign, ...processes.map((each) => line(each, 2)), line(first, 5), line(first, 4)];
    await using broker = await startStubBroker({
      "POST /audit/verify": [
        { raw: lines(report({ ok: false, faults: [fault("p1"), fault("all")] })) },
        { raw: lines(report({ ok: false, faults: [fault("all")] })) },
      ],
    });
    const given = ["audit", "verify", "--json", "--heads", await fileOf(...log)];
    const { exitCode, out } = await run(given, { env: { FRESHET_URL: broker.url } });
    const asked = broker.requests.map(({ body }) => (body as { heads: string[] }).heads);
    expect(asked.map(({ length }) => length)).toEqual([5000, 250]);
    expect(asked[0]?.slice(0, 2)).toEqual([`${first}:5:k1.${first}-5`, `${second}:2:k1.${second}-2`]);
    expect([exitCode, JSON.parse(out)]).toMatchObject([1, { faults: [fault("p1"), fault("all")], heads: 5250 }]);
  });

  test("fails where the broker gives up, breaks off, or the file is no log", async () => {
    const gaveUp = await verify(
      lines({ rows: 4 }, { problem: { detail: "Postgres is away.", code: "storage_unavailable" } }),
    );
    expect([gaveUp.exitCode, gaveUp.err]).toEqual([
      1,
      expect.stringMatching(/Postgres is away\. \(storage_unavailable\)\n$/),
    ]);
    expect(await verify(lines({ rows: 4 }))).toMatchObject({
      exitCode: 1,
      err: expect.stringContaining("incomplete") as string,
    });
    const empty = await verify("", "--heads", await fileOf("{}", "nothing"));
    expect([empty.exitCode, empty.asked, empty.err]).toEqual([2, 0, expect.stringMatching(/no line with audit_head/)]);
    const { path } = await temporaryFolder("cli");
    for (const file of [path, join(path, "none")]) {
      expect(await verify("", "--heads", file)).toMatchObject({ exitCode: 2, asked: 0 });
    }
  });
});

describe("a head in a line of a log", () => {
  const head = { process: "p1", seq: 42, mac: "k1.abc_-" };
  const own = JSON.stringify({ level: "info", time: "…", audit_head: head, msg: "the newest entry" });

  test.each([
    ["as the broker writes it", own],
    ["behind the prefix of docker compose logs", `broker-2  | ${own}`],
    ["behind a prefix that has a brace", `{broker="2"} 2027-01-31 ${own}`],
    ["with something after it", `${own} (stdout)\r`],
    ["as a text inside of other JSON", JSON.stringify({ log: `${own}\n`, stream: "stdout" })],
    ["twice inside", JSON.stringify({ outer: { message: JSON.stringify({ log: own }) } })],
    ["as a terminal shows it", `the newest entry audit_head=${JSON.stringify(head)}`],
  ])("is found %s", (_case, text) => {
    expect(headIn(text)).toEqual(head);
  });

  test.each([
    ["another line", JSON.stringify({ level: "info", msg: "answered" })],
    ["a line that is cut off in it", own.slice(0, own.indexOf("k1."))],
    ["a head of another shape", JSON.stringify({ audit_head: { process: "p1", seq: "42", mac: "m" } })],
  ])("is not found in %s", (_case, text) => {
    expect(headIn(text)).toBeNull();
  });
});
