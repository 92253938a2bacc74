import { readRefusal } from "../../src/cli/try/reading.ts";
import { createMasker, createRecorder } from "../../src/cli/try/recorder.ts";
import type { ProviderDefinition } from "../../src/providers/format/definition.ts";
import { createEgress, parseNetworks } from "../../src/providers/http/egress.ts";
import { createOAuthClient } from "../../src/providers/oauth/oauth-client.ts";
import { buildTokenRequest } from "../../src/providers/oauth/token-request.ts";
import type { Step } from "../integration/support/hostile-steps.ts";
import { define } from "../unit/providers/definitions.ts";
import { type FuzzCase, spellingsOf } from "./answer-fuzz.ts";

const egress = createEgress({ networks: parseNetworks("127.0.0.0/8"), trustedOrigin: null });

const ignore = () => {};

/** Reads answers of one server over HTTP, as the broker does and as `freshet providers try` prints it. */
export class FuzzReader {
  readonly #url: string;
  readonly #definitions = new Map<string, ProviderDefinition>();
  /** What the server answers next. */
  steps: readonly Step[] = [];

  constructor(url: string) {
    this.#url = url;
  }

  /** What is wrong with how an answer was read, in words that hold its seed and none of its tokens. */
  async faultsOf(given: FuzzCase): Promise<string[]> {
    const { tokens, mustKeep } = given;
    this.steps = given.steps;
    const definition = this.#definitionOf(given);
    const told: string[] = [];
    const masker = createMasker();
    const step = (_name: string, resource: unknown, lines: readonly string[]) =>
      void told.push(masker.text(JSON.stringify(resource)), ...lines.map(masker.text));
    const report = {
      step,
      plain: step,
      note: ignore,
      problem: ignore,
      problems: [],
      hold: () => ({ show: ignore, drop: ignore }),
    };
    const recorder = createRecorder({ egress, masker, report });
    const values = { client: { id: "c", secret: "the client's" }, refreshToken: "the one that was sent" };
    const request = buildTokenRequest({ definition, grant: "refresh_token", obtainedBy: "import", values });
    const answer = await recorder.client("token").requestToken({ definition, request, mayStillSend: () => true });
    const faults: string[] = [];
    if (answer.kind === "failed") {
      const { lines, resource } = readRefusal(answer.failure, { definition, response: recorder.answer() });
      told.push(JSON.stringify(answer), JSON.stringify(resource), ...lines);
      const isAnswered = (answer.failure.status ?? 0) >= 200 && (answer.failure.status ?? 0) < 300;
      if (isAnswered && answer.failure.class === "refused_for_good") faults.push("ends the grant");
      if (mustKeep) faults.push("loses the tokens");
    } else {
      const { accessToken, refreshToken, scopes = [], tokenType, captured } = answer.grant;
      const isKept = accessToken === tokens.access && refreshToken === tokens.refresh;
      if (mustKeep && !isKept) faults.push("takes other tokens");
      told.push(JSON.stringify({ scopes, tokenType, captured }));
    }
    told.push(...(await this.#askAbout(definition, request)));
    const spellings = spellingsOf(tokens);
    const shown = told.find((text) => spellings.some((spelling) => text.includes(spelling)));
    if (shown !== undefined) faults.push("shows a token");
    return faults.map((fault) => `seed ${given.seed} ${fault}: ${given.is}`);
  }

  /** The same answer where another endpoint gives it: to a lookup, a revocation, metadata. */
  async #askAbout(definition: ProviderDefinition, request: ReturnType<typeof buildTokenRequest>): Promise<string[]> {
    const logged: string[] = [];
    const oauth = createOAuthClient({ egress, onUntold: (untold) => void logged.push(JSON.stringify(untold)) });
    const { detail } = await oauth.ask({ definition, request });
    return [detail, ...logged];
  }

  #definitionOf({ definition }: FuzzCase): ProviderDefinition {
    const yaml = JSON.stringify(definition);
    const known = this.#definitions.get(yaml);
    if (known !== undefined) return known;
    const { response, errors } = definition;
    const lines = [`grants: [import]`, `response: ${JSON.stringify(response)}`, `errors: ${JSON.stringify(errors)}`];
    const made = define(lines.join("\n"), `id: own\ntoken: { url: "${this.#url}/token" }`);
    this.#definitions.set(yaml, made);
    return made;
  }
}
