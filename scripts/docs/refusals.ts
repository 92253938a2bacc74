import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { parse } from "yaml";
import type { Refusal } from "./overview.ts";

type Step = { reads?: { refused?: string } };
type Transcript = { provider: string; steps: Step[] };

/** Answers to a device that asks too early refuse nothing (RFC 8628, section 3.5). */
const waiting = new Set(["authorization_pending", "slow_down"]);

/** The last refusal that each provider's transcripts play. */
export function readRefusals(folder: string): Record<string, Refusal> {
  const refusals: Record<string, Refusal> = {};
  for (const name of readdirSync(folder)
    .filter((file) => file.endsWith(".yaml"))
    .sort()) {
    const { provider, steps } = parse(readFileSync(join(folder, name), "utf8")) as Transcript;
    const refused = steps.findLast(({ reads }) => reads?.refused !== undefined && !waiting.has(reads.refused));
    if (refused) refusals[provider] = refusalOf(refused);
  }
  return refusals;
}

function refusalOf(step: Step): Refusal {
  const parts = Object.values(step) as { answer?: string }[];
  const answer = parts.find((part) => part.answer !== undefined)?.answer ?? "";
  const [head = "", body = ""] = answer.split(/\r?\n\r?\n/);
  return { status: head.split(" ")[1] ?? "", error: errorIn(body), means: step.reads?.refused ?? "" };
}

function errorIn(body: string): string | null {
  try {
    const { error } = JSON.parse(body) as { error?: unknown };
    return typeof error === "string" ? error : null;
  } catch {
    return new URLSearchParams(body).get("error");
  }
}
