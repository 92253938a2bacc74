/** What the parser says of syntax that people often get wrong, and what that is in the words of this project. */
const sentences: readonly (readonly [said: RegExp, plain: string])[] = [
  [/^Tabs are not allowed as indentation$/, "this line is indented by a tab: use spaces"],
  [
    /^All mapping items must start at the same column$/,
    "this line is indented otherwise than those that it belongs to: the knobs of one map start in the same column",
  ],
  [
    /^Sequence item without - indicator$/,
    "this line is indented otherwise than the list item that it belongs to: its knobs start in the same column",
  ],
  [
    /^Nested mappings are not allowed in compact mappings$/,
    "a value stands here, and the next line is indented as if it were a map; or a text that holds `: ` lacks its quotes",
  ],
  [
    /^Implicit keys need to be on a single line$/,
    "a colon and a space must follow a knob (`url: …`), and the lines of one map are indented alike",
  ],
  [/^Implicit map keys need to be followed by map values$/, "a colon and a value are missing here (`knob: value`)"],
  [/^Flow (map|sequence) in block collection must be/, "a { or [ is not closed, or a line in it is not indented"],
  [
    /^Unexpected \S+ at node end$/,
    "this does not belong to what stands before it: put a text that starts with a brace or a quote in quotes, and do not indent the knobs of the top",
  ],
  [/^Plain value cannot start with/, "a text that starts with this character needs quotes"],
  [/^Invalid escape sequence/, "a backslash in double quotes is an escape: put patterns in single quotes"],
  [/^Missing closing /, "a quote is not closed"],
  [/^Source contains multiple documents/, "the file holds a second document after ---; one was expected"],
];

/**
 * Faults of a file's syntax (`file:line:column: text`) in plain words, one a line: the parser's further ones on the same line
 * follow from the first.
 */
export function explainSyntax(problems: readonly string[]): string[] {
  const byLine = new Map<string, string>();
  for (const problem of problems) {
    const [, line = problem, column = "", said = ""] = /^(.*?:\d+):(\d+): (.*)$/s.exec(problem) ?? [];
    const plain = sentences.find(([pattern]) => pattern.test(said))?.[1];
    if (!byLine.has(line)) byLine.set(line, plain === undefined ? problem : `${line}:${column}: ${plain}`);
  }
  return [...byLine.values()];
}
