/**
 * Every duration of src/, by the story that it belongs to: its unit is the end of its name, its reason stands above it. What must
 * stay smaller than what is in `relations`, at the end, and checked at every start. What people set by the environment has its default
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
  /** How long a request that a person waits for waits for limits. A refresh does not wait: it is tried again later. */
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
  /** An attempt that may not be taken over yet is looked at again after this. */
  abandonedClaimSeconds: 10,
  /** When a new connection that needs no person is due. Usually whoever makes it fetches its first token before. */
  firstTrySeconds: 60,
  /** How often it is noted in the row that not even a request could be made, as long as the reason is the same. */
  unpreparedNoteSeconds: 60,

  // The limits of a provider (src/store/request-limits.ts)

  /** When to look again for the end of a request that runs: it comes back any moment. */
  limitComeBackSeconds: 1,
  /** A client that has asked within this time is one of those that share a limit. */
  limitRememberSeconds: 86_400,
  /** A turn is kept for a client that does not come for the time in which the rules bear one request, but at least and at most this. */
  limitTurnMinSeconds: 2,
  limitTurnMaxSeconds: 60,
});

/** A person connects an account: src/consent, and the parts of src/tokens that a person waits for. */
export const consentTimes = durations({
  // Links, states and outcomes

  /** How long a consent link works where its maker says nothing, and how long it may work at most. Its cookie lives as long. */
  linkSeconds: 3600,
  longestLinkSeconds: 604_800,
  /** From the redirect to the provider to the callback. */
  stateSeconds: 600,
  /** How long a code waits for the app that completes its consent. Most codes live for a minute (`authorization.code_lifetime_s`). */
  heldCodeSeconds: 60,
  /** How long an answer that another site has posted waits for the page that sends it again with the cookie. */
  postedAnswerSeconds: 60,
  /** No attempt takes longer: token requests, metadata, a revocation, storing, the account's name, and a rest for statements. */
  longestAttemptSeconds: 150,
  /** How long whoever comes back again is told what came of an attempt. */
  outcomeSeconds: 600,
  /** A grant of another account waits for so long for a person's decision. */
  unconfirmedGrantSeconds: 3600,
  /** A grant that a person has accepted and that its process has not stored by then is stored by another one. */
  acceptedGrantSeconds: 300,
  /** How often a page that waits asks again. */
  pageRefreshSeconds: 5,

  // What a person waits for

  /** For a database that does not take the grant at once. */
  slowStoreMs: 3000,
  /** For the name of the account, right after connecting. */
  lookupMs: 10_000,
  /** For the address to return to, on a page that tells what went wrong. */
  returnAddressMs: 2000,
  /** For the note of how an attempt ended. */
  noteMs: 2000,
  /** For the end of the same attempt elsewhere, and the pauses between two looks at it: the first, and the longest. */
  awaitEndingMs: 10_000,
  firstLookMs: 100,
  longestLookMs: 1000,

  // Device authorization: RFC 8628

  /** For one poll and for storing its answer. Nobody else polls the same code meanwhile. */
  devicePollLeaseSeconds: 60,
  /** How often a replica looks for codes that others have left behind. */
  deviceLookMs: 30_000,
  /** The life of a code, and the interval of its polls, where the provider states none. The interval is that of section 3.2. */
  deviceCodeSeconds: 600,
  deviceIntervalSeconds: 5,
  /** What `slow_down` adds to the interval: section 3.5. */
  deviceSlowDownSeconds: 5,
  /** The longest interval between two polls after a failure: a code lives for minutes, and a person waits. */
  deviceLongestIntervalSeconds: 60,
  /** A provider that states a longer life or interval than this is not believed. */
  deviceLongestStatedSeconds: 86_400,
});

/**
 * Hours until the lookup of an account's name is repeated, after its first failure, its second and so on. The last one counts for all
 * later ones: a provider may never answer.
 */
export const lookupAgainHours = [0, 1, 4, 24] as const;

/** Requests to providers, and what providers may say about time: src/providers. */
export const providerTimes = durations({
  /** Until the connection to a provider is open, a proxy's tunnel included. */
  connectMs: 3000,
  /** From the open connection to the end of the answer's headers. */
  headersMs: 22_000,
  /** The timeout of the whole call, the answer's body included. docs/reliability.md names it and `headersMs`, too. */
  callMs: 25_000,
  /** How long an issuer's metadata (RFC 8414) are used before they are read again. */
  metadataKeepMs: 3_600_000,
  /** When they are in doubt they are read again, but not more often than this. An issuer that did not answer is left alone as long. */
  metadataAgainMs: 60_000,
  /** When to come again where the provider's metadata, or a value that it gave, cannot be used: its next answer may be better. */
  unusableSeconds: 60,
  /** The life of a client assertion (RFC 7523) where the definition states none. */
  assertionSeconds: 60,
  /** Ten years: some providers answer with a number that means "for ever". Whatever is said to live longer counts as that. */
  longestLifetimeSeconds: 315_360_000,
});

/** Services that read tokens, and all others that call the API. */
export const callerTimes = durations({
  /** What a caller who wishes nothing gets: a token that lives for so long, and so long a wait for it. */
  minTtlSeconds: 60,
  waitSeconds: 10,
  longestWaitSeconds: 30,
  /** How long a row in the memory of a replica is trusted without asking Postgres again. */
  cacheTrustMs: 4000,
  /** The same of a caller's key. */
  keyTrustMs: 4000,
  /** The default of KEY_TRUST_SECONDS (a verified key, while Postgres is away), and the highest value that it takes. */
  keyTrustSeconds: 3600,
  keyTrustMaxSeconds: 86_400,
  /** News of a connection's end takes less than this to arrive. A row that was read later than that knows of it. */
  endNewsMs: 60_000,
  /** The clocks of the machine may differ by this from what passed since Postgres's clock was read, before it is read again. */
  clockDriftMs: 1000,
  /** How often an answer that takes long says how far it is. */
  progressMs: 1000,
  /** How often the public keys of a workload's issuer are fetched, and, while that fails, after what time again: 1, 2, 4 … 60 s. */
  issuerKeysMs: 900_000,
  issuerRetryFirstMs: 1000,
  issuerRetryMaxMs: 60_000,
  /** How often it is seen whether a fetch is due. */
  issuerLookMs: 1000,
  /** A token that names an unknown key has the keys fetched at most so often. */
  unknownKeyMs: 60_000,
  /** The whole request for the keys of an issuer. */
  issuerCallMs: 10_000,
  /** By how much the clock of an issuer may differ, and the longest life of a workload's token. */
  tokenLeewaySeconds: 60,
  tokenLifeSeconds: 86_400,
  /** How often it is written when keys were used last. */
  keyUseMs: 60_000,
  /** When to come again with what is sealed with a key that this replica lacks. */
  keyMissingSeconds: 5,
  /** The limits of the API are per minute. */
  limitWindowSeconds: 60,
  /** A request must have arrived by then, headers and body. */
  requestMs: 30_000,
  /** How often Node looks for requests that are late. With its own 30 s they would be ended after up to a minute. */
  requestCheckMs: 2000,
  /** A browser that came by https once comes by nothing else for so long after its last visit: a year. */
  httpsOnlySeconds: 31_536_000,
  /** A caller whose request was no HTTP has so long to read the answer before its socket is closed. */
  lingerMs: 2000,
});

/** What replicas tell each other: src/services/peers.ts, src/store/replicas.ts, src/coordination. */
export const replicaTimes = durations({
  /** How often a replica says that it is there, and reads what has ended. */
  beatMs: 1000,
  /** A beat that takes longer finds Postgres hanging. */
  beatPatienceMs: 1500,
  /** While Postgres is away, how often Redis is asked for what has ended. */
  askElsewhereMs: 4000,
  /** How long the answer to a revocation or a deletion waits until all replicas have heard of it. */
  tellPatienceMs: 2500,
  /** The same before a name is used again. */
  reusePatienceMs: 5000,
  /** A replica that was silent for longer seems to be gone. All that seem to be gone are waited for only so long. */
  goneAfterMs: 5000,
  gonePatienceMs: 500,
  /** Times in Postgres are finer than here. */
  roundingMs: 2,
  /** A replica counts as there for so long after it was last seen, or for KEY_TRUST_SECONDS if that is longer. */
  presentSeconds: 60,
  /** A replica that was not seen for so long is deleted from the table. Until then its spool folder keeps encryption keys in use. */
  forgetHours: 720,
  /** An end is committed at most this much later than its own time says: no statement takes longer. */
  commitSeconds: 60,

  // Redis

  /** How long a command may take. A lock that is taken late is worse than none. */
  redisCommandMs: 250,
  redisConnectMs: 2000,
  /** The first pause before connecting again. It doubles, up to the longest. */
  redisReconnectFirstMs: 200,
  redisReconnectMaxMs: 2000,
  /** The life of a key that is written to see whether Redis takes anything. */
  redisProbeMs: 10_000,
});

/** Encryption keys, and moving everything from one to another: src/encryption. */
export const encryptionTimes = durations({
  /** How often a replica looks into its own spool folder for what is sealed with other keys. */
  spoolLookMs: 5000,
  /** For that look. If it takes longer, anything may be there. */
  spoolPatienceMs: 1000,
  /** After a replica has changed its key, what it sealed before may still be on the way to the database. */
  settleMs: 60_000,
  /** How often a replica looks for a rotation that nobody works on. */
  rotationLookMs: 5000,
  /** How long a rotation is its worker's without a sign of it. */
  rotationLeaseSeconds: 15,
  /** The pause before another look at replicas, or at Redis, that a rotation waits for. */
  waitMs: 1000,
  /** A rotation waits so long for replicas that are there and still hold something under another key. Then it ends without them. */
  patienceMs: 120_000,
});

/** Waiting for Postgres: src/store. */
export const storeTimes = durations({
  /** For a connection to the server, and for a place in the pool. */
  connectMs: 3000,
  poolPatienceMs: 10_000,
  /** For a statement; within it, for a lock. Nobody may hold or await one for long: answers must be stored. */
  queryMs: 10_000,
  lockMs: 3000,
  /** A session that has begun a transaction and sends nothing more is ended by the server. */
  idleTransactionMs: 5000,
  /** For the connection that migrates, which may be the first to a server that is just starting. */
  migrationConnectMs: 10_000,
  /** When callers are told to come again while the database is away or busy. */
  retryAfterSeconds: 2,
  /** A process that has asked nothing for longer cannot tell whether Postgres was there. */
  longestSilenceMs: 10_000,
  /** How long a row is remembered as busy. */
  busyRowMs: 60_000,
  /** Permits, and answers to be stored, that come while others are with Postgres wait for those, to go together, but no longer than this. */
  togetherMs: 50,

  // Values in memory (src/store/read-cache.ts)

  /** How long after it was read a value is confirmed, so that readers need not wait for that, and what is due so soon after goes with it. */
  confirmAfterMs: 2500,
  confirmTogetherMs: 250,
  /** A value that nobody has read for so long is confirmed no more. To read it anew costs a hundred times as much as to confirm it. */
  inUseMs: 60_000,

  // The same while the database is away

  /** How often the database is asked whether it answers again. */
  outageRetryMs: 1000,
  /** How long the first question that gets no answer is waited for. Other readers do not wait longer than that. */
  readPatienceMs: 500,
  /** The same while it is silent: a question whose answer is lost is asked again, and few of them hold connections of the pool. */
  silentPatienceMs: 2000,
  /** After so long without a reader the database is not asked any more. The next reader asks. */
  lonelyMs: 30_000,
});

/** The audit: src/audit, src/store/audit.ts. */
export const auditTimes = durations({
  /** How often counts of token reads are written: a crash loses those since. */
  countsMs: 4000,
  /** Token reads are counted by the minute. */
  minuteMs: 60_000,
  /** Counts that their process has not added up so long after their minute are added up by another. */
  strayCountsMs: 120_000,
  /** How often a process logs the newest entry of its chain, if there is a new one. */
  headMs: 60_000,
  /** How often partitions are made and old entries removed. */
  maintainMs: 86_400_000,
  /** The same after a failure. */
  maintainAgainMs: 3_600_000,
  /** And after rows could not be written: a partition may be missing. */
  repairMs: 60_000,
  /** For a lock in a transaction of the writer; for one of its statements; for all of it. */
  lockMs: 1000,
  statementMs: 5000,
  transactionMs: 10_000,
  /** The pause after a failed write. It doubles with each further one, up to the longest. */
  retryFirstMs: 300,
  retryMaxMs: 10_000,
  /** For DATA_DIR to take a line: longer, and it counts as a disk that takes nothing. */
  diskMs: 2000,
  /** What DATA_DIR does not take is waited for in the database so long: before a change, and after it. */
  directMs: 2000,
  /** At the end of the process, for the last entries to be written. What is left then stays in DATA_DIR. */
  stopMs: 2000,
});

/** What the database keeps, and for how long. */
export const retentionTimes = durations({
  /** Of a deleted connection, what revokes an answer that comes late. */
  deletedHours: 24,
  /** The history of a connection. */
  eventDays: 90,
  /** Which answers were stored. One that comes later than that may be stored already, so it becomes a candidate at most. */
  storedAnswerDays: 90,
  /** Answers that nobody could read, sealed. */
  unreadAnswerDays: 30,
  /** Consent links that have run out. */
  expiredLinkDays: 30,
  /** The default of AUDIT_RETENTION_DAYS, and the highest value that it takes. */
  auditDays: 400,
  auditMaxDays: 36_500,
  /** A limit that nobody has used for so long, or for its window if that is longer. Then for so long again, for clocks that differ. */
  limitHours: 24,
  limitRestSeconds: 60,
});

/** A replica's start, its health and log, and its end. */
export const processTimes = durations({
  // Start

  /** How long one run of ENCRYPTION_KEYS_COMMAND may take: a service for keys that is asked over a network answers in seconds. */
  keysCommandMs: 30_000,
  /** The first pause before the command is run again. The pauses grow up to `keysCommandPauseMaxMs`. */
  keysCommandPauseFirstMs: 1000,
  keysCommandPauseMaxMs: 30_000,
  /** After so long without a keyring no further run begins: a service for keys that is restarted is back by then. */
  keysCommandPatienceMs: 300_000,
  /** How long the start waits for Redis, so that what waits in its spool is found at once. */
  redisPatienceMs: 2000,
  /** How long it waits for spooled answers to be stored. */
  recoveryPatienceMs: 5000,
  /** How long the first lines of the log wait for what they tell: the broker serves already. */
  firstStepsMs: 2000,

  // Health and log

  /** Postgres counts as unavailable when it has not answered a health check by then. */
  healthCheckMs: 1000,
  /** An answer that is shared, such as that of a health check, is worked out once in this time. */
  sharedAnswerMs: 1000,
  /** The same trouble is told once in this time. */
  logQuietMs: 60_000,
  /** One fault shows in several ways, such as a connection that is cut and then one that is refused: only the first is told. */
  logEchoMs: 5000,
  /** A Redis command that took too long is told only after this: a process that is busy with something else sees no answer either. */
  slowMomentMs: 1000,

  // End

  /** On SIGTERM, how long reads go on before the listener closes: a balancer notices in this time. */
  lameDuckMs: 5000,
  /** The default of SHUTDOWN_GRACE_SECONDS: for what is in flight. */
  shutdownGraceSeconds: 60,
  /** For the disk and Redis to take the answers that Postgres has not taken by then. */
  lastWordMs: 2000,
  /** Two interrupts within this are one. */
  interruptEchoMs: 500,
});

/** The command line: src/cli. */
export const cliTimes = durations({
  /** For an answer of the broker. */
  answerMs: 60_000,
  /** How often `connect` looks whether the person is done. */
  pollMs: 1000,
  /** How long `providers try` waits for the person. */
  tryTimeoutSeconds: 600,
  /** Answers on their way to the browser get so long before `providers try` ends. */
  tryLingerMs: 1000,
});

/** The sandbox provider: src/sandbox. Its access tokens are short, so that a refresh is seen soon. */
export const sandboxTimes = durations({
  codeSeconds: 60,
  accessTokenSeconds: 90,
  refreshTokenSeconds: 2_592_000,
});

export const times = {
  refresh: refreshTimes,
  consent: consentTimes,
  provider: providerTimes,
  caller: callerTimes,
  replica: replicaTimes,
  encryption: encryptionTimes,
  store: storeTimes,
  audit: auditTimes,
  retention: retentionTimes,
  process: processTimes,
  cli: cliTimes,
  sandbox: sandboxTimes,
};

export type Times = typeof times;
type Name = { [Group in keyof Times]: `${Group}.${keyof Times[Group] & string}` }[keyof Times];
/** The sum of the durations on the left, the sum of those on the right, and why the one must be smaller. */
type Relation = readonly [smaller: readonly Name[], is: "<" | "<=", larger: readonly Name[], why: string];

const call = "provider.callMs";
/** Who changes a duration reads here what rests on it. */
const relations: readonly Relation[] = [
  // Memory
  [
    ["store.confirmAfterMs", "store.confirmTogetherMs"],
    "<",
    ["caller.cacheTrustMs"],
    "a row is confirmed before its trust ends",
  ],
  // Refresh
  [["refresh.sendWindowMs", call], "<", ["refresh.leaseSeconds"], "a request must end before its permit does"],
  [["provider.connectMs", "provider.headersMs"], "<=", [call], "the whole call has room for its parts"],
  [["refresh.sendWindowMs"], "<", ["refresh.limitTravelSeconds"], "a request still travels after it is written"],
  [["refresh.limitTravelSeconds"], "<", ["refresh.leaseSeconds"], "a request arrives while its place is held"],
  [["refresh.graceQuietSeconds"], "<=", ["refresh.quietSeconds"], "a replay inside the grace window is not to be late"],
  [
    ["store.connectMs", "refresh.commitRetryMaxMs"],
    "<",
    ["refresh.uninterruptedMs"],
    "a holder tries again to store its answer before anybody takes over",
  ],
  [["store.togetherMs"], "<", ["refresh.spoolAfterMs"], "an answer is with Postgres before it is spooled"],
  [["refresh.uninterruptedMs"], "<=", ["store.busyRowMs"], "a row that was busy counts as busy for a takeover"],
  [["refresh.sweepMs"], "<", ["store.longestSilenceMs"], "the sweeper's questions leave no gap"],
  [["refresh.pollFirstMs"], "<=", ["refresh.pollMaxMs"], "the pauses between two looks grow"],
  [["refresh.pollMaxMs"], "<", ["refresh.nobodySendingMs"], "a waiter looks again before it says that nobody sends"],
  [
    ["refresh.nobodySendingMs"],
    "<",
    ["refresh.leaseSeconds"],
    "a waiter asks for the permit while the lock still stands",
  ],
  [["replica.redisCommandMs"], "<", ["refresh.sendWindowMs"], "a slow Redis must not use up the time to send"],
  [["refresh.orderedRefreshMs"], "<=", ["refresh.flightMs"], "a refresh outlives the callers that wait for it"],
  [["caller.longestWaitSeconds"], "<=", ["refresh.flightMs"], "a refresh outlives the callers that wait for it"],
  [["refresh.commitRetryFirstMs"], "<=", ["refresh.commitRetryMaxMs"], "the pauses between two commits grow"],
  [["refresh.backoffBaseSeconds"], "<=", ["refresh.backoffMaxSeconds"], "the back-off grows"],
  [["refresh.retryAfterMinSeconds"], "<=", ["refresh.retryAfterMaxSeconds"], "a Retry-After lies between the two"],
  [["refresh.retryAfterMaxSeconds"], "<=", ["refresh.limitRetryAfterMaxSeconds"], "limits may close for longer"],
  [["refresh.limitTurnMinSeconds"], "<=", ["refresh.limitTurnMaxSeconds"], "a turn lies between the two"],
  [["refresh.abandonedClaimSeconds"], "<=", ["refresh.claimSeconds"], "an abandoned attempt is looked at sooner"],
  [["refresh.leaseSeconds"], "<", ["refresh.claimSeconds"], "a claimed row is refreshed before others may claim it"],
  [["refresh.sweepAgainMs"], "<=", ["refresh.sweepMs"], "a sweeper with much to do comes sooner"],

  // Consent
  [
    // Metadata, the code with either secret, and a revocation of what may not be kept.
    [call, call, call, call, "consent.slowStoreMs", "consent.lookupMs"],
    "<",
    ["consent.longestAttemptSeconds"],
    "an attempt that still runs must not count as lost",
  ],
  [["consent.longestAttemptSeconds"], "<", ["consent.outcomeSeconds"], "an attempt is remembered while it runs"],
  [["consent.longestAttemptSeconds"], "<", ["consent.acceptedGrantSeconds"], "its own process stores a grant first"],
  [
    ["consent.acceptedGrantSeconds"],
    "<",
    ["consent.unconfirmedGrantSeconds"],
    "an accepted grant is stored before it is given up",
  ],
  [["consent.linkSeconds"], "<=", ["consent.longestLinkSeconds"], "the default is allowed"],
  [["consent.firstLookMs"], "<=", ["consent.longestLookMs"], "the pauses between two looks grow"],
  [
    ["refresh.limitPatienceMs", call],
    "<",
    ["consent.devicePollLeaseSeconds"],
    "nobody else polls the same code meanwhile",
  ],

  // Callers and replicas
  [["caller.waitSeconds"], "<=", ["caller.longestWaitSeconds"], "the default is allowed"],
  [["caller.keyTrustSeconds"], "<=", ["caller.keyTrustMaxSeconds"], "the default is allowed"],
  [["caller.keyTrustMaxSeconds"], "<=", ["replica.forgetHours"], "a replica that may still trust a key is known"],
  [["caller.requestCheckMs"], "<", ["caller.requestMs"], "a late request is found soon"],
  [
    ["replica.beatMs", "replica.beatPatienceMs"],
    "<=",
    ["replica.tellPatienceMs"],
    "a healthy replica has heard by then",
  ],
  [
    ["replica.beatMs", "replica.beatPatienceMs"],
    "<",
    ["replica.goneAfterMs"],
    "a healthy replica never seems to be gone",
  ],
  [["replica.gonePatienceMs"], "<", ["replica.tellPatienceMs"], "those that seem to be gone are waited for less"],
  [["replica.tellPatienceMs"], "<=", ["replica.reusePatienceMs"], "a name that is used again needs more certainty"],
  [["store.queryMs"], "<", ["replica.commitSeconds"], "no statement commits later"],
  [["replica.redisReconnectFirstMs"], "<=", ["replica.redisReconnectMaxMs"], "the pauses grow"],

  // Encryption keys
  [["store.queryMs"], "<", ["encryption.settleMs"], "what was sealed before a key changed is stored by then"],
  [["store.queryMs"], "<", ["encryption.rotationLeaseSeconds"], "a batch ends before somebody else takes over"],
  [["encryption.spoolPatienceMs"], "<", ["replica.beatPatienceMs"], "a beat does not wait for a disk that hangs"],
  [["encryption.waitMs"], "<", ["encryption.rotationLeaseSeconds"], "who waits is still the worker"],
  [["replica.presentSeconds"], "<", ["encryption.patienceMs"], "a replica that was killed is known to be gone by then"],

  // Postgres
  [["store.lockMs"], "<", ["store.queryMs"], "a statement that waits for a lock ends by itself"],
  [["store.readPatienceMs"], "<=", ["store.silentPatienceMs"], "readers wait less than the question behind them"],
  [["audit.lockMs"], "<", ["audit.statementMs"], "a statement that waits for a lock ends by it"],
  [["audit.statementMs"], "<", ["audit.transactionMs"], "the transaction outlives its statements"],
  [["audit.retryFirstMs"], "<=", ["audit.retryMaxMs"], "the pauses grow"],
  [["audit.countsMs"], "<", ["audit.minuteMs"], "counts are written before their minute is added up"],
  [["audit.minuteMs"], "<", ["audit.strayCountsMs"], "a process adds up its own minutes first"],

  // Start, end, command line
  [["process.keysCommandPauseFirstMs"], "<=", ["process.keysCommandPauseMaxMs"], "the pauses grow"],
  [
    ["process.keysCommandMs", "process.keysCommandPauseMaxMs"],
    "<",
    ["process.keysCommandPatienceMs"],
    "a command that hangs is run again",
  ],
  [["refresh.sendWindowMs", call], "<", ["process.shutdownGraceSeconds"], "a request in flight is awaited at the end"],
  [["caller.longestWaitSeconds"], "<", ["cli.answerMs"], "the command line waits longer than the broker"],
  [["refresh.orderedRefreshMs"], "<", ["cli.answerMs"], "the command line waits longer than the broker"],
];

const unitMs = { Ms: 1, Seconds: 1000, Hours: 3_600_000, Days: 86_400_000 } as const;

/** The relations that do not hold, each as a sentence with both values. Empty: every duration fits to the others. */
export function misfitsOf(given: Times): string[] {
  const read = (name: Name) => {
    const [group, key] = name.split(".") as [keyof Times, string];
    const value = (given[group] as Record<string, number>)[key] ?? NaN;
    const unit = /(Ms|Seconds|Hours|Days)$/.exec(key)?.[0] as keyof typeof unitMs;
    return { ms: value * unitMs[unit], text: `${name} (${value} ${unit === "Ms" ? "ms" : unit.toLowerCase()})` };
  };
  return relations.flatMap(([smaller, is, larger, why]) => {
    const [left, right] = [smaller, larger].map((names) => {
      const each = names.map(read);
      return { ms: each.reduce((sum, { ms }) => sum + ms, 0), text: each.map(({ text }) => text).join(" + ") };
    }) as [{ ms: number; text: string }, { ms: number; text: string }];
    const holds = is === "<" ? left.ms < right.ms : left.ms <= right.ms;
    return holds ? [] : [`${left.text} must be ${is} ${right.text}: ${why}`];
  });
}
