import { encryptionKeyMissing } from "../errors.ts";
import { Prisma as Sql } from "../generated/prisma/client.ts";
import type { ProvenLink, Read, RowProofs } from "../proven-rows.ts";
import { consentTimes, retentionTimes } from "../time.ts";
import { joinedClientColumns, splitClient } from "./clients.ts";
import { type Columns, selectList, takeJoined } from "./columns.ts";
import type { Prisma } from "./database.ts";
import { seconds } from "./row-sql.ts";
import { tokenColumns, type TokenRow } from "./token-row.ts";
import type { RowWithClient } from "./token-statements.ts";

/** A link to be stored. Its secret comes hashed. */
export type NewConsentLink = {
  id: string;
  connectionId: string;
  secretHash: Uint8Array<ArrayBuffer>;
  returnTo: string | null;
  manual: boolean;
  purpose: string | null;
  /** Null: a plain link. */
  endUser: string | null;
  createdBy: string;
  expiresInSeconds: number;
};

/** A link with its state by Postgres's clock. */
export type ConsentLinkRow = Read<ProvenLink> & { used: boolean; expired: boolean };

const columns: Columns<ConsentLinkRow> = {
  id: "id",
  connectionId: "connection_id::text",
  secretHash: "secret_hash",
  returnTo: "return_to",
  manual: "manual",
  purpose: "purpose",
  endUser: "end_user",
  createdBy: "created_by",
  claimedBy: "claimed_by",
  mac: "mac",
  used: "used_at IS NOT NULL AND (held_until IS NULL OR held_until > clock_timestamp())",
  expired: "expires_at <= clock_timestamp()",
  expiresAt: "expires_at",
};

export const linkColumns = selectList(columns);

/** Not used up. A link whose code waits for the app is free again if the app does not come in time. */
const isFree = Sql.raw("(l.used_at IS NULL OR l.held_until <= clock_timestamp())");

/**
 * Locks what a request belongs to before the request itself: its connection (`parent`), then its link (`link`). A deletion locks in this order,
 * and so does everything else here, so none of them ends another by a deadlock. Nothing is locked for a request that `where` does not select.
 */
const lockInOrder = (where: Sql.Sql) => Sql.sql`
  parent AS MATERIALIZED (SELECT q.id AS request, q.link_id FROM authorization_requests q
    JOIN connections c ON c.id = q.connection_id WHERE ${where} FOR KEY SHARE OF c),
  link AS MATERIALIZED (SELECT l.id, parent.request FROM parent
    JOIN consent_links l ON l.id = parent.link_id FOR NO KEY UPDATE OF l)`;

/** Takes out the request that is locked so, unless its time is over by now. */
const consumed = Sql.sql`consumed AS (DELETE FROM authorization_requests q USING link
    WHERE q.id = link.request AND q.expires_at > clock_timestamp() RETURNING q.*)`;

/** What opens a link: its id, and the hash of its secret. */
export type LinkKey = { id: string; secretHash: Uint8Array<ArrayBuffer> };

export type ConsentLinks = ReturnType<typeof createConsentLinks>;

/** The statements that move a consent link: docs/internals/consent.md, "A link". */
export function createConsentLinks(prisma: Prisma, { links: proofs }: Pick<RowProofs, "links">) {
  /** A link without a valid MAC counts as unknown. @throws BrokerError encryption_key_missing */
  const only = async ([row]: ConsentLinkRow[]): Promise<ConsentLinkRow | null> => {
    if (row === undefined) return null;
    const standing = await proofs.standing(row);
    if (standing === "silent") throw encryptionKeyMissing("this consent link");
    return standing === "ours" ? row : null;
  };

  /** Only for a link that this process itself has named: whoever else names one must know its secret. */
  const byId = async (id: string): Promise<ConsentLinkRow | null> =>
    await only(await prisma.$queryRaw<ConsentLinkRow[]>`SELECT ${linkColumns} FROM consent_links WHERE id = ${id}`);

  return {
    /** Stores a link and forgets those of the same connection that ran out 30 days ago. */
    async insert(link: NewConsentLink): Promise<{ expiresAt: Date }> {
      await prisma.$executeRaw`DELETE FROM consent_links WHERE connection_id = ${link.connectionId}::uuid
        AND expires_at < clock_timestamp() - make_interval(days => ${retentionTimes.expiredLinkDays}::int)`;
      const [time] = await prisma.$queryRaw<{ expiresAt: Date }[]>`
        SELECT (clock_timestamp() + make_interval(secs => ${link.expiresInSeconds}::double precision))::timestamptz(3) AS "expiresAt"`;
      const expiresAt = time?.expiresAt ?? new Date(0);
      const mac = proofs.sign({ ...link, expiresAt, claimedBy: null });
      await prisma.$executeRaw`
        INSERT INTO consent_links
          (id, connection_id, secret_hash, return_to, manual, purpose, end_user, created_by, expires_at, mac)
        VALUES (${link.id}, ${link.connectionId}::uuid, ${link.secretHash}, ${link.returnTo}, ${link.manual},
          ${link.purpose}, ${link.endUser}, ${link.createdBy}, ${expiresAt}::timestamptz, ${mac})`;
      return { expiresAt };
    },

    async find({ id, secretHash }: LinkKey): Promise<ConsentLinkRow | null> {
      const rows = await prisma.$queryRaw<ConsentLinkRow[]>`
        SELECT ${linkColumns} FROM consent_links WHERE id = ${id} AND secret_hash = ${secretHash}`;
      return await only(rows);
    },

    /** The `return_to` of a link that this process itself has named; null: none. */
    returnTo: async (id: string): Promise<string | null> => (await byId(id))?.returnTo ?? null,

    /** The id of the key that made such a link; null: the link is gone. */
    madeBy: async (id: string): Promise<string | null> => (await byId(id))?.createdBy ?? null,

    /** This one UPDATE decides which browser is first. False: the link is another browser's, or no longer open. */
    async claim({ id, secretHash }: LinkKey, browserHash: Uint8Array<ArrayBuffer>): Promise<boolean> {
      for (let row = await this.find({ id, secretHash }); row !== null;) {
        const mac = proofs.sign({ ...row, claimedBy: browserHash });
        const count = await prisma.$executeRaw`UPDATE consent_links l SET claimed_by = ${browserHash}, mac = ${mac}
          WHERE id = ${id} AND secret_hash = ${secretHash} AND ${isFree} AND expires_at > clock_timestamp()
            AND (claimed_by IS NULL OR claimed_by = ${browserHash}) AND mac = ANY(${[row.mac, mac]}::text[])`;
        if (count === 1) return true;
        // A rotation of encryption keys signs links anew: then nobody else has claimed it.
        const now: ConsentLinkRow | null = await this.find({ id, secretHash });
        if (now?.mac === row.mac) return false;
        row = now;
      }
      return false;
    },

    /** Uses a link up before its code is exchanged. False: it is used already. */
    async reserve(id: string): Promise<boolean> {
      const count = await prisma.$executeRaw`
        UPDATE consent_links l SET used_at = clock_timestamp(), held_until = NULL WHERE id = ${id} AND ${isFree}`;
      return count === 1;
    },

    /** Makes a used link usable again. Only the request that used it up calls this. */
    async release(id: string): Promise<void> {
      await prisma.$executeRaw`UPDATE consent_links SET used_at = NULL WHERE id = ${id}`;
    },
  };
}

/** A browser that is about to leave for the provider. State and cookie are hashed, and what the consent binds is sealed. */
export type NewAuthorizationRequest = {
  id: string;
  stateHash: Uint8Array<ArrayBuffer>;
  connectionId: string;
  linkId: string;
  browserHash: Uint8Array<ArrayBuffer>;
  request: Uint8Array<ArrayBuffer>;
  expiresInSeconds: number;
  /** How many requests of one link may be open. */
  mostOpen: number;
};

/** A request that has not expired. */
export type WaitingRequest = {
  id: string;
  connectionId: string;
  linkId: string;
  browserHash: Uint8Array;
  request: Uint8Array;
};

const requestColumns: Columns<WaitingRequest> = {
  id: "r.id::text",
  connectionId: "r.connection_id::text",
  linkId: "r.link_id",
  browserHash: "r.browser_hash",
  request: "r.request_sealed",
};
const joinedRequestColumns = selectList(requestColumns, "request.");

/** What is stored of a code that waits for its app. `request` is sealed; so is `forBrowser`, which tells where its browser goes. */
type HeldCode = {
  ticketHash: Uint8Array<ArrayBuffer>;
  request: Uint8Array<ArrayBuffer>;
  forBrowser: string;
  seconds: number;
};

/** A request whose code is held. `expired`: the app has come too late. */
export type HeldRequest = WaitingRequest & { connectionName: string; expired: boolean };

const heldColumns: Columns<HeldRequest> = {
  ...requestColumns,
  connectionName: "c.name",
  expired: "r.expires_at <= clock_timestamp()",
};

export type AuthorizationRequests = ReturnType<typeof createAuthorizationRequests>;

/** The statements that move a state: docs/internals/consent.md, "A state". */
export function createAuthorizationRequests(prisma: Prisma) {
  return {
    /**
     * Stores a request, and removes expired requests and attempts. Null: it is stored. Otherwise the link has too many open requests, and the number
     * is the seconds until the oldest of them expires.
     */
    async insert(request: NewAuthorizationRequest): Promise<number | null> {
      // A row that is locked at this moment must not delay a new request.
      // An app that comes too late is told so for a while.
      await prisma.$executeRaw`DELETE FROM authorization_requests WHERE id IN (SELECT id FROM authorization_requests
        WHERE expires_at <= statement_timestamp()
          AND (ticket_hash IS NULL OR expires_at <= statement_timestamp() - ${seconds(consentTimes.outcomeSeconds)})
        FOR UPDATE SKIP LOCKED)`;
      await forgetAttempts(prisma);
      // One at a time for a link: a statement that begins after the lock was taken sees what its last holder has committed.
      const lockConnection = prisma.$queryRaw`SELECT 1 FROM connections WHERE id = ${request.connectionId}::uuid FOR KEY SHARE`;
      const lockLink = prisma.$queryRaw`SELECT id FROM consent_links WHERE id = ${request.linkId} FOR UPDATE`;
      const insert = prisma.$executeRaw`
        INSERT INTO authorization_requests
          (id, state_hash, connection_id, link_id, browser_hash, request_sealed, expires_at)
        SELECT ${request.id}::uuid, ${request.stateHash}, ${request.connectionId}::uuid, ${request.linkId},
          ${request.browserHash}, ${request.request},
          clock_timestamp() + make_interval(secs => ${request.expiresInSeconds}::double precision)
        WHERE (SELECT count(*) FROM authorization_requests
          WHERE link_id = ${request.linkId} AND expires_at > clock_timestamp()) < ${request.mostOpen}`;
      const [, , stored] = await prisma.$transaction([lockConnection, lockLink, insert]);
      if (stored === 1) return null;
      const rows = await prisma.$queryRaw<{ seconds: number }[]>`
        SELECT ceil(extract(epoch FROM min(expires_at) - clock_timestamp()))::int AS seconds
        FROM authorization_requests WHERE link_id = ${request.linkId} AND expires_at > clock_timestamp()`;
      return Math.max(1, rows[0]?.seconds ?? 1);
    },

    /** The request of a state, with its connection and client as they stand in the table. Changes nothing. */
    async find(stateHash: Uint8Array<ArrayBuffer>): Promise<(WaitingRequest & { connection: RowWithClient }) | null> {
      const [joined] = await prisma.$queryRaw<TokenRow[]>`
        SELECT ${joinedRequestColumns}, ${tokenColumns}, ${joinedClientColumns}
        FROM authorization_requests r JOIN connections c ON c.id = r.connection_id LEFT JOIN clients k ON k.id = c.client_ref
        WHERE r.state_hash = ${stateHash} AND r.ticket_hash IS NULL AND r.expires_at > clock_timestamp()`;
      if (joined === undefined) return null;
      const [request, rest] = takeJoined(requestColumns, "request.", joined);
      return { ...request, connection: splitClient(rest) };
    },

    /**
     * Keeps the code of a request for the app: the request is sealed anew with it, and found by its ticket from then on, no longer by its
     * state. The same statement uses the link up for as long, and notes for the state where its browser goes. False: the link is not free, or
     * the state was consumed or held before.
     */
    async hold(id: string, { ticketHash, request, forBrowser, seconds: lives }: HeldCode): Promise<boolean> {
      const count = await prisma.$executeRaw`
        WITH ${lockInOrder(Sql.sql`q.id = ${id}::uuid AND q.ticket_hash IS NULL AND q.expires_at > clock_timestamp()`)}, mine AS (
          UPDATE consent_links l SET used_at = clock_timestamp(), held_until = clock_timestamp() + ${seconds(lives)}
          FROM link WHERE l.id = link.id AND ${isFree} RETURNING link.request, l.held_until
        ), held AS (
          UPDATE authorization_requests q SET ticket_hash = ${ticketHash}, request_sealed = ${request}, expires_at = mine.held_until
          FROM mine WHERE q.id = mine.request AND q.ticket_hash IS NULL RETURNING q.*
        )
        INSERT INTO consent_attempts (attempt_hash, browser_hash, link_id, ticket, expires_at)
        SELECT state_hash, browser_hash, link_id, ${forBrowser}, clock_timestamp() + ${seconds(consentTimes.outcomeSeconds)} FROM held`;
      return count === 1;
    },

    /** The request that a ticket completes, with its connection. It is still found ten minutes after its time. Changes nothing. */
    async findHeld(ticketHash: Uint8Array<ArrayBuffer>): Promise<HeldRequest | null> {
      const rows = await prisma.$queryRaw<HeldRequest[]>`
        SELECT ${selectList(heldColumns)} FROM authorization_requests r JOIN connections c ON c.id = r.connection_id
        WHERE r.ticket_hash = ${ticketHash}`;
      return rows[0] ?? null;
    },

    /**
     * The same as `consume` for a request whose code is held. The attempt is noted under the hash of the ticket, with that of the caller in the
     * place of a browser's, and its link stays used. Null: it was consumed before, or its time is over.
     */
    async consumeHeld(
      ticketHash: Uint8Array<ArrayBuffer>,
      callerHash: Uint8Array<ArrayBuffer>,
    ): Promise<RowWithClient | null> {
      const rows = await prisma.$queryRaw<TokenRow[]>`
        WITH ${lockInOrder(Sql.sql`q.ticket_hash = ${ticketHash}`)}, ${consumed}, used AS (
          UPDATE consent_links l SET held_until = NULL FROM consumed q
          WHERE l.id = q.link_id AND l.held_until = q.expires_at RETURNING l.id
        ), noted AS (
          INSERT INTO consent_attempts (attempt_hash, browser_hash, link_id, expires_at)
          SELECT q.ticket_hash, ${callerHash}::bytea, q.link_id, clock_timestamp() + ${seconds(consentTimes.outcomeSeconds)}
          FROM consumed q JOIN used ON used.id = q.link_id
        )
        SELECT ${tokenColumns}, ${joinedClientColumns}
        FROM consumed q JOIN used ON used.id = q.link_id JOIN connections c ON c.id = q.connection_id
          LEFT JOIN clients k ON k.id = c.client_ref`;
      return rows[0] === undefined ? null : splitClient(rows[0]);
    },

    /** Notes an error that came back and does not end the request. True: it is the first for this request. */
    async noteError(id: string): Promise<boolean> {
      const count = await prisma.$executeRaw`
        UPDATE authorization_requests SET error_noted = true WHERE id = ${id}::uuid AND NOT error_noted`;
      return count === 1;
    },

    /**
     * Takes a request out, once: a lock of its link makes the second DELETE of the same row find nothing. The same statement notes the
     * attempt in `consent_attempts`, so that whoever finds no request finds the attempt; with `usesLink` it uses up the link for the
     * exchange that follows. Null: the request was consumed before. `wasLinkFree`: the link is this exchange's. `connection`: as it is
     * now, for that exchange.
     */
    async consume(
      id: string,
      { usesLink }: { usesLink: boolean },
    ): Promise<{ wasLinkFree: boolean; connection: RowWithClient } | null> {
      const rows = await prisma.$queryRaw<(TokenRow & { wasLinkFree: boolean })[]>`
        WITH ${lockInOrder(Sql.sql`q.id = ${id}::uuid`)}, ${consumed}, noted AS (
          INSERT INTO consent_attempts (attempt_hash, browser_hash, link_id, expires_at)
          SELECT state_hash, browser_hash, link_id, clock_timestamp() + ${seconds(consentTimes.outcomeSeconds)} FROM consumed
        ), used AS (
          UPDATE consent_links l SET used_at = clock_timestamp(), held_until = NULL FROM consumed q
          WHERE ${usesLink} AND l.id = q.link_id AND ${isFree} RETURNING l.id
        )
        SELECT EXISTS (SELECT 1 FROM used) AS "wasLinkFree", ${tokenColumns}, ${joinedClientColumns}
        FROM consumed q JOIN connections c ON c.id = q.connection_id LEFT JOIN clients k ON k.id = c.client_ref`;
      if (rows[0] === undefined) return null;
      const { wasLinkFree, ...joined } = rows[0];
      return { wasLinkFree, connection: splitClient(joined) };
    },
  };
}

/** A state or a copied code that came back, with its link. */
export type Attempt = {
  attemptHash: Uint8Array<ArrayBuffer>;
  browserHash: Uint8Array<ArrayBuffer>;
  linkId: string;
};

/** The same with its outcome, sealed; null: it has not ended. `isOverdue`: it never will, since the process that began it is gone. */
export type NotedAttempt = Attempt & { ticket: string | null; isOverdue: boolean };

/** `callerHash`: of the caller that completed it. `isOverdue`: it never ends, since its process is gone. */
export type NotedCompletion = {
  callerHash: Uint8Array;
  linkId: string;
  connectionName: string;
  isOverdue: boolean;
};

const isOverdue = `a.ticket IS NULL AND a.expires_at <= clock_timestamp()
  + make_interval(secs => ${consentTimes.outcomeSeconds - consentTimes.longestAttemptSeconds})`;

const attemptColumns: Columns<NotedAttempt> = {
  attemptHash: "attempt_hash",
  browserHash: "browser_hash",
  linkId: "link_id",
  ticket: "ticket",
  isOverdue,
};

const completionColumns: Columns<NotedCompletion> = {
  callerHash: "a.browser_hash",
  linkId: "a.link_id",
  connectionName: "c.name",
  isOverdue,
};

export type ConsentAttempts = ReturnType<typeof createConsentAttempts>;

/**
 * Deletes expired attempts. If one never ended because its broker was killed, the connection's history gets a line, unless the connection
 * has been connected since it began, or is being deleted at this moment. Never rejects.
 */
async function forgetAttempts(prisma: Prisma): Promise<void> {
  const forgotten = prisma.$executeRaw`
    WITH gone AS (DELETE FROM consent_attempts WHERE attempt_hash IN (SELECT attempt_hash FROM consent_attempts
      WHERE expires_at <= statement_timestamp() FOR UPDATE SKIP LOCKED) RETURNING link_id, ticket, expires_at)
    INSERT INTO connection_events (connection_id, type, detail)
    SELECT c.id, 'consent_failed', '{"error": "interrupted"}'::jsonb
    FROM gone g JOIN consent_links l ON l.id = g.link_id JOIN connections c ON c.id = l.connection_id
    WHERE g.ticket IS NULL AND NOT COALESCE(c.authorized_at >= g.expires_at - ${seconds(consentTimes.outcomeSeconds)}, false)
    FOR KEY SHARE OF c SKIP LOCKED`;
  await forgotten.catch(() => undefined);
}

/** The statements by which whoever comes back twice learns what came of the first time: docs/internals/consent.md, "An attempt". */
export function createConsentAttempts(prisma: Prisma) {
  return {
    /** Notes that an attempt begins. False: it began before. For states, the statement that consumes them does this. */
    async begin({ attemptHash, browserHash, linkId }: Attempt): Promise<boolean> {
      await forgetAttempts(prisma);
      const count = await prisma.$executeRaw`
        INSERT INTO consent_attempts (attempt_hash, browser_hash, link_id, expires_at)
        VALUES (${attemptHash}, ${browserHash}, ${linkId}, clock_timestamp() + ${seconds(consentTimes.outcomeSeconds)})
        ON CONFLICT (attempt_hash) DO NOTHING`;
      return count === 1;
    },

    /** The first of these that was begun; null: none was. */
    async firstOf(hashes: readonly Uint8Array<ArrayBuffer>[]): Promise<Uint8Array<ArrayBuffer> | null> {
      const [row] = await prisma.$queryRaw<{ attemptHash: Uint8Array<ArrayBuffer> }[]>`
        SELECT attempt_hash AS "attemptHash" FROM consent_attempts WHERE attempt_hash IN (${Sql.join(hashes)}) LIMIT 1`;
      return row?.attemptHash ?? null;
    },

    /** The same for a code that comes by a key: it has no link and no browser. It expires soon if nobody ends it. */
    async beginCopied(attemptHash: Uint8Array<ArrayBuffer>): Promise<boolean> {
      await forgetAttempts(prisma);
      const count = await prisma.$executeRaw`INSERT INTO consent_attempts (attempt_hash, expires_at)
        VALUES (${attemptHash}, clock_timestamp() + ${seconds(consentTimes.longestAttemptSeconds)})
        ON CONFLICT (attempt_hash) DO NOTHING`;
      return count === 1;
    },

    /** Its outcome, sealed; null: it has not ended. */
    async findCopied(attemptHash: Uint8Array<ArrayBuffer>): Promise<string | null> {
      const [row] = await prisma.$queryRaw<{ ticket: string | null }[]>`
        SELECT ticket FROM consent_attempts WHERE attempt_hash = ${attemptHash}`;
      return row?.ticket ?? null;
    },

    /** What came of a code that an app completes, while it is noted. Null: nothing is noted under this ticket. */
    async findCompletion(ticketHash: Uint8Array<ArrayBuffer>): Promise<NotedCompletion | null> {
      const rows = await prisma.$queryRaw<NotedCompletion[]>`
        SELECT ${selectList(completionColumns)}
        FROM consent_attempts a JOIN consent_links l ON l.id = a.link_id JOIN connections c ON c.id = l.connection_id
        WHERE a.attempt_hash = ${ticketHash} AND a.expires_at > clock_timestamp()`;
      return rows[0] ?? null;
    },

    async endCopied(attemptHash: Uint8Array<ArrayBuffer>, ticket: string): Promise<void> {
      await prisma.$executeRaw`UPDATE consent_attempts SET ticket = ${ticket},
        expires_at = clock_timestamp() + ${seconds(consentTimes.outcomeSeconds)} WHERE attempt_hash = ${attemptHash}`;
    },

    /** Begins an attempt again that ended with this ticket. True for one of the callers that try. */
    async beginAgain(attemptHash: Uint8Array<ArrayBuffer>, ticket: string): Promise<boolean> {
      const count = await prisma.$executeRaw`UPDATE consent_attempts SET ticket = NULL,
        expires_at = clock_timestamp() + ${seconds(consentTimes.outcomeSeconds)} WHERE attempt_hash = ${attemptHash} AND ticket = ${ticket}`;
      return count === 1;
    },

    async find(attemptHash: Uint8Array<ArrayBuffer>): Promise<NotedAttempt | null> {
      const rows = await prisma.$queryRaw<NotedAttempt[]>`
        SELECT ${selectList(attemptColumns)} FROM consent_attempts a
        WHERE attempt_hash = ${attemptHash} AND expires_at > clock_timestamp()`;
      return rows[0] ?? null;
    },

    /** Notes an attempt's outcome, also a later one. Does nothing if the link is gone. */
    async end({ attemptHash, browserHash, linkId }: Attempt, ticket: string): Promise<void> {
      await prisma.$executeRaw`
        INSERT INTO consent_attempts (attempt_hash, browser_hash, link_id, ticket, expires_at)
        SELECT ${attemptHash}, ${browserHash}, l.id, ${ticket}, clock_timestamp() + ${seconds(consentTimes.outcomeSeconds)}
        FROM consent_links l WHERE l.id = ${linkId}
        ON CONFLICT (attempt_hash) DO UPDATE SET ticket = excluded.ticket, expires_at = excluded.expires_at`;
    },
  };
}
