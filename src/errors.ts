import { publicName } from "./chain-name.ts";

/** Every code that an answer of this broker can carry. A closed set: the OpenAPI document lists it. */
export const errorCodes = [
  "invalid_request",
  "unauthenticated",
  "forbidden",
  "not_found",
  "connection_not_found",
  "method_not_allowed",
  "authorization_pending",
  "needs_reauthorization",
  "connection_disabled",
  "conflict",
  "duplicate_grant",
  "account_changed",
  "grant_not_applicable",
  "payload_too_large",
  "unsupported_media_type",
  "provider_rejected",
  "rate_limited",
  "client_rejected",
  "provider_unavailable",
  "refresh_in_progress",
  "storage_unavailable",
  "encryption_key_missing",
  "unreadable_secret",
  "internal_error",
] as const;

export type ErrorCode = (typeof errorCodes)[number];

/** What may stand beside an error's code and detail. Never a secret. */
export type ErrorContext = { connection?: string; retryAfterSeconds?: number };

/**
 * A failure that a caller is told about. `detail` is written for the person who reads it: it names the field, the cause
 * and what to do, and holds no secret. Which status a code gets is decided in `http/error-handler.ts` alone.
 */
export class BrokerError extends Error {
  readonly code: ErrorCode;
  readonly context: ErrorContext;

  constructor(code: ErrorCode, detail: string, context: ErrorContext = {}) {
    super(detail);
    this.name = "BrokerError";
    this.code = code;
    const { connection } = context;
    this.context = connection === undefined ? context : { ...context, connection: publicName(connection) };
  }
}

/** The answer for a name that does not exist and for one that the caller may not see: the same, byte for byte. */
export function connectionNotFound(name: string): BrokerError {
  return new BrokerError("connection_not_found", "There is no connection of this name for this key.", {
    connection: name,
  });
}

/** Another connection holds the refresh token that was to be stored. Its detail names none: who may know `holders` is told by their key. */
export class DuplicateGrantError extends BrokerError {
  /** Not enumerable, so that no logger and no answer shows them. */
  readonly #holders: readonly string[];

  constructor(name: string, holders: readonly string[]) {
    const detail = "Another connection of this client holds the same refresh token; two would invalidate each other's.";
    super("duplicate_grant", detail, { connection: name });
    this.name = "DuplicateGrantError";
    this.#holders = holders;
  }

  /** Names of the connections that hold it, as far as the database told. */
  get holders(): readonly string[] {
    return this.#holders;
  }
}

/**
 * The database is there, and one statement could not be carried out: most likely another session holds its row. A caller is told the
 * same as of an absent database, since it passes, too. All other rows are as good as before, so whoever works through many goes on.
 */
export class DatabaseBusyError extends BrokerError {
  /** @param state Postgres's SQLSTATE, or what this process ran out of */
  constructor(state: string) {
    const detail = `The broker's database could not do this right now (${state}); most likely another session holds what it needs.`;
    super("storage_unavailable", detail, { retryAfterSeconds: 2 });
    this.name = "DatabaseBusyError";
  }
}

/** The provider is there and takes no request now: its definition's `limits` are used up, or it has said so itself. */
export class ProviderBusyError extends BrokerError {
  constructor(detail: string, context: ErrorContext & { retryAfterSeconds: number }) {
    super("provider_unavailable", detail, context);
    this.name = "ProviderBusyError";
  }
}

/** The egress rules of this broker refuse the provider's address: it is this broker that says no, and nothing was sent. */
export class EgressRefusalError extends BrokerError {
  /** @param why which address, by which rule, and what allows it */
  constructor(why: string, context: ErrorContext & { retryAfterSeconds: number }) {
    super("provider_unavailable", `This broker refuses to ask the provider: ${why}.`, context);
    this.name = "EgressRefusalError";
  }
}

/** True for the absence of the database, which passes and concerns every row. False for a `DatabaseBusyError`. */
export function isStorageUnavailable(error: unknown): boolean {
  return error instanceof BrokerError && error.code === "storage_unavailable" && !(error instanceof DatabaseBusyError);
}

/** A fault in what the operator gave at start-up: one line on stderr and exit code 2. Never holds a secret's value. */
export class StartupError extends Error {
  constructor(message: string) {
    super(message);
    this.name = "StartupError";
  }
}

/** @returns what to tell of a port that cannot be had */
export function cannotListen(variable: "PORT" | "METRICS_PORT", { host, port }: Address, error: unknown): StartupError {
  const { code = "unknown error" } = error as NodeJS.ErrnoException;
  const remedy = whatToListenOn[code]?.replace("PORT", variable);
  return new StartupError(
    `${variable} ${port} on HOST ${host} cannot be listened on (${code})${remedy === undefined ? "" : `; ${remedy}`}`,
  );
}

const whatToListenOn: Readonly<Record<string, string>> = {
  EADDRINUSE: "another program listens there: stop it, or set PORT to another port",
  EACCES: "this user may not take it: set PORT to 1024 or more",
  EADDRNOTAVAIL: "HOST is no address of this machine: leave HOST away, or set it to 0.0.0.0 for all addresses",
  ENOTFOUND: "HOST is no name that is known: leave HOST away, or set it to an address of this machine",
  EAI_AGAIN: "HOST cannot be looked up: leave HOST away, or set it to an address of this machine",
};

type Address = { host: string; port: number };
