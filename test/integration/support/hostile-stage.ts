import { readFileSync } from "node:fs";
import { fileURLToPath, pathToFileURL } from "node:url";
import { Client } from "pg";
import type { Reply, TokenBody } from "../../support/broker-api.ts";
import { type BrokerProcess, startBroker } from "../../support/broker-process.ts";
import { until } from "../../support/patience.ts";
import { providersFolder } from "../../support/providers/definition-files.ts";
import type { DefinitionFile } from "../../support/providers/strict-server.ts";
import { useDatabase } from "../../support/services/index.ts";
import { HostileServer } from "./hostile-server.ts";
import type { HostileAnswer } from "./hostile-steps.ts";

/** The secrets that every hostile server gets. Their characters can be spelt in many ways. */
const clientSecret = 'client/secret+"canary"&<5e1f>=ü';
const refreshSecret = "refresh|secret~canary 9b3c";

/** A connection as ops see it. */
type Connection = { status: string; last_error: null | { code: string; detail: string } };

/** What came of one hostile answer. */
export type Played = {
  token: Reply<TokenBody>;
  connection: Reply<Connection>;
  /** Everything that the broker said about it, as text: tokens, connection, history. */
  said: string;
  /** How many requests the answer cost. */
  requests: number;
  /** The next refresh, with a correct answer: the refresh token that was sent, and the one that the connection had before. */
  next: { spent: string | null; imported: string | null; status: number; token: string | undefined };
};

const probe = pathToFileURL(fileURLToPath(new URL("heap-probe.ts", import.meta.url))).href;
/** If a broker needs too much memory, it ends before the machine is affected. */
const heapLimit = "--max-old-space-size=512";
/** The longest that the API lets a caller wait. */
const waitSeconds = 30;

/** One broker on real Postgres, and for each hostile answer a server, a provider, a client and a connection. */
export class HostileStage implements AsyncDisposable {
  readonly broker: BrokerProcess;
  readonly #database: Client;
  readonly #answers: readonly HostileAnswer[];
  readonly #servers: readonly HostileServer[];
  #rounds = 0;

  private constructor(parts: {
    broker: BrokerProcess;
    database: Client;
    answers: readonly HostileAnswer[];
    servers: readonly HostileServer[];
  }) {
    this.broker = parts.broker;
    this.#database = parts.database;
    this.#answers = parts.answers;
    this.#servers = parts.servers;
  }

  static async start(answers: readonly HostileAnswer[]): Promise<HostileStage> {
    const servers = await Promise.all(answers.map((answer) => HostileServer.start(answer)));
    const definitions = () => answers.map((answer, index) => define(answer, { index, url: servers[index]?.url ?? "" }));
    const databaseUrl = await useDatabase();
    const database = new Client({ connectionString: databaseUrl });
    await database.connect();
    const broker = await startBroker({
      databaseUrl,
      providersDir: await providersFolder({ definitions }),
      nodeOptions: [`--import=${probe}`, heapLimit],
    });
    const stage = new HostileStage({ broker, database, answers, servers });
    await stage.#each(async (index) => {
      const { api } = broker;
      const names = { name: nameOf(index), provider: nameOf(index) };
      await api.createClient({ ...names, client_id: "hostile-client", client_secret: clientSecret });
      await api.createConnection({ ...names, client: nameOf(index), grant: "import" });
    });
    return stage;
  }

  /** Plays every answer once. If the broker has died, its error stands in place of the result. */
  async playAll(): Promise<(Played | Error)[]> {
    this.#rounds += 1;
    return await this.#each((index) => this.#play(index).catch((error: Error) => error));
  }

  async #play(index: number): Promise<Played> {
    const name = nameOf(index);
    const { api } = this.broker;
    const server = this.#servers[index] as HostileServer;
    server.isHonest = false;
    const before = server.requests.length;
    await this.#import(index, "hostile");
    // An answer may take nearly as long as a caller may wait: on a slow machine one wait is not enough.
    const token = await until("an end of the attempt", async () => {
      const asked = await api.token(name, { wait: waitSeconds, include: "request" });
      return asked.body.code !== "refresh_in_progress" && asked;
    });
    const paths = [`/connections/${name}`, `/connections/${name}/events`];
    const [connection, events] = await Promise.all(paths.map((path) => api.api<Connection>(path)));
    if (connection === undefined) throw new Error("no connection was answered");
    const requests = server.requests.length - before;
    server.isHonest = true;
    // What was granted is refreshed; what was refused is imported anew.
    const isGranted = "takes" in (this.#answers[index]?.outcome ?? {});
    const imported = isGranted ? null : await this.#import(index, "honest");
    const next = await this.#refreshHonestly(index);
    const said = JSON.stringify([token, connection, events]);
    return { token, connection, said, requests, next: { ...next, imported } };
  }

  /** A set whose access token has run out: the refresh token is all that there is. */
  async #import(index: number, purpose: string): Promise<string> {
    const refreshToken = `${refreshSecret} ${purpose} ${index} ${this.#rounds}`;
    const set = { access_token: "old", refresh_token: refreshToken, expires_in: 0 };
    await this.broker.api.importTokens(nameOf(index), set);
    return refreshToken;
  }

  async #refreshHonestly(index: number) {
    const { api } = this.broker;
    const server = this.#servers[index];
    const before = server?.requests.length ?? 0;
    // As if the back-off of a token that was over from the start had passed.
    await this.#database.query("UPDATE connections SET backoff_until = NULL WHERE name = $1", [nameOf(index)]);
    await api.changeConnection(nameOf(index), { labels: {} }); // so that this replica looks at the row
    await api.api(`/connections/${nameOf(index)}/refresh`, { method: "POST" });
    const { status, body } = await api.token(nameOf(index), { wait: waitSeconds });
    return { spent: server?.sent[before] ?? null, status, token: body.access_token };
  }

  /** What the broker holds after all garbage is gone, in bytes. */
  async heldBytes(): Promise<number> {
    const { broker } = this;
    const from = broker.stderr.length;
    process.kill(broker.pid, "SIGUSR2");
    const said = () => /^heap probe (.+)\n/m.exec(broker.stderr.slice(from))?.[1];
    const line = await until("what the broker holds", () => said() ?? broker.exitCode !== null);
    const { heapUsed, external } = JSON.parse(String(line)) as { heapUsed: number; external: number };
    return heapUsed + external;
  }

  /** The most memory that the process ever had, in bytes. */
  get peakBytes(): number {
    const status = readFileSync(`/proc/${this.broker.pid}/status`, "utf8");
    return Number(/^VmHWM:\s+(\d+) kB/m.exec(status)?.[1]) * 1024;
  }

  async #each<Result>(work: (index: number) => Promise<Result>): Promise<Result[]> {
    const results: Result[] = [];
    let next = 0;
    const worker = async () => {
      for (let index = next++; index < this.#servers.length; index = next++) results[index] = await work(index);
    };
    await Promise.all(Array.from({ length: 8 }, worker));
    return results;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.broker[Symbol.asyncDispose]();
    await this.#database.end();
    await Promise.all(this.#servers.map((server) => server[Symbol.asyncDispose]()));
  }
}

function nameOf(index: number): string {
  return `hostile-${index}`;
}

/** The secrets that were sent, in every spelling that a text may hold them in. */
export function spellings(): string[] {
  return [clientSecret, refreshSecret].flatMap((secret) => {
    const json = inJson(secret, 1);
    const form = new URLSearchParams({ x: secret }).toString().slice(2);
    const html = secret.replaceAll(/[&<>"]/g, (character) => `&#${character.charCodeAt(0)};`);
    // What comes back stands in JSON once more.
    return [secret, form, encodeURIComponent(secret), html, json].flatMap((text) => [
      text,
      inJson(text, 1),
      inJson(text, 2),
      inJson(text, 3),
    ]);
  });
}

function inJson(text: string, times: number): string {
  return times === 0 ? text : inJson(JSON.stringify(text).slice(1, -1), times - 1);
}

function define({ response }: HostileAnswer, { index, url }: { index: number; url: string }): DefinitionFile {
  return {
    id: nameOf(index),
    extends: "oauth2",
    name: `Hostile ${index}`,
    grants: ["authorization_code", "import"],
    authorization: { url: `${url}/authorize` },
    token: { url: `${url}/token`, client_auth: "body" },
    ...(response === undefined ? {} : { response }),
    api: { base_url: `${url}/api` },
  };
}
