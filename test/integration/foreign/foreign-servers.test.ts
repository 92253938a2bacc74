import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type BrokerProcess, startBroker } from "../../support/broker-process.ts";
import { freePort } from "../../support/free-port.ts";
import { passTime } from "../../support/pass-time.ts";
import { providersFolder } from "../../support/providers/definition-files.ts";
import { describeWithServices, useDatabase, useRedis } from "../../support/services/index.ts";
import { walkConsent } from "../../support/walk-consent.ts";
import { pythonWithToolkit, startDjango } from "./support/django.ts";
import type { ForeignServer, Registration, TokenRequest } from "./support/foreign-server.ts";
import { startNodeOauth } from "./support/node-oauth.ts";

const accessLifeSeconds = 3600;
/** The longest that the API lets a caller wait. */
const wait = 30;

const python = await pythonWithToolkit();
/** By the ids of their definitions. */
const starts: Record<string, (registration: Registration) => Promise<ForeignServer>> = {
  "node-oauth": startNodeOauth,
  ...(python === undefined
    ? {}
    : { django: async (registration: Registration) => await startDjango(python, registration) }),
};

const shape = ({ grant_type, status }: TokenRequest) => `${grant_type} ${status}`;
const refreshes = (count: number) => Array.from({ length: count }, () => "refresh_token 200");

/** Each test goes on with the connection that the test before has left. */
describeWithServices(["postgres", "redis"], "authorization servers that are not of this project", () => {
  const servers = new Map<string, ForeignServer>();
  let broker: BrokerProcess;
  let databaseUrl: string;

  beforeAll(async () => {
    const port = await freePort();
    const started = Object.entries(starts).map(async ([id, start]) => {
      const redirectUri = `http://127.0.0.1:${port}/callback/${id}`;
      servers.set(id, await start({ port: await freePort(), redirectUri, accessLifeSeconds }));
    });
    await Promise.all(started);
    databaseUrl = await useDatabase();
    const definitions = [...servers.values()].map(({ definition }) => definition);
    const providersDir = await providersFolder({ definitions: () => definitions });
    broker = await startBroker({ port, databaseUrl, redisUrl: await useRedis(), providersDir });
    for (const [id, { client }] of servers) {
      await broker.api.createClient({ name: id, provider: id, client_id: client.id, client_secret: client.secret });
      await broker.api.createConnection({ name: id, provider: id, client: id });
    }
  });
  afterAll(async () => {
    await broker?.[Symbol.asyncDispose]();
    await Promise.all([...servers.values()].map((server) => server[Symbol.asyncDispose]()));
  });

  const consent = async (id: string) => {
    const page = await walkConsent((await broker.api.consentLink(id)).url);
    expect([page.status, page.text]).toEqual([200, expect.stringMatching(/^Connected/)]);
  };
  const expire = async (id: string) => {
    await passTime(accessLifeSeconds + 60, { databaseUrl, apis: [broker.api], names: [id] });
  };

  describe.each(Object.keys(starts))("%s", (id) => {
    let server: ForeignServer;
    beforeAll(() => {
      server = servers.get(id) as ForeignServer;
    });
    /** The token requests that the server counts from now on. */
    const counting = async () => {
      const before = (await server.requests()).length;
      return async () => (await server.requests()).slice(before).map((each) => shape(each));
    };

    it("gives a token for a code with PKCE, and ten more by ten rotations, each good at the server", async () => {
      const counted = await counting();
      await consent(id);
      const seen = new Set<string>();
      for (let version = 1; version <= 11; version++) {
        const { status, body } = await broker.api.token(id, { wait });
        expect([status, body.version, body.warnings]).toEqual([200, version, []]);
        expect(await server.ask(body.access_token)).toBe(200);
        seen.add(body.access_token);
        if (version % 2 === 0) await broker.api.refresh(id);
        else if (version < 11) await expire(id);
      }
      expect(seen.size).toBe(11);
      expect(await counted()).toEqual(["authorization_code 200", ...refreshes(10)]);
    });

    it("is asked once by two hundred callers of an expired token, who all get the next", async () => {
      await expire(id);
      const counted = await counting();
      const answers = await Promise.all(Array.from({ length: 200 }, () => broker.api.token(id, { wait })));
      expect(answers.map(({ status, body }) => [status, body.version])).toEqual(answers.map(() => [200, 12]));
      expect(new Set(answers.map(({ body }) => body.access_token)).size).toBe(1);
      expect(await counted()).toEqual(refreshes(1));
    });

    it("has a grant that was ended there told with 409 by the first read, is not asked again, and a new consent mends it", async () => {
      await server.endGrants();
      await expire(id);
      const counted = await counting();
      for (let count = 0; count < 3; count++) {
        const { status, body } = await broker.api.token(id, { wait });
        expect([status, body.code]).toEqual([409, "needs_reauthorization"]);
      }
      expect(await counted()).toEqual(["refresh_token 400"]);
      await consent(id);
      const { status, body } = await broker.api.token(id, { wait });
      expect([status, await server.ask(body.access_token)]).toEqual([200, 200]);
    });

    it("has the tokens of a deleted connection revoked, where it offers that", async () => {
      const { body } = await broker.api.token(id);
      const before = (await server.requests()).length;
      await broker.api.deleteConnection(id);
      const offered = "revocation" in server.definition;
      const sent = (await server.requests()).slice(before);
      expect(sent.map(({ status }) => status)).toEqual(offered ? [200] : []);
      expect(await server.ask(body.access_token)).toBe(offered ? 403 : 200);
    });
  });

  if (python === undefined) {
    it.skip("django (to run: install the Debian package python3-django-oauth-toolkit)", () => undefined);
  }
});
