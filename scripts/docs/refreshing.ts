import type { ProviderDefinition } from "../../src/providers/format/definition.ts";
import { lostAnswer, refreshes } from "./lost-answer.ts";
import { section, table } from "./markdown.ts";
import { duration, lifeOf } from "./words.ts";

const rotations = {
  always: "Each refresh gives a new refresh token, which replaces the one before.",
  never: "The refresh token stays the same.",
  auto: "A new refresh token replaces the one before; where none comes, the one before stays.",
} as const;

const reuses = {
  safe: "works again",
  grace: "works again for a while",
  until_successor_used: "works until its successor is used",
  dead: "is refused",
  kills_family: "is refused, and may end everything of the grant",
} as const;

/** Lives, rotation, and what becomes of a refresh whose answer is lost. */
export function refreshSections(definition: ProviderDefinition): string[] {
  const { refresh, response } = definition;
  const rows = [
    ["access token", lifeOf(response.expires)],
    ...(refreshes(definition) ? refreshTokenLives(definition) : []),
    ...(refresh.minAgeSeconds > 0 ? [["before the next refresh", `at least ${duration(refresh.minAgeSeconds)}`]] : []),
  ];
  return [
    ...section("## Lifetimes", table(["what", "how long"], rows)),
    ...(refreshes(definition) ? section("## Refreshing", rotation(definition)) : []),
    ...section(
      "## When the answer to a refresh is lost",
      lostAnswer(definition),
      "More: [reliability](../reliability.md).",
    ),
  ];
}

function refreshTokenLives({ refresh, response }: ProviderDefinition): string[][] {
  const { idleLifeSeconds: idle, absoluteLifeSeconds: absolute } = refresh;
  const said = response.refreshExpires;
  const isSaid =
    said.fallbackSeconds !== null || said.from !== "expires_in" || said.pointer !== "/refresh_token_expires_in";
  const rows = [
    ...(isSaid ? [["refresh token", lifeOf(said)]] : []),
    ...(idle === null ? [] : [["refresh token", `${duration(idle)} without use`]]),
    ...(absolute === null ? [] : [["the whole grant", `${duration(absolute)} after consent`]]),
  ];
  return rows.length > 0 ? rows : [["refresh token", "no end is known"]];
}

function rotation({ refresh, response }: ProviderDefinition): string {
  const old = refresh.oldAccessTokenDies
    ? "The old access token counts as dead once a refresh begins: reads wait for the new one."
    : "The old access token lives on until its own end.";
  const again = `A refresh token that is used a second time ${reuses[refresh.reuse]}.`;
  return [
    rotations[refresh.rotation],
    ...(refresh.rotation === "never" ? [] : [again]),
    old,
    ...(response.expires.from === "never" ? ["While access tokens have no end, nothing is refreshed by itself."] : []),
  ].join(" ");
}
