/** A table whose columns are as wide as their widest cell. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const cells = [head, ...rows].map((row) => head.map((_, column) => cell(row[column] ?? "")));
  const widths = head.map((_, column) => Math.max(3, ...cells.map((row) => row[column]?.length ?? 0)));
  const line = (row: readonly string[]) =>
    `| ${widths.map((width, at) => (row[at] ?? "").padEnd(width)).join(" | ")} |`;
  const [first = [], ...rest] = cells;
  return [line(first), `| ${widths.map((width) => "-".repeat(width)).join(" | ")} |`, ...rest.map(line)].join("\n");
}

function cell(text: string): string {
  return text
    .replaceAll(/\s+/g, " ")
    .replaceAll("|", String.raw`\|`)
    .trim();
}

/** As code, whatever is in it. */
export function code(text: string): string {
  const fence = text.includes("`") ? "``" : "`";
  return `${fence}${text.replaceAll(/\s+/g, " ")}${fence}`;
}

/** Words of a file, in which nothing is markup but `code`; addresses become links. */
export function plain(text: string): string {
  return text
    .replaceAll(/\s+/g, " ")
    .trim()
    .split(/(`[^`]+`|https?:\/\/[^\s,;"()`]*[^\s,;"().…`])/)
    .map((part, index) =>
      index % 2 === 0 ? part.replaceAll(/[\\`*_<>[\]]/g, escaped) : part.startsWith("`") ? part : address(part),
    )
    .join("");
}

/** An address that holds a template, or a NAME to fill in, is shown and leads nowhere. */
function address(url: string): string {
  return /[{}*_<>…]/.test(url) || /^https?:\/\/[^/]*[A-Z]/.test(url) ? code(url) : `<${url}>`;
}

/** An underscore inside of a word begins nothing. */
function escaped(character: string, at: number, text: string): string {
  const inWord = character === "_" && /\w/.test(text.charAt(at - 1)) && /\w/.test(text.charAt(at + 1));
  return inWord ? character : `\\${character}`;
}

export function list(items: readonly string[]): string {
  return items.map((item) => `- ${item}`).join("\n");
}

/** A heading and what is below it; nothing where there is nothing. */
export function section(heading: string, ...parts: (string | null | undefined)[]): string[] {
  const body = parts.filter((part) => part !== null && part !== undefined && part !== "");
  return body.length === 0 ? [] : [heading, ...(body as string[])];
}

export function page(parts: readonly string[]): string {
  return `${parts.join("\n\n")}\n`;
}
