import type { ProviderDefinition } from "../../src/providers/format/definition.ts";
import { countsOf, gradeOf, gradeWords } from "./known.ts";
import { lostAnswerInAWord, refreshes } from "./lost-answer.ts";
import { list, page, plain, table } from "./markdown.ts";

const settings = [
  { setting: "authorization.url", title: "authorize page" },
  { setting: "token.url", title: "token endpoint" },
  { setting: "token.client_auth", title: "client authentication" },
  { setting: "authorization.pkce", title: "PKCE" },
  { setting: "response.expires", title: "access token's life" },
  { setting: "refresh.rotation", title: "rotation" },
  { setting: "refresh.reuse", title: "reuse" },
  { setting: "refresh.old_access_token_dies", title: "old access token" },
  { setting: "refresh.idle_life_s", title: "idle life" },
  { setting: "refresh.absolute_life_s", title: "absolute life" },
  { setting: "refresh.dead_grant", title: "dead grant" },
  { setting: "errors", title: "errors" },
  { setting: "revocation", title: "revocation" },
] as const;

const words = [
  "**confirmed**: two sources or more of different origin agree, such as a page of the provider and public code that talks to it; pages of one site count once. Each page names them.",
  "**from documentation**: one source says so: the provider's own pages, or public code that talks to it.",
  "**guessed**: no source says so. What matters for keeping a grant then has the strictest value.",
];

/** What is shown of a provider's transcript: the last refusal that it plays. */
export type Refusal = { status: string; error: string | null; means: string };

/** All providers in one table, and how well each thing is known of each. */
export function overviewPage(
  definitions: readonly ProviderDefinition[],
  refusals: Readonly<Record<string, Refusal>>,
): string {
  return page([
    "# Providers",
    "What each built-in definition says, generated from the files in [providers/](../../providers) by `npm run docs`. A definition of your own: [provider-format.md](../provider-format.md).",
    overviewTable(definitions, refusals),
    "**Lost answer**: what becomes of a connection when the answer to a refresh never arrives; how that is handled stands in [reliability.md](../reliability.md). **Known**: facts that are confirmed / from documentation / guessed. **Last error handled**: the last refusal of the provider's transcript, which the tests play.",
    "Which answer ends a grant, of each provider: [dead-grants.md](dead-grants.md).",
    "## How well things are known",
    "Every value of a file has its sources beside it, and each provider's page shows them.",
    list(words),
    "Nobody tried any of it at the providers themselves: sources are documentation and public code. If one behaves differently, a file with `extends` changes it without waiting for a new version.",
    gradeTable(definitions),
  ]);
}

function overviewTable(
  definitions: readonly ProviderDefinition[],
  refusals: Readonly<Record<string, Refusal>>,
): string {
  const rows = definitions.map((definition) => {
    const { confirmed, documented, guessed } = countsOf(definition);
    const rotates = refreshes(definition);
    return [
      `[${plain(definition.name)}](${definition.id}.md)`,
      definition.grants.map((grant) => grant.replaceAll("_", " ")).join(", "),
      rotates ? definition.refresh.rotation : "–",
      rotates ? definition.refresh.reuse.replaceAll("_", " ") : "–",
      lostAnswerInAWord(definition),
      `${confirmed} / ${documented} / ${guessed}`,
      refusalText(refusals[definition.id]),
    ];
  });
  return table(["provider", "grants", "rotation", "reuse", "lost answer", "known", "last error handled"], rows);
}

function refusalText(refusal: Refusal | undefined): string {
  if (refusal === undefined) return "–";
  const { status, error, means } = refusal;
  const said = error === null ? status : `${status} ${plain(error)}`;
  return `${said}: ${means.replaceAll("_", " ")}`;
}

/** How many providers say each thing with how much behind it. */
function totals(definitions: readonly ProviderDefinition[]): string[] {
  const counts = settings.map(({ setting }) => {
    const grades = definitions.map((definition) => gradeOf(definition, setting));
    const count = (grade: string) => grades.filter((each) => each === grade).length;
    return `${count("confirmed")} / ${count("documented")} / ${count("guessed")}`;
  });
  return ["all together", ...counts];
}

function gradeTable(definitions: readonly ProviderDefinition[]): string {
  const rows = definitions.map((definition) => [
    `[${plain(definition.name)}](${definition.id}.md)`,
    ...settings.map(({ setting }) => {
      const grade = gradeOf(definition, setting);
      return grade === null ? "–" : gradeWords[grade];
    }),
  ]);
  return table(["provider", ...settings.map(({ title }) => title)], [totals(definitions), ...rows]);
}
