import { createHash, randomBytes, randomUUID } from "node:crypto";
import Fastify from "fastify";
import type { FastifyInstance } from "fastify";
import { systemClock } from "../../src/clock.ts";
import { type ConsentParts, type ConsentService, createConsentService } from "../../src/consent/consent-service.ts";
import type { AuthorizationContext, ExchangeCode, OtherAccount } from "../../src/consent/context.ts";
import { BrokerError } from "../../src/errors.ts";
import { createConsentLimits } from "../../src/http/limits.ts";
import { consentRoutes } from "../../src/http/routes/consent.ts";
import type { ProviderDefinition } from "../../src/providers/format/definition.ts";
import { loadCatalog } from "../../src/providers/load/catalog.ts";
import { redirectUriOf } from "../../src/providers/oauth/authorization-request.ts";
import { sandboxRoutes } from "../../src/sandbox/sandbox.ts";
import { createAuthorizationRequests, createConsentAttempts, createConsentLinks } from "../../src/store/consents.ts";
import type { Database } from "../../src/store/database.ts";
import type { DeviceCode } from "../../src/tokens/devices.ts";
import { createKeyring } from "../../src/vault/keyring.ts";
import { createTokenVault, type TokenVault } from "../../src/vault/vault.ts";
import { folderOfBuiltins } from "./built-ins.ts";
import { useEmbedded } from "./services/embedded.ts";

const firstKey = { id: "k1", key: randomBytes(32) };
const keyring = createKeyring([firstKey]);
const vault = createTokenVault(keyring);
const rotated = createKeyring([{ id: "k2", key: randomBytes(32) }, firstKey]);
const client = { clientId: "sandbox", clientSecret: "sandbox-secret" };

/** What the sandbox answered, and to which connection it went. */
type Exchanged = Parameters<ExchangeCode>[0] & { body: Record<string, unknown> };

/** Consent pages and sandbox on an embedded database: everything of a consent but the rest of the broker. */
export type ConsentStage = {
  app: FastifyInstance;
  consent: ConsentService;
  database: Database;
  /** A connection that waits for consent. */
  connect(context?: Partial<AuthorizationContext> & { provider?: string }): Promise<AuthorizationContext>;
  parts: ConsentParts;
  contexts: Map<string, AuthorizationContext>;
  events: { connectionId: string; type: string; detail: Record<string, string> }[];
  exchanged: Exchanged[];
  /** Set `exchange` to take the exchange's place; `passedMs` is added to the clocks; where it `hurries`, waiting takes no time but moves them. */
  behaviour: {
    exchange: ExchangeCode | null;
    passedMs: number;
    hurries: boolean;
    /** The grants that wait for a person's word. */
    held: Map<string, OtherAccount & { connectionId: string; accepted: boolean }>;
    /** The user code that every connection has been given. */
    device: (DeviceCode & { linkId: string }) | null;
  };
  catalog: ReturnType<typeof loadCatalog>;
  vault: TokenVault;
  /** Puts another key in front of the one that forms were made with. */
  rotateKeys(): void;
  close(): Promise<void>;
};

type StageOptions = {
  /** Where browsers reach the broker's pages. */
  publicUrl: string;
  /** Where they reach the sandbox's: another name of the same server makes it another site. */
  authorizeOrigin?: string;
  returnOrigins?: string[];
  /** Provider files beside the built-in ones. */
  extraFolder?: string;
  organisation?: { name: string | null; contact: string | null };
};

export async function setConsentStage(options: StageOptions): Promise<ConsentStage> {
  const { publicUrl, authorizeOrigin = publicUrl, returnOrigins = [], extraFolder = null } = options;
  const { organisation = { name: null, contact: null } } = options;
  const database = await useEmbedded();
  const sandbox = { publicUrl: `${authorizeOrigin}/sandbox`, localUrl: `${publicUrl}/sandbox` };
  const builtinFolder = folderOfBuiltins("apicbase", "sandbox", "shopware");
  const catalog = loadCatalog({ builtinFolder, extraFolder, sandbox });
  const app = Fastify();
  const contexts: ConsentStage["contexts"] = new Map();
  const events: ConsentStage["events"] = [];
  const exchanged: Exchanged[] = [];
  const behaviour: ConsentStage["behaviour"] = {
    exchange: null,
    passedMs: 0,
    hurries: false,
    held: new Map(),
    device: null,
  };
  const formKeys = { ring: keyring };
  const find = (id: string) => {
    const context = contexts.get(id);
    if (context) return context;
    throw new BrokerError("connection_not_found", "There is no such connection.");
  };
  const parts: ConsentParts = {
    links: createConsentLinks(database.prisma, vault),
    requests: createAuthorizationRequests(database.prisma),
    attempts: createConsentAttempts(database.prisma),
    clock: {
      ...systemClock,
      monotonicMs: () => systemClock.monotonicMs() + behaviour.passedMs,
      sleep: async (ms, signal) => {
        if (!behaviour.hurries) return await systemClock.sleep(ms, signal);
        behaviour.passedMs += ms;
        await new Promise(setImmediate);
      },
    },
    nowMs: () => Date.now() + behaviour.passedMs,
    ticketKeys: keyring,
    vault,
    findDefinition: (provider) => catalog.get(provider),
    loadContext: async (id) => find(id),
    exchangeCode: async (given) => {
      if (behaviour.exchange) return await behaviour.exchange(given);
      exchanged.push({ ...given, body: await exchangeAtSandbox(app, given) });
      return { connectionName: find(given.connectionId).connectionName, held: null, endsSoon: false };
    },
    findHeld: async (of) => ("attemptId" in of ? (behaviour.held.get(of.attemptId) ?? null) : null),
    decideAccount: async (attemptId) => {
      const held = behaviour.held.get(attemptId);
      if (held === undefined) throw new BrokerError("not_found", "Nothing is held.");
      behaviour.held.delete(attemptId);
      const { connectionName, definition } = find(held.connectionId);
      return { connectionName, providerName: definition.name, account: held.label, endsSoon: false };
    },
    pushRequest: () => Promise.reject(new BrokerError("grant_not_applicable", "Nothing is pushed.")),
    devices: { begin: () => Promise.reject(new Error("no device")), pending: async () => behaviour.device },
    recordEvent: async (event) => void events.push(event),
    publicUrl,
    organisation,
    returnOrigins,
    openRequestsPerLink: 5,
    random: { bytes: randomBytes, uuid: randomUUID },
    formKeys: {
      sign: (...given) => formKeys.ring.sign(...given),
      verify: (...given) => formKeys.ring.verify(...given),
      deriveWith: (...given) => formKeys.ring.deriveWith(...given),
    },
  };
  const consent = createConsentService(parts);
  // The tests of one file are one address.
  const perMinute = { linkPagesPerMinute: 60_000, linkPostsPerMinute: 10, callbacksPerMinute: 60_000 };
  const limits = createConsentLimits(perMinute, { monotonicMs: () => 0 });
  await app.register(consentRoutes, {
    consent,
    publicUrl,
    limits,
    randomBytes,
    organisation,
  });
  const signingKey = createHash("sha256").update("signing key of the tests").digest();
  const redirectUri = `${publicUrl}/callback/sandbox`;
  await app.register(sandboxRoutes, {
    prefix: "/sandbox",
    ...client,
    signingKey,
    redirectUri,
    now: Date.now,
    randomBytes,
  });
  await app.ready();

  return {
    app,
    consent,
    parts,
    database,
    contexts,
    events,
    exchanged,
    behaviour,
    catalog,
    vault,
    rotateKeys: () => void (formKeys.ring = rotated),
    async connect({ provider = "sandbox", ...given } = {}) {
      const known = catalog.get(provider);
      if (!known) throw new Error(`no provider ${provider}`);
      const definition = authorizeOrigin === publicUrl ? known : withIssuer(known, `${publicUrl}/sandbox`);
      const connectionId = randomUUID();
      const connectionName = given.connectionName ?? `acme-${connectionId.slice(0, 8)}`;
      await database.prisma.connection.create({
        data: { id: connectionId, name: connectionName, provider, grant: "authorization_code" },
      });
      const { clientId } = client;
      const context = {
        connectionId,
        connectionName,
        definition,
        clientId,
        clientSecrets: () => [client.clientSecret],
        inputs: {},
        scopes: ["read"],
        disabled: false,
        grant: "authorization_code",
        account: null,
        endsSoon: false,
        redirectUri: redirectUriOf(publicUrl, { provider, client: null }),
        destination: { provider, clientRef: null, clientId, inputs: {} },
      };
      contexts.set(connectionId, { ...context, ...given });
      return { ...context, ...given };
    },
    async close() {
      await app.close();
    },
  };
}

/** The sandbox names itself after its redirect URI's origin. */
function withIssuer(definition: ProviderDefinition, issuer: string): ProviderDefinition {
  return { ...definition, authorization: definition.authorization && { ...definition.authorization, issuer } };
}

async function exchangeAtSandbox(app: FastifyInstance, given: Parameters<ExchangeCode>[0]) {
  const { code, codeVerifier, redirectUri } = given;
  const form = {
    grant_type: "authorization_code",
    code,
    code_verifier: codeVerifier ?? "",
    redirect_uri: redirectUri ?? "",
  };
  const credentials = Buffer.from(`${client.clientId}:${client.clientSecret}`).toString("base64");
  const answer = await app.inject({
    method: "POST",
    url: "/sandbox/token",
    headers: { authorization: `Basic ${credentials}`, "content-type": "application/x-www-form-urlencoded" },
    payload: new URLSearchParams(form).toString(),
  });
  if (answer.statusCode === 200) return answer.json<Record<string, unknown>>();
  throw new BrokerError("provider_rejected", `The provider said ${answer.body}`);
}
