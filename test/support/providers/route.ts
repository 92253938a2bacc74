import type { Call } from "./call.ts";

/** Bodies that are text go out as HTML, others as JSON. */
export type Answer = { status: number; body: unknown; headers?: Record<string, string> };

/** One path of a strict server. `endpoint` is its name in the ledger and for interferences. */
export type Route = { method: string; path: string; endpoint: string; handle: (call: Call) => Answer };
