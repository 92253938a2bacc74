import { Readable } from "node:stream";
import type { FastifyReply, FastifyRequest } from "fastify";
import { Type } from "typebox";
import {
  type Audit,
  auditActions,
  type AuditFilter,
  type AuditReport,
  type AuditRow,
  type Head,
} from "../../audit/entries.ts";
import { type Clock, withDeadline } from "../../clock.ts";
import { BrokerError } from "../../errors.ts";
import { boundsOf, coversAll, requireAll } from "../../callers/principal.ts";
import { callerTimes } from "../../time.ts";
import { audited } from "../audit.ts";
import { auditPageSchema, auditRowSchema, verificationSchema } from "../audit-answers.ts";
import { principalOf } from "../auth.ts";
import { problemOf, toBrokerError } from "../error-handler.ts";
import { type ApiScope, closed, cursor, limit, literals, requestBody, textField } from "../schemas.ts";
import { viewAuditReport, viewAuditRow } from "../views.ts";

export type AuditRoutesOptions = {
  audit: Pick<Audit, "list" | "export" | "verify">;
  clock: Pick<Clock, "sleep">;
};

const tags = ["audit"];
const moment = (description: string) =>
  Type.Optional(Type.String({ format: "date-time", description, example: "2026-11-20T12:00:00Z" }));

const filters = {
  since: moment("Only entries of this time and later"),
  until: moment("Only entries before this time"),
  actor: Type.Optional(textField("Only what this one did: the id of a key or of a consent link", "4kZt0Qm2xW9a")),
  connection: Type.Optional(textField("Only what was done to this connection, by name", "acme-shop")),
  type: Type.Optional(
    literals(Object.keys(auditActions) as (keyof typeof auditActions)[], {
      description: "Only this action",
      example: "connections.delete",
    }),
  ),
};

/** No HEAD: it would do all of the work for an answer without a body. */
const streams = { exposeHeadRoute: false };

const headShape = /^([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}):(\d{1,15}):([\w.-]{1,128})$/;
const largestHeadsBytes = 1024 * 1024;

const headsOfLog = requestBody(
  "VerifyAudit",
  {
    description: "What the broker's log says under `audit_head`",
    example: { heads: ["0190f6a0-0000-7000-8000-000000000000:42:k1.mac"] },
  },
  {
    heads: Type.Array(Type.String({ maxLength: 200 }), {
      // They fit into the longest body.
      maxItems: 5000,
      description: "process:seq:mac, the newest one of each process",
    }),
  },
);

/** `/audit`: who did what, as it was written. Reading it is written, too. */
export async function auditReadingRoutes(app: ApiScope, { audit, clock }: AuditRoutesOptions): Promise<void> {
  const list = {
    operationId: "listAudit",
    summary: "Who did what, newest first",
    description:
      "Reads of tokens are counted, and come as one entry for each caller, connection, result and minute, up to a minute late. All that is asked for must hold. A key whose patterns do not cover `*` gets entries about connections that they cover; one that is bound to labels, about connections that carry them now, since they were created.",
    tags,
    querystring: closed({ ...filters, limit, cursor: Type.Optional(cursor) }),
    response: { 200: auditPageSchema },
  };
  app.get("/audit", { schema: list, config: audited("audit.read", "audit") }, async (request) => {
    const { query } = request;
    const page = { limit: query.limit, cursor: query.cursor ?? null };
    const { items, nextCursor } = await audit.list({ ...readFilters(request), ...page });
    return { items: items.map(viewAuditRow), next_cursor: nextCursor };
  });

  const exported = {
    operationId: "exportAudit",
    summary: "All of it, oldest first, as JSON lines",
    description: "One entry a line, as the items of `GET /audit`. An answer that breaks off is not complete.",
    tags,
    querystring: closed(filters),
    response: { 200: jsonLines("Entries, each as an item of GET /audit", auditRowSchema) },
  };
  app.get(
    "/audit/export",
    { schema: exported, ...streams, config: audited("audit.export", "audit") },
    async (request, reply) => {
      return await sendLines(reply, rowLines(audit.export(readFilters(request))));
    },
  );

  const lines =
    'Walks all chains, which may take minutes. The answer is JSON lines: `{"rows": …}` once a second says how far it is; the last line is `{"report": {…}}`, or `{"problem": {…}}` if the broker could not go on.';
  const response = { 200: jsonLines("The progress, and at last the report", verificationSchema) };
  const verified = {
    operationId: "verifyAudit",
    summary: "Whether somebody has changed, removed or added entries",
    description: lines,
    tags,
    response,
  };
  app.get(
    "/audit/verify",
    { schema: verified, ...streams, config: audited("audit.verify", "audit") },
    async (request, reply) => {
      requireAll(principalOf(request));
      return await sendLines(reply, verifying(audit, { heads: [], clock }));
    },
  );

  const compared = {
    operationId: "verifyAuditWithLog",
    summary: "The same, and whether entries are missing at the end of a chain, which the broker's log knows",
    description: lines,
    tags,
    body: headsOfLog,
    response,
  };
  app.post(
    "/audit/verify",
    { schema: compared, bodyLimit: largestHeadsBytes, config: audited("audit.verify", "audit") },
    async (request, reply) => {
      requireAll(principalOf(request));
      return await sendLines(reply, verifying(audit, { heads: request.body.heads.map(readHead), clock }));
    },
  );
}

/** For the OpenAPI document: a stream of JSON documents, one a line. */
function jsonLines(description: string, schema: object) {
  return { description, content: { "application/x-ndjson": { schema } } };
}

/** The first line is awaited, so that what cannot begin is answered with a problem. */
async function sendLines(reply: FastifyReply, lines: AsyncGenerator<object>): Promise<FastifyReply> {
  const first = await lines.next();
  const all = async function* () {
    if (first.done !== true) yield `${JSON.stringify(first.value)}\n`;
    for await (const line of lines) yield `${JSON.stringify(line)}\n`;
  };
  return await reply.type("application/x-ndjson; charset=utf-8").send(Readable.from(all()));
}

async function* rowLines(rows: AsyncIterable<AuditRow>): AsyncGenerator<object> {
  for await (const row of rows) yield viewAuditRow(row);
}

async function* verifying(
  audit: Pick<Audit, "verify">,
  { heads, clock }: { heads: readonly Head[]; clock: Pick<Clock, "sleep"> },
): AsyncGenerator<object> {
  let rows = 0;
  let hasBegun = false;
  const report = audit.verify(heads, { onProgress: (count) => void (rows = count) });
  for (;;) {
    let done: AuditReport | null;
    try {
      done = await withDeadline(report, callerTimes.progressMs, clock);
    } catch (error) {
      if (!hasBegun) throw error;
      return yield { problem: problemOf(toBrokerError(error)) };
    }
    if (done !== null) return yield { report: viewAuditReport(done) };
    hasBegun = true;
    yield { rows };
  }
}

type FilterQuery = { [K in "since" | "until" | "actor" | "connection"]?: string | undefined } & {
  type?: AuditRow["action"] | undefined;
};

function readFilters(request: FastifyRequest<{ Querystring: FilterQuery }>): AuditFilter {
  const { since, until, actor, connection, type } = request.query;
  const principal = principalOf(request);
  return {
    ...(since !== undefined && { since: new Date(since) }),
    ...(until !== undefined && { until: new Date(until) }),
    ...(actor !== undefined && { actor }),
    ...(connection !== undefined && { connection }),
    ...(type !== undefined && { type }),
    ...(!coversAll(principal) && { within: boundsOf(principal) }),
  };
}

/** @throws BrokerError invalid_request */
function readHead(text: string): Head {
  const [, process = "", seq = "", mac = ""] = headShape.exec(text) ?? [];
  if (process !== "") return { process, seq: Number(seq), mac };
  throw new BrokerError("invalid_request", "heads: each must be process:seq:mac as the log has it.");
}
