import { createOutput, printable, type Output } from "../output.ts";
import { textOf, type Resource } from "../resource.ts";
import type { Terminal } from "../terminal.ts";
import type { Masker } from "./mask.ts";

/** Steps told one after the other: a document per line with `--json`, lines for people without. */
export type Report = {
  /** `lines` for people; `resource` for programs, whose `of` says which exchange it belongs to. Known secrets are masked in both once more. */
  step: (name: string, resource: Resource, lines: readonly string[]) => void;
  /** The same of what a person needs as it is, such as the address to open. */
  plain: (name: string, resource: Resource, lines: readonly string[]) => void;
  /** A remark on stderr. */
  note: (text: string) => void;
  /** What went wrong without ending the walk; told at once. */
  problem: (text: string) => void;
  problems: readonly string[];
  /** Keeps back what comes from now on, until it is shown or dropped. */
  hold: () => { show: () => void; drop: () => void };
};

export function createReport(terminal: Terminal, options: { json: boolean; masker: Masker }): Report {
  const { json, masker } = options;
  const hidden = createOutput({ ...terminal, out: (text) => terminal.out(masker.text(text)) }, json);
  const open = createOutput(terminal, json);
  const problems: string[] = [];
  let held: (() => void)[] | null = null;

  const say = (output: Output, step: Resource, lines: readonly string[]) => {
    const heading = [textOf(step["of"]), textOf(step["step"])].join(" ").trim();
    const print = () => output.done(`${[heading, ...lines].map(printable).join("\n")}\n`, step);
    if (held) held.push(print);
    else print();
  };
  const note: Report["note"] = (text) => open.note(masker.text(text));

  return {
    step: (name, resource, lines) => say(hidden, { step: name, ...resource }, lines),
    plain: (name, resource, lines) => say(open, { step: name, ...resource }, lines),
    note,
    problems,
    problem: (text) => {
      problems.push(masker.text(text));
      say(hidden, { step: "problem", text }, [`! ${text}`]);
    },
    hold: () => {
      const kept: (() => void)[] = [];
      held = kept;
      return {
        show: () => {
          held = null;
          for (const print of kept) print();
        },
        drop: () => {
          held = null;
        },
      };
    },
  };
}
