import type { ProviderDefinition, RefreshRules } from "../../src/providers/format/definition.ts";
import { refreshTimes } from "../../src/time.ts";
import { backingOf } from "./facts.ts";
import { duration } from "./words.ts";

const waitSeconds = refreshTimes.leaseSeconds + refreshTimes.quietSeconds;
const graceWaitSeconds = refreshTimes.leaseSeconds + refreshTimes.graceQuietSeconds;
/** A second request may only begin where its answer would still come inside the window. */
const shortestGraceSeconds = graceWaitSeconds + refreshTimes.leaseSeconds;

const lost = [
  "If the provider had already handed out a new one, it refuses the old one, and a person must connect again",
  "(`refresh_outcome_lost`). If it had not, everything goes on.",
].join(" ");
const strict = [
  "While the access token works, nothing more is sent. Once it has run out, or a caller needs a new one,",
  `the same refresh token is sent once more, at the earliest ${waitSeconds} seconds after the first time.`,
  lost,
  "The provider may end everything of the grant when it sees the old one again.",
].join(" ");

/** Whether any token of this provider is refreshed by a refresh token. */
export function refreshes({ refreshes: ways }: ProviderDefinition): boolean {
  return Object.keys(ways).length > 0;
}

/** One that is never replaced cannot be lost; but a guess that it is not counts for nothing. */
function staysTheSame({ refresh, file }: ProviderDefinition): boolean {
  return refresh.rotation === "never" && backingOf(file, "refresh.rotation").grade !== "guessed";
}

/** What becomes of a connection when the answer to a refresh never arrives; see docs/reliability.md. */
export function lostAnswer(definition: ProviderDefinition): string {
  const { reuse, graceSeconds } = definition.refresh;
  if (!refreshes(definition)) return "Nothing is lost: there is no refresh token, and a new access token is asked for.";
  if (staysTheSame(definition)) {
    const pace = reuse === "kills_family" ? ", once the access token has run out or a caller needs a new one" : "";
    return `Nothing is lost: the refresh token stays the same. It is sent again${pace}.`;
  }
  const words: Record<RefreshRules["reuse"], string> = {
    safe: `Nothing is lost. The same refresh token is sent again, ${waitSeconds} seconds after the first time, and works.`,
    until_successor_used: `Nothing is lost. The old refresh token works until its successor is used, and nobody has that one: it is sent again, ${waitSeconds} seconds after the first time.`,
    grace: graceSeconds < shortestGraceSeconds ? shortGrace(graceSeconds) : grace(graceSeconds),
    dead: `The same refresh token is sent once more, ${waitSeconds} seconds after the first time. ${lost}`,
    kills_family: strict,
  };
  return words[reuse];
}

function grace(seconds: number): string {
  return [
    `Nothing is lost if a broker is back in time: a used refresh token works for another ${duration(seconds)}, and it is sent`,
    `again ${graceWaitSeconds} seconds after the first time. Later than that: ${lowerFirst(strict)}`,
  ].join(" ");
}

function shortGrace(seconds: number): string {
  return [
    `A used refresh token works for another ${duration(seconds)}. That is too short: a second request is sent at the earliest`,
    `${graceWaitSeconds} seconds after the first. So: ${lowerFirst(strict)}`,
  ].join(" ");
}

/** The same for a table. */
export function lostAnswerInAWord(definition: ProviderDefinition): string {
  const { reuse, graceSeconds } = definition.refresh;
  if (!refreshes(definition)) return "fetched anew";
  if (reuse === "safe" || reuse === "until_successor_used" || staysTheSame(definition)) return "kept";
  if (reuse === "grace" && graceSeconds >= shortestGraceSeconds) return `kept for ${duration(graceSeconds)}`;
  return "may be lost";
}

function lowerFirst(text: string): string {
  return text.charAt(0).toLowerCase() + text.slice(1);
}
