import { setTimeout as sleep } from "node:timers/promises";
import type { BrokerProcess } from "../support/broker-process.ts";
import type { ConnectedStage } from "../support/connected-stage.ts";
import { copyDatabase } from "../support/database-copy.ts";
import { until } from "../support/patience.ts";
import { untilKilled } from "./crash-tools.ts";
import type { Ground } from "./fleets.ts";
import { freshetRecover, type Restoring, VersionBook } from "./restored-database.ts";
import { type Connected, connectMany } from "./tools.ts";

/** `moved`, `imported`, `deleted`: what happened to them after the copy. `spooled`: their newest answer is in a spool only. */
type Groups = Record<"still" | "moved" | "imported" | "deleted" | "spooled", readonly Connected[]>;

export type SceneOptions = {
  /** How many of each group, and how often callers ask. */
  size: { each: number; rounds: number };
  log: (line: string) => void;
  ground: Pick<Ground, "stage" | "databaseUrl">;
};

/** One way of restoring, from the first token to the last confirmation. */
export class RestoreScene {
  readonly #way: Restoring;
  readonly #size: SceneOptions["size"];
  readonly #log: (line: string) => void;
  readonly #book = new VersionBook();
  readonly #wrongs: string[] = [];
  readonly #stage: ConnectedStage;
  readonly #databaseUrl: string;
  #groups!: Groups;
  #restoredAt = 0;

  constructor(way: Restoring, { size, log, ground }: SceneOptions) {
    this.#way = way;
    this.#size = size;
    this.#log = log;
    this.#stage = ground.stage;
    this.#databaseUrl = ground.databaseUrl;
    // It allows more than its definition says, so that what an operator releases works.
    Object.assign(this.#stage.provider.switches, { reuse: "grace", graceSeconds: 600 });
  }

  /** @returns what went wrong; nothing, if all is well */
  async play(): Promise<string[]> {
    const stage = this.#stage;
    const databaseUrl = this.#databaseUrl;
    this.#groups = await this.#connect();
    const copy = await copyDatabase(databaseUrl);
    await this.#anHour();
    await this.#holdAnswers();
    if (this.#way.restarts) await stage.brokers[1]?.kill();
    this.#restoredAt = Date.now();
    await this.#way.restore(databaseUrl, copy, async () => {
      if (!this.#way.restarts) await this.#readCached();
      await this.#letAnswersCome();
    });
    if (!this.#way.hasGap) await this.#letAnswersCome();
    if (this.#way.restarts) await Promise.all(stage.brokers.map((broker) => broker.start()));
    await this.#ask();
    await this.#confirm();
    if (this.#book.ambiguous.length > 0) this.#note(`one version for two tokens: ${this.#book.ambiguous.join()}`);
    return this.#wrongs;
  }

  #note(wrong: string): void {
    this.#log(`${this.#way.name}: ${wrong}`);
    this.#wrongs.push(`${this.#way.name}: ${wrong}`);
  }

  get #held(): readonly Connected[] {
    const { moved, imported, deleted } = this.#groups;
    return [...moved, ...imported, ...deleted];
  }

  async #connect(): Promise<Groups> {
    const { each } = this.#size;
    const connect = (prefix: string) => connectMany(this.#stage, each, prefix);
    const groups: Groups = {
      still: await connect("still"),
      moved: await connect("moved"),
      imported: await connect("imported"),
      deleted: await connect("deleted"),
      spooled: await connect("spooled"),
    };
    await this.#read(Object.values(groups).flat());
    return groups;
  }

  /** What happens after the copy was made. */
  async #anHour(): Promise<void> {
    const { moved, imported, deleted, spooled } = this.#groups;
    const { first, provider } = this.#stage;
    for (let round = 0; round < 2; round++) {
      await Promise.all([...moved, ...imported, ...deleted, ...spooled].map((one) => this.#refresh(one)));
      await this.#read(this.#held);
    }
    for (const { name } of imported) {
      const { accessToken, refreshToken } = provider.issueTokenSet();
      const set = { access_token: accessToken, refresh_token: refreshToken, expires_in: 3600 };
      await first.api.importTokens(name, set);
    }
    await this.#read(imported);
    await Promise.all(deleted.map(({ name }) => first.api.deleteConnection(name)));
  }

  /** One more refresh of some, whose answers wait in the process that got them. */
  async #holdAnswers(): Promise<void> {
    const { first, provider } = this.#stage;
    const { spooled } = this.#groups;
    first.setFailpoints({ answered: { action: "hold" } });
    const before = new Map(spooled.map(({ family }) => [family, provider.ledger.refreshes(family)]));
    const isAnswered = ({ family }: Connected) => provider.ledger.refreshes(family) > (before.get(family) ?? 0);
    const order = async (one: Connected) => {
      // Nobody is told how it went before the answer may go on; a slow machine may have to be asked twice.
      const ask = async () => isAnswered(one) || (await this.#order(one)) === 200 || isAnswered(one);
      await until(`a request for ${one.name}`, ask);
    };
    for (const one of spooled) order(one).catch(() => {});
    await until("their answers", () => spooled.every(isAnswered));
    await sleep(300);
  }

  /** @returns the status; null where the broker is gone */
  async #order({ name }: Connected): Promise<number | null> {
    const { api } = this.#stage.first;
    return await api.api(`/connections/${name}/refresh`, { method: "POST" }).then(
      ({ status }) => status,
      () => null,
    );
  }

  async #refresh(one: Connected): Promise<void> {
    await until(`a refresh of ${one.name}`, async () => (await this.#order(one)) === 200);
  }

  /** Valid tokens are handed out although there is no database. */
  async #readCached(): Promise<void> {
    const read = async (broker: BrokerProcess) => await this.#book.read(broker, this.#groups.still[0]?.name ?? "");
    const refusals = await Promise.all(this.#stage.brokers.map(read));
    for (const refusal of refusals) if (refusal !== null) this.#note(`a cached token was refused: ${refusal}`);
  }

  /** The answers that the provider has held come when there is no database, or an older one. */
  async #letAnswersCome(): Promise<void> {
    const { first } = this.#stage;
    const { spooled } = this.#groups;
    const kill = { spooled: { action: "kill", after: spooled.length } } as const;
    first.setFailpoints(this.#way.restarts ? kill : {});
    if (this.#way.restarts) await untilKilled(first);
    first.setFailpoints({});
  }

  /** Everything that callers can do to get suspended rows refreshed. */
  async #ask(): Promise<void> {
    const { still, spooled } = this.#groups;
    const { brokers, provider } = this.#stage;
    for (let round = 0; round < this.#size.rounds; round++) {
      await Promise.all(brokers.flatMap((broker) => this.#held.map(({ name }) => this.#urge(broker, name))));
      await sleep(250);
    }
    const spent = this.#sentSinceRestored(this.#held);
    if (spent > 0) this.#note(`${spent} requests with refresh tokens of rows gone back`);
    await this.#read([...still, ...spooled]);
    // A replica whose database has just not answered hands out a usable token meanwhile. The next readers cause the refresh.
    await until("refreshes of those that had not moved", async () => {
      const stuck = still.filter(({ family }) => provider.ledger.refreshes(family) < 2);
      if (stuck.length > 0) await this.#read(stuck);
      return stuck.length === 0;
    });
    for (const one of spooled) await this.#refresh(one);
    await this.#checkList();
    await this.#checkExplanation();
  }

  async #urge(broker: BrokerProcess, name: string): Promise<void> {
    await broker.api.api(`/connections/${name}/refresh`, { method: "POST" });
    await this.#book.read(broker, name);
    const { body } = await broker.api.token(name);
    if (body.version > 0) await this.#book.read(broker, name, { rejected_version: body.version });
  }

  /** Token requests with a refresh token of these. */
  #sentSinceRestored(connections: readonly Connected[]): number {
    const { ledger } = this.#stage.provider;
    const families = new Set(connections.map(({ family }) => family));
    const isTheirs = (token = "") => families.has(ledger.familyOf(token) ?? "");
    return ledger
      .requestsTo("token")
      .filter(({ inAt, fields }) => inAt >= this.#restoredAt && isTheirs(fields["refresh_token"])).length;
  }

  async #checkList(): Promise<void> {
    const list = await freshetRecover(this.#stage.first, []);
    const { still, spooled } = this.#groups;
    const isListed = ({ name }: Connected) => new RegExp(`^${name} `, "m").test(list);
    const missing = namesOf(this.#held.filter((connection) => !isListed(connection)));
    const needless = namesOf([...still, ...spooled].filter(isListed));
    if (missing.length > 0) this.#note(`not listed as held: ${missing.join()}`);
    if (needless.length > 0) this.#note(`held needlessly: ${needless.join()}`);
  }

  /** Every replica tells each caller what an operator must do. */
  async #checkExplanation(): Promise<void> {
    const codes = this.#stage.brokers.flatMap((broker) =>
      this.#held.map(async ({ name }) => {
        const { body } = await broker.api.api(`/connections/${name}/refresh`, { method: "POST" });
        return String(body["code"]);
      }),
    );
    const others = new Set((await Promise.all(codes)).filter((code) => code !== "storage_unavailable"));
    if (others.size > 0) this.#note(`a held connection's refresh is refused with ${[...others].join()}`);
  }

  /** Because the operator releases it, or a person connects the account again. */
  async #confirm(): Promise<void> {
    const { moved } = this.#groups;
    const again = moved.slice(0, 2);
    const before = new Map(this.#held.map(({ name }) => [name, this.#book.newest(name)]));
    for (const { name } of again) await this.#stage.reconnect(name);
    const [one, ...others] = this.#held.filter((connection) => !again.includes(connection));
    await this.#recover([one?.name ?? ""]);
    await this.#mustRefresh(one === undefined ? [] : [one]);
    const unconfirmed = this.#sentSinceRestored(others);
    if (unconfirmed > 0) this.#note(`${unconfirmed} requests for rows that nobody confirmed`);
    await this.#recover(["--all"]);
    await this.#mustRefresh(others);
    await this.#read(this.#held);
    const stale = this.#held.filter(({ name }) => this.#book.newest(name) <= (before.get(name) ?? 0));
    if (stale.length > 0) this.#note(`versions did not grow: ${namesOf(stale).join()}`);
  }

  async #recover(words: readonly string[]): Promise<void> {
    await freshetRecover(this.#stage.first, words).catch((error: unknown) => this.#note(String(error)));
  }

  async #mustRefresh(connections: readonly Connected[]): Promise<void> {
    const { api } = this.#stage.first;
    for (const { name } of connections) {
      await until(`an answer for ${name}`, async () => {
        const { status, body } = await api.api(`/connections/${name}/refresh`, { method: "POST" });
        // A slow machine has let the permit pass, and nothing was sent.
        if (status === 503 && body["code"] === "provider_unavailable") return false;
        if (status !== 200) this.#note(`${name}, confirmed, is refused with ${status} ${String(body["code"])}`);
        return true;
      });
    }
  }

  /** At every replica, again and again until all have given a token. */
  async #read(connections: readonly Connected[]): Promise<void> {
    const { brokers } = this.#stage;
    await Promise.all(connections.flatMap(({ name }) => brokers.map((broker) => this.#readOne(broker, name))));
  }

  async #readOne(broker: BrokerProcess, name: string): Promise<void> {
    const isRead = async () => (await this.#book.read(broker, name)) === null;
    await until(`a token of ${name}`, isRead, { everyMs: 200 });
  }
}

function namesOf(connections: readonly Connected[]): string[] {
  return connections.map(({ name }) => name);
}
