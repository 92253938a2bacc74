import { describe, expect, test } from "vitest";
import { describeAnswer, scrub } from "../../../src/providers/oauth/scrub.ts";
import { define } from "./definitions.ts";

describe("a secret is hidden", () => {
  const secret = 'p"a\\ss w/é%&';
  test.each([
    ["plain", secret],
    ["in JSON", JSON.stringify(secret).slice(1, -1)],
    ["in JSON inside of JSON", JSON.stringify(JSON.stringify(secret)).slice(3, -3)],
    ["in a URL", encodeURIComponent(secret)],
    ["in a form", new URLSearchParams({ v: secret }).toString().slice(2)],
    ["in HTML", secret.replaceAll(/[^a-z]/g, (character) => `&#${character.codePointAt(0)};`)],
    ["in JSON of ASCII alone", secret.replaceAll(/[^a-z]/g, escaped)],
  ])("%s", (_name, spelt) => expect(scrub(`see ${spelt}.`, ["other", secret])).toBe("see […]."));

  describe("as nothing that is left of it in a spelling that nobody foresaw: then the whole text is", () => {
    const odd = 's3cr3t"Val&ue+/=x%yZ';
    const html = odd.replaceAll("&", "&amp;").replaceAll('"', "&quot;");
    const lower = encodeURIComponent(odd).toLowerCase().replace("val", "Val").replace("yz", "yZ");
    test.each([
      ["of HTML's names", html],
      ["percent-encoded in lower case", lower],
      ["percent-encoded twice", encodeURIComponent(encodeURIComponent(odd))],
      ["of HTML inside of a URL", encodeURIComponent(html)],
      ["without its end", odd.slice(0, -1)],
      ["without its beginning", odd.slice(2)],
      ["with blanks in it", odd.replaceAll(/(.{4})/g, "$1 ")],
      ["in hexadecimal entities", odd.replaceAll(/[^a-z]/g, (each) => `&#x${each.charCodeAt(0).toString(16)};`)],
    ])("%s", (_name, spelt) =>
      expect(scrub(`the secret ${spelt} is wrong`, ["other", odd])).not.toMatch(/cr3t|Val|ue/),
    );

    test("but words that are in no secret stay", () => {
      expect(scrub("the client secret is wrong, see the manual", [odd])).toBe(
        "the client secret is wrong, see the manual",
      );
    });
  });

  test("as the longer of two that begin alike, and beside others", () => {
    expect(scrub("x ab12 ab12cd zz", ["ab12", "ab12cd", "zz"])).toBe("x […] […] […]");
  });

  test("of backslashes, at its end or alone", () => {
    expect(scrub(String.raw`x a\\ y`, ["a\\\\"])).toBe("x […] y");
    expect(scrub(String.raw`x \\\\ y`, ["\\\\"])).toBe("x […] y");
    expect(scrub(String.raw`x \"ab y`, ['"ab'])).not.toContain("ab");
  });

  test("with all that it goes on with when it is long", () => {
    const long = "correct/horse!".repeat(60);
    expect(scrub(`see ${long} and more`, [long])).toBe("see […] and more");
  });
});

function escaped(character: string): string {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
}

describe("the work for an answer grows with its length and no faster", () => {
  const whole = 64 * 1024;
  const hostile: [string, string, string[]][] = [
    ["backslashes", "\\", ['"x"y', "!x"]],
    ["backslashes for secrets of backslashes", "\\", ["\\".repeat(30) + "x", "\\".repeat(9) + '"', "\\x\\\\y"]],
    ["escaped quotes", '\\"', [`${'"'.repeat(100)}x`, `${'"'.repeat(100)}y`]],
    ["quotes between backslashes", `"${"\\".repeat(40)}`, ['""x', '"\\"', '"""""x']],
    ["one letter", "a", Array.from({ length: 64 }, (_, index) => `${"a".repeat(100)}${"!?".at(index % 2)}${index}`)],
    ["percent signs", "%25", [`${"%".repeat(100)}x`, "%25%25%25x"]],
    ["quotes as in a URL", "%22", [`${'"'.repeat(100)}x`]],
    ["ampersands", "&#38;", [`${"&".repeat(100)}x`, "&#38;&#38;x"]],
    ["blanks", " +", [`${" ".repeat(60)}x`]],
  ];

  test.each(hostile)("%s", (_name, piece, secrets) => {
    const work = (length: number) => {
      const text = piece.repeat(length / piece.length);
      const before = process.threadCpuUsage();
      scrub(text, secrets);
      return process.threadCpuUsage(before).user;
    };
    work(whole / 16); // compiled
    // Both in turn, since what slows the machine down slows both. The least time of each is what the work itself takes.
    const runs = Array.from({ length: 5 }, () => ({ whole: work(whole), quarter: work(whole / 4) }));
    const least = (which: "whole" | "quarter") => Math.min(...runs.map((run) => run[which]));
    // Four times the text must be four times the work; with quadratic work it would be sixteen times. Times too short to measure count as equal.
    expect(least("whole") / Math.max(least("quarter"), 3_000)).toBeLessThan(10);
  });

  test("whatever tokens the answer itself names", () => {
    const tokens = Object.fromEntries(Array.from({ length: 64 }, (_, n) => [`token${n}`, `${'"'.repeat(240)}${n}`]));
    const body = JSON.stringify({ ...tokens, fill: '"'.repeat(16 * 1024) });
    const response = { status: 500, headers: {}, body: Buffer.from(body.slice(0, whole)) };
    expect(describeAnswer({ definition: define(""), response, body: tokens, secrets: [] }).length).toBeLessThanOrEqual(
      300,
    );
  });
});
