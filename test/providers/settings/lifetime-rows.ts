import { at, each, type Change, type Row } from "./row.ts";

/**
 * A lifetime in a file, and where its end is seen: of an answer that states it, and of one that says nothing. Both alike: the
 * file points at nothing.
 */
type LifePlace = { path: string; labels: readonly string[]; part: string; stated: string; silent: string };

/** What each setting of a lifetime does. */
export function lifetimeRows({ path, labels, part, stated, silent }: LifePlace): Row[] {
  const row = (
    setting: string,
    [mine, instead]: readonly [object, object],
    [names, change]: readonly [readonly string[], Change],
  ): Row => ({
    setting: `${path.replaceAll(/\[\d\]/g, "")}.${setting}`,
    file: at(path, mine),
    instead: at(path, instead),
    shows: each(
      labels.flatMap((label) => names.map((name) => `${label}${name}`)),
      part,
      change,
    ),
  });
  const moment = { pointer: "/other/at", from: "expires_at" };
  const date = { pointer: "/other/date", from: "expires_at" };
  return [
    row("from", [moment, { ...moment, from: "expires_in" }], [[""], ["in 315360000 s", "at 2000000000"]]),
    row(
      "from",
      [
        { pointer: "/other/jwt", from: "jwt_exp" },
        { pointer: "/other/at", from: "expires_in" },
      ],
      [[""], ["in 315360000 s", "at 2000000000"]],
    ),
    row("pointer", [{ from: "expires_in", pointer: "/other/life" }, {}], [[""], [stated, "in 900 s"]]),
    row(
      "unit",
      [
        { from: "expires_in", pointer: "/other/life_ms", unit: "ms" },
        { from: "expires_in", pointer: "/other/life_ms" },
      ],
      [[""], ["in 900000 s", "in 900 s"]],
    ),
    row(
      "unit",
      [
        { ...date, unit: "iso" },
        { ...moment, unit: "ms" },
      ],
      [[""], ["at 2000000", "at 2000000000"]],
    ),
    row("fallback", [{ fallback: 77 }, {}], [stated === silent ? ["", ", silent"] : [", silent"], [silent, "in 77 s"]]),
  ];
}
