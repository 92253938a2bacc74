import { HostileServer } from "../../integration/support/hostile-server.ts";
import { HostileStage, type Played } from "../../integration/support/hostile-stage.ts";
import type { HostileAnswer } from "../../integration/support/hostile-steps.ts";
import { fuzzCase, spellingsOf, type FuzzCase } from "../../support/answer-fuzz.ts";
import { FuzzReader } from "../../support/fuzz-reader.ts";
import type { Row } from "../row.ts";

const sizes = { full: { read: 5_000, played: 150 }, short: { read: 500, played: 40 } } as const;
/** So that cases of neighbouring seeds of the campaign differ. */
const stride = 1_000_003;

export const row: Row = {
  number: 40,
  title: "token answers made odd at random: read over HTTP, and played to a broker",
  promised: "no token in any text, every token that must be kept is",
  onlyFull: "test/unit/providers/answer-fuzz.test.ts reads 500 of them",
  async run({ seed, scale, log }) {
    const { read, played } = sizes[scale];
    const all = Array.from({ length: read }, (_, index) => fuzzCase((seed * stride + index) % 2 ** 31));
    const faults = await readAll(all);
    log(`${read} answers read, ${faults.length} faults`);
    faults.push(...(await playAll(all.slice(0, played))));
    const kept = all.filter(({ mustKeep }) => mustKeep).length;
    return {
      ok: faults.length === 0 && kept > read / 4,
      figure: `${faults.length} faults in ${read} answers, of which ${kept} had to be kept; ${played} of them played to a broker`,
      notes: faults.slice(0, 20),
    };
  },
};

async function readAll(all: readonly FuzzCase[]): Promise<string[]> {
  let reader: FuzzReader | null = null;
  await using server = await HostileServer.start({ is: "", steps: () => reader?.steps ?? [], outcome: { code: [] } });
  reader = new FuzzReader(server.url);
  const faults: string[] = [];
  for (const one of all) faults.push(...(await reader.faultsOf(one)));
  return faults;
}

/** A connection each: what callers, operators and the log are told. */
async function playAll(cases: readonly FuzzCase[]): Promise<string[]> {
  await using stage = await HostileStage.start(cases.map(asHostile));
  const all = await stage.playAll();
  const logged = stage.broker.stdout + stage.broker.stderr;
  return cases.flatMap((given, index) => {
    const played = all[index] ?? new Error("it was not played");
    const faults = played instanceof Error ? [`ends with ${played.name}`] : faultsOf(given, played);
    if (spellingsOf(given.tokens).some((spelling) => logged.includes(spelling))) faults.push("is logged with a token");
    return faults.map((fault) => `seed ${given.seed} ${fault}: ${given.is}`);
  });
}

function asHostile({ is, steps, definition, tokens, mustKeep }: FuzzCase): HostileAnswer {
  const outcome = mustKeep
    ? { takes: tokens.access, refreshToken: tokens.refresh, expiresIn: 3600 }
    : { code: [] as const };
  return { is, steps, response: definition.response, outcome };
}

function faultsOf({ tokens, mustKeep }: FuzzCase, { token, said, next }: Played): string[] {
  const faults: string[] = [];
  if (mustKeep && token.body.access_token !== tokens.access) faults.push("loses the access token");
  if (mustKeep && next.spent !== tokens.refresh) faults.push("loses the refresh token");
  // The caller who gets the token sees it. Connection and history never show one.
  const parts = JSON.parse(said) as unknown[];
  const text = JSON.stringify(token.status === 200 ? parts.slice(1) : parts);
  if (spellingsOf(tokens).some((spelling) => text.includes(spelling))) faults.push("shows a token");
  return faults;
}
