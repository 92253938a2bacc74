import { expect, test } from "vitest";
import { readable, readableLine, readableName } from "../../src/text.ts";

// Bidi, zero-width, filler, tag, joiner, variation, line separator, control, not assigned, private, half a pair.
const unseen = [
  "\u202e",
  "\u200b",
  "\u3164",
  "\u{e0041}",
  "\u034f",
  "\ufe0f",
  "\u2028",
  "\u0007",
  "\u2800",
  "\u0378",
  "\ue000",
  "\ud83e",
];

test.each(unseen)("%j is never shown, and no line holds it", (text) => {
  expect(readable(`Ada${text}${text}Lovelace`)).toBe("Ada Lovelace");
  expect(readableName(text)).toBeNull();
  expect(new RegExp(readableLine(20), "u").test(`Ada${text}`)).toBe(false);
});

test("what people write stays as it is", () => {
  for (const text of ["Ada Lovelace", "Bäckerei Müller & Söhne", "注文を読む", "عرض الطلبات", "नमस्ते", "order 🧾 7"]) {
    expect([readable(text), readableName(text), new RegExp(readableLine(40), "u").test(text)]).toEqual([
      text,
      text,
      true,
    ]);
  }
});

test("marks do not grow into a tower", () => {
  const tower = `a${"\u0301".repeat(190)}`;
  expect(readable(tower)).toBe(`a${"\u0301".repeat(6)}`);
  expect(new RegExp(readableLine(200), "u").test(tower)).toBe(false);
});
