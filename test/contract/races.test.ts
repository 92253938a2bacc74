import { randomUUID } from "node:crypto";
import { PrismaPg } from "@prisma/adapter-pg";
import { beforeAll, expect, it } from "vitest";
import { PrismaClient } from "../../src/generated/prisma/client.ts";
import type { ClientRow } from "../../src/store/clients.ts";
import { createConnections } from "../../src/store/connections.ts";
import { createAuthorizationRequests } from "../../src/store/consents.ts";
import { createDatabaseHealth } from "../../src/store/database.ts";
import { type Prisma, watch } from "../../src/store/database.ts";
import { createDeviceAuthorizations } from "../../src/store/devices.ts";
import type { Direct } from "../../src/store/direct.ts";
import { applyMigrations } from "../../src/store/migrate.ts";
import { hangMs, until } from "../support/patience.ts";
import { describeWithServices, useDatabase } from "../support/services/index.ts";
import { freely, sealedBytes, StoreStage, vault } from "./store/stage.ts";

const all = ["%"];
const inputs = { shop_url: "https://other.example" };
const fields = { provider: "own", grant: "password", scopes: ["read"], inputs: {}, labels: {} };

// Deciding and acting are one statement, or happen under one lock. So the broker waits for what somebody else has done and not committed yet.
describeWithServices(["postgres"], "a decision and a change under way", () => {
  let stage: StoreStage;

  beforeAll(async () => {
    const databaseUrl = await useDatabase();
    await applyMigrations({ databaseUrl });
    // Without the broker's own lock timeout, which a slow machine would come to.
    const adapter = new PrismaPg({ connectionString: databaseUrl, options: "-c timezone=UTC" });
    const prisma = watch(
      new PrismaClient({ adapter }),
      createDatabaseHealth(() => performance.now()),
    );
    const direct: Direct = async ({ text }, values) => await prisma.$queryRawUnsafe(text, ...values);
    stage = new StoreStage({
      prisma,
      direct,
      commits: prisma,
      directCommits: direct,
      readyToStore() {},
      audit: prisma,
      close: async () => await prisma.$disconnect(),
    });
    return async () => await stage.database.close();
  });

  const makeClient = async (): Promise<ClientRow> => {
    const id = randomUUID();
    const rest = {
      scopes: [],
      patterns: ["*"],
      inputs: {},
      ownRedirectUri: false,
      secretRevision: 0,
      secret: sealedBytes(),
    };
    return await stage.clients.insert({ id, name: `app-${id}`, provider: "own", clientId: "app", ...rest });
  };

  /**
   * The result of `decide` if `change` was made before it in another transaction, which commits when `decide` waits, or has ended without
   * waiting.
   */
  const decideDuring = async <Decision>(
    change: (session: Prisma) => Promise<unknown>,
    decide: () => Promise<Decision>,
  ): Promise<Decision> => {
    const state = { isDone: false };
    const decision = await stage.database.prisma.$transaction(
      async (session) => {
        await change(session as unknown as Prisma);
        const deciding = decide().finally(() => void (state.isDone = true));
        await until("the decision waits, or is made", async () => state.isDone || (await isAnyoneWaiting()));
        return { deciding };
      },
      { timeout: hangMs, maxWait: hangMs },
    );
    return await decision.deciding;
  };

  const isAnyoneWaiting = async (): Promise<boolean> =>
    (
      await stage.query(
        "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
      )
    ).length > 0;

  it("a connection is neither made nor changed for a client that is just being closed to it", async () => {
    const client = await makeClient();
    const row = await stage.insert({ client });
    const close = async (session: Prisma) =>
      await session.$executeRaw`UPDATE clients SET connections = '{}', mac = 'another' WHERE id = ${client.id}::uuid`;
    const change = async () => await stage.connections.update(row, { scopes: ["admin"] }, { ...freely, client });
    expect(await decideDuring(close, change)).toBeNull();

    const open = await makeClient();
    const late = { ...fields, id: randomUUID(), name: `c-${open.id}`, client: open, credentials: null };
    const closeIt = async (session: Prisma) =>
      await session.$executeRaw`UPDATE clients SET connections = '{}', mac = 'another' WHERE id = ${open.id}::uuid`;
    expect(await decideDuring(closeIt, async () => await stage.connections.insert(late))).toBe(false);
  });

  it("a key that is just being revoked makes no key", async () => {
    const key = { name: "k", abilities: [], connections: [], labels: {}, expiresAt: null, secretHash: sealedBytes() };
    const giver = randomUUID();
    await stage.keys.insert({ ...key, id: giver }, null);
    const revoke = async (session: Prisma) =>
      await session.$executeRaw`UPDATE api_keys SET revoked_at = now() WHERE id = ${giver}`;
    expect(
      await decideDuring(
        revoke,
        async () => await stage.keys.insert({ ...key, id: randomUUID() }, async () => await stage.keys.giver(giver)),
      ),
    ).toBeNull();
  });

  it("a client's host does not change while a connection with credentials is just being made", async () => {
    const client = await makeClient();
    const connection = { ...fields, id: randomUUID(), name: `c-${client.id}`, client, credentials: sealedBytes() };
    const make = async (prisma: Prisma) =>
      await createConnections({ prisma } as StoreStage["database"], vault).insert(connection);
    const move = async () => await stage.clients.change(client, { inputs, secret: sealedBytes() }, all);
    expect(await decideDuring(make, move)).toBeNull();
  });

  it.each(["client", "connection"])("the host of a %s does not change while a person just sets out", async (whose) => {
    const client = await makeClient();
    const row = await stage.insert({ client });
    const link = {
      id: randomUUID(),
      secretHash: sealedBytes(),
      connectionId: row.id,
      createdBy: "k1",
      expiresInSeconds: 60,
    };
    await stage.links.insert({ ...link, returnTo: null, manual: false, purpose: null, endUser: null });
    const request = { id: randomUUID(), stateHash: sealedBytes(), browserHash: sealedBytes(), expiresInSeconds: 60 };
    const setOut = async (session: Prisma) =>
      await createAuthorizationRequests(session).insert({
        ...request,
        connectionId: row.id,
        linkId: link.id,
        request: sealedBytes(),
        mostOpen: 5,
      });
    const move = async () =>
      whose === "client"
        ? await stage.clients.change(client, { inputs, secret: sealedBytes() }, all)
        : await stage.connections.update(row, { inputs }, { client: null, movesHost: true });
    expect(await decideDuring(setOut, move)).toBeNull();
  });

  // Both have to lock the connection, its link and the request. In another order, each would wait for the other for ever.
  it.each(["insert", "hold", "consume", "consumeHeld"] as const)(
    "a deletion goes first: `%s` locks nothing before it has the connection",
    async (statement) => {
      const row = await stage.insert();
      const [linkId, id] = [randomUUID(), randomUUID()];
      const link = {
        id: linkId,
        secretHash: sealedBytes(),
        connectionId: row.id,
        createdBy: "k1",
        expiresInSeconds: 60,
      };
      await stage.links.insert({ ...link, returnTo: null, manual: false, purpose: null, endUser: "u" });
      const open = {
        stateHash: sealedBytes(),
        browserHash: sealedBytes(),
        request: sealedBytes(),
        expiresInSeconds: 60,
      };
      const request = { id, connectionId: row.id, linkId, ...open, mostOpen: 5 };
      await stage.requests.insert(request);
      const held = { ticketHash: sealedBytes(), request: sealedBytes(), forBrowser: "sealed", seconds: 60 };
      if (statement === "consumeHeld") expect(await stage.requests.hold(id, held)).toBe(true);
      const calls = {
        insert: async () => await stage.requests.insert({ ...request, id: randomUUID(), stateHash: sealedBytes() }),
        hold: async () => await stage.requests.hold(id, held),
        consume: async () => await stage.requests.consume(id, { usesLink: true }),
        consumeHeld: async () => await stage.requests.consumeHeld(held.ticketHash, sealedBytes()),
      };
      const state: { ending?: Promise<unknown>; isDone: boolean } = { isDone: false };
      await stage.database.prisma.$transaction(
        async (session) => {
          await session.$queryRaw`SELECT 1 FROM connections WHERE id = ${row.id}::uuid FOR UPDATE`;
          state.ending = calls[statement]()
            .catch((error: unknown) => error)
            .finally(() => void (state.isDone = true));
          await until("the statement waits, or has ended", async () => state.isDone || (await isAnyoneWaiting()));
          expect(state.isDone).toBe(false);
          expect(
            await session.$queryRaw`SELECT 1 FROM consent_links WHERE id = ${linkId} FOR UPDATE NOWAIT`,
          ).toHaveLength(1);
          const lockRequest = session.$queryRaw`SELECT 1 FROM authorization_requests WHERE id = ${id}::uuid FOR UPDATE NOWAIT`;
          expect(await lockRequest).toHaveLength(1);
          await session.$executeRaw`DELETE FROM connections WHERE id = ${row.id}::uuid`;
        },
        { timeout: hangMs, maxWait: hangMs },
      );
      const ended = await state.ending;
      if (statement === "insert") expect(String(ended)).toContain("was changed at the same moment");
      else expect(ended).toBe(statement === "hold" ? false : null);
      expect(await stage.query("SELECT 1 FROM authorization_requests WHERE id = $1::uuid", id)).toEqual([]);
    },
  );

  it("a user code is not kept for another host than it was asked for at", async () => {
    const client = await makeClient();
    const row = await stage.insert({ client });
    const code = { id: randomUUID(), deviceCode: sealedBytes(), linkId: null, userCode: "u", verificationUri: "v" };
    const rest = { verificationUriComplete: null, intervalSeconds: 5, expiresInSeconds: 60 };
    const put = async () =>
      await createDeviceAuthorizations(stage.database).put(
        { ...code, ...rest, connectionId: row.id },
        { inputs: row.inputs, scopes: row.scopes, client },
      );
    const moveClient = async (session: Prisma) =>
      await session.$executeRaw`UPDATE clients SET inputs = '{"host": "other"}' WHERE id = ${client.id}::uuid`;
    const moveConnection = async (session: Prisma) =>
      await session.$executeRaw`UPDATE connections SET inputs = '{"host": "other"}' WHERE id = ${row.id}::uuid`;
    expect(await put()).not.toBeNull();
    expect(await decideDuring(moveClient, put)).toBeNull();
    await stage.database.prisma.$executeRaw`UPDATE clients SET inputs = '{}' WHERE id = ${client.id}::uuid`;
    expect(await put()).not.toBeNull();
    expect(await decideDuring(moveConnection, put)).toBeNull();
  });
});
