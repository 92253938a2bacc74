/** What a row came to: the figure as printed in the table, and whether it is what was promised. */
export type Outcome = { ok: boolean; figure: string; notes?: readonly string[] };

/** `full`: the size of the published table. `short`: a few seconds of the same, with the same checks. */
export type Scale = "full" | "short";

/** All that is random in a row comes from `seed`. */
export type Given = { seed: number; scale: Scale; log: (line: string) => void };

/** One case of the campaign, in a file of its own under rows/. */
export type Row = {
  number: number;
  title: string;
  promised: string;
  /** It measures times that the work of other rows would spoil: nothing else runs beside it, in its full size at least. */
  alone?: boolean | "full";
  /** Even its short size waits for a permit to run out (45 s): there it starts at once, and counts in no limit of rows at a time. */
  waits?: boolean;
  /** Its figure is a time. The suite asserts no times: machines are shared and busy. */
  timed?: boolean;
  /** Even its short size starts so many processes that the suite leaves it to the campaign. */
  heavy?: boolean;
  run(given: Given): Promise<Outcome>;
};
