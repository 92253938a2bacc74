import { AsyncLocalStorage } from "node:async_hooks";
import { subscribe } from "node:diagnostics_channel";
import { renameSync, writeFileSync } from "node:fs";
import type { IncomingMessage } from "node:http";
import { registerHooks } from "node:module";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { PGlite, type Results, type Transaction } from "@electric-sql/pglite";
import { instrument } from "./instrument.ts";

declare global {
  var enter: (at: string) => void;
}

/** What one request caused, in the order in which it happened; what is awaited or goes on behind the answer belongs to it. */
export type Trace = { request: string; entered: string[]; statements: string[] };

/*
 * Given to a broker with `--import`: notes every named function of src/ that a request enters, and each statement that it
 * sends to the embedded database. On SIGUSR2 all is written to the file that TRACE_FILE names.
 */
const source = join(import.meta.dirname, "../../src/");
const running = new AsyncLocalStorage<Trace>();
const traces: Trace[] = [];

globalThis.enter = (at) => void running.getStore()?.entered.push(at);

registerHooks({
  load(url, context, nextLoad) {
    const loaded = nextLoad(url, context);
    if (!url.startsWith("file:") || !loaded.source) return loaded;
    const path = fileURLToPath(url);
    if (!path.startsWith(source) || path.startsWith(`${source}generated/`)) return loaded;
    const text = typeof loaded.source === "string" ? loaded.source : new TextDecoder().decode(loaded.source);
    return { ...loaded, source: instrument(path.slice(source.length), text) };
  },
});

// What follows in this turn, and all that it awaits, belongs to the request, until the next one comes on this connection.
subscribe("http.server.request.start", (message) => {
  const { method, url = "" } = (message as { request: IncomingMessage }).request;
  const trace: Trace = { request: `${method} ${url.split("?")[0]}`, entered: [], statements: [] };
  traces.push(trace);
  running.enterWith(trace);
});

const noteStatement = (text: string) => void running.getStore()?.statements.push(text.replace(/\s+/g, " ").trim());

const query = Reflect.get(PGlite.prototype, "query");
PGlite.prototype.query = async function noted<Row>(this: PGlite, ...given: Parameters<typeof query>) {
  noteStatement(given[0]);
  return (await Reflect.apply(query, this, given)) as Results<Row>;
};

const transaction = Reflect.get(PGlite.prototype, "transaction");
PGlite.prototype.transaction = async function noted<Result>(
  this: PGlite,
  work: (tx: Transaction) => Promise<Result>,
): Promise<Result> {
  const noting = async (tx: Transaction) => {
    const inside = tx.query.bind(tx);
    return await work(
      Object.assign(Object.create(tx) as Transaction, {
        query: async (...given: Parameters<typeof inside>) => {
          noteStatement(given[0]);
          return await inside(...given);
        },
      }),
    );
  };
  return await Reflect.apply(transaction, this, [noting]);
};

process.on("SIGUSR2", () => {
  const file = process.env["TRACE_FILE"] as string;
  writeFileSync(`${file}.new`, JSON.stringify(traces));
  renameSync(`${file}.new`, file);
});
