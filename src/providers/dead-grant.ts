import type { ProviderDefinition, StatedAnswer } from "./definition.ts";
import type { FailureClass } from "./grant.ts";
import type { ProviderFile } from "./provider-file.ts";
import { processTokenResponse } from "./token-response.ts";
import type { Problem } from "./yaml-source.ts";

const path = ["refresh", "dead_grant"] as const;

/** How the broker reads an answer to a refresh; null: as a grant. */
export function readingOf(definition: ProviderDefinition, answer: StatedAnswer): FailureClass | null {
  const isText = typeof answer.body === "string";
  const response = {
    status: answer.status,
    headers: { "content-type": isText ? "text/plain" : "application/json" },
    body: Buffer.from(typeof answer.body === "string" ? answer.body : JSON.stringify(answer.body)),
  };
  const read = processTokenResponse({ definition, response, secrets: [] });
  return read.kind === "granted" ? null : read.failure.class;
}

/**
 * A file that states an answer must read it as the end, so that the statement cannot drift from the rules. A built-in one must
 * state one where a refresh token may be dead. What a file of one's own inherits is only told: its own `errors` replace those of
 * the file that it extends, and it loaded before anybody asked.
 */
export function checkDeadGrant(
  definition: ProviderDefinition,
  { own, builtin }: { own: ProviderFile; builtin: boolean },
): Problem[] {
  const { deadGrant } = definition.refresh;
  if (builtin && deadGrant === null && mayBeDead(definition)) {
    return [{ path, text: "is missing: list each answer (`status`, `body`) that means that a refresh token is over" }];
  }
  return builtin || own.refresh?.dead_grant !== undefined ? unreadEnds(definition) : [];
}

/** What a file that is right should say all the same, in plain words. */
export function hintsOn(definition: ProviderDefinition): string[] {
  if (!definition.usable) {
    return [
      "token.url: is not stated, and no issuer either, so no connection can use this file: it is there for others to extend",
    ];
  }
  if (!mayBeDead(definition)) return [];
  if (definition.refresh.deadGrant !== null) {
    return unreadEnds(definition).map(({ path: where, text }) => `${where.join(".")}: ${text}`);
  }
  return [
    'refresh.dead_grant: is not stated, so {"error":"invalid_grant"} ends a connection, and nearly any other refusal is tried again; ' +
      "list what this provider answers to a refresh token that is over (docs/write-a-provider.md)",
  ];
}

/** Whether there is a refresh token that the provider may refuse. */
function mayBeDead({ usable, refreshes }: ProviderDefinition): boolean {
  return usable && Object.keys(refreshes).length > 0;
}

function unreadEnds(definition: ProviderDefinition): Problem[] {
  return (definition.refresh.deadGrant ?? []).flatMap((answer, index) => {
    const reading = readingOf(definition, answer);
    if (reading === "refused_for_good") return [];
    const text = `is read as ${readings[reading ?? "granted"]}, not as the end of the grant: add a rule to \`errors\` that matches it, with \`means: needs_reauthorization\``;
    return [{ path: [...path, String(index)], text }];
  });
}

const readings: Record<Exclude<FailureClass, "refused_for_good"> | "granted", string> = {
  granted: "a new token",
  refused_for_now: "a refusal for now",
  client_rejected: "a refused client",
  not_sent: "a request that was not sent",
  unknown: "an answer that says nothing",
};
