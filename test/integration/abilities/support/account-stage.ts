import { ScriptedBrowser, type Page } from "../../../support/scripted-browser.ts";
import type { TokenBody } from "../../../support/broker-api.ts";
import { AbilityStage } from "./ability-stage.ts";
import { AbleProvider } from "./able-provider.ts";
import { deep, user } from "./further-tokens.ts";

/**
 * Definitions whose API names the account: `able` has its address there, and lets codes be copied; revoking ends only the token
 * that is named, but everything in `able-all`; an account has one set in `able-one`, two tokens in `able-two`, and three in
 * `able-many`. Nobody is looked up for `able-device`.
 */
function define(server: AbleProvider) {
  const after_connect = [server.lookup()];
  const api = { base_url: `${server.origin}/api/{account.tenant}` };
  const revocation = server.revocation("token");
  const response = { extra_tokens: [user] };
  return [
    server.definition("able", { after_connect, revocation, api, authorization: { manual_code: true } }),
    server.definition("able-all", { after_connect, revocation: server.revocation("all") }),
    server.definition("able-one", { after_connect, parallel_sets: { single_per: ["user"] } }),
    server.definition("able-two", { after_connect, revocation, response }),
    server.definition("able-many", { after_connect, response: { extra_tokens: [user, deep] } }),
    server.definition("able-device", { grants: ["device_code"], device: { url: `${server.origin}/device` } }),
  ];
}

/** Where a link may lead back to. */
export const returnOrigin = "https://app.example";

/** A broker, and two persons with accounts: ada, who connects, and bob, who comes later. */
export async function startAccountStage() {
  const server = new AbleProvider();
  const stage = await AbilityStage.start(server, define, { env: { RETURN_ORIGINS: returnOrigin } });
  return {
    stage,
    server,
    /** A connection of ada's, with its token. */
    connectAda: async (name: string, provider = "able"): Promise<TokenBody> => {
      await stage.connect(name, provider);
      return await stage.token(name);
    },
    /** Bob reconnects it: the page that asks about that. */
    reconnectAsBob: async (name: string, browser = new ScriptedBrowser(), link = {}): Promise<Page> => {
      server.account = "bob";
      const page = await stage.consent(name, browser, link);
      server.account = "ada";
      return page;
    },
    types: async (name: string) => (await stage.events(name)).map(({ type }) => type),
    /** The tokens of an account that were revoked. */
    revokedOf: (account: string) => server.revoked.filter((token) => server.accountOf(token) === account),
  };
}
