import { randomBytes, randomUUID } from "node:crypto";
import Fastify from "fastify";
import type { FastifyInstance } from "fastify";
import { systemClock } from "../../src/clock.ts";
import { createConsentAudit } from "../../src/consent/audit.ts";
import { createCodeOutcomes } from "../../src/consent/code-outcomes.ts";
import { createCompletion } from "../../src/consent/completion.ts";
import { createCopiedCodes } from "../../src/consent/copied-code.ts";
import { type AuthorizationContext, createLinks, type LinkRequest } from "../../src/consent/links.ts";
import { createOutcomes } from "../../src/consent/outcome.ts";
import { createRoundTrip } from "../../src/consent/round-trip.ts";
import { BrokerError } from "../../src/errors.ts";
import { installErrorHandler } from "../../src/http/error-handler.ts";
import { answerHeaders } from "../../src/http/headers.ts";
import { createConsentLimits } from "../../src/http/limits.ts";
import { consentRoutes } from "../../src/http/routes/consent.ts";
import type { ProviderDefinition } from "../../src/providers/format/definition.ts";
import { loadCatalog } from "../../src/providers/load/catalog.ts";
import { redirectUriOf } from "../../src/providers/oauth/authorization-request.ts";
import { sandboxRoutes } from "../../src/sandbox/sandbox.ts";
import type { Principal } from "../../src/callers/principal.ts";
import type { UnconfirmedGrant } from "../../src/store/accounts.ts";
import type { ConnectionRecord } from "../../src/store/connections.ts";
import { createAuthorizationRequests, createConsentAttempts, createConsentLinks } from "../../src/store/consents.ts";
import type { Database } from "../../src/store/database.ts";
import type { TokenRow } from "../../src/store/token-row.ts";
import { createTokenStatements } from "../../src/store/token-statements.ts";
import type { CodeExchange } from "../../src/tokens/person-grant.ts";
import type { DeviceCode } from "../../src/tokens/devices.ts";
import { createKeyring } from "../../src/vault/keyring.ts";
import { createTokenVault, type TokenVault } from "../../src/vault/vault.ts";
import { tokenRow } from "../unit/tokens/token-row.ts";
import { folderOfBuiltins } from "./built-ins.ts";
import { NotedAudit } from "./noted-audit.ts";
import { useEmbedded } from "./services/embedded.ts";

const firstKey = { id: "k1", key: randomBytes(32) };
const keyring = createKeyring([firstKey]);
const vault = createTokenVault(keyring);
const client = { clientId: "sandbox", clientSecret: "sandbox-secret" };

/** What the sandbox answered, and to which connection it went. */
type Exchanged = CodeExchange & { connectionId: string; body: Record<string, unknown> };

type UnconfirmedAccount = { attemptId: string; account: string | null; label: string | null };

/** What an exchange gives. `held`: the account is another one, and waits to be confirmed. */
export type ExchangedCode = { connectionName: string; held: UnconfirmedAccount | null; endsSoon: boolean };

const principal: Principal = {
  callerId: "tests",
  labels: {},
  actor: { kind: "key", id: "tests", name: null },
  abilities: ["connections"],
  connections: ["*"],
  expiresAt: null,
};

type Created = LinkRequest & { connectionId: string };

/** Consent pages and sandbox on an embedded database: all that a consent needs, without the rest of the broker. */
export type ConsentStage = {
  app: FastifyInstance;
  consent: ReturnType<typeof createConsent>;
  createLink(request: Created): ReturnType<ReturnType<typeof createLinks>["create"]>;
  /** Hands in a copied code with a key. */
  submitCode(given: { connectionId: string; code: string }): Promise<ConnectionRecord>;
  database: Database;
  /** What the audit got. */
  audit: NotedAudit;
  /** A connection that waits for consent. */
  connect(context?: Partial<AuthorizationContext> & { provider?: string }): Promise<AuthorizationContext>;
  /** What the pages say of who asks. */
  asker: { organisation: { name: string | null; contact: string | null } };
  contexts: Map<string, AuthorizationContext>;
  events: { connectionId: string; type: string; detail: Record<string, string> }[];
  exchanged: Exchanged[];
  /**
   * `exchange`, if set, replaces the exchange. `passedMs` is added to the clocks. With `hurries`, waiting takes no real time and moves the
   * clocks.
   */
  behaviour: {
    exchange: ((exchange: CodeExchange) => Promise<ExchangedCode>) | null;
    passedMs: number;
    hurries: boolean;
    /** The grants that wait for a person's word. */
    held: Map<string, UnconfirmedAccount & { connectionId: string; accepted: boolean }>;
    /** The user code that every connection has been given. */
    device: (DeviceCode & { linkId: string }) | null;
  };
  catalog: ReturnType<typeof loadCatalog>;
  vault: TokenVault;
  /** Signs as the vault does. */
  sign(purpose: string, text: string): string;
  /** Puts a new key first, so that the key of earlier forms comes second. */
  rotateKeys(): void;
  close(): Promise<void>;
};

/** The connection as the core gives it back. */
function rowOf({ connectionId: id, connectionName: name, account, definition }: AuthorizationContext): TokenRow {
  return tokenRow({ id, name, provider: definition.id, account });
}

const noPush = () => Promise.reject(new BrokerError("grant_not_applicable", "Nothing is pushed."));

type StageOptions = {
  /** Where browsers reach the broker's pages. */
  publicUrl: string;
  /** Where they reach the sandbox's: another name of the same server makes it another site. */
  authorizeOrigin?: string;
  returnOrigins?: string[];
  completion?: "any" | "app";
  /** Provider files beside the built-in ones. */
  extraFolder?: string;
  organisation?: { name: string | null; contact: string | null };
};

export async function setConsentStage(options: StageOptions): Promise<ConsentStage> {
  const {
    publicUrl,
    authorizeOrigin = publicUrl,
    returnOrigins = [],
    extraFolder = null,
    completion = "any",
  } = options;
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
  const formKeys = { all: [firstKey], ring: keyring };
  const find = (id: string) => {
    const context = contexts.get(id);
    if (context) return context;
    throw new BrokerError("connection_not_found", "There is no such connection.");
  };
  /** As ops see it: the tests of this stage may see all. */
  const getToUse = async (_principal: Principal, name: string) => {
    const context = [...contexts.values()].find(({ connectionName }) => connectionName === name);
    if (context === undefined) throw new BrokerError("connection_not_found", "There is no such connection.");
    const { connectionId: id, grant, disabled, account } = context;
    return { id, name, grant, account, status: disabled ? "disabled" : "pending" } as ConnectionRecord;
  };
  const audit = new NotedAudit();
  const consent = createConsent({
    database,
    audit,
    linkRows: createConsentLinks(database.prisma, vault),
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
    catalog,
    contextOf: async ({ row }) => find(row.id),
    connections: { get: getToUse, getToUse },
    authorizations: {
      exchangeCode: async (given) => {
        const connectionId = given.connection.row.id;
        const context = find(connectionId);
        const row = rowOf(context);
        if (behaviour.exchange) {
          const { held, endsSoon, connectionName: name } = await behaviour.exchange(given);
          const ends = endsSoon ? { noRefreshTokenSince: row.now, refreshToken: null } : {};
          const got = { ...row, ...ends, name };
          return held === null ? { kind: "connected", row: got } : { kind: "unconfirmed", row: got, unconfirmed: held };
        }
        exchanged.push({ ...given, connectionId, body: await exchangeAtSandbox(app, given) });
        return { kind: "connected", row };
      },
      decide: async (of) => {
        const held = "attemptId" in of ? behaviour.held.get(of.attemptId) : undefined;
        if (held === undefined) throw new BrokerError("not_found", "Nothing is held.");
        behaviour.held.delete(held.attemptId);
        return { ...rowOf(find(held.connectionId)), account: held.label };
      },
    },
    accounts: {
      findUnconfirmed: async (of) => {
        const held = "attemptId" in of ? behaviour.held.get(of.attemptId) : undefined;
        return held === undefined ? null : ({ ...held, accountLabel: held.label } as unknown as UnconfirmedGrant);
      },
    },
    devices: {
      begin: () => Promise.reject(new Error("no device")),
      pending: async () => behaviour.device,
    },
    records: {
      addEvent: async (connectionId, type, detail) =>
        void events.push({ connectionId, type, detail: detail as Record<string, string> }),
    },
    publicUrl,
    organisation,
    returnOrigins,
    completion,
    formKeys: {
      sign: (...given) => formKeys.ring.sign(...given),
      signWithEach: (...given) => formKeys.ring.signWithEach(...given),
      verify: (...given) => formKeys.ring.verify(...given),
      deriveWith: (...given) => formKeys.ring.deriveWith(...given),
    },
  });
  // All tests of a file count as one address.
  const perMinute = { linkPagesPerMinute: 60_000, linkPostsPerMinute: 10, callbacksPerMinute: 60_000 };
  const limits = createConsentLimits(perMinute, { monotonicMs: () => 0 });
  installErrorHandler(app, { asker: null, headers: answerHeaders(publicUrl) });
  await app.register(consentRoutes, {
    consent,
    publicUrl,
    limits,
    randomBytes,
    organisation,
  });
  const redirectUri = `${publicUrl}/callback/sandbox`;
  await app.register(sandboxRoutes, {
    prefix: "/sandbox",
    clientId: client.clientId,
    isClientSecret: (secret) => secret === client.clientSecret,
    proofs: keyring,
    redirectUri,
    now: Date.now,
    randomBytes,
  });
  await app.ready();

  return {
    app,
    consent,
    createLink: async ({ connectionId, ...request }) =>
      await consent.links.create(principal, find(connectionId).connectionName, request),
    submitCode: async ({ connectionId, code }) =>
      await consent.copiedCodes.submit(principal, find(connectionId).connectionName, code),
    database,
    audit,
    asker: { organisation },
    contexts,
    events,
    exchanged,
    behaviour,
    catalog,
    vault,
    rotateKeys() {
      formKeys.all.unshift({ id: `k${formKeys.all.length + 1}`, key: randomBytes(32) });
      formKeys.ring = createKeyring(formKeys.all);
    },
    sign: (purpose, text) => keyring.sign(purpose, text),
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
      const row = tokenRow({ id: connectionId, name: connectionName, provider });
      const context = {
        connection: { row, client: null },
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

type LinksDeps = Parameters<typeof createLinks>[0];
type OutcomesDeps = Parameters<typeof createOutcomes>[0];
type RoundTripDeps = Parameters<typeof createRoundTrip>[0];
type CodesDeps = Parameters<typeof createCopiedCodes>[0];
type Given = Pick<
  LinksDeps,
  "contextOf" | "formKeys" | "organisation" | "publicUrl" | "returnOrigins" | "completion" | "linkRows"
> &
  Pick<OutcomesDeps, "accounts" | "catalog" | "records" | "clock" | "nowMs"> &
  Pick<CodesDeps, "connections"> & {
    database: Database;
    audit: NotedAudit;
    authorizations: OutcomesDeps["authorizations"] & RoundTripDeps["authorizations"];
    devices: LinksDeps["devices"] & RoundTripDeps["devices"];
  };

/** The parts of a consent on a database, with whatever else they need as it is given. */
function createConsent(given: Given) {
  const { database, organisation, connections } = given;
  const attempts = createConsentAttempts(database.prisma);
  const rows = createTokenStatements(database);
  const links = createLinks({ ...given, rows, randomBytes });
  const audited = createConsentAudit(given.audit);
  const common = { ...given, links, attempts, audited, ticketKeys: keyring };
  const outcomes = createOutcomes(common);
  const requests = createAuthorizationRequests(database.prisma);
  const codeOutcomes = createCodeOutcomes(common);
  const roundTrip = createRoundTrip({
    ...common,
    outcomes,
    requests,
    rows,
    sender: { prepare: noPush, ask: noPush },
    limits: { beside: () => noPush },
    vault,
    openRequestsPerLink: 5,
    random: { bytes: randomBytes, uuid: randomUUID },
  });
  return {
    links,
    outcomes,
    roundTrip,
    copiedCodes: createCopiedCodes({ ...common, outcomes, codeOutcomes, connections, organisation }),
    completion: createCompletion({ ...common, requests, codeOutcomes, connections, vault }),
  };
}

/** The sandbox names itself after its redirect URI's origin. */
function withIssuer(definition: ProviderDefinition, issuer: string): ProviderDefinition {
  return { ...definition, authorization: definition.authorization && { ...definition.authorization, issuer } };
}

async function exchangeAtSandbox(app: FastifyInstance, given: CodeExchange) {
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
