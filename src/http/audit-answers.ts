import { Type } from "typebox";
import { actorKinds, auditActions, type AuditFault, targetKinds } from "../audit/entries.ts";
import { count, literals, named, nullable, pageOf, textField, timestamp } from "./schemas.ts";

const at = "2026-11-20T12:00:00.000Z";

const actorExample = { kind: "key", id: "4kZt0Qm2xW9a", name: "orders" };
const auditRowExample = {
  id: "0190f6a0-7b3c-4d5e-8f60-718293a4b5c6:42",
  at,
  actor: actorExample,
  action: "connections.delete",
  target: { kind: "connection", name: "acme-shop" },
  address: "10.0.0.7",
  result: "ok",
  detail: {},
};

const actor = named(
  "AuditActor",
  { description: "Who did it", example: actorExample },
  {
    kind: literals(actorKinds, {
      description:
        "key: with a key of this broker; workload: with a token of its platform; link: whoever had a consent link; person: somebody whom no link or key names; system: the broker itself",
    }),
    id: nullable(textField("Id of the key or of the link; null: there is none")),
    name: nullable(textField("Name of the key; of a link, the id of the key that made it; null: not known")),
  },
);

const target = named(
  "AuditTarget",
  { description: "What it was done to", example: auditRowExample.target },
  {
    kind: literals(targetKinds, { description: "What it is" }),
    name: nullable(
      textField("Its name; of keys the id. Null: there is none, or the caller named something that it may not see"),
    ),
  },
);

export const auditRowSchema = named(
  "AuditEntry",
  { description: "Who did what, to what, from where, and what came of it", example: auditRowExample },
  {
    id: textField("The process that wrote it, and its number there"),
    at: timestamp("When it was begun; of counted reads, the minute"),
    actor,
    action: literals(Object.keys(auditActions), {
      title: "AuditAction",
      description: "What was done, from a closed set",
    }),
    target: nullable(target),
    address: nullable(textField("Where the request came from; null: it was no request")),
    result: textField(
      "ok, or the code of the error; unknown: the process ended in the middle of it. Of a person: denied, other_account, or what went wrong",
    ),
    detail: Type.Record(Type.String(), Type.Unknown(), {
      description: "`fields`: names of the fields that were given. Of reads: `count`, `first`, `last`",
    }),
  },
);

export const auditPageSchema = pageOf("AuditPage", auditRowSchema);

const faultExample = { kind: "missing", process: "0190f6a0-7b3c-4d5e-8f60-718293a4b5c6", from: 17, to: 19 };

const faultKinds = [
  "changed",
  "missing",
  "repeated",
  "tail_missing",
  "chain_missing",
  "pruned_too_young",
  "unproven",
] as const satisfies readonly AuditFault["kind"][];

const auditFaultSchema = named(
  "AuditFault",
  { description: "Entries that are wrong", example: faultExample },
  {
    kind: literals(faultKinds, {
      description:
        "changed: not as it was written, or the one before; missing, repeated: numbers of the chain; tail_missing, chain_missing: known from the log or from another process; pruned_too_young: removed before its time; unproven: no key proves it any more",
    }),
    process: textField("The process that wrote them"),
    from: count("Number of the first one"),
    to: count("Number of the last one"),
  },
);

const openEndExample = { process: faultExample.process, seq: 19, at };

const openEndSchema = named(
  "AuditOpenEnd",
  { description: "Where a chain ends without `system.stop`, while its process is gone", example: openEndExample },
  {
    process: textField("The process that wrote it"),
    seq: count("Number of its last entry"),
    at: timestamp("When that was written"),
  },
);

const reportExample = { ok: true, chains: 2, rows: 4711, faults: [], open_ends: [], append_only: true };

export const auditReportSchema = named(
  "AuditReport",
  { description: "What a verification has found", example: reportExample },
  {
    ok: Type.Boolean({ description: "Nothing is wrong" }),
    chains: count("How many chains there are, one for each process that ever ran"),
    rows: count("How many entries were verified"),
    faults: Type.Array(auditFaultSchema, { description: "What is wrong, at most 1000" }),
    open_ends: Type.Array(openEndSchema, {
      description:
        "No fault by itself: the process was killed, or its last entries were removed. Heads of the log tell which",
    }),
    append_only: Type.Boolean({
      description: "Whether the database refuses the broker's own role to change or remove entries",
    }),
  },
);

export const verificationSchema = named(
  "AuditVerification",
  { description: "A line of a verification", example: { report: reportExample } },
  {
    rows: Type.Optional(count("How many entries were verified so far")),
    report: Type.Optional(auditReportSchema),
    problem: Type.Optional(
      Type.Record(Type.String(), Type.Unknown(), {
        description: "Why it could not go on: a Problem, as of error answers",
      }),
    ),
  },
);
