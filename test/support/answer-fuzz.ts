import { brotliCompressSync, deflateRawSync, deflateSync, gzipSync } from "node:zlib";
import { head, type Step } from "../integration/support/hostile-steps.ts";
import { seededRandom } from "./seeded-random.ts";

/** The tokens of one answer. No two answers share a token. */
type Tokens = { access: string; refresh: string };

/** An answer of a token endpoint that was made odd, step by step. */
export type FuzzCase = {
  /** The seed that makes this very answer again. */
  seed: number;
  /** What was done to it, in order. */
  is: string;
  /** The `response` and `errors` of the provider's definition. */
  definition: { response: Record<string, unknown>; errors: Record<string, unknown>[] };
  tokens: Tokens;
  /** True: a reader must find both tokens. False: it may find them, since nobody can tell which ones count, or they are cut. */
  mustKeep: boolean;
  steps: readonly Step[];
};

type Random = {
  next: () => number;
  /** One of these. */
  pick: <Value>(values: readonly Value[]) => Value;
  /** A whole number below this. */
  below: (limit: number) => number;
};

/** What an answer is made of before it is bytes. */
type Base = {
  is: string;
  at: string;
  format: string;
  ruled: boolean;
  asForm: boolean;
  fields: (tokens: Tokens) => Record<string, unknown>;
};

const standard = ({ access, refresh }: Tokens) => ({ access_token: access, refresh_token: refresh });
const fieldsOf: Record<string, Base["fields"]> = {
  "the two tokens": standard,
  "a life and a type": (tokens) => ({ token_type: "Bearer", expires_in: 3600, ...standard(tokens) }),
  "scopes and an id": (tokens) => ({ ...standard(tokens), scope: "read write", account_id: "acct_0042" }),
  "text beyond ASCII": (tokens) => ({ note: "für café ☕", ...standard(tokens), expires_in: "3600" }),
  "lists and objects": (tokens) => ({ roles: ["a", { b: [1, null] }], ...standard(tokens), user: { name: "{x}" } }),
};
const formats = ["auto", "json", "form"];
const layouts = [
  { at: "", asForm: false },
  { at: "", asForm: true },
  { at: "/data", asForm: false },
];

/** Forty or more correct answers. They differ in what they hold, where it stands, how it is written, and how the definition describes it. */
export const bases: readonly Base[] = Object.entries(fieldsOf).flatMap(([is, fields]) =>
  formats.flatMap((format, index) =>
    layouts.map(({ at, asForm }) => ({ is, at, format, asForm, ruled: (index + at.length) % 2 === 0, fields })),
  ),
);

/** What a step makes of its value, and whether a reader must still find both tokens. `whole`: only if the rest is whole JSON by itself. */
type Done<Value> = { value: Value; keeps: boolean; whole?: boolean };
type Change<Value> = (value: Value, random: Random, made: Base & Tokens) => Done<Value>;
type Stage<Value> = Record<string, Change<Value>>;

const keeps = <Value>(value: Value, whole?: boolean): Done<Value> => ({
  value,
  keeps: true,
  ...(whole !== undefined && { whole }),
});
const loses = <Value>(value: Value): Done<Value> => ({ value, keeps: false });
const nested = (depth: number) => "[".repeat(depth) + "]".repeat(depth);

/** The fields, before they are written. */
const objects: Stage<Record<string, unknown>> = {
  "": (value) => keeps(value),
  "names that nobody knows": (_value, random, { access, refresh }) =>
    loses({
      [random.pick(["access", "at", "key", "bearer"])]: access,
      [random.pick(["refresh", "rt", "renewal"])]: refresh,
    }),
  "an error beside": (value) => keeps({ ...value, error: "none", error_description: "all is well" }),
  "tokens in another object": (value) => loses({ other: { deeper: value } }),
  "tokens as lists": (_value, _random, { access, refresh }) =>
    loses({ access_token: [access], refresh_token: [refresh] }),
  "a token as its own description": (value, _random, { access, refresh }) =>
    keeps({ ...value, token_description: `${access} ${refresh}`, hint: { seen: [refresh] } }),
  "scopes that hold a token": (value, _random, { refresh }) => keeps({ ...value, scope: `read ${refresh}` }),
  "a type that is a token": (value, _random, { access }) => keeps({ ...value, token_type: access }),
};

function write(value: Record<string, unknown>, { at, asForm }: Base): string {
  if (!asForm) return JSON.stringify(at === "" ? value : { data: value });
  const pairs = Object.entries(value).map(([name, one]): [string, string] => [
    name,
    typeof one === "string" ? one : JSON.stringify(one),
  ]);
  return new URLSearchParams(pairs).toString();
}

/** The text, as JSON or a form. */
const texts: Stage<string> = {
  "": (text) => keeps(text),
  "in a JSON string": (text) => keeps(JSON.stringify(text)),
  "in a JSON string in one": (text) => keeps(JSON.stringify(JSON.stringify(text))),
  "in a list": (text, _random, { asForm }) => ({ value: `[${text}]`, keeps: !asForm, whole: true }),
  "in a list of two": (text) => loses(`[${text}, ${text}]`),
  "called by a function": (text, random, { asForm }) => ({
    value: `${random.pick(["", "/**/"])}cb_1.done(${text})${random.pick(["", ";"])}`,
    keeps: !asForm,
  }),
  "a comma too much": (text, _random, { asForm }) => (asForm ? keeps(`${text}&`) : keeps(`${text.slice(0, -1)},}`)),
  "deep beside it": (text, random, { asForm }) =>
    asForm ? keeps(`${text}&x=${nested(500)}`) : keeps(`{"x":${nested(1 + random.below(3000))},${text.slice(1)}`),
  "its first half once more": (text) => loses(text.slice(0, text.length / 2) + text),
};

const notice = "<br />\n<b>Warning</b>: Undefined key {odd} in /srv/a.php on line 3\n";
/** What stands around it. */
const surroundings: Stage<string> = {
  "": (text) => keeps(text),
  "white space": (text, random) => keeps(`${"\r\n \t".repeat(random.below(50))}${text}\n\n`),
  "byte order marks": (text, random) => keeps("\uFEFF".repeat(1 + random.below(2)) + text),
  "NULs behind": (text, random) => keeps(text + "\0".repeat(1 + random.below(4))),
  "a notice before": (text) => ({ value: notice + text, keeps: /^\{[^]*\}$/.test(text) && isFlat(text), whole: false }),
  "a guard before": (text) => ({
    value: `)]}',\n${text}`,
    keeps: /^\{[^]*\}$/.test(text) && isFlat(text),
    whole: false,
  }),
  "words behind": (text) => loses(`${text}\nServed in 3 ms`),
  "a page around": (text) => loses(`<html><body data-answer='${text}'><pre>${text}</pre></body></html>`),
  "the same behind": (text) => loses(`${text}\n${text}`),
  "an echo before": (text) => loses(`You typed ${text} and got ${text}`),
};

/** Beyond 64 levels only whole JSON is read. */
function isFlat(text: string): boolean {
  return !text.includes("[".repeat(60));
}

const utf32 = (text: string, isBig: boolean) => {
  const characters = Array.from(text);
  const bytes = Buffer.alloc(characters.length * 4);
  characters.forEach((character, index) => {
    const code = character.codePointAt(0) ?? 0;
    if (isBig) bytes.writeUInt32BE(code, index * 4);
    else bytes.writeUInt32LE(code, index * 4);
  });
  return bytes;
};
/** The bytes of the text. Without a byte order mark, a reader knows wide characters by the ASCII characters at the beginning. */
const charsets: Record<string, (text: string) => Done<Buffer>> = {
  "": (text) => keeps(Buffer.from(text)),
  "UTF-16": (text) => keeps(Buffer.from(text, "utf16le")),
  "UTF-16, big end first": (text) => keeps(Buffer.from(text, "utf16le").swap16()),
  "UTF-16 with a mark": (text) => keeps(Buffer.from(`\uFEFF${text}`, "utf16le")),
  "UTF-32": (text) => keeps(utf32(text, false)),
  "UTF-32, big end first": (text) => keeps(utf32(`\uFEFF${text}`, true)),
  // Characters that Latin-1 does not have become other text: a byte order mark in front of the answer, a control character that only the
  // reader for flat JSON takes.
  "Latin-1": (text) => ({
    value: Buffer.from(text, "latin1"),
    keeps: !text.startsWith("\uFEFF") && (isFlat(text) || Buffer.from(text, "latin1").toString("latin1") === text),
  }),
};

type Wire = { bytes: Buffer; headers: string[]; whole: boolean };
const compressions: Stage<Wire> = {
  "": (wire) => keeps(wire),
  gzip: (wire) => keeps(under("gzip", { ...wire, bytes: gzipSync(wire.bytes) })),
  "gzip without a label": (wire) => keeps({ ...wire, bytes: gzipSync(wire.bytes) }),
  "gzip under another label": (wire, random) =>
    keeps(under(random.pick(["br", "deflate", "identity", "x-odd"]), { ...wire, bytes: gzipSync(wire.bytes) })),
  "gzip in gzip": (wire) => keeps(under("gzip, gzip", { ...wire, bytes: gzipSync(gzipSync(wire.bytes)) })),
  "gzip without its end": (wire) => keeps({ ...wire, bytes: gzipSync(wire.bytes).subarray(0, -8), whole: true }),
  "gzip that is none": (wire, random) => keeps(under(random.pick(["gzip", "br", "deflate"]), wire)),
  deflate: (wire, random) =>
    keeps(under("deflate", { ...wire, bytes: random.pick([deflateSync, deflateRawSync])(wire.bytes) })),
  br: (wire) => keeps(under("br", { ...wire, bytes: brotliCompressSync(wire.bytes) })),
  "a cut end": (wire, random) => loses({ ...wire, bytes: wire.bytes.subarray(0, random.below(wire.bytes.length)) }),
};

function under(label: string, wire: Wire): Wire {
  return { ...wire, headers: [...wire.headers, `content-encoding: ${label}`] };
}

const types = [
  "application/json",
  "application/json; charset=utf-16",
  "application/json;charset=shift_jis",
  "application/x-www-form-urlencoded",
  "text/html; charset=iso-8859-1",
  "text/plain",
  "application/xml",
  "image/png",
  "",
];
const statuses = ["200 OK", "200 OK", "200 OK", "201 Created", "203 Odd", "206 Partial Content"];
const refusals = ["400 Bad Request", "401 Unauthorized", "429 Slow", "302 Found", "500 Oops", "503 Away"];

/** The answer that this seed makes. */
export function fuzzCase(seed: number): FuzzCase {
  const next = seededRandom(seed);
  const below = (limit: number) => Math.floor(next() * limit);
  const random: Random = { next, below, pick: (values) => values[below(values.length)] as (typeof values)[number] };
  const base = random.pick(bases);
  const tokens = { access: tokenOf(random), refresh: tokenOf(random) };
  const done: string[] = [`${base.is}${base.at}${base.asForm ? " in a form" : ""}, read as ${base.format}`];
  let mustKeep = true;
  let mustBeWhole = false;
  // Most answers are odd in one or two ways: with more, the first that loses the tokens hides the rest.
  const apply = <Value>(stage: Stage<Value>, value: Value, likely: number): Value => {
    if (next() > likely) return value;
    const [name, change] = random.pick(Object.entries(stage));
    const changed = change(value, random, { ...base, ...tokens });
    if (name !== "") done.push(name);
    mustKeep &&= changed.keeps;
    mustBeWhole ||= changed.whole === false;
    return changed.value;
  };
  const fields = apply(objects, base.fields(tokens), 0.4);
  const text = apply(surroundings, apply(texts, write(fields, base), 0.4), 0.4);
  const charset = next() < 0.3 ? random.pick(Object.keys(charsets)) : "";
  const encoded = charsets[charset]?.(text) ?? keeps(Buffer.from(text));
  mustKeep &&= encoded.keeps;
  const isJsonWhole = !base.asForm || done.some((name) => name.startsWith("in a JSON string"));
  const wire = apply(compressions, { bytes: encoded.value, headers: [], whole: false }, 0.3);
  const isCut = next() < 0.15;
  // Of what was cut off only whole JSON counts.
  if (wire.whole || isCut) mustKeep &&= isJsonWhole && !mustBeWhole;
  const isRefused = next() < 0.2;
  const status = random.pick(isRefused ? refusals : statuses);
  mustKeep &&= !isRefused;
  const type = random.pick(types);
  const headers = [
    ...wire.headers,
    ...(type === "" ? [] : [`content-type: ${type}`]),
    ...(next() < 0.1 ? [`x-large: ${tokens.access.repeat(1 + below(20)).slice(0, 8000)}`] : []),
    ...(next() < 0.2
      ? [`location: https://elsewhere.example/cb#access_token=${encodeURIComponent(tokens.access)}`]
      : []),
    `content-length: ${wire.bytes.length + (isCut ? 100 : 0)}`,
  ];
  const odd = [charset, isCut ? "the line cut" : "", status, type || "no type"].filter((one) => one !== "");
  const is = [...done, ...odd].join("; ");
  const early = next() < 0.1 ? ["HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"] : [];
  const steps = [...early, ...deliver([head({ status, headers }), wire.bytes], random)];
  return { seed, is, definition: definitionOf(base), tokens, mustKeep, steps };
}

/** In one piece or in many, with pauses between them as a network makes them. */
function deliver([start, body]: readonly [string, Buffer], random: Random): Step[] {
  if (random.next() < 0.7) return [Buffer.concat([Buffer.from(start, "latin1"), body])];
  const size = 1 + random.below(Math.max(body.length, 1));
  const pieces = Array.from({ length: Math.ceil(body.length / size) }, (_, index) =>
    body.subarray(index * size, (index + 1) * size),
  );
  return [
    start,
    ...pieces.slice(0, 20).flatMap((piece) => [{ waitMs: 1 }, piece]),
    ...(pieces.length > 20 ? [Buffer.concat(pieces.slice(20))] : []),
  ];
}

function definitionOf({ at, format, ruled }: Base): FuzzCase["definition"] {
  const pointers = {
    access_token: `${at}/access_token`,
    refresh_token: `${at}/refresh_token`,
    scope: `${at}/scope`,
    token_type: `${at}/token_type`,
  };
  const errors = [
    { endpoint: "token", pointer: "/status", equals: "dead", means: "needs_reauthorization" },
    { endpoint: "token", pointer: "/fault/code", regex: "^gone", means: "transient" },
  ];
  return { response: { format, ...pointers }, errors: ruled ? errors : [] };
}

const alphabets = {
  hex: "0123456789abcdef",
  base64url: "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_",
  marks: "abcdefghijkmnpqrstuvwxyz23456789|!$*@~+/=%&;",
  words: "abcdefghijklmnopqrstuvwxyz",
};

/** Tokens as providers make them: short and long, plain and with punctuation, a JWT. */
function tokenOf(random: Random): string {
  const letters = (alphabet: string, length: number) =>
    Array.from({ length }, () => alphabet[random.below(alphabet.length)]).join("");
  const length = random.pick([12, 16, 32, 64, 200, 900]);
  switch (random.below(5)) {
    case 0:
      return letters(alphabets.hex, length);
    case 1:
      return ["eyJhbGciOiJub25lIn0", letters(alphabets.base64url, length), letters(alphabets.base64url, 12)].join(".");
    case 2:
      return `x${letters(alphabets.marks, length)}9`;
    case 3:
      return Array.from({ length: 3 }, () => letters(alphabets.words, 5)).join("-");
    default:
      return letters(alphabets.base64url, length);
  }
}

/** How a token may stand in a text: as it is, and as JSON, a URL and a form spell it. */
export function spellingsOf({ access, refresh }: Tokens): string[] {
  return [access, refresh].flatMap((token) => [
    token,
    JSON.stringify(token).slice(1, -1),
    encodeURIComponent(token),
    new URLSearchParams({ v: token }).toString().slice(2),
  ]);
}
