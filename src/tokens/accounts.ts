import { isStorageUnavailable } from "../errors.ts";
import type { ConnectionGrant, Lookup, ProviderDefinition } from "../providers/format/definition.ts";
import { hostInputs, lookupsOf } from "../providers/format/requirements.ts";
import { capturedValues, fill, type TemplateValues } from "../providers/format/template.ts";
import type { HttpRequest } from "../providers/http/exchange.ts";
import {
  buildIntrospectionRequest,
  buildLookupRequest,
  readIntrospection,
  readLookup,
} from "../providers/oauth/side-requests.ts";
import type { AccountRows, FoundAccount } from "../store/accounts.ts";
import type { TokenRow } from "../store/token-row.ts";
import { lookupAgainHours } from "../time.ts";
import type { TokenVault } from "../vault/vault.ts";
import type { RequestContext, Sender } from "./request.ts";
import { expiryDate, isUsable, placeOf, schedulerFor } from "./seal.ts";

/** A token whose account is to be found out, and the values captured with it. */
type AskedToken = { accessToken: string; captured: Readonly<Record<string, string>> };

/** `failed`: the provider's API did not say; `detail` for people. */
export type Identified = ({ kind: "found" } & FoundAccount) | { kind: "failed"; detail: string };

export type Accounts = {
  /** Finds out the account of a token, by the definition's lookups. Never rejects. */
  identify(context: RequestContext, token: AskedToken): Promise<Identified>;
  /**
   * Finds out about a set that has just been stored: its end, if only introspection says it, and its account, unless that is known.
   * `handedOver`: the set was imported and not tried at the provider, so it counts as a set of the account only after the provider has
   * accepted it. Returns the newest row; never rejects.
   */
  followUp(context: RequestContext, stored: TokenRow, options?: { handedOver: boolean }): Promise<TokenRow>;
  /** Stores the account of a row's grant, and notes at which other connections of the account the provider has dropped the token set. Returns the newest row. */
  learn(context: RequestContext, row: TokenRow, found: FoundAccount): Promise<TokenRow>;
};

export type AccountParts = {
  accounts: Pick<
    AccountRows,
    "learnAccount" | "noteLookupFailed" | "learnExpiry" | "sharingAccount" | "noteDroppedSets" | "addEvent"
  >;
  sender: Pick<Sender, "ask">;
  vault: TokenVault;
  random: () => number;
  onBackgroundError: (error: unknown) => void;
};

export function createAccounts(parts: AccountParts): Accounts {
  const { accounts, vault, onBackgroundError } = parts;

  const identify: Accounts["identify"] = async (context, token) => {
    try {
      return await runLookups(parts, context, token);
    } catch (error) {
      return { kind: "failed", detail: error instanceof Error ? error.message : "a value was missing" };
    }
  };

  const store = async (row: TokenRow, found: FoundAccount): Promise<TokenRow | null> => {
    // The tokens are sealed with what was looked up, so the statement that changes it also stores them sealed anew.
    const to = placeOf({ ...row, accountCaptured: found.captured });
    return await accounts.learnAccount(row, found, vault.resealTokens(row, placeOf(row), to));
  };

  const learn: Accounts["learn"] = async (context, row, found) => {
    const learnt = await store(row, found);
    if (learnt !== null) await noteSharedSets(parts, context.definition, learnt);
    return learnt ?? row;
  };

  const learnAccount = async (
    context: RequestContext,
    { row, token, isProven }: { row: TokenRow; token: AskedToken; isProven: boolean },
  ): Promise<TokenRow> => {
    const found = await identify(context, token);
    if (found.kind === "failed") {
      await accounts.noteLookupFailed(row, found.detail);
      return row;
    }
    return isProven ? await learn(context, row, found) : ((await store(row, found)) ?? row);
  };

  return {
    identify,
    learn,

    async followUp(context, stored, { handedOver } = { handedOver: false }) {
      const { definition } = context;
      // A lookup with the token has found the account, or a template says it without a request.
      const isProven = !handedOver || ownLookups(definition, stored).some(({ request }) => request !== null);
      const asksWhose = !isKnown(definition, stored) && mayLookUp(stored);
      if (stored.accessToken === null || !(asksWhose || isIntrospected(definition))) return stored;
      try {
        const accessToken = vault.openAccessToken(stored.accessToken, placeOf(stored));
        if (!isUsable(accessToken)) return stored;
        const token = { accessToken, captured: stored.captured };
        const row = await learnExpiry(parts, context, { row: stored, token });
        return asksWhose ? await learnAccount(context, { row, token, isProven }) : row;
      } catch (error) {
        // The token can be served without this. The next stored set leads here again.
        if (!isStorageUnavailable(error)) onBackgroundError(error);
        return stored;
      }
    },
  };
}

/** Whether something was found out and stored. A row that was not stored must not be handed out yet. */
export function isNews(before: TokenRow, after: TokenRow | null): after is TokenRow {
  return after !== null && after !== before;
}

/** A failed lookup is repeated after the next refresh, then less and less often: its provider may never answer it. */
function mayLookUp({ lookupFailures, lookupFailedAt, authorizedAt, now }: TokenRow): boolean {
  if (lookupFailedAt === null || (authorizedAt !== null && lookupFailedAt < authorizedAt)) return true;
  const hours = lookupAgainHours[lookupFailures - 1] ?? lookupAgainHours[3];
  return now.getTime() >= lookupFailedAt.getTime() + hours * 3_600_000;
}

function isIntrospected({ response, introspection }: ProviderDefinition): boolean {
  return response.expires.from === "introspect" && introspection?.token === "access_token";
}

/** Whether the account of the present grant is known, or cannot be found out. */
function isKnown(definition: ProviderDefinition, row: TokenRow): boolean {
  return ownLookups(definition, row).length === 0 || row.lookedUp === row.authorization;
}

function ownLookups(definition: ProviderDefinition, { grant }: TokenRow): readonly Lookup[] {
  return lookupsOf(definition, grant as ConnectionGrant);
}

async function runLookups(parts: AccountParts, context: RequestContext, token: AskedToken): Promise<Identified> {
  const found: FoundAccount = { account: null, label: null, captured: {} };
  for (const lookup of ownLookups(context.definition, context.row)) {
    const seen = { ...token, account: found.captured };
    const one = await runLookup(parts, context, { lookup, seen });
    if ("detail" in one) return { kind: "failed", detail: one.detail };
    found.account ??= one.account;
    found.label ??= one.label;
    Object.assign(found.captured, one.captured);
  }
  return { kind: "found", ...found };
}

type Seen = AskedToken & { account: Readonly<Record<string, string>> };

async function runLookup(
  { sender }: AccountParts,
  context: RequestContext,
  { lookup, seen }: { lookup: Lookup; seen: Seen },
): Promise<FoundAccount | { detail: string }> {
  const { definition } = context;
  const { request } = lookup;
  const authenticated = request?.clientAuth ? { ...request, clientAuth: request.clientAuth } : null;
  let values: TemplateValues = {};
  const build = (known: TemplateValues): HttpRequest | null => {
    values = {
      ...known,
      accessToken: seen.accessToken,
      ...capturedValues(definition, { ...seen, inputs: known.inputs ?? {} }),
    };
    return request && buildLookupRequest(definition, request, values);
  };
  const asked = await sender.ask(context, { request: authenticated, build });
  if (asked === null) return { account: fill(lookup.value ?? "", values), label: null, captured: {} };
  if (!asked.ok) return { detail: asked.detail };
  return readLookup(lookup, asked.body, values) ?? { detail: "the answer does not hold what names the account" };
}

/** Asks the provider for the end of the newest access token (RFC 7662). */
async function learnExpiry(
  { sender, accounts, random }: AccountParts,
  context: RequestContext,
  { row, token }: { row: TokenRow; token: AskedToken },
): Promise<TokenRow> {
  const { definition } = context;
  const { introspection } = definition;
  if (introspection === null || !isIntrospected(definition)) return row;
  const named = { value: token.accessToken, hint: "access_token" } as const;
  const build = (values: TemplateValues) => buildIntrospectionRequest({ definition, token: named, values });
  const asked = await sender.ask(context, { request: introspection, build });
  const { active, expiry } = readIntrospection(introspection, asked?.body);
  if (!asked?.ok || !active || expiry.kind === "unstated" || row.issuedAt === null) return row;
  const expiresAt = expiryDate(expiry, row.now, null);
  const ends = { ...row, issuedAt: row.issuedAt, expiresAt };
  const { refreshDueAt } = schedulerFor(definition.refresh, random)(ends);
  return (await accounts.learnExpiry(row, { expiresAt, refreshDueAt })) ?? row;
}

/** If a provider keeps only a number of sets of an account, another connection may just have lost its own. Both get a line in their history. */
async function noteSharedSets(
  { accounts }: AccountParts,
  definition: ProviderDefinition,
  row: TokenRow,
): Promise<void> {
  const { parallelSets } = definition;
  if (parallelSets === null) return;
  const { singlePer, max } = parallelSets;
  const providers = [definition.id, ...definition.formerly];
  // An account of the same name at another host is another account: somebody who chooses a host could use any name there.
  const hosts = hostInputs(definition);
  const ofClient = hosts.some((name) => !Object.hasOwn(row.inputs, name));
  const by = { account: singlePer.includes("user"), client: singlePer.includes("client") || ofClient, providers };
  if (by.account && row.account === null) return;
  const named = singlePer.filter((key) => key.startsWith("inputs.")).map((key) => key.slice(7));
  const names = [...named, ...hosts.filter((name) => Object.hasOwn(row.inputs, name))];
  const inputs = Object.fromEntries(names.map((name) => [name, row.inputs[name] ?? ""]));
  const others = await accounts.sharingAccount(row, inputs, by);
  const dropped = others.slice(max - 1);
  if (dropped.length === 0) return;
  const connections = dropped.slice(0, 20).map(({ name }) => name);
  await accounts.addEvent(row.id, "other_sets_dropped", { connections, kept: max });
  await accounts.noteDroppedSets(
    dropped.map(({ id }) => id),
    { kept: max },
  );
}
