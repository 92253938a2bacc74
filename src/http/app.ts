import swagger from "@fastify/swagger";
import type { TypeBoxTypeProvider } from "@fastify/type-provider-typebox";
import { fastify, type FastifyBaseLogger, type FastifyInstance, LogController } from "fastify";
import type { Logger } from "pino";
import type { UnreadableSecretError } from "../errors.ts";
import type { Asker } from "../pages/layout.ts";
import { type SandboxOptions, sandboxRoutes } from "../sandbox/sandbox.ts";
import type { Audit } from "../audit/entries.ts";
import type { KeyService } from "../callers/keys.ts";
import type { Ability } from "../store/api-keys.ts";
import { auditRoutes } from "./audit.ts";
import { createRequireAbility } from "./auth.ts";
import { createFreshRead, type FreshReadOptions, serverWith } from "./fresh-read.ts";
import { installErrorHandler, serverOptions } from "./error-handler.ts";
import { answerHeaders } from "./headers.ts";
import { apiReference, openApi } from "./openapi.ts";
import { auditReadingRoutes, type AuditRoutesOptions } from "./routes/audit.ts";
import { clientRoutes, type ClientRoutesOptions } from "./routes/clients.ts";
import { connectionRoutes, type ConnectionRoutesOptions } from "./routes/connections.ts";
import { consentRoutes, type ConsentRoutesOptions } from "./routes/consent.ts";
import { encryptionRoutes, type EncryptionRoutesOptions } from "./routes/encryption.ts";
import { grantRoutes, type GrantRoutesOptions } from "./routes/grants.ts";
import { healthRoutes, type HealthRoutesOptions, metricsRoute, type MetricsRouteOptions } from "./routes/health.ts";
import { keyRoutes, type KeyRoutesOptions } from "./routes/keys.ts";
import { providerRoutes, type ProviderRoutesOptions } from "./routes/providers.ts";
import { recoveryRoutes, type RecoveryRoutesOptions } from "./routes/recovery.ts";
import { tokenRoutes, type TokenRoutesOptions, tokensPath } from "./routes/tokens.ts";
import { workloadRoutes, type WorkloadRoutesOptions } from "./routes/workloads.ts";
import type { ApiScope } from "./schemas.ts";
import { installSchemas, refuseControlCharacters, refuseUnknownFields } from "./validation.ts";

const largestBodyBytes = 64 * 1024;

/** The instances that routes call. */
export type AppParts = Omit<TokenRoutesOptions, "loaded"> &
  Pick<FreshReadOptions, "tokens" | "readCounter"> &
  ConnectionRoutesOptions &
  GrantRoutesOptions &
  ClientRoutesOptions &
  ProviderRoutesOptions &
  KeyRoutesOptions &
  WorkloadRoutesOptions &
  RecoveryRoutesOptions &
  EncryptionRoutesOptions &
  AuditRoutesOptions &
  ConsentRoutesOptions &
  HealthRoutesOptions &
  MetricsRouteOptions & {
    log: Logger;
    keys: KeyService;
    audit: Audit;
    /** Called for secrets that do not open and have not been reported yet. */
    onUnreadable: (error: UnreadableSecretError) => void;
    /** Null: the sandbox provider is off. */
    sandbox: SandboxOptions | null;
    /** Addresses of proxies whose forwarded headers count. */
    trustProxy: readonly string[];
    /** False: metrics have a port of their own. */
    metricsOnApi: boolean;
  };

/** Everything that is served, in order. */
export async function buildApp(parts: AppParts): Promise<ApiScope> {
  const loggerInstance: FastifyBaseLogger = parts.log;
  const asker: Asker = { ...parts.organisation, host: new URL(parts.publicUrl).host };
  const answering = { asker, headers: answerHeaders(parts.publicUrl) };
  let isClosing = false;
  const options = serverOptions(answering);
  const loaded: TokenRoutesOptions["loaded"] = new WeakMap();
  const fresh = createFreshRead({ ...parts, loaded, headers: answering.headers, isClosing: () => isClosing });
  const onError = (err: unknown) => parts.log.error({ err }, "a fresh read failed, and was answered the general way");
  const app = fastify({
    // Where every answer is logged, none takes the short way.
    ...(!parts.log.isLevelEnabled(readLevel) && { serverFactory: serverWith(fresh, { ...options, onError }) }),
    loggerInstance,
    logController: new LogController({ disableRequestLogging: true }),
    bodyLimit: largestBodyBytes,
    trustProxy: parts.trustProxy.length === 0 ? false : [...parts.trustProxy],
    ...options,
  }).withTypeProvider<TypeBoxTypeProvider>();

  app.addHook("preClose", async () => void (isClosing = true));
  installRequestLog(app);
  installSchemas(app);
  installErrorHandler(app, { ...answering, onUnreadable: parts.onUnreadable });
  await app.register(swagger, openApi);

  const requireAbility = createRequireAbility({ ...parts, onRefused: () => parts.audit.countRefused() });
  const api = async (ability: Ability, routes: (scope: ApiScope) => Promise<void>) =>
    await app.register(async (scope) => {
      requireAbility(scope, ability);
      refuseUnknownFields(scope);
      refuseControlCharacters(scope);
      auditRoutes(scope, parts.audit);
      await routes(scope.withTypeProvider<TypeBoxTypeProvider>());
    });
  await api("tokens", async (scope) => await tokenRoutes(scope, { ...parts, loaded }));
  await api("connections", async (scope) => {
    await connectionRoutes(scope, parts);
    await grantRoutes(scope, parts);
  });
  await api("admin", async (scope) => {
    await clientRoutes(scope, parts);
    await providerRoutes(scope, parts);
    await keyRoutes(scope, parts);
    await workloadRoutes(scope, parts);
    await recoveryRoutes(scope, parts);
    await encryptionRoutes(scope, parts);
    await auditReadingRoutes(scope, parts);
  });
  await app.register(async (scope) => {
    refuseControlCharacters(scope);
    await consentRoutes(scope, parts);
  });
  if (parts.sandbox !== null) await app.register(sandboxRoutes, { prefix: "/sandbox", ...parts.sandbox });
  await healthRoutes(app, parts);
  if (parts.metricsOnApi) await metricsRoute(app, parts);
  apiReference(app, answering);
  app.get("/", { schema: { hide: true } }, async (_request, reply) => await reply.redirect("/docs", 303));
  return app;
}

/** Reads that succeed are counted, in metrics and audit, and logged at this level only. */
const readLevel = "debug";

/** One line for each answer: the route's pattern, never the URL, whose query may hold codes and states. */
function installRequestLog(app: FastifyInstance): void {
  app.addHook("onResponse", async (request, reply) => {
    const { method, routeOptions, principal, params } = request;
    const { connection } = (params ?? {}) as { connection?: string };
    const isServedRead = routeOptions.url === tokensPath && reply.statusCode === 200;
    request.log[isServedRead ? readLevel : "info"](
      {
        method,
        route: routeOptions.url ?? "unknown",
        status: reply.statusCode,
        ms: Math.round(reply.elapsedTime * 10) / 10,
        key: principal?.callerId,
        connection: isKnown(reply.statusCode) ? connection : undefined,
      },
      "answered",
    );
  });
}

/** A path that names no connection is not logged: it may be anything, such as a pasted key. */
function isKnown(status: number): boolean {
  return status < 400 || status === 409 || status >= 500;
}
