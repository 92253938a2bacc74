import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { parse } from "yaml";

/** What must have been read from an answer: test/providers/README.md. */
export type Reads = {
  access_token?: string | null;
  refresh_token?: string | null;
  token_type?: string;
  expires_in?: number | null | "introspect";
  refresh_expires_in?: number | null;
  scopes?: string[];
  captured?: Record<string, string>;
  extra?: Record<string, Reads>;
  account?: string;
  label?: string;
  active?: boolean;
  revoked?: boolean;
  user_code?: string;
  verification_uri?: string;
  refused?: string;
};

export type Talk = { request: string; answer: string; token?: string; obtained_by?: string };
export type Step = { reads?: Reads } & Partial<Record<TalkKind, Talk>> & {
    authorize?: { url: string; callback: string };
    import?: { access_token?: string; refresh_token?: string };
    api?: { base_url?: string; headers: Record<string, string> };
  };

export const talkKinds = [
  "pushed",
  "exchange",
  "fetch",
  "login",
  "device",
  "poll",
  "refresh",
  "extra",
  "lookup",
  "introspect",
  "revoke",
] as const;
type TalkKind = (typeof talkKinds)[number];

export type Transcript = {
  file: string;
  provider: string;
  client: { id: string; secret?: string };
  inputs?: Record<string, string>;
  secret_inputs?: Record<string, string>;
  credentials?: Record<string, string>;
  scopes?: string[];
  steps: Step[];
};

const folder = join(import.meta.dirname, "../transcripts");

export function readTranscripts(): Transcript[] {
  const names = readdirSync(folder).filter((name) => name.endsWith(".yaml"));
  return names.sort().map((file) => {
    const transcript = parse(readFileSync(join(folder, file), "utf8")) as Omit<Transcript, "file">;
    return Object.assign(transcript, { file });
  });
}

/** What both sides make up or agree on, and what stands for it in a transcript. */
export type Placeholders = Record<string, string>;

/** `{state}` and its like, and moments from now on: `{now+3600}`, `{now_ms+3600}`, `{iso+3600}`. */
export function fillPlaceholders(text: string, values: Placeholders): string {
  return text
    .replaceAll(
      /\{(state|nonce|code_challenge|code_verifier|client_assertion)\}/g,
      (whole, name: string) => values[name] ?? whole,
    )
    .replaceAll(/\{(now|now_ms|iso)([+-]\d+)\}/g, (_whole, form: string, seconds: string) => {
      const ms = Date.now() + Number(seconds) * 1000;
      if (form === "iso") return new Date(ms).toISOString();
      return String(form === "now_ms" ? ms : Math.floor(ms / 1000));
    });
}
