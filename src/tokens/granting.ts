import { chainName } from "../chain-name.ts";
import { withDeadline, type Clock } from "../clock.ts";
import { connectionNotFound, DuplicateGrantError } from "../errors.ts";
import type { Grant, TokenAnswer } from "../providers/grant.ts";
import type { TemplateValues } from "../providers/template.ts";
import type { AccountRows } from "../store/account-rows.ts";
import type { Clients } from "../store/clients.ts";
import type { TokenRow } from "../store/token-row.ts";
import type { TokenVault } from "../vault/token-vault.ts";
import { budgets } from "./budgets.ts";
import { furtherGranted, granted, type Granted } from "./granted.ts";
import type { Keeper } from "./keeping.ts";
import type { LimitKeeper } from "./limits.ts";
import type { RefreshObserver } from "./observer.ts";
import type { Sendable, Sender, SendPlan } from "./sending.ts";
import type { TokenCache } from "./token-cache.ts";
import { bothRefused, learnFromSuccess, withOlderSecret } from "./two-secrets.ts";

/** The steps by which grants that do not come from a refresh are asked for and kept. */
export type Granting = {
  /** The connection with the rows of its further tokens, which are made before anything can be granted. */
  prepare: (row: TokenRow) => Promise<Sendable>;
  /**
   * Asks for what a person has agreed to, with the secret before the newest, too, as long as that one has not worked; each as the
   * limits let it. Never rejects.
   */
  ask: (
    sendable: Sendable,
    grant: "authorization_code" | "device_code",
    given: { values: TemplateValues; cannotWait: boolean },
  ) => Promise<TokenAnswer>;
  /** A grant and the further tokens that came with it, each for a row of its own; its own first. */
  records(sendable: Sendable, grant: Grant, given: GivenByPerson): [Granted, ...Granted[]];
  /** Kept whatever is away, each by itself; the row of the first. @throws BrokerError connection_not_found, duplicate_grant */
  keep: (all: readonly [Granted, ...Granted[]]) => Promise<TokenRow>;
};

/** What the browser brought, and where to. `redirectUri` null: none was sent. */
type GivenByPerson = { captured: Record<string, string>; redirectUri: string | null };

export type GrantingParts = {
  accounts: Pick<AccountRows, "ensureChains" | "readChains">;
  clients: Pick<Clients, "forgetPreviousSecret" | "noteOldSecret">;
  observer: Pick<RefreshObserver, "oldSecretUsed">;
  cache: TokenCache;
  keeper: Pick<Keeper, "keep">;
  sender: Sender;
  limits: LimitKeeper;
  vault: TokenVault;
  clock: Clock;
  random: () => number;
};

export function createGranting(parts: GrantingParts): Granting {
  const { cache, keeper, sender, limits, clock } = parts;

  /** What a new grant has ended beside it is not served from memory. */
  const forgetChains = ({ sendable: { row, definition }, record }: Granted): void => {
    if (record.kind !== "grant" || row.parentId !== null) return;
    for (const { name } of definition.extraTokens) cache.expire(chainName(row.name, name));
  };

  return {
    async keep(all) {
      const answeredMs = clock.monotonicMs();
      const kept = await Promise.all(all.map((one) => keeper.keep({ ...one, answeredMs })));
      // A person is told "connected" and reads a token next: a database that is only slow is waited for.
      await withDeadline(Promise.all(kept.map(async ({ stored }) => await stored)), budgets.slowStoreMs, clock);
      forgetChains(all[0]);
      const stored = kept.map(({ kind, row, holders = [] }, index) => {
        if (row === null) throw connectionNotFound(all[0].sendable.row.name); // deleted meanwhile
        if (kind === "duplicate" && index === 0) throw new DuplicateGrantError(row.name, holders);
        // No permit keeps the version of a spooled one for it: it is not handed out before the row has it.
        return kind === "spooled" || all[index]?.record.kind === "held" ? row : cache.learn(row).row;
      });
      return stored[0] ?? all[0].sendable.row;
    },

    async prepare(row) {
      const sendable = await sender.prepare(row);
      return { ...sendable, chains: await prepareChains(parts, sendable) };
    },

    async ask(sendable, grant, { values, cannotWait }) {
      let plan: SendPlan = { grant, secretIndex: 0 };
      for (;;) {
        const current = plan;
        const send = async () => await sender.send(sendable, current, { values, mayStillSend: () => true });
        const answer = await limits.keep(sendable, send, { cannotWait, isProven: false });
        if (answer.kind === "granted") {
          // Not waited for: a grant is kept before anything else is done.
          void learnFromSuccess(parts, sendable, current);
          return answer;
        }
        const failure = bothRefused(answer.failure, current);
        const older = withOlderSecret(failure, current, sendable);
        if (older === null) return { kind: "failed", failure };
        plan = older;
      }
    },

    records: (sendable, grant, { captured, redirectUri }) => [
      granted(parts, sendable, { grant, captured, redirectUri }),
      ...furtherGranted(parts, sendable, { grant, captured, redirectUri }),
    ],
  };
}

async function prepareChains(
  { accounts, sender }: Pick<GrantingParts, "accounts" | "sender">,
  { row, definition }: Sendable,
): Promise<Sendable[]> {
  const { extraTokens } = definition;
  if (extraTokens.length === 0) return [];
  await accounts.ensureChains(row, extraTokens);
  const known = new Set(extraTokens.map(({ name }) => name));
  // Its name makes it a further token of this connection, not what somebody has written beside it.
  const isIts = ({ name, chain }: TokenRow) =>
    chain !== null && known.has(chain) && name === chainName(row.name, chain);
  const present = (await accounts.readChains(row.id)).filter(isIts);
  return await Promise.all(present.map((chain) => sender.prepareChain(chain)));
}
