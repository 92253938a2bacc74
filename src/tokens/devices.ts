import { randomUUID } from "node:crypto";
import { isDeepStrictEqual } from "node:util";
import type { Clock } from "../clock.ts";
import { BrokerError, connectionNotFound, forbiddenHere, UnreadableSecretError } from "../errors.ts";
import { type CompletionRule, rulesOfGrant } from "../grant-types.ts";
import type { ProviderDefinition } from "../providers/format/definition.ts";
import { hostInputs, joinScopes } from "../providers/format/requirements.ts";
import type { TemplateValues } from "../providers/format/template.ts";
import type { Failure } from "../providers/oauth/token-answer.ts";
import { readDeviceAuthorization, readPollState } from "../providers/oauth/side-requests.ts";
import { buildRequest } from "../providers/oauth/token-request.ts";
import type { AccountRows } from "../store/accounts.ts";
import type { ConsentLinks } from "../store/consents.ts";
import type { DeviceAuthorizations, DeviceRow } from "../store/devices.ts";
import type { TokenRow } from "../store/token-row.ts";
import type { TokenStatements } from "../store/token-statements.ts";
import { consentTimes } from "../time.ts";
import type { TokenVault } from "../vault/vault.ts";
import type { Authorizations } from "./person-grant.ts";
import type { Alarms, Lifecycle } from "./core.ts";
import type { RequestLimiter } from "./limits.ts";
import { failedRequestError, isRefused, type RequestContext, type Sender } from "./request.ts";
import { secretsDestination } from "./seal.ts";

/** What a person is shown (RFC 8628, section 3.3). */
export type DeviceCode = {
  userCode: string;
  verificationUri: string;
  verificationUriComplete: string | null;
  expiresAt: Date;
  intervalSeconds: number;
};

/** The consent link by which a person came, the id of the key that made it, and the scopes that its page showed. */
type AskedLink = { id: string; madeBy: string; scopes: readonly string[] };

export type Devices = {
  /**
   * Asks the provider for a user code. A code from before no longer counts.
   * @throws BrokerError grant_not_applicable, connection_disabled, connection_not_found, provider_rejected, provider_unavailable,
   * conflict (host or scopes were changed meanwhile)
   */
  begin(connectionId: string, link: AskedLink | null): Promise<DeviceCode>;
  /** The code that waits for a person; null: there is none, or the connection's scopes have changed since it was requested. */
  pending(connectionId: string): Promise<(DeviceCode & { linkId: string | null }) | null>;
  /** Begins to poll the codes that are due, without waiting for their providers. */
  round(): Promise<void>;
  /** Resolves when no poll is under way and every answer is persisted. */
  idle(): Promise<void>;
};

/**
 * The code of a person. `connection`: its name; null: not known. `linkId`: the link by which the person came; null: a key asked for the code.
 * `madeBy`: the key that made the link; null: there is none, or it is not known.
 */
export type AuditedCode = {
  connectionId: string;
  connection: string | null;
  linkId: string | null;
  madeBy: string | null;
};

export type DeviceParts = {
  deviceCodes: DeviceAuthorizations;
  links: Pick<ConsentLinks, "reserve">;
  accounts: Pick<AccountRows, "addEvent">;
  rows: Pick<TokenStatements, "readById">;
  authorizations: Pick<Authorizations, "storeGrant" | "ask">;
  sender: Pick<Sender, "ask" | "prepareWithFurtherTokens">;
  limits: Pick<RequestLimiter, "beside">;
  vault: TokenVault;
  clock: Clock;
  /** True once this process shuts down and must begin nothing new. */
  lifecycle: Lifecycle;
  alarms: Pick<Alarms, "unreadable">;
  completion: CompletionRule;
  /**
   * Begins an entry of the audit about what comes of a code, and resolves with what ends it. Neither fails. If the connection and the maker of the
   * link are known, the begin asks no database, and a disk that hangs holds it up for 2 s.
   */
  audited: (code: AuditedCode) => Promise<(result: string) => Promise<void>>;
  onBackgroundError: (error: unknown) => void;
};

const perRound = 8;
const instead = "Use a connection whose grant is authorization_code, and a consent link for the app.";

export function createDevices(parts: DeviceParts): Devices {
  const { deviceCodes, rows, authorizations, sender, limits, vault, clock, lifecycle, alarms, onBackgroundError } =
    parts;
  const polling = new Set<Promise<void>>();
  let nextLookMs = 0;

  const prepare = async (connectionId: string): Promise<RequestContext> => {
    const row = await rows.readById(connectionId);
    if (row === null) throw connectionNotFound("");
    return await sender.prepareWithFurtherTokens(row);
  };

  /** A code that only another replica can open is left to that replica. @throws UnreadableSecretError */
  const openCode = (device: DeviceRow, owner: TokenRow): SealedDevice | null => {
    try {
      return openDevice(vault, device, owner);
    } catch (error) {
      if (!(error instanceof UnreadableSecretError)) throw error;
      if (error.reason === "unknown_key") throw error;
      alarms.unreadable(error);
      return null;
    }
  };

  const poll = async (device: DeviceRow): Promise<void> => {
    if (device.expired) return await giveUp(parts, device, "expired_token");
    // It was asked for before that was forbidden.
    if (parts.completion === "app") return await giveUp(parts, device, "grant_not_applicable");
    const context = await prepare(device.connectionId);
    const opened = openCode(device, context.owner);
    if (opened === null) return await giveUp(parts, device, "unreadable_secret");
    if (!isAskedFor(opened, context.row)) return await giveUp(parts, device, "changed_meanwhile");
    const { deviceCode, linkId, madeBy = null } = opened;
    const answer = await authorizations.ask(context, "device_code", { values: { deviceCode }, cannotWait: false });
    const { definition } = context;
    if (answer.kind === "failed") return await recordPoll(parts, { device, definition }, answer.failure);
    const given = { captured: {}, redirectUri: null, linkId };
    const { connectionId } = device;
    const ended = await parts.audited({ connectionId, connection: context.row.name, linkId, madeBy });
    const authorized = await authorizations.storeGrant(context, answer.grant, given).catch(async (error: unknown) => {
      const code = error instanceof BrokerError ? error.code : "internal_error";
      await ended(code);
      if (code === "duplicate_grant") return null;
      throw error;
    });
    if (authorized === null) return await forget(parts, device, "duplicate_grant");
    const { kind } = authorized;
    await ended(kind === "connected" ? "ok" : "other_account");
    await deviceCodes.drop(device);
    // The grant is another account's: the page asks the person, and the link is not used up before they have answered.
    if (kind === "connected" && linkId !== null) await parts.links.reserve(linkId);
  };

  /** If a poll fails, the code is polled again when its lease has run out. */
  const beginPoll = (device: DeviceRow): void => {
    const work = poll(device)
      .catch(onBackgroundError)
      .finally(() => {
        polling.delete(work);
        nextLookMs = Math.min(nextLookMs, clock.monotonicMs() + device.intervalSeconds * 1000);
      });
    polling.add(work);
  };

  return {
    async idle() {
      await Promise.all(polling);
    },

    async begin(connectionId, link) {
      const context = await prepare(connectionId);
      requireDeviceGrant(context.row);
      if (parts.completion === "app") throw forbiddenHere("A user code", { instead, connection: context.row.name });
      if (link !== null && !isAskedFor(link, context.row)) throw justChanged(context.row);
      const { definition, row } = context;
      if (definition.device === null) throw notOffered(row);
      const scope = joinScopes(definition, row.scopes);
      const { device } = definition;
      const build = (values: TemplateValues) => buildRequest(device, { ...values, scope });
      const answer = await sender.ask(context, { request: device, build, sends: limits.beside(context) });
      const said = "The provider gives no user code";
      if (answer?.ok === false) throw failedRequestError(said, answer, { connection: row.name });
      const read = readDeviceAuthorization(answer?.body);
      if (read === null) {
        throw new BrokerError("provider_rejected", `${said}: its answer holds none.`, { connection: row.name });
      }
      const id = randomUUID();
      const place = { requestId: id, destination: secretsDestination(context.owner, hostInputs(definition)) };
      const linkId = link?.id ?? null;
      const known: SealedDevice = { ...read, linkId, madeBy: link?.madeBy ?? null, scopes: row.scopes };
      const sealed = vault.sealDeviceCode(JSON.stringify(known), place);
      const asked = { inputs: row.inputs, scopes: row.scopes, client: context.client };
      const kept = await deviceCodes.put({ ...read, connectionId, id, linkId, deviceCode: sealed }, asked);
      if (kept === null) throw justChanged(row);
      nextLookMs = Math.min(nextLookMs, clock.monotonicMs() + read.intervalSeconds * 1000);
      return { ...read, ...kept };
    },

    async pending(connectionId) {
      const device = await deviceCodes.find(connectionId);
      const row = device === null || device.expired ? null : await rows.readById(connectionId);
      if (device === null || row === null) return null;
      const opened = openDevice(vault, device, row);
      return isAskedFor(opened, row) ? { ...device, ...opened } : null;
    },

    async round() {
      if (clock.monotonicMs() < nextLookMs) return;
      nextLookMs = clock.monotonicMs() + consentTimes.deviceLookMs;
      const limit = lifecycle.isDraining ? 0 : perRound - polling.size;
      const due =
        limit > 0 ? await deviceCodes.claimDue({ limit, leaseSeconds: consentTimes.devicePollLeaseSeconds }) : [];
      for (const device of due) beginPoll(device);
      const waitSeconds = await deviceCodes.nextDueSeconds();
      const waitMs = waitSeconds === null ? consentTimes.deviceLookMs : Math.max(waitSeconds, 1) * 1000;
      nextLookMs = Math.min(nextLookMs, clock.monotonicMs() + waitMs);
    },
  };
}

type SealedDevice = NonNullable<ReturnType<typeof readDeviceAuthorization>> & {
  linkId: string | null;
  /** Absent in a code that an older version has asked for. */
  madeBy?: string | null;
  scopes: string[];
};

/** The code with what the person is shown, both from the sealed record: the other columns are not trusted. */
function openDevice(vault: TokenVault, { id, deviceCode }: DeviceRow, owner: TokenRow): SealedDevice {
  const place = { requestId: id, destination: secretsDestination(owner) };
  return JSON.parse(vault.openDeviceCode(deviceCode, place)) as SealedDevice;
}

/** Whether a connection's scopes are still those that a person was shown, or with which a code was requested. */
function isAskedFor({ scopes }: { scopes: readonly string[] }, row: Pick<TokenRow, "scopes">): boolean {
  return isDeepStrictEqual(scopes, row.scopes);
}

/** What to do after an answer without a token (RFC 8628, section 3.5). */
async function recordPoll(
  parts: DeviceParts,
  { device, definition }: { device: DeviceRow; definition: ProviderDefinition },
  failure: Failure,
): Promise<void> {
  const state = readPollState(definition, failure.oauthError);
  if (state === "authorization_pending") return await parts.deviceCodes.postpone(device, device.intervalSeconds);
  if (state === "slow_down") {
    return await parts.deviceCodes.postpone(
      device,
      Math.min(device.intervalSeconds + consentTimes.deviceSlowDownSeconds, consentTimes.deviceLongestIntervalSeconds),
    );
  }
  if (state !== null) return await giveUp(parts, device, state);
  if (isRefused(failure)) return await giveUp(parts, device, failure.detail);
  // The provider is away or busy: double the interval, as the RFC says for timeouts.
  const waitSeconds = Math.max(device.intervalSeconds * 2, failure.retryAfterSeconds ?? 0);
  await parts.deviceCodes.postpone(device, Math.min(waitSeconds, consentTimes.deviceLongestIntervalSeconds));
}

async function giveUp(parts: DeviceParts, device: DeviceRow, error: string): Promise<void> {
  await forget(parts, device, error);
  const code = /^[a-z_]+$/.test(error) ? error : "provider_rejected";
  const ended = await parts.audited({ ...device, connection: null, madeBy: null });
  await ended(code === "access_denied" ? "denied" : code);
}

async function forget({ deviceCodes, accounts }: DeviceParts, device: DeviceRow, error: string): Promise<void> {
  await deviceCodes.drop(device);
  const isDenied = error === "access_denied";
  const detail = isDenied ? {} : { error };
  await accounts.addEvent(device.connectionId, isDenied ? "consent_denied" : "consent_failed", detail);
}

function requireDeviceGrant(row: TokenRow): void {
  if (row.status === "disabled") {
    throw new BrokerError("connection_disabled", "This connection is disabled; enable it first.", {
      connection: row.name,
    });
  }
  if (rulesOfGrant(row.grant).consent !== "user_code") throw notOffered(row);
}

function justChanged({ name }: TokenRow): BrokerError {
  return new BrokerError("conflict", "The provider's host, or the scopes, were just changed here; begin again.", {
    connection: name,
  });
}

function notOffered({ name, grant }: TokenRow): BrokerError {
  return new BrokerError(
    "grant_not_applicable",
    `Connections of the grant ${grant} are not connected with a user code.`,
    {
      connection: name,
    },
  );
}
