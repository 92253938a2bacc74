/** A secret that must not appear where it does not belong. Bytes, if it is a key that is no text. */
export type Canary = { what: string; value: string | Buffer };

/** Something that was written, stored or sent, with all of its text. */
export type Place = { where: string; text: string };

/** A fragment of this length gives a secret away as the whole secret does, and no other text holds it by chance. */
const plainLength = 12;
const base64Length = 16;
const hexLength = 24;
const decimalLength = 28;

/** The fragments by their length. Each possible beginning has a mark: most places of a text begin like no fragment, and need only one look. */
type Fragments = { known: Map<number, Map<string, string>>; marks: Uint8Array };

/** How many characters are looked at before a text is cut; no fragment is shorter. */
const startLength = 6;
const bits = 22;

/**
 * Where any twelve characters of a secret stand, in the clear (so also in JSON, URLs, forms and HTML, which leave letters and
 * digits as they are), as hex, in base64 at any offset, or as a list of byte values. Each finding is one line.
 */
export function findCanaries(canaries: Canary[], places: Place[]): string[] {
  const fragments = fragmentsOf(canaries);
  const found = places.flatMap(({ where, text }) => [...meet(fragments, text)].map((what) => `${what} in ${where}`));
  return [...new Set(found)].sort();
}

function* meet({ known, marks }: Fragments, text: string): Generator<string> {
  for (let at = 0; at + startLength <= text.length; at++) {
    if (marks[startOf(text, at)] === 0) continue;
    for (const [length, fragments] of known) {
      const what = fragments.get(text.slice(at, at + length));
      if (what !== undefined) yield what;
    }
  }
}

/** A number below 2 ** bits for the first characters of what stands there. */
function startOf(text: string, at: number): number {
  let hash = 0;
  for (let index = at; index < at + startLength; index++) hash = Math.imul(hash, 31) + text.charCodeAt(index);
  return Math.imul(hash, 0x9e3779b1) >>> (32 - bits);
}

/** Every fragment of every spelling of every secret, by its length. */
function fragmentsOf(canaries: Canary[]): Fragments {
  const known = new Map<number, Map<string, string>>();
  const marks = new Uint8Array(2 ** bits);
  for (const { what, value } of canaries) {
    for (const { text, length, as } of spellings(value)) {
      const size = Math.min(length, text.length);
      const ofSize = known.get(size) ?? new Map<string, string>();
      known.set(size, ofSize);
      for (let at = 0; at + size <= text.length; at++) {
        ofSize.set(text.slice(at, at + size), `${what} (${as})`);
        marks[startOf(text, at)] = 1;
      }
    }
  }
  return { known, marks };
}

function spellings(value: string | Buffer): { text: string; length: number; as: string }[] {
  const bytes = Buffer.from(value);
  const hex = bytes.toString("hex");
  const base64 = [0, 1, 2].flatMap((offset) => base64At(bytes, offset));
  return [
    ...(typeof value === "string" ? [{ text: value, length: plainLength, as: "plain" }] : []),
    { text: hex, length: hexLength, as: "hex" },
    { text: hex.toUpperCase(), length: hexLength, as: "hex" },
    ...base64.map((text) => ({ text, length: base64Length, as: "base64" })),
    { text: [...bytes].join(","), length: decimalLength, as: "bytes" },
  ];
}

/** The part of a base64 text that depends on the secret alone, if `offset` other bytes stand before it. In both alphabets. */
function base64At(bytes: Buffer, offset: number): string[] {
  const whole = Buffer.concat([Buffer.alloc(offset), bytes]);
  const text = whole.subarray(0, whole.length - (whole.length % 3)).toString("base64");
  const own = text.slice(offset === 0 ? 0 : 4);
  return [own, own.replaceAll("+", "-").replaceAll("/", "_")];
}
