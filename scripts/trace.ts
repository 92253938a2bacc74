import { readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { startBroker } from "../test/support/broker-process.ts";
import { until } from "../test/support/patience.ts";
import { Bol } from "../test/support/providers/bol.ts";
import { providersFolder } from "../test/support/providers/definition-files.ts";
import { GenericProvider } from "../test/support/providers/generic.ts";
import { temporaryFolder } from "../test/support/services/guardian.ts";
import { walkConsent } from "../test/support/walk-consent.ts";
import type { Trace } from "./trace/hooks.ts";

/**
 * How far a reader goes to follow four requests through src/: `node scripts/trace.ts [--list]`. A move: a named function is
 * entered in another file than the one entered before. `--list` names the files and the statements, too.
 */
const isListed = process.argv.includes("--list");
const hooks = pathToFileURL(join(import.meta.dirname, "trace/hooks.ts")).href;
const traceFile = join((await temporaryFolder("trace")).path, "traces.json");
const [strict, machine] = await Promise.all([new GenericProvider().start(), new Bol().start()]);
const machineId = machine.definitions()[0]?.id ?? "";

await using broker = await startBroker({
  entry: join(import.meta.dirname, "../src/main.ts"),
  nodeOptions: [`--import=${hooks}`],
  providersDir: await providersFolder(strict, machine),
  env: { TRACE_FILE: traceFile },
});
const { api } = broker;
strict.redirectUris.add(broker.redirectUri(strict.id));
const { id: client_id, secret: client_secret } = strict.client;
await api.createClient({ name: "strict", provider: strict.id, client_id, client_secret });
const bol = machine.client;
await api.createClient({ name: "machine", provider: machineId, client_id: bol.id, client_secret: bol.secret });

const named = (name: string) => ({ name, provider: strict.id, client: "strict" });
await api.createConnection(named("asked"));
await walkConsent((await api.consentLink("asked")).url);
for (let reads = 0; reads < 3; reads++) await api.token("asked");
// A token that runs out while it is read: the provider gives it a life of a second.
strict.switches.accessLifeSeconds = 1;
await api.createConnection(named("expired"));
await walkConsent((await api.consentLink("expired")).url);
await sleep(1500);
await api.token("expired");
await api.createConnection({ name: "machine", provider: machineId, client: "machine", grant: "client_credentials" });

const readTraces = (): Trace[] => JSON.parse(readFileSync(traceFile, "utf8")) as Trace[];
/** Nothing is noted any more behind the last answer. */
const settled = async (): Promise<Trace[]> => {
  let before = "";
  await until(
    "all is written and nothing goes on",
    () => {
      const now = JSON.stringify(readTracesOrNone());
      process.kill(broker.pid, "SIGUSR2");
      const isSame = now !== "[]" && now === before;
      before = now;
      return isSame;
    },
    { everyMs: 500 },
  );
  return readTraces();
};
const readTracesOrNone = (): Trace[] => {
  try {
    return readTraces();
  } catch {
    return [];
  }
};

const traces = await settled();
const flows = {
  "fresh read": "GET /tokens/asked",
  "expired read": "GET /tokens/expired",
  callback: `GET /callback/${strict.id}`,
  "client credentials": "POST /connections",
};
for (const [flow, request] of Object.entries(flows)) {
  const trace = traces.findLast((one) => one.request === request);
  if (trace === undefined) throw new Error(`no ${request} was seen`);
  process.stdout.write(`${flow}: ${tell(trace)}\n`);
  if (isListed) process.stdout.write(list(trace));
}
await Promise.all([strict.stop(), machine.stop()]);

function tell({ entered, statements }: Trace): string {
  const files = entered.map((at) => at.split(":")[0]);
  const moves = files.filter((file, index) => index > 0 && file !== files[index - 1]);
  const seen = new Set(files[0] === undefined ? [] : [files[0]]);
  const back = moves.filter((file) => seen.has(file ?? "") || !seen.add(file ?? ""));
  const sql = statements.filter((text) => !/^(BEGIN|COMMIT|ROLLBACK|SET|DEALLOCATE)\b/i.test(text));
  return `${new Set(files).size} files, ${moves.length} moves (${back.length} back), ${sql.length} statements`;
}

function list({ entered, statements }: Trace): string {
  const lines = entered.map((at, index) => {
    const [file = "", name = ""] = at.split(":");
    return file === entered[index - 1]?.split(":")[0] ? `    ${name}` : `  ${file}\n    ${name}`;
  });
  return [...lines, ...statements.map((text) => `  SQL ${text.slice(0, 160)}`), ""].join("\n");
}
