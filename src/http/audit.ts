import type { FastifyInstance, FastifyRequest } from "fastify";
import type { Audit, AuditAction, AuditTarget, Begun, NewEntry } from "../audit/entries.ts";
import type { ErrorCode } from "../errors.ts";
import { coversName } from "../callers/principal.ts";
import { toBrokerError } from "./error-handler.ts";

declare module "fastify" {
  interface FastifyContextConfig {
    audit?: RouteAudit;
  }
  interface FastifyRequest {
    /** The entry of this request in the audit; null: none was begun. */
    entry: RequestEntry | null;
    /** Why it is refused; null: it is not. */
    failure: ErrorCode | null;
  }
}

/** What the audit says of a route. */
type RouteAudit = {
  action: AuditAction;
  kind: AuditTarget["kind"];
  /** The parameter of the path, or the field of the body, that names the target. Without it, the handler names the target, or nobody does. */
  name?: string;
};

/** The `config` of a route that the audit tells of. `name`: as in RouteAudit. */
export const audited = (action: AuditAction, kind: AuditTarget["kind"], name?: string) => ({
  audit: { action, kind, ...(name !== undefined && { name }) },
});

/** `begun` null: neither disk nor database took it. `noted`: what the handler has added. */
type RequestEntry = { begun: Begun | null; noted: Noted };

type Noted = { name?: string | null; detail?: Record<string, unknown> };

/**
 * Writes an entry for every request with a key to a route that changes something, or that names itself in `config.audit`. It is begun before the
 * handler and ended before the answer leaves. What is refused before the handler, by ability or body, gets its entry then. Requests without
 * a valid key are counted only (auth.ts).
 * @throws Error at the start, for a route that changes something and has no `config.audit`
 */
export function auditRoutes(scope: FastifyInstance, audit: Pick<Audit, "begin" | "end">): void {
  scope.decorateRequest("entry", null);
  scope.decorateRequest("failure", null);
  scope.addHook("onRoute", (route) => {
    const about = route.config?.audit;
    if (about === undefined) {
      if (isRead(route.method)) return;
      throw new Error(`${String(route.method)} ${route.url} needs config.audit, since it changes something`);
    }
    // For these routes alone, so that a read of a token passes no further hook.
    route.preHandler = [
      ...[route.preHandler ?? []].flat(),
      async (request) => {
        request.entry = { begun: null, noted: {} };
        request.entry.begun = await audit.begin(entryOf(request, about, { isValid: true }));
      },
    ];
    route.onError = [
      ...[route.onError ?? []].flat(),
      async (request, _reply, error) => void (request.failure = toBrokerError(error).code),
    ];
    route.onSend = [...[route.onSend ?? []].flat(), async (request) => await end(request, about)];
  });

  const end = async (request: FastifyRequest, about: RouteAudit): Promise<void> => {
    if (request.principal === null) return;
    const { begun, noted } = request.entry ?? {
      begun: await audit.begin(entryOf(request, about, { isValid: false })).catch(() => null), // refused anyway
      noted: {},
    };
    if (begun === null) return;
    const result = request.failure ?? "ok";
    const name = hidesName.has(result) ? null : noted.name;
    const { detail } = noted;
    await audit.end(begun, {
      result,
      ...(name !== undefined && { target: { kind: about.kind, name } }),
      ...(detail !== undefined && { detail }),
    });
  };
}

/** Adds to the entry of a request what only its handler knows: the name of the target, or details. Never a secret. */
export function noteInAudit({ entry }: FastifyRequest, { name, detail }: Noted): void {
  if (entry === null) return;
  const { noted } = entry;
  entry.noted = { ...noted, ...(name !== undefined && { name }), detail: { ...noted.detail, ...detail } };
}

/** With these results the name may be anything, such as a key that was pasted into a path: nothing of that name exists for the caller. */
const hidesName = new Set<string>(["invalid_request", "not_found", "connection_not_found"]);

function isRead(method: string | string[]): boolean {
  return [method].flat().every((each) => each === "GET" || each === "HEAD");
}

/** `isValid` false: the request was refused before it was looked at, so nothing of it is repeated. */
function entryOf(
  { principal, params, body, ip }: FastifyRequest,
  { action, kind, name: named }: RouteAudit,
  { isValid }: { isValid: boolean },
): NewEntry {
  if (principal === null) throw new Error("a route with an entry needs a key");
  const given = { ...(body as object), ...(params as object) } as Record<string, unknown>;
  const name = isValid && named !== undefined ? given[named] : null;
  const isShown = typeof name === "string" && (kind !== "connection" || coversName(principal, name));
  const fields = isValid ? Object.keys(body ?? {}) : [];
  return {
    actor: principal.actor,
    action,
    target: { kind, name: isShown ? name : null },
    address: ip,
    ...(fields.length > 0 && { detail: { fields } }),
  };
}
