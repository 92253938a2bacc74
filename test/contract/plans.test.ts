import { randomBytes, randomUUID } from "node:crypto";
import { afterAll, beforeAll, expect, it } from "vitest";
import { createAccountRows } from "../../src/store/accounts.ts";
import { createAuditStore, type EntryQuery } from "../../src/store/audit.ts";
import type { ConnectionFilter } from "../../src/store/connections.ts";
import { createDatabaseHealth, openPostgres } from "../../src/store/database.ts";
import { createDeviceAuthorizations } from "../../src/store/devices.ts";
import { createReplicas } from "../../src/store/replicas.ts";
import { createRequestLimits, type LimitedRequest } from "../../src/store/request-limits.ts";
import { createRotations } from "../../src/store/rotations.ts";
import { createSealedRows, sealedTableNames } from "../../src/store/sealed-rows.ts";
import type { TokenRow } from "../../src/store/token-row.ts";
import { query } from "../support/query.ts";
import { describeWithServices, useDatabase } from "../support/services/index.ts";
import { allSites, type Explained, explaining } from "./plans/explaining.ts";
import { bigClient, fill, growing } from "./plans/filled.ts";
import {
  freely,
  ifAbandoned,
  newWorkload,
  sealedBytes,
  sealedGrant,
  stageKey,
  StoreStage,
  vault,
} from "./store/stage.ts";
import { unfiltered } from "./audit/plans.ts";

/** As many rows of growing tables a statement may look at, whatever there is: three pages of 200, the largest of a rotation. */
const mostRead = 700;

const mostTidied = 10_050;
const mostCounted = 80_050;
/** What may look at more, how much, and why. */
const readMore: Record<string, [rows: number, why: string]> = {
  "rows.tidy": [mostTidied, "deletes in batches of 10,000"],
  "sealedRows.count": [mostCounted, "counts up to four columns of 20,000 rows at a time, after the primary key"],
  "connections.list nameContains": [
    Infinity,
    "looks through the names in the order of the list, until the page is full; docs/performance.md says so",
  ],
  "connections.list nameContains, further": [Infinity, "the same"],
  "audit.page a tenant": [
    Infinity,
    "looks back through the entries of others, until the page is full or the time over",
  ],
  "keys.ids": [
    Infinity,
    "all keys in one question, for those who send many that do not exist; callers are few beside connections",
  ],
  "keys.working": [Infinity, "lists all keys that work, after a database was restored"],
  "keys.list of a tenant": [
    Infinity,
    "looks through the keys in the order of the list: which lie within a caller's patterns, no index tells",
  ],
};

/** Statements that are not tried here, and why. */
const notTried: Record<string, string> = {
  "broker.ts: const [row] = await prisma.$queryRaw<{ version: string }[]>`SELECT current_setting('server_version') AS version`;":
    "asks for a setting of the server",
  "broker.ts: const asked = prisma.$queryRaw<{ takesWrites: boolean }[]>`": "reads one row, whichever",
  "store/token-sets.ts: : commits.$queryRaw<TokenRow[]>(statement)),":
    "the statement of the line before it, with further lines of the history",
  "store/database.ts: const [row] = await prisma.$queryRaw<{ epoch: Date; given: boolean }[]>`":
    "a start's own check, of no table",
  "store/accounts.ts: const [now] = await prisma.$queryRaw<UnconfirmedGrant[]>`SELECT ${unconfirmedColumns} FROM held_grants h":
    "by the primary key, if a rotation signs the row between two statements",
};

const failure = { code: "temporarily_unavailable", detail: "busy", status: 503, refusal: "503" };
const everything = { patterns: ["%"], labels: {} };
const tenant = { patterns: ["tenant-17-%"], labels: {} };
const marked = { patterns: ["%"], labels: { tenant: "tenant-17" } };

const keyOf = ({ id, generation }: TokenRow) => ({ connectionId: id, generation, attemptId: randomUUID() });

describeWithServices(["postgres"], "with many connections, no statement reads more than it needs", () => {
  let stage: StoreStage;
  let url: string;
  const tried = new Set<string>();
  let faults: string[] = [];
  let current = "";

  const note = ({ site, read, scanned, scans, plan }: Explained): void => {
    tried.add(site);
    const [most] = readMore[current] ?? [mostRead];
    const whole = most === Infinity ? [] : scans;
    if (read <= most && Math.min(scanned, most) <= (most === mostRead ? 0 : most) && whole.length === 0) return;
    faults.push(`${current} (${site}) reads ${read} rows and scans ${scanned}, ${whole.join(", ")}:\n${plan}`);
  };

  beforeAll(async () => {
    url = await useDatabase();
    for (const statement of fill) await query(url, statement);
    const parts = await query<{ name: string }>(
      url,
      "SELECT relid::regclass::text AS name FROM pg_partition_tree('audit.entries')",
    );
    const tables = new Set([...growing, ...parts.map(({ name }) => name.replace("audit.", ""))]);
    const database = await openPostgres(
      url,
      createDatabaseHealth(() => performance.now()),
    );
    stage = new StoreStage(explaining(database, tables, note));
  });
  afterAll(async () => await stage.database.close());

  /** Calls one function of the store, and judges its statements under this name. */
  async function call<Result>(name: string, work: () => Promise<Result>): Promise<Result> {
    current = name;
    return await work();
  }

  it("reading, refreshing and ending", async () => {
    const { rows } = stage;
    const row = await call("connections.insert", () => stage.connect());
    await call("rows.readByName", () => rows.readByName([row.name, "tenant-1-51"]));
    const known = await rows.readByName([row.name]);
    await call("rows.changedSince", () => rows.changedSince(known.map(({ row: { id }, asOf }) => ({ id, asOf }))));
    await call("rows.hasLabels", () => rows.hasLabels(row.name, { tenant: "t" }));
    await call("rows.readByName of one", () => rows.readByName([row.name]));
    await call("rows.readByIds", () => rows.readByIds([row.id, randomUUID()]));
    await call("rows.readByIds of one", () => rows.readByIds([row.id]));
    await call("rows.readById", () => rows.readById(row.id));
    await call("rows.readWithClient", () => rows.readWithClient(row.id));
    const lease = { leaseSeconds: 30, statuses: ["connected"] as const, ifAbandoned, exclusive: true };
    const key = keyOf(row);
    await call("rows.noteUnprepared", () => rows.noteUnprepared(row, "no client"));
    await call("rows.takePermit", () => rows.takePermit({ ...key, ...lease, takeover: null }));
    await call("rows.takePermit alone", () => rows.takePermit({ ...key, ...lease, takeover: null }));
    const takeover = {
      seenAttemptId: key.attemptId,
      quietSeconds: 0,
      promptly: true,
      graceSeconds: 0,
      graceQuietSeconds: 0,
    };
    await call("rows.takePermit of another", () =>
      rows.takePermit({ ...key, ...lease, attemptId: randomUUID(), takeover }),
    );
    const next = { ...key, attemptId: randomUUID() };
    await call("rows.swapPermit", () => rows.swapPermit(key, { attemptId: next.attemptId, leaseSeconds: 30 }));
    await call("rows.permitAges", () => rows.permitAges());
    await call("rows.commitRefresh", () => rows.commitRefresh(next, sealedGrant(), { attempt: next.attemptId }));
    await call("rows.commitRefresh alone", () => rows.commitRefresh(next, sealedGrant(), { attempt: next.attemptId }));
    await call("rows.readForAnswer", () => rows.readForAnswer({ connectionId: row.id, attemptId: randomUUID() }));

    const again = await stage.permit();
    await call("rows.leaveUnknown", () =>
      rows.leaveUnknown(again.key, failure, { backoffSeconds: 1, answer: sealedBytes(), endLease: false, ifAbandoned }),
    );
    await call("rows.judgeRefusals", () => rows.judgeRefusals(again.key, { equal: 1, seconds: 0 }));
    await call("rows.returnPermit", () => rows.returnPermit(again.key, failure, 1));
    const dropped = await stage.permit();
    await call("rows.dropPermit", () => rows.dropPermit(dropped.key));
    const ending = await stage.permit();
    await call("rows.endGrant", () => rows.endGrant(ending.key, failure));
    const retry = { ...keyOf(ending.row), leaseSeconds: 30, pauseSeconds: 0, exclusive: true, by: "key" };
    await call("rows.takeRetryPermit", () => rows.takeRetryPermit(retry));
    await call("rows.leaveRetryUnknown", () => rows.leaveRetryUnknown(retry, failure, sealedBytes()));
    await call("rows.lapseRetries", () => rows.lapseRetries(0));
    await call("rows.returnRetryPermit", () => rows.returnRetryPermit(retry, failure));
    const over = await stage.connect();
    await call("rows.endUnrefreshable", () => rows.endUnrefreshable(over, failure));
    await call("rows.endProbablyDead", () => rows.endProbablyDead(over, { by: "key", quietSeconds: 0 }));

    const event = { type: "connected" as const, detail: {} };
    const replaced = { ...(await stage.row(row.id)), attemptId: randomUUID() };
    await call("rows.replaceGrant", () => rows.replaceGrant(replaced, sealedGrant(), { event, exclusive: false }));
    const exclusive = { ...(await stage.row(row.id)), attemptId: randomUUID() };
    await call("rows.replaceGrant of one holder", () =>
      rows.replaceGrant(exclusive, sealedGrant(), { event, exclusive: true, unlessSent: true }),
    );
    await call("rows.holdersElsewhere", () => rows.holdersElsewhere(row.id, sealedBytes()));
    const kept = await stage.row(row.id);
    const candidate = {
      attemptId: randomUUID(),
      connectionId: row.id,
      authorization: kept.authorization,
      baseGeneration: 1,
      record: sealedBytes(),
    };
    await call("rows.addCandidate", () => rows.addCandidate(candidate, {}));
    await call("rows.newestCandidate", () => rows.newestCandidate(row.id, kept.authorization));
    const late = { attemptId: randomUUID(), generation: kept.generation + 1, event };
    await call("rows.promoteLate", () => rows.promoteLate(kept, sealedGrant(), late));
    const trying = await stage.permit();
    await call("rows.tryCandidate", () =>
      rows.tryCandidate(trying.key, sealedGrant(), {
        candidateId: candidate.attemptId,
        attemptId: randomUUID(),
        leaseSeconds: 30,
        ifAbandoned,
      }),
    );
    await call("tombstones.find", () => stage.tombstones.find(row.id));
    judge();
  });

  it("sweeping, tidying, and what a restored database has taken back", async () => {
    const { rows } = stage;
    const row = await stage.connect();
    await stage.set(row.id, "next_refresh_at = now() - interval '1 minute'");
    await call("rows.claimDue", () => rows.claimDue({ limit: 16, claimSeconds: 60, busyProviders: ["provider-1"] }));
    await call("rows.postpone", () => rows.postpone(row, 60));
    await call("rows.postpone for good", () => rows.postpone(row, null));
    await call("rows.hasten", () => rows.hasten(row));
    await call("rows.markInUse", () => rows.markInUse([row]));
    await call("rows.generationsAfter", () => rows.generationsAfter(null, 200));
    await call("rows.generationsAfter a page", () => rows.generationsAfter(row.id, 200));
    await call("rows.suspendRestored", () =>
      rows.suspendRestored([{ connectionId: row.id, generation: 9, version: 9 }]),
    );
    await call("rows.goneBack", () => rows.goneBack());
    const suspended = { id: row.id, generation: row.generation, goneBackFrom: 9 };
    await call("rows.releaseGoneBack", () =>
      rows.releaseGoneBack(suspended, { accessToken: null, refreshToken: null }, "key"),
    );
    await call("rows.tidy", () => rows.tidy());
    judge();
  });

  it("lists and single connections of operators", async () => {
    const { connections } = stage;
    const row = await stage.connect();
    await call("connections.findByName", () => connections.findByName("tenant-1-51", { tenant: "tenant-1" }));
    await call("connections.findById", () => connections.findById(row.id));
    const first = { limit: 51, after: null };
    const further = { limit: 51, after: { createdAt: new Date(Date.now() - 3_600_000 * 100), id: row.id } };
    const filters: Required<ConnectionFilter> = {
      status: "disabled",
      provider: "provider-7",
      client: "client-3",
      label: { key: "tenant", value: "tenant-9" },
      nameContains: "tenant-9",
    };
    const lists = Object.entries({
      "": {},
      ...Object.fromEntries(Object.entries(filters).map(([key, value]) => [key, { [key]: value }])),
    });
    for (const [name, filter] of lists) {
      await call(`connections.list ${name}`, () => connections.list(first, filter, everything));
      await call(`connections.list ${name}, further`, () => connections.list(further, filter, everything));
    }
    await call("connections.list client of many", () => connections.list(further, { client: "client-0" }, everything));
    await call("connections.list client of none", () => connections.list(first, { client: "no-client" }, everything));
    await call("connections.list of a tenant", () => connections.list(first, {}, tenant));
    await call("connections.list of a label", () => connections.list(first, {}, marked));
    await call("connections.bindingLabels", () => connections.bindingLabels(["tenant", "other"]));
    await call("connections.hasOrAwaitsSecrets", () => connections.hasOrAwaitsSecrets(row.id));
    await call("connections.furtherTokens", () => connections.furtherTokens(row.id));
    await call("connections.events", () => connections.events(row.id, { limit: 50, before: null, patterns: ["%"] }));
    await call("connections.events further", () =>
      connections.events(row.id, { limit: 50, before: 9n, patterns: ["%"] }),
    );
    await call("connections.addEvent", () => connections.addEvent(row.id, "updated", {}));
    await call("connections.update", () => connections.update(row, { labels: { a: "b" }, disabled: true }, freely));
    const moved = await stage.row(row.id);
    await call("connections.update that moves", () =>
      connections.update(
        moved,
        { inputs: { shop: "a" } },
        { client: null, movesHost: true, freeLabels: ["tenant"], furtherTokens: [row] },
      ),
    );
    await call("connections.delete", () => connections.delete(row.id));
    const { id } = await stage.insert();
    await call("connections.discard", () => connections.discard(id));
    judge();
  });

  it("clients", async () => {
    const { clients } = stage;
    const given = {
      provider: "provider-3",
      clientId: "id",
      secretRevision: 0,
      scopes: [],
      patterns: ["*"],
      inputs: {},
      ownRedirectUri: false,
    };
    const id = randomUUID();
    const client = await call("clients.insert", () =>
      clients.insert({ id, name: `new-${id}`, secret: sealedBytes(), ...given }),
    );
    const row = await stage.connect({ clientRef: id });
    await call("clients.findByName", () => clients.findByName(client.name));
    await call("clients.asItStands", () => clients.asItStands(client.name));
    await call("clients.findServing", () => clients.findServing(client.name, "tenant-1-1"));
    await call("clients.list", () => clients.list({ limit: 51, after: null }));
    await call("clients.list further", () => clients.list({ limit: 51, after: { createdAt: new Date(), id } }));
    await call("clients.list provider", () => clients.list({ limit: 51, after: null }, { provider: "provider-3" }));
    await call("clients.holder", () => clients.holder(id));
    await call("clients.isWithin", () => clients.isWithin(id, ["tenant-%"]));
    const changed = await call("clients.change", () => clients.change(client, { secret: sealedBytes() }, ["%"]));
    await call("clients.change inputs", () => clients.change(changed ?? client, { inputs: { shop: "a" } }, ["%"]));
    await call("clients.forgetPreviousSecret", () => clients.forgetPreviousSecret(id, 1));
    await call("clients.noteOldSecret", () => clients.noteOldSecret(client, row.id));
    await call("clients.retryConnections", () => clients.retryConnections(id));
    await call("clients.findMany", () => clients.findMany([id]));
    await stage.connections.delete(row.id);
    await call("clients.delete", () => clients.delete(id, ["%"]));
    judge();
  });

  it("accounts, further tokens and unconfirmed grants", async () => {
    const accounts = createAccountRows(stage.database, vault);
    const row = await stage.connect({ clientRef: null });
    const further = [{ name: "second", exchange: null }];
    await call("accounts.ensureFurtherTokens", () => accounts.ensureFurtherTokens(row, further));
    await call("accounts.readFurtherTokens", () => accounts.readFurtherTokens(row.id));
    const account = { account: "account-9", label: "nine", captured: {} };
    await call("accounts.learnAccount", () =>
      accounts.learnAccount(row, account, { accessToken: null, refreshToken: null }),
    );
    await call("accounts.noteLookupFailed", () => accounts.noteLookupFailed(row, "failed"));
    await call("accounts.learnExpiry", () => accounts.learnExpiry(row, { expiresAt: new Date(), refreshDueAt: null }));
    const providers = ["provider-9", "formerly-9"];
    const ofMany = { ...row, account: "account-9", clientRef: bigClient };
    await call("accounts.sharingAccount", () =>
      accounts.sharingAccount(ofMany, {}, { account: true, client: false, providers }),
    );
    await call("accounts.sharingAccount of a client", () =>
      accounts.sharingAccount(ofMany, {}, { account: true, client: true, providers }),
    );
    await call("accounts.noteDroppedSets", () => accounts.noteDroppedSets([row.id], { kept: 1 }));
    await call("accounts.addEvent", () => accounts.addEvent(row.id, "updated", {}));
    await call("accounts.mayShareAccount", () => accounts.mayShareAccount({ ...row, clientRef: bigClient }, providers));
    await call("accounts.mayShareAccount without a client", () => accounts.mayShareAccount(row, ["own"]));
    const grant = {
      connectionId: row.id,
      provider: "provider-9",
      clientRef: bigClient,
      refreshFingerprint: sealedBytes(),
      account: "account-9",
      mayBeSame: false,
    };
    await call("accounts.isStillNeeded", () => accounts.isStillNeeded(grant));
    await call("accounts.isStillNeeded by unknown accounts", () =>
      accounts.isStillNeeded({ ...grant, mayBeSame: true }),
    );
    await call("accounts.isStillNeeded without a client", () =>
      accounts.isStillNeeded({ ...grant, provider: "own", clientRef: null, account: null, mayBeSame: true }),
    );

    const attemptId = randomUUID();
    const unconfirmed = { attemptId, connectionId: row.id, generation: 1, record: sealedBytes() };
    await call("accounts.addUnconfirmed", () => accounts.addUnconfirmed(unconfirmed));
    await call("accounts.describeUnconfirmed", () =>
      accounts.describeUnconfirmed(attemptId, { account: "a", label: null, linkId: "l" }),
    );
    await call("accounts.overtakeUnconfirmed", () => accounts.overtakeUnconfirmed(attemptId));
    await call("accounts.findUnconfirmed", () => accounts.findUnconfirmed({ connectionId: row.id, linkId: "l" }));
    await call("accounts.acceptUnconfirmed", () => accounts.acceptUnconfirmed(attemptId));
    await call("accounts.declineUnconfirmed", () => accounts.declineUnconfirmed(attemptId));
    await call("accounts.acceptedUnconfirmed", () => accounts.acceptedUnconfirmed());
    await call("accounts.takeForgottenUnconfirmed", () => accounts.takeForgottenUnconfirmed());
    await call("accounts.takeUnconfirmed", () => accounts.takeUnconfirmed(row.id));
    await call("accounts.dropUnconfirmed", () => accounts.dropUnconfirmed(attemptId));
    judge();
  });

  it("consents", async () => {
    const { links, requests, attempts } = stage;
    const row = await stage.insert();
    const secretHash = sealedBytes();
    const key = { id: `new-${row.id}`, secretHash };
    const link = {
      ...key,
      connectionId: row.id,
      returnTo: null,
      manual: false,
      purpose: null,
      endUser: null,
      createdBy: "key",
      expiresInSeconds: 600,
    };
    await call("links.insert", () => links.insert(link));
    await call("links.find", () => links.find(key));
    await call("links.madeBy", () => links.madeBy(link.id));
    await call("links.claim", () => links.claim(key, sealedBytes()));
    await call("links.reserve", () => links.reserve(link.id));
    await call("links.release", () => links.release(link.id));
    const request = () => ({
      id: randomUUID(),
      stateHash: sealedBytes(),
      connectionId: row.id,
      linkId: link.id,
      browserHash: sealedBytes(),
      request: sealedBytes(),
      expiresInSeconds: 600,
      mostOpen: 2,
    });
    const [one, two, three] = [request(), request(), request()] as const;
    await call("requests.insert", () => requests.insert(one));
    await call("requests.insert another", () => requests.insert(two));
    await call("requests.insert one too many", () => requests.insert(three));
    await call("requests.find", () => requests.find(one.stateHash));
    await call("requests.noteError", () => requests.noteError(one.id));
    const ticketHash = sealedBytes();
    await call("requests.hold", () =>
      requests.hold(one.id, { ticketHash, request: sealedBytes(), forBrowser: "a", seconds: 60 }),
    );
    await call("requests.findHeld", () => requests.findHeld(ticketHash));
    await call("requests.consumeHeld", () => requests.consumeHeld(ticketHash, sealedBytes()));
    await call("requests.consume", () => requests.consume(two.id, { usesLink: true }));
    const attempt = { attemptHash: sealedBytes(), browserHash: sealedBytes(), linkId: link.id };
    await call("attempts.begin", () => attempts.begin(attempt));
    await call("attempts.firstOf", () => attempts.firstOf([attempt.attemptHash, sealedBytes()]));
    await call("attempts.find", () => attempts.find(attempt.attemptHash));
    await call("attempts.end", () => attempts.end(attempt, "ticket"));
    await call("attempts.findCompletion", () => attempts.findCompletion(ticketHash));
    const copied = sealedBytes();
    await call("attempts.beginCopied", () => attempts.beginCopied(copied));
    await call("attempts.endCopied", () => attempts.endCopied(copied, "ticket"));
    await call("attempts.findCopied", () => attempts.findCopied(copied));
    await call("attempts.beginAgain", () => attempts.beginAgain(copied, "ticket"));

    const devices = createDeviceAuthorizations(stage.database);
    const device = {
      connectionId: row.id,
      id: randomUUID(),
      deviceCode: sealedBytes(),
      linkId: null,
      userCode: "code",
      verificationUri: "https://a.example",
      verificationUriComplete: null,
      intervalSeconds: 0,
      expiresInSeconds: 600,
    };
    await call("devices.put", () => devices.put(device, { inputs: {}, scopes: ["read"], client: null }));
    await call("devices.find", () => devices.find(row.id));
    await call("devices.nextDueSeconds", () => devices.nextDueSeconds());
    await call("devices.claimDue", () => devices.claimDue({ limit: 10, leaseSeconds: 10 }));
    await call("devices.postpone", () => devices.postpone(device, 5));
    await call("devices.drop", () => devices.drop(device));
    judge();
  });

  it("callers", async () => {
    const { keys, workloads } = stage;
    const id = `new-${randomUUID()}`;
    const key = {
      id,
      name: "new",
      secretHash: sealedBytes(),
      abilities: ["tokens" as const],
      connections: ["tenant-17-*"],
      labels: {},
      expiresAt: null,
    };
    await call("keys.insert", () => keys.insert(key, null));
    await call("keys.insert by another", () =>
      keys.insert({ ...key, id: `${id}-2` }, async () => await keys.giver(id)),
    );
    await call("keys.ids", () => keys.ids());
    await call("keys.findMany", () => keys.findMany([id]));
    await call("keys.list", () => keys.list({ limit: 51, after: null }, everything));
    await call("keys.list further", () => keys.list({ limit: 51, after: { createdAt: new Date(), id } }, everything));
    await call("keys.list of a tenant", () => keys.list({ limit: 51, after: null }, tenant));
    await call("keys.working", () => keys.working(Date.now(), everything));
    await call("keys.hasAdmin", () => keys.hasAdmin(Date.now()));
    await call("keys.noteUses", () => keys.noteUses(new Map([[id, new Date()]])));
    await call("keys.revoke", () => keys.revoke(id, everything));
    const workload = await call("workloads.insert", () => workloads.insert(newWorkload(), null));
    if (workload === null) throw new Error("no workload was made");
    await call("workloads.all", () => workloads.all());
    await call("workloads.findByName", () => workloads.findByName(workload.name));
    await call("workloads.giver", () => workloads.giver(workload.id));
    await call("workloads.delete", () => workloads.delete(workload));
    judge();
  });

  it("limits, replicas and rotations", async () => {
    const limits = createRequestLimits(stage.database);
    const rules = { concurrency: 2, spacingMs: 0, maxPerWindow: { requests: 100, seconds: 60 } };
    const request: LimitedRequest = {
      key: "token_host:a.example",
      rules,
      client: bigClient,
      provider: "provider-0",
      kind: "refresh",
      travelSeconds: 1,
      leaseSeconds: 10,
    };
    const { admitted } = await call("limits.admit", () => limits.admit(request));
    await call("limits.admit again", () => limits.admit({ ...request, client: randomUUID() }));
    if (admitted === null) throw new Error("the limits admit nothing");
    await call("limits.closeAdmission", () => limits.closeAdmission(admitted, { sent: true, closeSeconds: 1 }));

    const replicas = createReplicas(stage.database);
    const self = randomUUID();
    const told = { ids: [stageKey.id], current: stageKey.id, held: [] };
    await call("replicas.now", () => replicas.now());
    await call("replicas.beat", () => replicas.beat({ id: self, name: "a:1", heardAt: null, keys: told }));
    await call("replicas.endedSince", () => replicas.endedSince(new Date(Date.now() - 4000)));
    await call("replicas.others", () => replicas.others(self, 60));
    await call("replicas.instances", () => replicas.instances());
    await call("replicas.endedUnder", () => replicas.endedUnder("gone-9"));
    await call("replicas.leave", () => replicas.leave(self, []));
    await call("replicas.abandon", () => replicas.abandon(self));
    await call("encryptionKeys.adopt", () => stage.encryptionKeys.adopt(self, { id: "k1", check: sealedBytes() }));
    await call("encryptionKeys.forget", () => stage.encryptionKeys.forget(["k1"]));

    const rotations = createRotations(stage.database);
    const id = randomUUID();
    await call("rotations.newest", () => rotations.newest());
    await call("rotations.begin", () => rotations.begin({ id, targetKey: "k1", by: "key", acceptsAuditFaults: true }));
    await call("rotations.giveBack", () => rotations.giveBack(self));
    const sealed = createSealedRows(stage.database);
    for (const table of sealedTableNames) {
      const page = await call("sealedRows.page", () => sealed.page(table, null));
      if (page === null) continue;
      await call("sealedRows.page further", () => sealed.page(table, page.last));
      const rows = await call("sealedRows.others", () =>
        sealed.others(table, { after: null, last: page.last, keyId: "k1" }),
      );
      const seals = { connections: 3, clients: 2, api_keys: 0, workloads: 0, consent_links: 0 }[table as string] ?? 1;
      const hasMac = !["candidates", "unread_answers", "device_authorizations", "authorization_requests"].includes(
        table,
      );
      const changes = rows.slice(0, 50).map(({ rowId }) => ({
        id: rowId,
        seals: Array.from({ length: seals }, () => ({ before: new Uint8Array([1]), after: new Uint8Array([2]) })),
        mac: hasMac ? { before: "a", after: "b" } : null,
      }));
      await call("sealedRows.replace", () => sealed.replace(table, changes));
    }
    await call("sealedRows.count", () => sealed.count("connections"));
    judge();
  });

  it("the audit", async () => {
    const audit = createAuditStore(stage.database);
    const id = "11111111-1111-4111-8111-111111111111";
    const at = new Date();
    const entry = {
      at,
      actorKind: "key",
      actorId: "a",
      actorName: "a",
      action: "keys.create",
      targetKind: null,
      targetName: null,
      address: null,
      result: "ok",
      detail: null,
      process: randomUUID(),
      seq: 1,
      hash: randomBytes(32),
      mac: "k1.x",
    };
    const count = {
      minute: at,
      action: "tokens.read",
      actorKind: "key",
      actorId: "a",
      actorName: "a",
      result: "ok",
      connections: ["c"],
      counts: [1],
      firstMs: [0],
      lastMs: [0],
    };
    const over = { own: new Date(at.getTime() - 60_000), others: new Date(at.getTime() - 180_000) };
    await call("audit.write", () =>
      audit.write(id, async (transaction) => {
        await transaction.has({ process: id, seq: 7, hash: entry.hash });
        await transaction.insert([entry]);
        await transaction.insertCounts({ process: id, number: 1 }, [count]);
        await transaction.newest(10);
        await transaction.takeCounts(id, over, { number: 1, of: 50 });
      }),
    );
    await call("audit.openCounts", () => audit.openCounts(id, over));
    const after = { at: new Date(Date.now() - 600_000), process: id, seq: 7 };
    const queries: Record<string, Partial<EntryQuery>> = {
      everything: {},
      "a further page": { after },
      "a time": { since: new Date(Date.now() - 60_000), until: new Date() },
      "an actor": { actor: "key-17" },
      "a connection": { connection: "tenant-17-17" },
      "an action": { action: "keys.create" },
      "an export": { oldestFirst: true, limit: 51, after },
      "a tenant": { within: tenant },
    };
    for (const [name, given] of Object.entries(queries)) {
      await call(`audit.page ${name}`, () => audit.page({ ...unfiltered, ...given }));
    }
    await call("audit.chains", () => audit.chains());
    await call("audit.chain", () => audit.chain(id, { from: 9, limit: 100 }));
    await call("audit.witnesses", () => audit.witnesses());
    await call("audit.anchors", () => audit.anchors());
    await call("audit.newestSeq", () => audit.newestSeq(id));
    await call("audit.presentReplicas", () => audit.presentReplicas(60));
    await call("audit.isAppendOnly", () => audit.isAppendOnly());
    await call("audit.maintain", () => audit.maintain());
    await call("audit.prune", () => audit.prune(new Date(0)));
    judge();
  });

  it("each statement of src/ is one of these, or is named with a reason", () => {
    const missing = allSites().filter(({ site, text }) => !tried.has(site) && !Object.hasOwn(notTried, text));
    expect(missing).toEqual([]);
  });

  it("each reference between tables is followed by an index, also when its target is deleted", async () => {
    const without = await query(
      url,
      `SELECT conrelid::regclass::text AS table, conname AS name FROM pg_constraint f
         JOIN pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = f.conkey[1]
       WHERE contype = 'f' AND NOT EXISTS (SELECT 1 FROM pg_index i WHERE i.indrelid = f.conrelid AND i.indkey[0] = f.conkey[1]
         AND COALESCE(pg_get_expr(i.indpred, i.indrelid), '') IN ('', format('(%I IS NOT NULL)', a.attname)))`,
    );
    expect(without).toEqual([]);
  });

  function judge(): void {
    const all = faults.join("\n\n");
    faults = [];
    expect(all).toBe("");
  }
});
