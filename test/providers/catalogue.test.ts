import { readdirSync, readFileSync } from "node:fs";
import { join, relative } from "node:path";
import { describe, expect, test } from "vitest";
import { backingOf, claimsOf, covers } from "../../scripts/docs/facts.ts";
import { clientInputs } from "../../src/providers/format/requirements.ts";
import { parseAnswer, readPointer } from "../../src/providers/oauth/answer-body.ts";
import { builtinIds, genericIds, onlyWith } from "./support/catalog.ts";
import { ownFile } from "./support/own-file.ts";
import { readTranscripts, type Step, type Talk, talkKinds, type Transcript } from "./support/transcript.ts";

const root = join(import.meta.dirname, "../..");
const ids = builtinIds().filter((id) => !genericIds.includes(id));
const transcripts = readTranscripts();
const firstSteps = ["exchange", "fetch", "login", "device", "import"] as const;

function stepsOf(id: string): Step[] {
  return transcripts.filter(({ provider }) => provider === id).flatMap(({ steps }: Transcript) => steps);
}

describe("whose a host is", () => {
  test.each([
    ["microsoft-entra-national", ["graph_host", "login_host"]],
    ["microsoft-entra-national-m2m", ["login_host"]],
  ])("%s: clouds of several companies are chosen on the client, by an admin", (id, inputs) => {
    expect(clientInputs(onlyWith(id)).toSorted()).toEqual(inputs);
  });

  test("a list that spans domains stays with the connection only where the definition says that one owner has them", () => {
    const vouched = builtinIds().flatMap((id) =>
      Object.entries(onlyWith(id).inputs).flatMap(([name, input]) => (input.hosts_of_one_owner ? `${id} ${name}` : [])),
    );
    expect(vouched).toEqual([
      "amazon-sp-api seller_central",
      "exact-online country",
      "mercado-libre auth_host",
      "zoho-ca dc",
      "zoho dc",
    ]);
    const onConnection = vouched.filter((each) => {
      const [id = "", name = ""] = each.split(" ");
      return !clientInputs(onlyWith(id)).includes(name);
    });
    expect(onConnection).toEqual(vouched);
  });
});

describe("the catalogue", () => {
  test("at least 64 providers can be used", () => {
    const usable = ids.filter((id) => onlyWith(id).usable);
    expect(usable.length).toBeGreaterThanOrEqual(64);
  });

  test("no provider's id or name stands in the source", () => {
    const words = ids.flatMap((id) => [id, ownFile(id).name ?? id]);
    const sources = sourceFiles().map((path) => ({ path: relative(root, path), text: readFileSync(path, "utf8") }));
    const found = [...new Set(words)].flatMap((word) =>
      sources.filter(({ text }) => asWord(word).test(text)).map(({ path }) => `${word} in ${path}`),
    );
    expect(found).toEqual([]);
  });

  test("every transcript is that of a provider", () => {
    expect(transcripts.filter(({ provider }) => !ids.includes(provider)).map(({ file }) => file)).toEqual([]);
  });
});

describe.each(ids)("%s", (id) => {
  test("its transcript begins with a first set of tokens, refreshes what can be refreshed, and is refused once", () => {
    const steps = stepsOf(id);
    const lacking = [
      ...(firstSteps.some((kind) => steps.some((step) => step[kind])) ? [] : ["a first step"]),
      ...(steps.some(({ refresh }) => refresh) || !givesRefreshToken(id, steps) ? [] : ["a refresh"]),
      ...(steps.some(({ reads }) => reads?.refused !== undefined) ? [] : ["a refusal"]),
    ];
    expect(lacking).toEqual([]);
  });

  test("every value that it sets has a fact behind it, and every fact's sources are listed", () => {
    const { facts = {} } = ownFile(id);
    const bare = claimsOf(ownFile(id)).filter((setting) => !Object.keys(facts).some((fact) => covers(fact, setting)));
    expect(bare).toEqual([]);
    const { file } = onlyWith(id);
    const named = Object.keys(file.facts ?? {}).flatMap((setting) => backingOf(file, setting).sources);
    expect(named.filter((source) => file.sources?.[source] === undefined)).toEqual([]);
  });

  test("it says what to register, and what is known of rotation and reuse", () => {
    const { file } = onlyWith(id);
    const lacking = [
      ...(file.guide?.register ? [] : ["guide.register"]),
      ...["refresh.rotation", "refresh.reuse"].filter((setting) => backingOf(file, setting).fact === null),
    ];
    expect(lacking).toEqual([]);
  });

  test("what is guessed about refreshing has the strict value", () => {
    const { file, refresh } = onlyWith(id);
    const isGuess = (setting: string) => backingOf(file, setting).grade === "guessed";
    if (isGuess("refresh.reuse")) expect(refresh.reuse).toBe("kills_family");
    if (isGuess("refresh.old_access_token_dies")) expect(refresh.oldAccessTokenDies).toBe(true);
  });
});

function sourceFiles(): string[] {
  return readdirSync(join(root, "src"), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .filter((path) => !path.includes("/src/generated/"));
}

/** As a word of its own, in any case. */
function asWord(text: string): RegExp {
  return new RegExp(
    String.raw`(?<![\p{L}\p{N}_])${text.replaceAll(/[$()*+.?[\\\]^{|}]/g, String.raw`\$&`)}(?![\p{L}\p{N}_])`,
    "iu",
  );
}

/** Whether an answer of the transcript, or a set handed over, holds a refresh token where the definition reads it. */
function givesRefreshToken(id: string, steps: readonly Step[]): boolean {
  const { response } = onlyWith(id);
  const talks = steps.flatMap((step) => talkKinds.flatMap((kind): Talk[] => (step[kind] ? [step[kind]] : [])));
  const answered = talks.some(({ answer }) => {
    const body = answer.split(/\r?\n\r?\n/)[1] ?? "";
    const read = parseAnswer({ status: 200, headers: {}, body: Buffer.from(body) }, response.format);
    return typeof readPointer(read, response.refreshToken) === "string";
  });
  return answered || steps.some((step) => step.import?.refresh_token !== undefined);
}
