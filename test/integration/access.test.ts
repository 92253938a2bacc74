import { readFileSync } from "node:fs";
import { afterAll, beforeAll, expect, it } from "vitest";
import { describeWithServices, useDatabase } from "../support/services/index.ts";
import { AccessStage, type Asked, boundKinds, kindsOfKey } from "./support/access-stage.ts";
import { tries } from "./support/access-tries.ts";

/** A line of the table in docs/access.md. */
type Row = { route: string; about: string; cells: string[] };

function readAccessTable(): Row[] {
  const text = readFileSync(new URL("../../docs/access.md", import.meta.url), "utf8");
  const lines = text.split("\n").filter((line) => /^\| `[A-Z]+ \//.test(line));
  return lines.map((line) => {
    const [route = "", about = "", ...cells] = line
      .split("|")
      .slice(1, -1)
      .map((cell) => cell.trim());
    return { route: route.replaceAll("`", ""), about, cells };
  });
}

type Document = { paths: Record<string, Record<string, { responses: Record<string, unknown> }>> };

/** As docs/access.md says it of a key that is bound to labels and has one ability. */
function cellOfBound(cells: readonly string[], kind: (typeof boundKinds)[number]): string {
  const of = (column: (typeof kindsOfKey)[number]) => cells[kindsOfKey.indexOf(column)] ?? "";
  const free = of(kind.replace("bound ", "") as "tokens" | "connections" | "admin");
  return free === "403" ? free : of("bound");
}

const kinds = [...kindsOfKey, ...boundKinds];
const rows = readAccessTable();
const nameOf = ({ route, about }: { route: string; about: string }): string => `${route} | ${about}`;

describeWithServices(["postgres"], "who may do what, as docs/access.md says", () => {
  let stage: AccessStage;
  /** The routes of the OpenAPI document, each with the statuses that it says. */
  let described: Map<string, number[]>;

  beforeAll(async () => {
    stage = await AccessStage.start(await useDatabase());
    const { body } = await stage.api.api<Document>("/openapi.json");
    described = new Map(
      Object.entries(body.paths).flatMap(([path, methods]) =>
        Object.entries(methods).map(([method, { responses }]) => [
          `${method.toUpperCase()} ${path.replaceAll(/\{(\w+)\}/g, ":$1")}`,
          Object.keys(responses).map(Number),
        ]),
      ),
    );
  });

  afterAll(async () => {
    await stage.stop();
  });

  it("every route that is served has a row, those of the OpenAPI document and the browser's alike", async () => {
    const served = new Set(stage.routes);
    expect(described.size).toBeGreaterThan(25);
    expect([...described.keys()].filter((route) => !served.has(route))).toEqual([]);
    expect([...new Set(rows.map(({ route }) => route))].sort()).toEqual([...served].sort());
  });

  it("every row is tried, and everything that is tried has a row", () => {
    expect(rows.map(nameOf)).toEqual(tries.map(nameOf));
    expect(rows.every(({ cells }) => cells.length === kindsOfKey.length)).toBe(true);
  });

  it.for(rows)("$route, $about", async (row) => {
    const tried = tries.find((each) => nameOf(each) === nameOf(row));
    if (tried === undefined) throw new Error("nothing is tried for this row");
    const cells: string[] = [];
    let asked: Asked | null = null;
    const ask = async (bearer: string | undefined): Promise<string> => {
      asked ??= await tried.ask(stage);
      const cell = await stage.ask(asked, bearer);
      // What may have changed it was answered otherwise: then the next one is asked about a new one.
      if (asked.method !== "GET" && !cell.startsWith("4")) asked = null;
      return cell;
    };
    for (const kind of kinds) cells.push(await ask(stage.keys[kind]));
    // Where a bearer counts, a workload gets what its kind of key gets.
    const workloads = row.cells[0] === "401" ? [...stage.workloads] : [];
    for (const [kind, token] of workloads) {
      expect(await ask(token), `a workload: ${kind}`).toBe(cells[kinds.indexOf(kind)]);
    }
    const statuses = cells.flatMap((cell) => (/^\d+/.test(cell) ? [Number.parseInt(cell, 10)] : []));
    // What the document says of a route holds for every key.
    expect(described.get(row.route) ?? statuses).toEqual(expect.arrayContaining(statuses));
    const expected = [...row.cells, ...boundKinds.map((kind) => cellOfBound(row.cells, kind))];
    // A cell may leave out the code; where it names one, that counts too.
    expect(
      cells.map((cell, index) => (expected[index]?.includes(" ") ? cell : cell.replace(/^(\d+) .*/, "$1"))),
    ).toEqual(expected);
  });
});
