/** Every time budget of the refresh protocol, each in one place. Those of the HTTP call are in providers/oauth-client.ts. */
export const budgets = {
  /** How long a permit and its lock last; longer than the whole HTTP call, and never extended. */
  leaseSeconds: 30,
  /** After a lease ran out, before the token may be sent again. */
  quietSeconds: 10,
  /** The same where the provider accepts the old token for a while. */
  graceQuietSeconds: 2,
  /** Permits asked for at once in a process: who waits for a connection of the pool uses up its time to send. */
  permitsAtOnce: 6,
  /** From asking for the permit to writing the request. */
  sendWindowMs: 2000,
  /** From its admission by the limits until the provider has got a request at the latest: `sendWindowMs`, and 3 s on its way. */
  limitTravelSeconds: 5,
  /** How long a person waits for limits that a renewal would be tried again after. */
  limitPatienceMs: 10_000,
  /** How long a row is trusted without asking Postgres again. */
  cacheTrustMs: 4000,
  /** A waiter that finds nobody sending for so long asks for the permit itself. */
  nobodySendingMs: 1000,
  pollFirstMs: 100,
  pollMaxMs: 500,
  /** A refresh that waits for others gives up after this; its callers have left long before. */
  flightMs: 60_000,
  /** How long who orders a refresh waits for it. */
  orderedRefreshMs: 30_000,
  backoffBaseSeconds: 1,
  backoffMaxSeconds: 300,
  /** Equal refusals that say nothing about the grant, and over how long at least, until somebody is told that it is probably dead. */
  refusalsBeforeDead: 5,
  refusedBeforeDeadSeconds: 3600,
  /** Between two retries of a grant that has ended. */
  retryPauseSeconds: 60,
  commitRetryFirstMs: 100,
  commitRetryMaxMs: 2000,
  /** An answer that Postgres has not taken by then is spooled. */
  spoolAfterMs: 200,
  /** On SIGTERM, how long reads go on before the listener closes. */
  lameDuckMs: 5000,
  /** How long a person who connects waits for a database that does not take the grant at once. */
  slowStoreMs: 3000,
  /** How long a person who connects waits for the name of the account. */
  lookupMs: 10_000,
  /** How often a replica looks for connections that are due. */
  sweepMs: 1000,
  /** When a place for spooled answers did not answer, it is looked at again after this. */
  recoverAgainMs: 30_000,
  /** For how long a claimed row is left to who claimed it. */
  claimSeconds: 60,
  /** A takeover needs Postgres without a gap for so long, so that a holder who waits to store goes first. */
  uninterruptedMs: 10_000,
  /** What a lifetime counts as when the provider states none, is in the provider room. A Retry-After lies between these. */
  retryAfterMinSeconds: 1,
  retryAfterMaxSeconds: 60,
  /** The same where limits are used up or closed: nothing that anybody mends opens them earlier. */
  limitRetryAfterMaxSeconds: 3600,
} as const;
