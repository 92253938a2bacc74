import type { Elsewhere } from "./row.ts";

const consent = "test/unit/consent/consent.test.ts";
const catalog = "test/unit/providers/catalog.test.ts";
const takeover = "test/unit/tokens/row-rules-takeover.test.ts";
const schedule = "test/unit/tokens/row-rules-schedule.test.ts";
const pages = "test/unit/docs/pages.test.ts";
const limits = "test/unit/tokens/limits-over-replicas.test.ts";
const discovery = "test/unit/providers/discovery.test.ts";
const abilities = "test/integration/abilities";
const parallelSets = "test/unit/tokens/accounts.test.ts";
const refreshing = "test/integration/refreshes.test.ts";

/** Settings whose effect lies beyond requests and answers. */
export const elsewhere: Elsewhere[] = [
  { setting: "id", test: consent, title: "goes from the link by way of the provider to Connected" },
  { setting: "id", test: catalog, title: "a circle, an unknown id and two files with one id are named" },
  { setting: "formerly", test: catalog, title: "a definition is found by the ids that it had" },
  {
    setting: "formerly",
    test: "test/integration/renamed.test.ts",
    title: "goes on with its tokens, its client and its redirect URI",
  },
  {
    setting: "inputs.hosts_of_one_owner",
    test: "test/unit/providers/inputs.test.ts",
    title: "The definition vouches for the domains.",
  },
  {
    setting: "authorization.code_lifetime_s",
    test: "test/unit/consent/completion.test.ts",
    title: "no longer than the code lives",
  },
  { setting: "extends", test: catalog, title: "maps merge, everything else replaces" },
  {
    setting: "networks",
    test: "test/unit/providers/oauth-client.test.ts",
    title: "networks of one definition count for it alone, and in place of those for all",
  },
  ...["authorization.callback.capture.default", "response.capture.default"].map((setting) => ({
    setting,
    test: "test/unit/providers/template.test.ts",
    title: "and is lacking has its default",
  })),
  {
    setting: "authorization.callback.capture.default",
    test: "test/integration/captured-host.test.ts",
    title: "has them sent where the consent began, if it names none",
  },
  { setting: "issuer", test: discovery, title: "fill in the addresses that a file leaves out, and none that it has" },
  { setting: "issuer", test: discovery, title: "happens after an hour, and not before" },
  { setting: "issuer", test: discovery, title: "follows a doubt, once they are a minute old, and once for each doubt" },
  {
    setting: "issuer",
    test: `${abilities}/discovery.test.ts`,
    title: "a token endpoint that has moved is found in the metadata within a minute, and no refresh token is lost",
  },
  {
    setting: "discovery.metadata_url",
    test: discovery,
    title: "are where discovery.metadata_url says, and there alone; they must name the issuer all the same",
  },
  {
    setting: "inputs.secret",
    test: `${abilities}/secrets.test.ts`,
    title: "a secret input is sent where the definition says, and is in no column, view, event or log",
  },
  {
    setting: "response.extra_tokens.name",
    test: `${abilities}/further-tokens.test.ts`,
    title: "both tokens of one answer are read by name",
  },
  {
    setting: "response.extra_tokens.name",
    test: `${abilities}/further-tokens.test.ts`,
    title: "two replicas and two hundred callers cause one refresh of each token, each with its own refresh token",
  },
  {
    setting: "after_connect.pointer",
    test: `${abilities}/accounts.test.ts`,
    title: "a reconnect with another account changes nothing before somebody says so",
  },
  {
    setting: "parallel_sets",
    test: `${abilities}/accounts.test.ts`,
    title: "where an account has one set, connecting it again warns and names the connection that was hit",
  },
  { setting: "parallel_sets", test: parallelSets, title: "or where sets do not disturb each other" },
  { setting: "parallel_sets.single_per", test: parallelSets, title: "have %s in common are counted together" },
  {
    setting: "parallel_sets.max",
    test: parallelSets,
    title: "of those beyond %d the oldest are the ones that are dropped",
  },
  {
    setting: "scopes",
    test: "test/unit/consent/scope-words.test.ts",
    title: "says what a scope lets one do in the definition's words",
  },
  ...["name", "docs", "sources", "guide.register", "guide.redirect_uri", "guide.scopes", "guide.quirks"].map(
    (setting) => ({
      setting,
      test: pages,
      title: `a page shows ${setting}`,
    }),
  ),
  ...["facts", "facts.from", "facts.note", "facts.guessed"].map((setting) => ({
    setting,
    test: pages,
    title: `a page shows ${setting}`,
  })),
  {
    setting: "refresh.reuse",
    test: takeover,
    title: "promptly, where reuse is %s, once lease and quiet period are over",
  },
  {
    setting: "refresh.reuse",
    test: takeover,
    title: "where a second use kills the family, only when the access token has run out",
  },
  {
    setting: "refresh.reuse",
    test: "test/contract/reuse.test.ts",
    title: "$reuse, $when: sent again at $sentAgain, ends $ends",
  },
  { setting: "refresh.grace_s", test: takeover, title: "inside a grace window promptly and after 2 s" },
  { setting: "refresh.ahead", test: schedule, title: "is due as far ahead as its provider's definition says" },
  { setting: "refresh.min_age_s", test: schedule, title: "is not due before its provider's least age" },
  {
    setting: "refresh.min_age_s",
    test: "test/unit/tokens/read-freshness.test.ts",
    title: "nothing is refreshed before the provider's minimal age",
  },
  {
    setting: "refresh.idle_life_s",
    test: schedule,
    title: "is kept alive a tenth to a fifth of its idle life before the end",
  },
  {
    setting: "refresh.absolute_life_s",
    test: schedule,
    title: "is kept alive before the first of its ends: idle, absolute from the day of the grant",
  },
  ...["refresh.dead_grant.status", "refresh.dead_grant.body"].map((setting) => ({
    setting,
    test: "test/unit/providers/dead-grant.test.ts",
    title: "an answer that the file's rules do not read as the end is refused with what it is read as",
  })),
  {
    setting: "revocation.kills",
    test: "test/unit/tokens/recovery.test.ts",
    title: "of a replaced grant is revoked where that ends the token only",
  },
  { setting: "refresh.old_access_token_dies", test: refreshing, title: "a read that meets a refresh waits for it" },
  {
    setting: "refresh.rotation",
    test: refreshing,
    title: "handing a second connection the same refresh token is answered",
  },
  {
    setting: "limits.max_per_window",
    test: limits,
    title: "of one host that bears 10 requests in 600 s never send it more",
  },
  { setting: "limits.concurrency", test: limits, title: "have no more requests at a time than the limit" },
  { setting: "limits.spacing_ms", test: limits, title: "keep requests apart, as the provider gets them" },
  { setting: "limits.cool_down_s", test: limits, title: "are silent together after one of them was told to go slower" },
  { setting: "limits.per", test: limits, title: "keep a limit of each connection for each, whatever the others send" },
  {
    setting: "limits.per",
    test: "test/unit/tokens/limits.test.ts",
    title: "of clients are shared by all connections of a definition",
  },
];

/** Settings that no test proves yet. */
export const pending: { setting: string; what: string }[] = [];
