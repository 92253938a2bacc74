import type { SendFault } from "./sends.ts";

/** Whatever may happen to replicas in a schedule. Replicas and connections are numbers, taken modulo how many there are. */
export type Command =
  | { kind: "read"; replica: number; connection: number; rejected: boolean }
  | { kind: "reconnect" | "import" | "delete" | "disable" | "enable"; replica: number; connection: number }
  | { kind: Blow; replica: number; ms: number }
  | { kind: "postgres"; state: "down" | "read_only" | "slow"; ms: number }
  | { kind: "redis"; state: "stopped" | "silent"; ms: number }
  | { kind: "flush" }
  | { kind: "deaf"; ms: number }
  | { kind: "lose"; of: "store" | "redis"; replica: number; count: number }
  | { kind: "provider"; fault: SendFault; ms: number }
  | { kind: "wall"; replica: number; byMs: number }
  | { kind: "trap"; moment: Moment; blow: Blow | "postgres" | "redis" | "lose"; ms: number }
  | { kind: "pass"; ms: number };

/** What may befall one replica: SIGKILL, SIGSTOP, a suspended machine, SIGTERM, its line to Postgres cut, its disk full. */
export type Blow = "crash" | "freeze" | "suspend" | "drain" | "cut" | "full_disk";

export const blows = ["crash", "freeze", "suspend", "drain", "cut", "full_disk"] as const satisfies readonly Blow[];

export const faults = ["no_connection", "lost_request", "lost_answer", "stall", 429, 500, 503] as const;

/** Where a trap may be set. */
export const moments = [
  "lock done",
  "takePermit asked",
  "takePermit done",
  "takePermit answered",
  "about to send",
  "sent",
  "done by provider",
  "answer there",
  "commitRefresh asked",
  "commitRefresh done",
  "commitRefresh answered",
  "spool asked",
  "spool done",
  "write file done",
  "unspool asked",
  "find in spool done",
  "promoteLate done",
  "addCandidate asked",
  "addCandidate done",
  "tryCandidate done",
  "tryCandidate answered",
  "replaceGrant asked",
  "replaceGrant done",
  "endGrant asked",
  "endGrant done",
  "leaveUnknown asked",
  "returnPermit asked",
  "dropPermit done",
] as const;

export type Moment = (typeof moments)[number];
