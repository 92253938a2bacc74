import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test, describe } from "vitest";
import { backingOf } from "../../scripts/docs/facts.ts";
import { readingOf } from "../../src/providers/dead-grant.ts";
import type { StatedAnswer } from "../../src/providers/definition.ts";
import { processTokenResponse } from "../../src/providers/token-response.ts";
import { builtinIds, genericIds, onlyWith } from "./support/catalog.ts";
import { readTranscripts } from "./support/transcript.ts";

const ids = builtinIds().filter((id) => !genericIds.includes(id));
const refreshing = ids.filter((id) => Object.keys(onlyWith(id).refreshes).length > 0);
const stating = refreshing.filter((id) => (onlyWith(id).refresh.deadGrant ?? []).length > 0);
const transcripts = readTranscripts();

/** Answers that no definition lists: each says that something is wrong, and none that the grant is over. */
const unlisted: StatedAnswer[] = [
  { status: 400, body: { error: "invalid_request", error_description: "A parameter is missing." } },
  { status: 400, body: { error: "unsupported_grant_type" } },
  { status: 400, body: { error: "never_heard_of" } },
  { status: 400, body: { message: "Something went wrong." } },
  { status: 400, body: "<html>Bad Request</html>" },
  { status: 401, body: "Unauthorized" },
  { status: 403, body: "<html>Forbidden</html>" },
  { status: 404, body: "<html>Not Found</html>" },
  { status: 429, body: { error: "invalid_grant" } },
];

describe("which answer ends a grant", () => {
  test("each definition that may hold a refresh token says so, and how well that is known", () => {
    const silent = refreshing.filter((id) => onlyWith(id).refresh.deadGrant === null);
    expect(silent).toEqual([]);
    const bare = refreshing.filter((id) => backingOf(onlyWith(id).file, "refresh.dead_grant").fact === null);
    expect(bare).toEqual([]);
  });

  test("the table has a row for each of the definitions", () => {
    const table = readFileSync(join(import.meta.dirname, "../../docs/providers/dead-grants.md"), "utf8");
    expect(ids.filter((id) => !table.includes(`](${id}.md)`))).toEqual([]);
    expect(table.split("\n").filter((line) => line.startsWith("| [")).length).toBe(ids.length);
  });

  test.each(stating)("%s: what it states ends the grant, and its transcript plays it", (id) => {
    const definition = onlyWith(id);
    const stated = definition.refresh.deadGrant ?? [];
    expect(stated.map((answer) => readingOf(definition, answer))).toEqual(stated.map(() => "refused_for_good"));
    const played = endsIn(id);
    expect(stated.filter((answer) => !played.some((each) => holds(each, answer)))).toEqual([]);
  });

  test.each(refreshing)("%s: no other answer ends the grant, and one that nobody understands is counted", (id) => {
    const definition = onlyWith(id);
    expect(unlisted.filter((answer) => readingOf(definition, answer) === "refused_for_good")).toEqual([]);
    const body = Buffer.from('{"error":"never_heard_of"}');
    const answer = { status: 400, headers: { "content-type": "application/json" }, body };
    const read = processTokenResponse({ definition, response: answer, secrets: [] });
    expect(read).toMatchObject({ failure: { class: "refused_for_now", isUnexplained: true } });
  });
});

/** The refreshes of a provider's transcripts that end the grant. */
function endsIn(id: string): { status: number; body: string }[] {
  const steps = transcripts.filter(({ provider }) => provider === id).flatMap((transcript) => transcript.steps);
  return steps.flatMap(({ refresh, reads }) => {
    if (refresh === undefined || reads?.refused !== "needs_reauthorization") return [];
    const [head = "", body = ""] = refresh.answer.split(/\r?\n\r?\n/);
    return [{ status: Number(head.split(" ")[1]), body: body.trim() }];
  });
}

/** Whether an answer is the one that is stated: the provider may say more beside it. */
function holds(played: { status: number; body: string }, { status, body }: StatedAnswer): boolean {
  if (played.status !== status) return false;
  if (typeof body === "string") return played.body.includes(body);
  try {
    return expect.objectContaining(body).asymmetricMatch(JSON.parse(played.body));
  } catch {
    return false;
  }
}
