import { withoutControls } from "../readable.ts";

/** Where lines for a person go. */
type Terminal = { write(text: string): unknown };

/** Fields that stand in the text, or say nothing to a person. */
const left = new Set(["level", "time", "msg", "reqId", "settings"]);

/** Writes the log's JSON lines as text, for a person at a terminal; what is no such line goes as it is. */
export function plainLines(terminal: Terminal): Terminal {
  return { write: (line) => terminal.write(readLine(line) ?? line) };
}

function readLine(line: string): string | null {
  try {
    const fields = JSON.parse(line) as Record<string, unknown>;
    const text = String(fields["msg"]);
    const more = Object.entries(fields)
      .filter(
        ([name, value]) => !left.has(name) && !text.includes(typeof value === "string" ? value : JSON.stringify(value)),
      )
      .map(([name, value]) => `${name}=${typeof value === "string" ? value : JSON.stringify(value)}`);
    const level = fields["level"] === "info" ? "" : `${String(fields["level"])}: `;
    return `${withoutControls([`${level}${text}`, ...more].join(" "))}\n`; // one line: values may come from outside
  } catch {
    return null;
  }
}
