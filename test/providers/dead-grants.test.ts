import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { backingOf } from "../../scripts/docs/facts.ts";
import type { StatedAnswer } from "../../src/providers/format/definition.ts";
import { readingOf } from "../../src/providers/load/check-definition.ts";
import { processTokenResponse } from "../../src/providers/oauth/token-response.ts";
import { builtinIds, genericIds, onlyWith } from "./support/catalog.ts";
import { readTranscripts } from "./support/transcript.ts";

const ids = builtinIds().filter((id) => !genericIds.includes(id));
const refreshing = ids.filter((id) => Object.keys(onlyWith(id).refreshes).length > 0);
const stating = refreshing.filter((id) => (onlyWith(id).refresh.deadGrant ?? []).length > 0);
const transcripts = readTranscripts();

/** Answers that no definition lists. Each says that something is wrong, and none says that the grant is over. */
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

/** Answers that use the words of a dead grant, and are about the request, the client or the server. */
const aboutOthers: [string, StatedAnswer][] = [
  [
    "atlassian",
    {
      status: 403,
      body: {
        error: "unauthorized_client",
        error_description: "Grant type 'refresh_token' not allowed for the client.",
      },
    },
  ],
  [
    "atlassian",
    { status: 403, body: { error: "invalid_request", error_description: "Missing required parameter: refresh_token" } },
  ],
  [
    "miro",
    { status: 401, body: { code: "oauthError", message: "refresh_token parameter must be used with grant_type" } },
  ],
  [
    "miro",
    { status: 401, body: { code: "oauthError", message: "Client credentials for grant refresh_token are invalid" } },
  ],
  [
    "bitbucket",
    { status: 400, body: { error: "invalid_request", error_description: "Invalid refresh_token parameter" } },
  ],
  [
    "bitbucket",
    { status: 503, body: { error: "invalid_request", error_description: "Invalid refresh_token service unavailable" } },
  ],
  [
    "discord",
    {
      status: 400,
      body: {
        error: "invalid_request",
        error_description: 'Invalid "refresh_token" in request: it stands there twice',
      },
    },
  ],
  [
    "linear-app",
    {
      status: 400,
      body: { error: "invalid_request", error_description: "Invalid refresh token request: client_id missing" },
    },
  ],
  [
    "linear-app",
    { status: 400, body: { error: "invalid_request", error_description: "Refresh token invalid or missing" } },
  ],
  ["pipedrive", { status: 400, body: { success: false, message: "Invalid grant: refresh_token is missing" } }],
  ["square-pos", { status: 401, body: { type: "service.not_authorized", message: "Invalid refresh token parameter" } }],
  [
    "square-pos",
    { status: 401, body: { errors: [{ code: "UNAUTHORIZED", detail: "Invalid refresh token request" }] } },
  ],
  [
    "teamleader",
    {
      status: 401,
      body: {
        error: "invalid_request",
        error_description: "The refresh token is invalid.",
        hint: "Token is not linked to client",
      },
    },
  ],
  [
    "teamleader",
    {
      status: 401,
      body: {
        error: "invalid_request",
        message: "The refresh token is invalid.",
        hint: "Cannot decrypt the refresh token",
      },
    },
  ],
  [
    "shopware",
    {
      status: 401,
      body: {
        errors: [{ code: "8", title: "The refresh token is invalid.", detail: "Token is not linked to client" }],
      },
    },
  ],
  [
    "shopware",
    {
      status: 401,
      body: {
        errors: [{ code: "8", title: "The refresh token is invalid.", detail: "Cannot decrypt the refresh token" }],
      },
    },
  ],
  [
    "withings",
    { status: 200, body: { status: 503, body: {}, error: "Invalid Params: invalid refresh_token parameter" } },
  ],
  [
    "x-twitter",
    {
      status: 400,
      body: { error: "invalid_request", error_description: "Value passed for the token was invalid: it is empty" },
    },
  ],
];

describe("which answer ends a grant", () => {
  test.each(aboutOthers)("%s: the words of a dead grant in another sentence do not: %j", (id, answer) => {
    expect(readingOf(onlyWith(id), answer)).not.toBe("refused_for_good");
  });

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
