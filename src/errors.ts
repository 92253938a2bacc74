import { publicName } from "./text.ts";
import { callerTimes, storeTimes } from "./time.ts";

/** Every code that an answer of this broker can carry. A closed set: the OpenAPI document lists it. */
export const errorCodes = [
  "invalid_request",
  "unauthenticated",
  "forbidden",
  "wrong_end_user",
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
  "authorization_expired",
  "payload_too_large",
  "unsupported_media_type",
  "provider_rejected",
  "rate_limited",
  "client_rejected",
  "provider_unavailable",
  "refresh_in_progress",
  "storage_unavailable",
  "issuer_unavailable",
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

/** `what`: the way to connect an account that CONSENT_COMPLETION forbids, as a sentence begins with it. `instead`: a whole sentence. */
export function forbiddenHere(
  what: string,
  { instead = useAppLink, connection }: { instead?: string; connection?: string } = {},
): BrokerError {
  const detail = `${what} is forbidden here (CONSENT_COMPLETION=app): no app says for which of its users it is. ${instead}`;
  return new BrokerError("grant_not_applicable", detail, connection === undefined ? {} : { connection });
}

const useAppLink = 'Make a consent link with "completion": "app", end_user and return_to.';

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
 * The database answers, but one statement failed: most likely another session has locked its row. Callers get the same answer as when the
 * database is away, since this passes, too. Other rows are not affected: code that works through many rows goes on with the next.
 */
export class DatabaseBusyError extends BrokerError {
  /** @param state Postgres's SQLSTATE, or what this process ran out of */
  constructor(state: string) {
    const detail = `The broker's database could not do this right now (${state}); most likely another session holds what it needs.`;
    super("storage_unavailable", detail, { retryAfterSeconds: storeTimes.retryAfterSeconds });
    this.name = "DatabaseBusyError";
  }
}

/** The provider takes no request now: its definition's `limits` are used up, or it has said so itself. */
export class ProviderBusyError extends BrokerError {
  constructor(detail: string, context: ErrorContext & { retryAfterSeconds: number }) {
    super("provider_unavailable", detail, context);
    this.name = "ProviderBusyError";
  }
}

/** The egress rules of this broker refuse the provider's address. Nothing was sent. */
export class EgressRefusalError extends BrokerError {
  /** @param why which address, by which rule, and what allows it */
  constructor(why: string, context: ErrorContext & { retryAfterSeconds: number }) {
    super("provider_unavailable", `This broker refuses to ask the provider: ${why}.`, context);
    this.name = "EgressRefusalError";
  }
}

/** True if the database is away, which concerns every row. False for a `DatabaseBusyError`. */
export function isStorageUnavailable(error: unknown): boolean {
  return error instanceof BrokerError && error.code === "storage_unavailable" && !(error instanceof DatabaseBusyError);
}

/** A fault in what the operator gave at start-up: one line on stderr, or several, and exit code 2. Never holds a secret's value. */
export class StartupError extends Error {
  readonly lines: readonly string[];

  constructor(message: string, lines: readonly string[] = [message]) {
    super(message);
    this.lines = lines;
    this.name = "StartupError";
  }
}

/** @returns the text for a port that cannot be listened on */
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

/**
 * - `no_record`: the bytes are none of our records.
 * - `unknown_key`: the key that it names is not in this ring. Only the database's list of keys tells whether another replica
 *   may have it (`createKeyList`).
 * - `does_not_open`: changed, moved from another place, or sealed with other bytes under the same key id.
 */
type UnreadableReason = "no_record" | "unknown_key" | "does_not_open";

/** A sealed value that does not open. Names where it lies and which key it asks for, and holds nothing of its bytes. */
export class UnreadableSecretError extends BrokerError {
  readonly place: SealedPlace;
  /** Null: it is no record, or the part with the key id cannot be one. */
  readonly keyId: string | null;
  readonly reason: UnreadableReason;

  constructor(
    { table, row, column }: SealedPlace,
    { keyId, reason }: { keyId: string | null; reason: UnreadableReason },
  ) {
    const what = column.replace(/_sealed$/, "").replaceAll("_", " ");
    super("unreadable_secret", `The stored ${what} cannot be opened; the broker's log names its row and key.`);
    this.name = "UnreadableSecretError";
    this.place = { table, row, column };
    this.keyId = keyId;
    this.reason = reason;
  }

  /** The same, with the name of the connection that gets no token because of it. */
  of(connection: string): this {
    this.context.connection = publicName(connection);
    return this;
  }
}

/** A row by its primary key, and the column. */
type SealedPlace = { table: string; row: string; column: string };

/**
 * The answer for a row whose MAC was made with a key that other replicas have and this one lacks. This replica cannot check it, so it
 * neither accepts nor refuses it. `what`: as people call it, such as `this consent link`.
 */
export function encryptionKeyMissing(what: string): BrokerError {
  const detail = `This replica lacks an encryption key that others have, so it cannot check ${what}: ask again, or another replica. ENCRYPTION_KEYS must be the same on all; the log names the key.`;
  return new BrokerError("encryption_key_missing", detail, { retryAfterSeconds: callerTimes.keyMissingSeconds });
}

/** The result of `open`; null if it does not open, for callers that can do without it. */
export function openedOrNull(open: () => string | null): string | null {
  try {
    return open();
  } catch (error) {
    if (error instanceof UnreadableSecretError) return null;
    throw error;
  }
}

/** Why a server cannot be reached, by the code of Node's error, and what to do about it. It never contains an address. */
const troubles: Readonly<Record<string, string>> = {
  ENOTFOUND: "its host is not known; correct the host, or have it in the DNS",
  EAI_AGAIN: "its host cannot be looked up right now; see to the DNS, or correct the host",
  ECONNREFUSED: "nothing listens at its host and port; start it there, or correct host and port",
  ECONNRESET: "it cuts the connection off; correct the port, and see whether it expects TLS",
  EPIPE: "it cuts the connection off; correct the port, and see whether it expects TLS",
  ETIMEDOUT: "its host does not answer in time; correct host and port, or let the firewall pass",
  EHOSTUNREACH: "no way leads to its host; correct the host, or the network",
  ENETUNREACH: "no way leads to its network; correct the host, or the network",
  ENOENT: "there is no such socket file; start it there, or correct the path",
  EACCES: "this user may not open its socket; change the user, or the socket's mode",
  DEPTH_ZERO_SELF_SIGNED_CERT: "its certificate is signed by itself; name a file that holds it in NODE_EXTRA_CA_CERTS",
  SELF_SIGNED_CERT_IN_CHAIN: "its certificate is of an authority of your own; name its file in NODE_EXTRA_CA_CERTS",
  UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    "its certificate is of an authority that is not known; name its file in NODE_EXTRA_CA_CERTS",
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    "its certificate is of an authority that is not known; name its file in NODE_EXTRA_CA_CERTS",
  CERT_HAS_EXPIRED: "its certificate has expired; renew it there",
  ERR_TLS_CERT_ALTNAME_INVALID: "its certificate is for another host; use the host that stands in it",
  ERR_SSL_WRONG_VERSION_NUMBER: "it speaks no TLS; use the address without TLS, or correct the port",
  ERR_SSL_PACKET_LENGTH_TOO_LONG: "it speaks no TLS; use the address without TLS, or correct the port",
};

/** @returns what is wrong and what to do, with the code; null: the error has another cause */
export function whyUnreachable(error: unknown): string | null {
  const { code = "" } = error as NodeJS.ErrnoException;
  const trouble = troubles[code];
  return trouble?.replace(";", ` (${code});`) ?? null;
}

/** The same of a folder or a file, by the code of its error. */
const onDisk: Readonly<Record<string, string>> = {
  ENOENT: "it is not there: correct the path, or make it",
  ENOTDIR: "a part of the path is a file: correct the path",
  EEXIST: "it is a file: name a folder",
  EISDIR: "it is a folder: name a file",
  EACCES: "this user may not: change its owner or mode, or name another one",
  EPERM: "this user may not: change its owner or mode, or name another one",
  EROFS: "it lies on a read-only file system: name another one, or mount a volume there",
  ENOSPC: "the disk is full: make room",
  ETIMEDOUT: "it does not answer in time: look after its disk or its server",
  ELOOP: "its links go round in a circle: correct the path",
  ENAMETOOLONG: "the path is too long: shorten it",
};

/** @returns the code in brackets, and what to do where that is known */
export function whyNotOnDisk(error: unknown): string {
  const { code = "unknown error", errstr } = error as NodeJS.ErrnoException & { errstr?: string };
  // SQLite's own words, which hold nothing of a path.
  if (errstr !== undefined) return `(${errstr}); make it writable for this user, or set DATA_DIR to another folder`;
  return `(${code})${code in onDisk ? `; ${onDisk[code]}` : ""}`;
}
