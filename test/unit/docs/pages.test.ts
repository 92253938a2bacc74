import { describe, expect, test } from "vitest";
import { overviewPage } from "../../../scripts/docs/overview.ts";
import { providerPage } from "../../../scripts/docs/provider-page.ts";
import { defineFrom } from "../../providers/settings/base.ts";

const linesOf = (piece: string) =>
  providerPage(defineFrom("full", piece))
    .split("\n")
    .map((line) => cells(line));

/** The lines that a piece of a file brings into its provider's page; tables as their cells. */
function newLines(file: string, instead = ""): string[] {
  const before = linesOf(instead);
  return linesOf(file).filter((line) => line !== "" && !line.startsWith("---") && !before.includes(line));
}

const cells = (line: string) => (line.startsWith("|") ? line.replaceAll(/ *\| */g, "|").slice(1, -1) : line);

const known = "refresh.rotation";
const sources = "sources: { a: The handbook, b: Client code }";
const rows = [
  { is: "a page shows name", file: "name: Own & Sons", lines: ["# Own & Sons"] },
  {
    is: "a page shows docs",
    file: "docs: https://own.example/docs",
    lines: [
      "The provider `own`, as [providers/own.yaml](../../providers/own.yaml) describes it. Documented at <https://own.example/docs>. All providers: [overview](README.md).",
    ],
  },
  {
    is: "a page shows sources",
    file: `{ ${sources} }`,
    lines: ["## Sources", "- a: The handbook", "- b: Client code"],
  },
  {
    is: "a page shows guide.register",
    file: "guide: { register: Ask *them* at https://own.example/apps. }",
    lines: ["## Registering", String.raw`Ask \*them\* at <https://own.example/apps>.`],
  },
  { is: "a page shows guide.redirect_uri", file: "guide: { redirect_uri: https only. }", lines: ["https only."] },
  { is: "a page shows guide.scopes", file: "guide: { scopes: Take `read`. }", lines: ["Take `read`."] },
  {
    is: "a page shows guide.quirks",
    file: "guide: { quirks: [It is slow., It is old.] }",
    lines: ["## What surprises", "- It is slow.", "- It is old."],
  },
  {
    is: "a page shows facts",
    file: `{ ${sources}, refresh: { rotation: always }, facts: { ${known}: [a, b] } }`,
    instead: `{ ${sources}, refresh: { rotation: always } }`,
    lines: ["`refresh.rotation`|`always`|confirmed|a, b|"],
  },
  {
    is: "a page shows facts.from",
    file: `{ ${sources}, facts: { ${known}: { from: b } } }`,
    instead: `{ ${sources}, facts: { ${known}: { from: a } } }`,
    lines: ["`refresh.rotation`|`auto`|from documentation|b|"],
  },
  {
    is: "a page shows facts.note",
    file: `{ ${sources}, facts: { ${known}: { from: a, note: since May } } }`,
    instead: `{ ${sources}, facts: { ${known}: { from: a } } }`,
    lines: ["`refresh.rotation`|`auto`|from documentation|a|since May"],
  },
  {
    is: "a page shows facts.guessed",
    file: `{ facts: { ${known}: { guessed: nobody says } } }`,
    lines: ["`refresh.rotation`|`auto`|guessed||nobody says"],
  },
];

describe("of what a file says about itself", () => {
  test.each(rows)("$is", ({ file, instead, lines }) => {
    expect(newLines(file, instead)).toEqual(lines);
  });
});

describe("what becomes of a connection when an answer is lost", () => {
  const source = "sources: { a: A }, facts: { refresh.rotation: a }";
  const said = (refresh: string, base: "full" | "bare" = "full") => {
    const definition = defineFrom(base, `{ ${source}, refresh: { ${refresh} } }`);
    const page = providerPage(definition).split("\n");
    const overview = overviewPage([definition], {})
      .split("\n")
      .find((line) => line.includes("own.md"));
    return [cells(overview ?? "").split("|")[4], page[page.indexOf("## When the answer to a refresh is lost") + 2]];
  };

  test.each([
    ["reuse: safe", "kept", /^Nothing is lost\. The same refresh token is sent again, 40 seconds after/],
    [
      "reuse: until_successor_used",
      "kept",
      /^Nothing is lost\. The old refresh token works until its successor is used/,
    ],
    [
      "reuse: grace, grace_s: 600",
      "kept for 10 minutes",
      /another 10 minutes, and it is sent again 32 seconds after .*Later than that: while/,
    ],
    ["reuse: grace, grace_s: 62", "kept for 62 seconds", /^Nothing is lost if a broker is back in time/],
    [
      "reuse: grace, grace_s: 61",
      "may be lost",
      /^A used refresh token works for another 61 seconds\. That is too short/,
    ],
    [
      "reuse: dead",
      "may be lost",
      /^The same refresh token is sent once more, 40 seconds after .*a person must connect again/,
    ],
    [
      "reuse: kills_family",
      "may be lost",
      /^While the access token works, nothing more is sent\..*may end everything of the grant/,
    ],
    [
      "rotation: never",
      "kept",
      /^Nothing is lost: the refresh token stays the same\. .*once the access token has run out/,
    ],
  ])("%s: %s", (refresh, word, text) => {
    expect(said(refresh)).toEqual([word, expect.stringMatching(text)]);
  });

  test("without a refresh token there is none to lose", () => {
    expect(said("reuse: kills_family", "bare")).toEqual([
      "fetched anew",
      expect.stringMatching(/^Nothing is lost: there is no/),
    ]);
  });

  test("that a refresh token stays the same counts only where somebody says so", () => {
    const guess = "facts: { refresh.rotation: { guessed: it seems so } }, refresh: { rotation: never }";
    expect(providerPage(defineFrom("full", `{ ${guess} }`))).toContain(
      "While the access token works, nothing more is sent.",
    );
  });
});
