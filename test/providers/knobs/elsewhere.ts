import type { Elsewhere } from "./row.ts";

const consent = "test/unit/consent/consent.test.ts";
const catalog = "test/unit/providers/catalog.test.ts";
const takeover = "test/unit/tokens/takeover.test.ts";
const schedule = "test/unit/tokens/schedule.test.ts";
const pages = "test/unit/docs/pages.test.ts";
const limits = "test/unit/tokens/limits-over-replicas.test.ts";
const discovery = "test/unit/providers/discovery.test.ts";
const abilities = "test/integration/abilities";
const parallelSets = "test/unit/tokens/parallel-sets.test.ts";
const refreshing = "test/integration/refreshes.test.ts";

/** Knobs whose effect lies beyond requests and answers. */
export const elsewhere: Elsewhere[] = [
  { knob: "id", test: consent, title: "goes from the link by way of the provider to Connected" },
  { knob: "id", test: catalog, title: "a circle, an unknown id and two files with one id are named" },
  { knob: "formerly", test: catalog, title: "a definition is found by the ids that it had" },
  {
    knob: "formerly",
    test: "test/integration/renamed.test.ts",
    title: "goes on with its tokens, its client and its redirect URI",
  },
  {
    knob: "inputs.hosts_of_one_owner",
    test: "test/unit/providers/inputs.test.ts",
    title: "The definition vouches for the domains.",
  },
  { knob: "extends", test: catalog, title: "maps merge, everything else replaces" },
  {
    knob: "networks",
    test: "test/unit/providers/oauth-client.test.ts",
    title: "networks of one definition count for it alone, and in place of those for all",
  },
  ...["authorization.callback.capture.default", "response.capture.default"].map((knob) => ({
    knob,
    test: "test/unit/providers/captures.test.ts",
    title: "and is lacking has its default",
  })),
  {
    knob: "authorization.callback.capture.default",
    test: "test/integration/captured-host.test.ts",
    title: "has them sent where the consent began, if it names none",
  },
  { knob: "issuer", test: discovery, title: "fill in the addresses that a file leaves out, and none that it has" },
  { knob: "issuer", test: discovery, title: "happens after an hour, and not before" },
  { knob: "issuer", test: discovery, title: "follows a doubt, once they are a minute old, and once for each doubt" },
  {
    knob: "issuer",
    test: `${abilities}/discovery.test.ts`,
    title: "a token endpoint that has moved is found in the metadata within a minute, and no refresh token is lost",
  },
  {
    knob: "discovery.metadata_url",
    test: discovery,
    title: "are where discovery.metadata_url says, and there alone; they must name the issuer all the same",
  },
  {
    knob: "inputs.secret",
    test: `${abilities}/secrets.test.ts`,
    title: "a secret input is sent where the definition says, and is in no column, view, event or log",
  },
  {
    knob: "response.extra_tokens.name",
    test: `${abilities}/further-tokens.test.ts`,
    title: "both tokens of one answer are read by name",
  },
  {
    knob: "response.extra_tokens.name",
    test: `${abilities}/further-tokens.test.ts`,
    title: "two replicas and two hundred callers cause one refresh of each chain, each with its own refresh token",
  },
  {
    knob: "after_connect.pointer",
    test: `${abilities}/accounts.test.ts`,
    title: "a reconnect with another account changes nothing before somebody says so",
  },
  {
    knob: "parallel_sets",
    test: `${abilities}/accounts.test.ts`,
    title: "where an account has one set, connecting it again warns and names the connection that was hit",
  },
  { knob: "parallel_sets", test: parallelSets, title: "or where sets do not disturb each other" },
  { knob: "parallel_sets.single_per", test: parallelSets, title: "have %s in common are counted together" },
  {
    knob: "parallel_sets.max",
    test: parallelSets,
    title: "of those beyond %d the oldest are the ones that are dropped",
  },
  {
    knob: "scopes",
    test: "test/unit/consent/scope-words.test.ts",
    title: "says what a scope lets one do in the definition's words",
  },
  ...["name", "docs", "sources", "guide.register", "guide.redirect_uri", "guide.scopes", "guide.quirks"].map(
    (knob) => ({
      knob,
      test: pages,
      title: `a page shows ${knob}`,
    }),
  ),
  ...["facts", "facts.from", "facts.note", "facts.guessed"].map((knob) => ({
    knob,
    test: pages,
    title: `a page shows ${knob}`,
  })),
  { knob: "refresh.reuse", test: takeover, title: "promptly, where reuse is %s, once lease and quiet period are over" },
  {
    knob: "refresh.reuse",
    test: takeover,
    title: "where a second use kills the family, only when the access token has run out",
  },
  {
    knob: "refresh.reuse",
    test: "test/contract/reuse.test.ts",
    title: "$reuse, $when: sent again at $sentAgain, ends $ends",
  },
  { knob: "refresh.grace_s", test: takeover, title: "inside a grace window promptly and after 2 s" },
  { knob: "refresh.ahead", test: schedule, title: "is due as far ahead as its provider's definition says" },
  { knob: "refresh.min_age_s", test: schedule, title: "is not due before its provider's least age" },
  {
    knob: "refresh.min_age_s",
    test: "test/unit/tokens/freshness.test.ts",
    title: "nothing is refreshed before the provider's minimal age",
  },
  {
    knob: "refresh.idle_life_s",
    test: schedule,
    title: "is kept alive a tenth to a fifth of its idle life before the end",
  },
  {
    knob: "refresh.absolute_life_s",
    test: schedule,
    title: "is kept alive before the first of its ends: idle, absolute from the day of the grant",
  },
  ...["refresh.dead_grant.status", "refresh.dead_grant.body"].map((knob) => ({
    knob,
    test: "test/unit/providers/dead-grant.test.ts",
    title: "an answer that the file's rules do not read as the end is refused with what it is read as",
  })),
  {
    knob: "revocation.kills",
    test: "test/unit/tokens/recovery.test.ts",
    title: "of a replaced grant is revoked where that ends the token only",
  },
  { knob: "refresh.old_access_token_dies", test: refreshing, title: "a read that meets a refresh waits for it" },
  {
    knob: "refresh.rotation",
    test: refreshing,
    title: "handing a second connection the same refresh token is answered",
  },
  {
    knob: "limits.max_per_window",
    test: limits,
    title: "of one host that bears 10 requests in 600 s never send it more",
  },
  { knob: "limits.concurrency", test: limits, title: "have no more requests at a time than the limit" },
  { knob: "limits.spacing_ms", test: limits, title: "keep requests apart, as the provider gets them" },
  { knob: "limits.cool_down_s", test: limits, title: "are silent together after one of them was told to go slower" },
  { knob: "limits.per", test: limits, title: "keep a limit of each connection for each, whatever the others send" },
  {
    knob: "limits.per",
    test: "test/unit/tokens/limits.test.ts",
    title: "of clients are shared by all connections of a definition",
  },
];

/** What still waits for the test that proves it. */
export const pending: { knob: string; what: string }[] = [];
