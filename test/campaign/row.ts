import type { GenericProvider } from "../support/providers/generic.ts";
import type { Fleets } from "./fleets.ts";

/** What a row came to: the figure as printed in the table, and whether it is what was promised. */
export type Outcome = { ok: boolean; figure: string; notes?: readonly string[] };

/** `full`: the size of the published table. `short`: a few seconds of the same, with the same checks. */
export type Scale = "full" | "short";

/** All that is random in a row comes from `seed`. */
export type Given = { seed: number; scale: Scale; log: (line: string) => void; fleets: Fleets };

/** How a row plays in its short size, where rows have servers and brokers in common. */
export type Plays = {
  /** `beside`: at the same time as others, whom it does no harm. `in turn`: it kills, stops and cuts off, so no other is there. */
  how: "beside" | "in turn";
  /** The row's own provider, under an id of its own; a strict one unless given. */
  provider?: (given: { id: string; seed: number }) => GenericProvider;
};

/** One case of the campaign, in a file of its own under rows/. */
export type Row = {
  number: number;
  title: string;
  promised: string;
  /** It measures times that the work of other rows would spoil: nothing else runs beside it, in its full size at least. */
  alone?: boolean | "full";
  /** Absent: it needs none of the brokers that rows have in common. */
  plays?: Plays;
  /** Why the short form leaves the row out: what else proves it, or what it costs. */
  onlyFull?: string;
  run(given: Given): Promise<Outcome>;
};
