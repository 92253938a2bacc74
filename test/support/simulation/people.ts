import { BrokerError, connectionNotFound } from "../../../src/errors.ts";
import { codeDestinationOf } from "../../../src/providers/oauth/authorization-request.ts";
import type { TokenRow } from "../../../src/store/token-row.ts";
import type { Family, ReuseKind } from "./grant-model.ts";
import type { Replica } from "./replica.ts";
import { machines, simClient, simClientOf } from "./sim-catalog.ts";
import type { World } from "./world.ts";

/** A name that callers use, over all the connections that it has had. */
export type Subject = {
  name: string;
  kind: ReuseKind | typeof machines;
  accessLifeSeconds: number;
  /** The id of its client; undefined: that of most. */
  client?: string;
};

/** What a person did. `end` null: nobody was told what came of it. */
type Deed = {
  what: "grant" | "delete" | "create" | "disable" | "enable";
  name: string;
  id: string;
  family: Family | null;
  startMs: number;
  end: { atMs: number; ok: boolean } | null;
};

/** People and callers, who ask replicas for things, and what they were told. */
export class People {
  readonly deeds: Deed[] = [];
  readonly reads = { served: 0, refused: 0 };
  readonly #world: World;
  /** The newest version that anybody was handed, by name. */
  readonly #newest = new Map<string, number>();
  #ids = 0;

  constructor(world: World) {
    this.#world = world;
  }

  /** A connection of this name, with a first grant where a person gives one. Outside of all faults. */
  found(subject: Subject): void {
    const { database } = this.#world;
    const id = this.#newId();
    database.insert(newConnection(id, subject));
  }

  #newId(): string {
    return `00000000-0000-4000-8000-${String(++this.#ids).padStart(12, "0")}`;
  }

  async read(replica: Replica, name: string, given: { rejected?: boolean; minTtlSeconds?: number } = {}) {
    if (!replica.isRunning) return null;
    const { core } = replica;
    const { rejected = false, minTtlSeconds = 0 } = given;
    try {
      const stored = this.#world.database.tables.byName(name)?.version ?? 0;
      const version = rejected ? Math.max(stored, this.#newest.get(name) ?? 0) : null;
      const token = await core.tokens.get(name, {
        labels: {},
        minTtlSeconds,
        rejectedVersion: version,
        waitSeconds: 20,
      });
      this.reads.served += 1;
      this.#newest.set(name, Math.max(this.#newest.get(name) ?? 0, token.version));
      const isYoung = token.warnings.some(({ code }) => code === "recently_refreshed");
      if (version !== null && token.version <= version && !isYoung) {
        this.#world.violation(`${replica.name} serves ${name} version ${token.version} to who had ${version} refused`);
      }
      this.#world.note(`${replica.name} serves ${name} version ${token.version} ${token.accessToken}`);
      this.#world.watch.served(token, replica);
      return token;
    } catch (error) {
      this.#refused(`read of ${name} at ${replica.name}`, error);
      return null;
    }
  }

  #refused(what: string, error: unknown): void {
    this.reads.refused += 1;
    const { name, message, code } = error as Error & { code?: string };
    if (error instanceof BrokerError) this.#world.note(`${what}: ${code}`);
    else this.#world.violation(`${what}: ${name}: ${message}`);
  }

  async #act(deed: Pick<Deed, "what" | "name" | "id" | "family">, work: () => Promise<unknown>): Promise<void> {
    const { scheduler } = this.#world;
    const noted: Deed = { ...deed, startMs: scheduler.nowMs, end: null };
    this.deeds.push(noted);
    const text = `${deed.what} ${deed.name}${deed.family === null ? "" : ` family ${deed.family.id}`}`;
    this.#world.note(`a person begins: ${text}`);
    try {
      await work();
      noted.end = { atMs: scheduler.nowMs, ok: true };
      this.#world.note(`a person is told: ${text} is done`);
      this.#closed(noted);
    } catch (error) {
      noted.end = { atMs: scheduler.nowMs, ok: false };
      this.#refused(text, error);
    }
  }

  /** Unless somebody else has opened it again meanwhile. */
  #closed({ what, name }: Deed): void {
    if (what !== "delete" && what !== "disable") return;
    const { status = "disabled" } = this.#row(name) ?? {};
    if (status === "disabled") this.#world.watch.closedMs.set(name, this.#world.scheduler.nowMs);
  }

  #row(name: string): TokenRow | undefined {
    return this.#world.database.tables.byName(name) as unknown as TokenRow | undefined;
  }

  /** A new consent, whose code a replica exchanges. */
  async reconnect(replica: Replica, subject: Subject): Promise<void> {
    if (subject.kind === machines || !replica.isRunning) return;
    const row = this.#row(subject.name);
    if (row === undefined || row.status === "disabled") return;
    const code = this.#world.provider.consent(subject.kind, subject.accessLifeSeconds);
    const family = this.#world.provider.codes.get(code)?.family ?? null;
    const exchange = {
      code,
      codeVerifier: null,
      redirectUri: null,
      captured: {},
      destination: codeDestinationOf(row, simClientOf(row.clientRef ?? simClient.id)),
      idToken: { nonce: null, issuer: null },
      cannotWait: true,
    };
    await this.#act({ what: "grant", name: subject.name, id: row.id, family }, async () => {
      const connection = await replica.rows.readWithClient(row.id);
      if (connection === null) throw connectionNotFound(row.name);
      return await replica.core.authorizations.exchangeCode({ ...exchange, connection });
    });
  }

  async import(replica: Replica, subject: Subject): Promise<void> {
    if (subject.kind === machines || !replica.isRunning) return;
    const row = this.#row(subject.name);
    if (row === undefined || row.status === "disabled") return;
    const { provider, scheduler } = this.#world;
    const token = provider.grants.open(subject.kind, subject.accessLifeSeconds, scheduler.nowMs);
    const accessToken = provider.grants.accessToken(token.family);
    // An hour old, say: its refresh token is what counts.
    const accessExpiry = { kind: "in", seconds: scheduler.chance(0.5) ? 1 : subject.accessLifeSeconds } as const;
    provider.accessLives.set(accessToken, { expiresMs: scheduler.nowMs + accessExpiry.seconds * 1000 });
    const rest = { tokenType: "Bearer", refreshExpiry: { kind: "unstated" }, captured: {} } as const;
    const grant = { accessToken, refreshToken: token.value, accessExpiry, ...rest };
    const seen = { ...row, now: new Date(scheduler.nowMs) };
    await this.#act({ what: "grant", name: subject.name, id: row.id, family: token.family }, async () => {
      await replica.core.authorizations.importGrant(seen, grant);
      token.family.askedMs = scheduler.nowMs;
    });
  }

  /** An operator retries a grant that counts as ended. Returns true if it lives on. */
  async retry(replica: Replica, { name }: Subject): Promise<boolean> {
    const row = this.#row(name);
    if (row === undefined || !replica.isRunning) return false;
    try {
      await replica.core.grantEnds.retry(row.id, { by: "an operator", force: true });
      this.#world.note(`an operator is told at ${replica.name}: ${name} lives on`);
      return true;
    } catch (error) {
      this.#refused(`retry of ${name} at ${replica.name}`, error);
      return false;
    }
  }

  async delete(replica: Replica, { name }: Subject): Promise<void> {
    const row = this.#row(name);
    if (row === undefined || !replica.isRunning) return;
    const { database, store } = this.#world;
    await this.#act({ what: "delete", name, id: row.id, family: null }, async () => {
      const deleted = await store.transact(replica, { name: "delete", effect: () => database.delete(row.id) });
      replica.core.cache.expire(name);
      if (deleted !== null) replica.core.marks.close(deleted.id, deleted.version);
    });
  }

  async create(replica: Replica, subject: Subject): Promise<void> {
    if (this.#row(subject.name) !== undefined || !replica.isRunning) return;
    const { database, store, watch } = this.#world;
    const id = this.#newId();
    await this.#act({ what: "create", name: subject.name, id, family: null }, async () => {
      await store.transact(replica, {
        name: "insert",
        effect: () => {
          if (database.tables.byName(subject.name) !== undefined) return;
          database.insert(newConnection(id, subject));
          watch.closedMs.delete(subject.name);
        },
      });
    });
  }

  async setDisabled(replica: Replica, { name }: Subject, disabled: boolean): Promise<void> {
    const row = this.#row(name);
    if (row === undefined || !replica.isRunning) return;
    const { database, store, watch } = this.#world;
    const what = disabled ? "disable" : "enable";
    await this.#act({ what, name, id: row.id, family: null }, async () => {
      const updated = await store.transact(replica, {
        name: what,
        effect: () => {
          if (!disabled) watch.closedMs.delete(name);
          return database.disable(row.id, disabled);
        },
      });
      if (updated !== null) replica.core.cache.learn(updated);
    });
  }
}

function newConnection(id: string, { name, kind, client = simClient.id }: Subject) {
  const grant = kind === machines ? "client_credentials" : "authorization_code";
  return { id, name, provider: kind, clientRef: client, grant };
}
