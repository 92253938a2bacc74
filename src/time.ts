/**
 * Every duration of src/, by the story that it belongs to: its unit is the end of its name, its reason stands above it. What must
 * stay smaller than what is in `relations` below, and checked at every start. What people set by the environment has its default
 * here and its bounds in config.ts. Sizes and counts stand in the file that uses them.
 */
const durations = <T extends Record<string, number>>(given: T): { readonly [K in keyof T]: number } =>
  Object.freeze(given);

/** A refresh, from the wish for a newer token to the stored answer: src/tokens. */
export const refreshTimes = durations({
  // Lease, permit, send

  /** How long a permit and its lock last. Neither is ever extended, so they outlast the whole HTTP call. */
  leaseSeconds: 30,
  /** From asking for the permit to writing the request. Later, the permit goes back and all starts over. */
  sendWindowMs: 2000,
  /** After a lease has run out, before the token may be sent again: a request that was on its way has arrived by then. */
  quietSeconds: 10,
  /** The same where the provider accepts the old token for a while: sending it twice does no harm there. */
  graceQuietSeconds: 2,
  /** A takeover needs Postgres without a gap for so long, so that a holder that waits to store its answer goes first. */
  uninterruptedMs: 10_000,
  /** From its admission by the limits until a request has reached the provider at the latest: the send window, and 3 s on its way. */
  limitTravelSeconds: 5,
  /** How long a request that a person waits for waits for limits. A renewal does not wait: it is tried again later. */
  limitPatienceMs: 10_000,

  // Waiting for a refresh that runs elsewhere

  /** A waiter that sees no permit in the row for so long asks for the permit itself. */
  nobodySendingMs: 1000,
  /** The first pause between two looks at the row. The pauses grow up to `pollMaxMs`. */
  pollFirstMs: 100,
  pollMaxMs: 500,
  /** A refresh that waits for others gives up after this. Its callers have left long before. */
  flightMs: 60_000,
  /** How long a caller who orders a refresh waits for it. */
  orderedRefreshMs: 30_000,

  // Storing the answer

  /** The first pause between two attempts to commit an answer. The pauses grow up to `commitRetryMaxMs`. */
  commitRetryFirstMs: 100,
  commitRetryMaxMs: 2000,
  /** An answer that Postgres has not taken by then is spooled. */
  spoolAfterMs: 200,

  // After a failure

  /** The longest pause after the first failure. It doubles with each further one, up to `backoffMaxSeconds`. */
  backoffBaseSeconds: 1,
  backoffMaxSeconds: 300,
  /** A provider that asks for a longer pause than this is not believed. */
  longestRequestedSeconds: 3600,
  /** When callers are told to come again where the provider says nothing. */
  comeBackSeconds: 5,
  /** The same while the definition of the provider is missing: an operator has to put it back. */
  definitionGoneSeconds: 60,
  /** A Retry-After lies between these two. */
  retryAfterMinSeconds: 1,
  retryAfterMaxSeconds: 60,
  /** The longest Retry-After where limits are used up or closed: nothing that anybody does opens them earlier. */
  limitRetryAfterMaxSeconds: 3600,
  /** Equal refusals that say nothing about the grant must come over at least so long before it counts as probably dead. */
  refusedBeforeDeadSeconds: 3600,
  /** Between two retries of a grant that has ended. */
  retryPauseSeconds: 60,
  /** A token that has expired when it is issued: its successor is not asked for before this. */
  deadOnArrivalSeconds: 30,

  // When a token is due

  /** A token this young that a caller reports as rejected was most likely refreshed between the caller's attempt and its report. */
  recentlyRefreshedMs: 10_000,
  /** What a lifetime counts as where neither the provider nor its definition states one. */
  unstatedLifetimeSeconds: 3600,
  /** A refresh that keeps a grant alive comes before its end by a tenth of its life, and by this at most (twice, with the jitter). */
  keepAliveMarginMs: 86_400_000,
  /** The subject token of a token exchange lives at least so long when it is sent, and is waited for so long. */
  subjectTtlSeconds: 60,
  subjectWaitSeconds: 10,

  // The sweeper

  /** How often a replica looks for connections that are due. */
  sweepMs: 1000,
  /** The same while there are more due than it could take at once, and how often it looks whether a host's gate is open. */
  sweepAgainMs: 50,
  /** A claimed row is left for so long to the replica that claimed it. Half of it may pass before its refresh begins. */
  claimSeconds: 60,
  /** How often rows that nobody needs any more are deleted. */
  tidyMs: 3_600_000,
  /** How often retries of ended grants that nobody brought to an end are looked for. */
  lapseMs: 10_000,
  /** A place for spooled answers that did not answer is looked at again after this. */
  recoverAgainMs: 30_000,
});

/** A person connects an account: src/consent, and the parts of src/tokens that a person waits for. */
export const consentTimes = durations({
  /** How long a person waits for a database that does not take the grant at once. */
  slowStoreMs: 3000,
  /** How long a person waits for the name of the account. */
  lookupMs: 10_000,

  // Device authorization: RFC 8628

  /** For one poll and for storing its answer. Nobody else polls the same code meanwhile. */
  devicePollLeaseSeconds: 60,
  /** How often a replica looks for codes that others have left behind. */
  deviceLookMs: 30_000,
  /** What `slow_down` adds to the interval: RFC 8628, section 3.5. */
  deviceSlowDownSeconds: 5,
  /** The longest interval between two polls. A code lives for minutes, and a person waits. */
  deviceLongestIntervalSeconds: 60,
});

/**
 * Hours until the lookup of an account's name is repeated, after its first failure, its second and so on. The last one counts for all
 * later ones: a provider may never answer.
 */
export const lookupAgainHours = [0, 1, 4, 24] as const;

/** Requests to providers, and what providers may say about time: src/providers. */
export const providerTimes = durations({
  /** Ten years. A token that is said to live longer, and one that is said never to end by a huge number, counts as that. */
  longestLifetimeSeconds: 315_360_000,
});

/** Services that read tokens. */
export const callerTimes = durations({
  /** How long a row in the memory of a replica is trusted without asking Postgres again. */
  cacheTrustMs: 4000,
  /** News of a connection's end takes less than this to arrive. A row that was read later than that knows of it. */
  endNewsMs: 60_000,
  /** The clocks of the machine may differ by this from what passed since Postgres's clock was read, before it is read again. */
  clockDriftMs: 1000,
});

/** A replica's start and end. */
export const processTimes = durations({
  /** On SIGTERM, how long reads go on before the listener closes: a balancer notices in this time. */
  lameDuckMs: 5000,
});
